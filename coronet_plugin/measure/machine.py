"""The machine that figures were taken on, as plain data. No names of people or machines."""

from __future__ import annotations

import os
import platform
from collections.abc import Collection
from pathlib import Path
from typing import Any

import torch

CPUINFO = Path("/proc/cpuinfo")
INSTRUCTIONS = {
    "AVX2": {"avx2"},
    "AVX-512": {"avx512_f", "avx512f"},
    "AVX-512 VNNI": {"avx512_vnni"},
    "AVX-VNNI": {"avx_vnni"},
    "AMX": {"amx_int8"},
    "NEON": {"neon", "asimd"},
    "dot product": {"dot", "asimddp"},
    "I8MM": {"i8mm"},
}
"""Instructions that decide how int8 is calculated, by the names that torch and Linux have for it."""


def describe_machine() -> dict[str, Any]:
    """System, processor and what it can, how many cores this process may use, GPUs by their kind."""
    return {
        "system": platform.system(),
        "architecture": platform.machine(),
        "cpu": processor(),
        "instruction_set": instruction_set(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "threads": torch.get_num_threads(),
        "gpus": [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())],
    }


def processor() -> str:
    """The processor's name."""
    names = [line for line in _cpuinfo().splitlines() if line.startswith("model name")]
    return names[0].partition(":")[2].strip() if names else platform.processor() or platform.machine()


def instruction_set() -> str:
    """Those of :data:`INSTRUCTIONS` that this CPU has, such as ``x86_64: AVX2, AVX-512, AVX-512 VNNI``."""
    found = _abilities()
    names = [name for name, keys in INSTRUCTIONS.items() if not keys.isdisjoint(found)]
    return f"{platform.machine()}: {', '.join(names) or 'not known'}"


def _abilities() -> Collection[str]:
    """As torch asks the CPU for them; as Linux lists them where an older torch does not."""
    if hasattr(torch.cpu, "get_capabilities"):
        return {name for name, here in torch.cpu.get_capabilities().items() if here}
    return _cpuinfo().split()


def _cpuinfo() -> str:
    """Linux's description of the CPUs; nothing elsewhere."""
    return CPUINFO.read_text(encoding="utf-8", errors="replace") if CPUINFO.is_file() else ""


def load() -> float | None:
    """Processes that wanted a CPU over the last minute; None where the system does not say."""
    return round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None
