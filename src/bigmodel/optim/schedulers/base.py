"""Schedulers are functions from progress to a multiplier of the learning rate.

They depend on the number of updates done, and are not stepped, so that a resumed run needs that number
and nothing else. Only `plateau` has a state.
"""

from __future__ import annotations

from typing import Literal, get_args

import torch
from pydantic import Field
from torch import Tensor

from bigmodel.registry import EntryConfig

INTERVAL = "when the rate changes: each optimizer step or each epoch; all lengths here count these"


Extend = Literal["stretch", "hold", "again"]
EXTENSIONS: tuple[str, ...] = get_args(Extend)
"""What can happen to the schedule of a run that is extended."""


class SchedulerConfig(EntryConfig):
    """Options of all schedulers."""

    interval: Literal["step", "epoch"] = Field("step", description=INTERVAL)
    warmup: int = Field(0, ge=0, description="steps (or epochs) of linear warm-up before the schedule")
    warmup_start: float = Field(0.01, ge=0, le=1, description="the warm-up's first multiplier, 0 to 1")
    extend: Extend = Field(
        "stretch",
        description="of a run that is extended: stretch the schedule over all of it; hold its"
        " last rate; or run it again over the steps that are left",
    )


class Scheduler:
    """Base of all schedulers: a linear warm-up, then `shape`, which reads `self.config`.

    Args:
        config: the typed options.
        total: length of the run, in steps or epochs as `config.interval` says; a longer warm-up is cut
            to it.
    """

    warmup = 0

    def __init__(self, config: SchedulerConfig, total: int) -> None:
        self.config = config
        self.warmup = min(config.warmup, total)
        self._start = config.warmup_start
        self._rest = max(total - self.warmup, 1)

    def factor(self, t: int) -> float:
        """Multiplier of the base learning rate for update t = 0, 1, …

        In a warm-up of w it rises from `warmup_start` at t = 0 to 1 at t = w, times the beginning of the
        shape. Beyond the run's end it keeps its last value.
        """
        if t >= self.warmup:
            return self.shape(t - self.warmup, self._rest)
        ramp = self._start + (1 - self._start) * t / self.warmup
        return ramp * self.shape(0, self._rest)

    def shape(self, t: int, total: int) -> float:
        """The multiplier t updates after the warm-up, of `total` (at least 1) updates."""
        raise NotImplementedError

    def observe(self, value: float, mode: str) -> None:
        """Called with the outcome of each evaluation after the warm-up.

        Args:
            value: the monitored metric.
            mode: `max` or `min`: which direction is better.
        """

    def state_dict(self) -> dict[str, float | int]:
        """The state that `observe` has changed; empty if the multiplier depends on progress alone."""
        return {}

    def load_state_dict(self, state: dict[str, float | int]) -> None:
        """Loads what `state_dict` returned."""


def apply(optimizer: torch.optim.Optimizer, factor: float) -> None:
    """Sets each parameter group's learning rate to its own base rate times `factor`.

    The base rate is `initial_lr`, which a group gets at the first call and keeps in its saved state.
    """
    for group in optimizer.param_groups:
        rate = group["lr"]
        if isinstance(rate, Tensor):  # in place, so that a captured or compiled step sees it
            rate.fill_(group.setdefault("initial_lr", float(rate)) * factor)
        else:
            group["lr"] = group.setdefault("initial_lr", rate) * factor
