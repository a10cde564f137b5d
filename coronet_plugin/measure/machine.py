"""The machine figures were taken on, in words."""

from __future__ import annotations

import os
import platform
from pathlib import Path


def processor() -> str:
    """Name and number of CPUs."""
    cpuinfo = Path("/proc/cpuinfo")
    names = []
    if cpuinfo.is_file():
        lines = cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines()
        names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"{names[0] if names else platform.processor() or platform.machine()}, {os.cpu_count()} CPUs"


def load() -> float | None:
    """Processes that wanted a CPU over the last minute; None where the system does not say."""
    return round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None
