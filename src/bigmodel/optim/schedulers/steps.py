"""Schedules that multiply the rate by a factor from time to time."""

from __future__ import annotations

import math
from bisect import bisect_right
from typing import Annotated, Literal

from pydantic import Field, field_validator

from bigmodel.optim.schedulers.base import INTERVAL, Scheduler, SchedulerConfig
from bigmodel.registry import schedulers


class StepConfig(SchedulerConfig):
    interval: Literal["step", "epoch"] = Field("epoch", description=INTERVAL)
    step_size: int = Field(10, ge=1, description="steps (or epochs) between drops, after warm-up")
    gamma: float = Field(0.1, gt=0, le=1, description="factor of each drop, 0 to 1")


@schedulers.register("step", StepConfig)
class StepDecay(Scheduler):
    """A drop every `step_size`."""

    config: StepConfig

    def shape(self, t: int, total: int) -> float:  # noqa: ARG002
        """gamma^⌊t / step_size⌋."""
        return float(self.config.gamma ** (t // self.config.step_size))


class MultiStepConfig(SchedulerConfig):
    interval: Literal["step", "epoch"] = Field("epoch", description=INTERVAL)
    milestones: list[Annotated[int, Field(ge=1)]] = Field(
        [15, 25], description="when the rate drops: steps (or epochs) from the very start, rising"
    )
    gamma: float = Field(0.1, gt=0, le=1, description="factor of each drop, 0 to 1")

    @field_validator("milestones")
    @classmethod
    def _rise(cls, milestones: list[int]) -> list[int]:
        if milestones != sorted(milestones):
            raise ValueError(f"must rise; try {sorted(milestones)}")
        return milestones


@schedulers.register("multistep", MultiStepConfig)
class MultiStep(Scheduler):
    """A drop at each milestone, counted from the start of the run: a warm-up does not shift them."""

    config: MultiStepConfig

    def shape(self, t: int, total: int) -> float:  # noqa: ARG002
        """gamma^(milestones reached)."""
        return float(self.config.gamma ** bisect_right(self.config.milestones, t + self.warmup))


class ExponentialConfig(SchedulerConfig):
    interval: Literal["step", "epoch"] = Field("epoch", description=INTERVAL)
    gamma: float = Field(0.95, gt=0, le=1, description="factor of each step (or epoch), 0 to 1")


@schedulers.register("exponential", ExponentialConfig)
class Exponential(Scheduler):
    """The same drop each time."""

    config: ExponentialConfig

    def shape(self, t: int, total: int) -> float:  # noqa: ARG002
        """gamma^t."""
        return float(self.config.gamma**t)


class PlateauConfig(SchedulerConfig):
    factor: float = Field(0.1, gt=0, lt=1, description="factor of each drop, 0 to 1")
    patience: int = Field(10, ge=0, description="evaluations without improvement before a drop")
    threshold: float = Field(1e-4, ge=0, description="least improvement relative to the best so far")
    min_factor: float = Field(0.0, ge=0, le=1, description="lowest multiplier of the rate, 0 to 1")


@schedulers.register("plateau", PlateauConfig)
class Plateau(Scheduler):
    """A drop when the monitored metric no longer gets better, as torch's ReduceLROnPlateau.

    `observe` is called with each evaluation. An improvement is more than `threshold` times the absolute
    best value; NaN and infinity never are one.
    """

    config: PlateauConfig

    def __init__(self, config: PlateauConfig, total: int) -> None:
        super().__init__(config, total)
        self._level = 1.0
        self._best = math.nan  # no evaluation yet
        self._bad_evaluations = 0

    def shape(self, t: int, total: int) -> float:  # noqa: ARG002
        """The product of the drops so far."""
        return self._level

    def observe(self, value: float, mode: str) -> None:
        """See `Scheduler.observe`."""
        margin = self.config.threshold * abs(self._best)
        gain = value - self._best if mode == "max" else self._best - value
        if math.isfinite(value) and (math.isnan(self._best) or gain > margin):
            self._best, self._bad_evaluations = value, 0
            return
        self._bad_evaluations += 1
        if self._bad_evaluations > self.config.patience:
            self._level = max(self._level * self.config.factor, self.config.min_factor)
            self._bad_evaluations = 0

    def state_dict(self) -> dict[str, float | int]:
        """Level, evaluations without improvement and, once there is one, the best value."""
        state: dict[str, float | int] = {"level": self._level, "waited": self._bad_evaluations}
        return state if math.isnan(self._best) else state | {"best": self._best}

    def load_state_dict(self, state: dict[str, float | int]) -> None:
        """See `Scheduler.load_state_dict`."""
        self._level, self._bad_evaluations = float(state["level"]), int(state["waited"])
        self._best = float(state.get("best", math.nan))
