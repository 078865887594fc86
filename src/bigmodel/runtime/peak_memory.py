"""How much memory something needs at most: on CUDA as its allocator counts, on a CPU as the system."""

from __future__ import annotations

import ctypes
import gc
import re
import sys
from contextlib import suppress
from pathlib import Path

import torch

_STATUS, _RESET = Path("/proc/self/status"), Path("/proc/self/clear_refs")


class PeakMemory:
    """The most memory in use between `begin` and `peak`, beside what was in use before.

    Args:
        device: whose memory.

    Attributes:
        runs_out_quietly: whether the system ends a process that asks for too much, instead of refusing.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self.runs_out_quietly = device.type == "cpu"
        self._before = 0

    def begin(self) -> None:
        """Returns what is not in use to the system, and counts from here."""
        self.release()
        if self._device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self._device)
            self._before = torch.cuda.memory_allocated(self._device)
        elif self._device.type == "cpu":
            with suppress(OSError):
                _RESET.write_text("5")  # proc(5): resets the peak to what is resident now
            self._before = _resident("VmRSS") or 0

    def peak(self) -> int | None:
        """Bytes; None where they are not known."""
        if self._device.type == "cuda":
            return torch.cuda.max_memory_allocated(self._device) - self._before
        most = _resident("VmHWM") if self._device.type == "cpu" else None
        return None if most is None else max(0, most - self._before)

    def release(self) -> None:
        """Returns memory that is kept for speed, but not in use, to the system."""
        gc.collect()
        if self._device.type == "cuda":
            torch.cuda.empty_cache()
        elif sys.platform == "linux" and hasattr(library := ctypes.CDLL(None), "malloc_trim"):
            library.malloc_trim(0)


def _resident(field: str) -> int | None:
    try:
        found = re.search(rf"^{field}:\s+(\d+) kB$", _STATUS.read_text(), re.MULTILINE)
    except OSError:
        return None
    return None if found is None else 1024 * int(found[1])
