"""The energy that a machine uses, where it tells: its processors by RAPL, an NVIDIA GPU by NVML.

RAPL counts microjoules of each processor package and of memory, in files below `/sys/class/powercap`
(https://docs.kernel.org/power/powercap/powercap.html), which many systems let only root read. Whatever
else runs on the same processors or GPU is counted too.
"""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import torch

POWERCAP = Path("/sys/class/powercap")


class _Counter(NamedTuple):
    """A count of used energy.

    Attributes:
        kind: `cpu` or `gpu`.
        read: gives joules; raises if it can no longer be read.
        span: joules after which it begins at 0 again; None: never.
    """

    kind: str
    read: Callable[[], float]
    span: float | None


class EnergyMeter:
    """Counts joules.

    Args:
        device: whose energy counts beside the processors'.
        powercap: the folder of RAPL's files.
    """

    def __init__(self, device: torch.device, powercap: Path | None = None) -> None:
        found = [*_packages(POWERCAP if powercap is None else powercap), *_gpu(device)]
        self._last: dict[_Counter, float] = {}
        for counter in found:
            with contextlib.suppress(Exception):  # one that cannot be read now is left out
                self._last[counter] = counter.read()
        self._used = dict.fromkeys((counter.kind for counter in self._last), 0.0)

    def sample(self) -> None:
        """Reads the counters, which must not overflow twice between two readings: every few minutes."""
        for counter, before in list(self._last.items()):
            try:
                now = counter.read()
            except Exception:  # NVML has its own errors
                del self._last[counter]
                continue
            more = now - before
            if more < 0:
                more += counter.span or -more
            self._used[counter.kind] += more
            self._last[counter] = now

    def lap(self) -> dict[str, float]:
        """Joules since the last call, of `cpu` and of `gpu`; without those of which nothing is known."""
        used = self.since_lap
        self._used = dict.fromkeys(used, 0.0)
        return used

    @property
    def since_lap(self) -> dict[str, float]:
        """What `lap` would give."""
        self.sample()
        return dict(self._used)


def _packages(powercap: Path) -> list[_Counter]:
    """Processor packages, which include their cores, and memory, which they do not."""
    found = []
    for folder in sorted(powercap.glob("intel-rapl:*")) if powercap.is_dir() else []:
        try:
            name = (folder / "name").read_text().strip()
            span = float((folder / "max_energy_range_uj").read_text()) / 1e6
        except (OSError, ValueError):
            continue
        if name.startswith("package") or name == "dram":
            found.append(_Counter("cpu", _reader(folder / "energy_uj"), span))
    return found


def _reader(path: Path) -> Callable[[], float]:
    return lambda: float(path.read_text()) / 1e6


def _gpu(device: torch.device) -> list[_Counter]:
    """The GPU's counter, if NVML's Python package (`nvidia-ml-py`) is installed."""
    if device.type != "cuda":
        return []
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of its former name
            import pynvml
        pynvml.nvmlInit()
        handle = pynvml.nvmlDeviceGetHandleByUUID(f"GPU-{torch.cuda.get_device_properties(device).uuid}")
    except Exception:  # it is not there, or the driver knows no such counter
        return []
    return [_Counter("gpu", lambda: pynvml.nvmlDeviceGetTotalEnergyConsumption(handle) / 1e3, None)]
