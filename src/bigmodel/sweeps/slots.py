"""Room for jobs: a machine's processors or GPUs, divided among them."""

from __future__ import annotations

import os
from collections.abc import Sequence

from bigmodel.errors import DeviceError
from bigmodel.runtime.processors import processors
from bigmodel.sweeps.config import SweepConfig
from bigmodel.sweeps.process import Slot

_VISIBLE = "CUDA_VISIBLE_DEVICES"


def threads(room: Sequence[Slot]) -> int:
    """CPU threads of each of the jobs that run at the same time."""
    return max(1, processors() // len(room))


def slots(config: SweepConfig, gpu_count: int) -> list[Slot]:
    """Room for jobs at a time.

    Args:
        config: of the sweep.
        gpu_count: GPUs that jobs may use; 0: they run on the processors.

    Raises:
        DeviceError: there is no such GPU.
    """
    if not gpu_count and config.gpus != "auto":
        raise DeviceError(f"sweep.gpus={config.gpus}: jobs run on the CPU here. Leave it out.")
    if not gpu_count:
        return [Slot()] * (processors() if config.jobs == "auto" else config.jobs)
    chosen = list(range(gpu_count)) if config.gpus == "auto" else config.gpus
    if missing := [index for index in chosen if index >= gpu_count]:
        raise DeviceError(
            f"sweep.gpus={chosen}: there is no GPU {missing[0]}. There are {gpu_count}, numbered from 0."
        )
    visible = [name.strip() for name in os.environ.get(_VISIBLE, "").split(",")]
    names = [name for name in visible if name] or [str(index) for index in range(gpu_count)]
    each = [Slot(f"gpu {index}", {_VISIBLE: names[index]}) for index in chosen]
    # One job on each GPU before any has a second.
    room = each * config.jobs_per_gpu
    return room if config.jobs == "auto" else room[: config.jobs]
