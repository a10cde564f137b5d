"""How much memory one inference takes at its highest point, as the operating system counts it.

A fresh process loads the generator and runs it once, so that code and kernels are there; then it runs it
again and looks how far its resident memory rises. What is reported is that rise (activations, workspaces)
and the weights. Memory that PyTorch itself takes is left out: it is the same for every generator. Needs
Linux, whose kernel can be asked to note a process's highest point anew.
"""

from __future__ import annotations

import ctypes
import gc
import json
import os
import statistics
import subprocess
import sys
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

STATUS, FORGET_PEAK = Path("/proc/self/status"), Path("/proc/self/clear_refs")
REPEATS = 3
ALLOCATOR = {"MALLOC_MMAP_THRESHOLD_": "65536"}
"""glibc gives every larger block back as soon as it is free, so that what rises is what is in use."""


@dataclass(frozen=True)
class PeakMemory:
    """Bytes in eager PyTorch on the CPU: of the weights and buffers, and of the rise while it runs once."""

    weights: int
    rise: int
    input_size: tuple[int, ...]
    threads: int

    @property
    def total(self) -> int:
        return self.weights + self.rise

    def as_dict(self) -> dict[str, Any]:
        return {"total": self.total, **asdict(self)}


def peak_memory(generator: nn.Module, example: Tensor, threads: int = 1) -> PeakMemory | None:
    """Measure one inference of ``generator`` on ``example`` (N, C, H, W), both on the CPU.

    The rise is the median of three; it is coarse to about 0.2 MB. None where it cannot be measured: not on
    Linux, or a generator that cannot be given to another process.
    """
    if not FORGET_PEAK.exists():
        return None
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "generator.pt"
        try:
            torch.save((generator, example), path)
            rise = int(_in_fresh_process(path, threads))
        except (OSError, ValueError, AttributeError, RuntimeError, subprocess.SubprocessError):
            return None
    tensors = generator.state_dict().values()
    weights = sum(tensor.numel() * tensor.element_size() for tensor in tensors)
    return PeakMemory(weights, rise, tuple(example.shape), threads)


def _in_fresh_process(path: Path, threads: int) -> str:
    environment = {**os.environ, **ALLOCATOR, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    words = [sys.executable, "-m", __name__, str(path), str(threads)]
    done = subprocess.run(words, env=environment, capture_output=True, text=True, check=True)
    return done.stdout.splitlines()[-1]


# -- in the fresh process ------------------------------------------------------
def main(path: str, threads: str) -> int:
    """Print by how many bytes the resident memory rises while the generator in ``path`` runs."""
    torch.set_num_threads(int(threads))
    generator, example = torch.load(path, weights_only=False)  # written by the process that called this one
    generator.eval()
    with torch.no_grad():
        generator(example)
        print(json.dumps(round(statistics.median(_rise(generator, example) for _ in range(REPEATS)))))
    return 0


def _rise(generator: nn.Module, example: Tensor) -> int:
    before = resident_bytes()
    FORGET_PEAK.write_text("5")
    generator(example)
    return _bytes("VmHWM") - before


def peak_of_process() -> int | None:
    """The most memory of this process that was in use at one time, in bytes; None where nobody counts it."""
    if STATUS.exists():
        return _bytes("VmHWM")
    try:
        import resource
    except ImportError:  # Windows
        return None
    return int(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)  # bytes on macOS


def resident_bytes() -> int:
    """Memory of this process that is in use; what is free already is given back to the system first.

    Raises:
        OSError: the system is not Linux.
    """
    gc.collect()
    if hasattr(_C_LIBRARY, "malloc_trim"):
        _C_LIBRARY.malloc_trim(0)
    return _bytes("VmRSS")


def _bytes(key: str) -> int:
    line = next(line for line in STATUS.read_text().splitlines() if line.startswith(key + ":"))
    return 1024 * int(line.split()[1])


_C_LIBRARY: Any = ctypes.CDLL(None) if os.name == "posix" else None

if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
