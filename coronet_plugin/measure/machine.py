"""The machine figures were taken on, in words."""

from __future__ import annotations

import os
import platform
from collections.abc import Collection
from pathlib import Path

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
"""What decides how int8 is calculated, by the names that torch and Linux have for it."""


def processor() -> str:
    """Name and number of CPUs."""
    lines = _cpuinfo().splitlines()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"{names[0] if names else platform.processor() or platform.machine()}, {os.cpu_count()} CPUs"


def instruction_set() -> str:
    """What of :data:`INSTRUCTIONS` this CPU has, such as ``x86_64: AVX2, AVX-512, AVX-512 VNNI``."""
    found = _abilities()
    names = [name for name, keys in INSTRUCTIONS.items() if not keys.isdisjoint(found)]
    return f"{platform.machine()}: {', '.join(names) or 'not known'}"


def _abilities() -> Collection[str]:
    """As torch asks the CPU for them; as Linux lists them where an older torch does not."""
    if hasattr(torch.cpu, "get_capabilities"):
        return {name for name, here in torch.cpu.get_capabilities().items() if here}
    return _cpuinfo().split()


def _cpuinfo() -> str:
    """What Linux says about the CPUs; nothing elsewhere."""
    return CPUINFO.read_text(encoding="utf-8", errors="replace") if CPUINFO.is_file() else ""


def load() -> float | None:
    """Processes that wanted a CPU over the last minute; None where the system does not say."""
    return round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None
