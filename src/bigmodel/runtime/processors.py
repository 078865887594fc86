"""The processors of this machine."""

from __future__ import annotations

import contextlib
import math
import os
from collections.abc import Iterator
from pathlib import Path

_GROUPS = Path("/sys/fs/cgroup")
_OWN_GROUPS = Path("/proc/self/cgroup")
_CPUINFO = Path("/proc/cpuinfo")
_WITH_BF16 = {"avx512_bf16", "amx_bf16", "bf16"}
"""Flags of processors that multiply bf16: Intel's and AMD's, and ARM's."""


def processors() -> int:
    """How many this process may use: its affinity, and the share of time that a container is given."""
    affinity = hasattr(os, "sched_getaffinity")
    count = len(os.sched_getaffinity(0)) if affinity else os.cpu_count() or 1
    return max(1, math.ceil(min([count, *_quotas()])))


def multiplies_bf16() -> bool:
    """Whether they have instructions for products in bf16; False if that is not known.

    Others emulate them, which takes longer than fp32.
    """
    with contextlib.suppress(OSError):
        lines = _CPUINFO.read_text(errors="replace").splitlines()
        names = [line for line in lines if line.split(":")[0].strip() in ("flags", "Features")]
        return any(not _WITH_BF16.isdisjoint(line.split()) for line in names)
    return False


def _quotas() -> Iterator[float]:
    """Limits of the control groups that this process is in, in processors."""
    for folder in _group_folders():
        with contextlib.suppress(OSError, ValueError):  # `max` or -1: no limit
            if (folder / "cpu.max").is_file():  # version 2
                quota, period = (folder / "cpu.max").read_text().split()
            else:
                quota, period = (
                    (folder / f"cpu.cfs_{name}_us").read_text() for name in ("quota", "period")
                )
            if int(quota) > 0:
                yield int(quota) / int(period)


def _group_folders() -> Iterator[Path]:
    """The folders of its groups for processors, and those above them; in a container they may lie at the
    top."""
    with contextlib.suppress(OSError):
        for line in _OWN_GROUPS.read_text().splitlines():
            _, controllers, path = line.split(":", 2)
            if not controllers or "cpu" in controllers.split(","):
                top = _GROUPS / controllers
                own = top / path.lstrip("/")
                yield from (folder for folder in (own, *own.parents) if folder.is_relative_to(top))
