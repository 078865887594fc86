"""Schedules that follow a curve."""

from __future__ import annotations

import math
from typing import Annotated, Literal

from pydantic import Field

from bigmodel.optim.schedulers.base import Scheduler, SchedulerConfig
from bigmodel.registry import schedulers


@schedulers.register("constant", SchedulerConfig)
class Constant(Scheduler):
    """The base rate throughout."""

    def shape(self, t: int, total: int) -> float:  # noqa: ARG002
        """1."""
        return 1.0


class LinearConfig(SchedulerConfig):
    end_factor: float = Field(0.0, ge=0, description="multiplier at the end; above 1 the rate grows")


@schedulers.register("linear", LinearConfig)
class Linear(Scheduler):
    """A straight line from 1 to `end_factor`, which the update after the last would have."""

    config: LinearConfig

    def shape(self, t: int, total: int) -> float:
        """1 + (end - 1) t / total."""
        return 1 + (self.config.end_factor - 1) * min(t / total, 1)


class CosineConfig(SchedulerConfig):
    min_factor: float = Field(0.0, ge=0, le=1, description="multiplier that the run ends with, 0 to 1")


@schedulers.register("cosine", CosineConfig)
class Cosine(Scheduler):
    """Half a cosine from 1 to `min_factor` (Loshchilov and Hutter 2016, arXiv:1608.03983)."""

    config: CosineConfig

    def shape(self, t: int, total: int) -> float:
        """min + (1 - min) (1 + cos(π t / total)) / 2."""
        return _cosine(1.0, self.config.min_factor, min(t / total, 1))


class OneCycleConfig(SchedulerConfig):
    pct_start: float = Field(0.3, ge=0, le=1, description="share of the run with a rising rate, 0 to 1")
    div_factor: float = Field(25.0, ge=1, description="the rate begins at the peak over this")
    final_div_factor: float = Field(1e4, ge=1, description="the rate ends at its start over this")
    anneal: Literal["cosine", "linear"] = Field("cosine", description="the curve: cosine or linear")


@schedulers.register("one_cycle", OneCycleConfig)
class OneCycle(Scheduler):
    """Up to the optimizer's rate, then down to almost nothing (Smith and Topin 2017, arXiv:1708.07120).

    As torch's OneCycleLR in two phases, without a cycle of momentum, except that a run too short to rise
    begins at the peak.
    """

    def __init__(self, config: OneCycleConfig, total: int) -> None:
        super().__init__(config, total)
        self.begin = 1 / config.div_factor
        self.end = self.begin / config.final_div_factor
        self.pct_start = config.pct_start
        self.curve = _CURVES[config.anneal]

    def shape(self, t: int, total: int) -> float:
        """Rises until update pct_start × total - 1, falls until the last, total - 1."""
        last, peak = total - 1, max(self.pct_start * total - 1, 0.0)
        t = min(t, last)
        if t < peak:
            return self.curve(self.begin, 1.0, t / peak)
        return self.curve(1.0, self.end, (t - peak) / (last - peak)) if t > peak else 1.0


class PolynomialConfig(SchedulerConfig):
    power: float = Field(1.0, gt=0, description="1: a straight line; above: faster at first")
    end_factor: float = Field(0.0, ge=0, description="multiplier at the end; above 1 the rate grows")


@schedulers.register("polynomial", PolynomialConfig)
class Polynomial(Scheduler):
    """A power of what is left of the run."""

    config: PolynomialConfig

    def shape(self, t: int, total: int) -> float:
        """end + (1 - end) (1 - t / total)^power."""
        end, left = self.config.end_factor, 1 - min(t / total, 1)
        return float(end + (1 - end) * left**self.config.power)


class InverseSqrtConfig(SchedulerConfig):
    timescale: Annotated[int, Field(ge=1)] | None = Field(
        None,
        description="steps (or epochs) after which the rate has fallen to 0.71; null: as many as warmup",
    )


@schedulers.register("inverse_sqrt", InverseSqrtConfig)
class InverseSqrt(Scheduler):
    """Falls with the square root of the time (Vaswani et al. 2017, arXiv:1706.03762, section 5.3).

    With warm-up w and no timescale it is the paper's: t / w up to w, √(w / t) from there.
    """

    def __init__(self, config: InverseSqrtConfig, total: int) -> None:
        super().__init__(config, total)
        # The warm-up in full, even if the run is shorter: the curve does not depend on the run's length.
        self.timescale = config.timescale or max(config.warmup, 1)

    def shape(self, t: int, total: int) -> float:  # noqa: ARG002
        """√(s / (s + t)) with timescale s. It halves after 3 s."""
        return math.sqrt(self.timescale / (self.timescale + t))


class WSDConfig(SchedulerConfig):
    decay: float = Field(0.2, ge=0, le=1, description="share of the run after warm-up that decays")
    decay_shape: Literal["sqrt", "linear", "cosine"] = Field(
        "sqrt", description="how it falls: sqrt (1 - √progress), linear or cosine"
    )
    min_factor: float = Field(0.0, ge=0, le=1, description="multiplier that the run ends with, 0 to 1")


@schedulers.register("wsd", WSDConfig)
class WSD(Scheduler):
    """Warm-up, stable, decay: constant until shortly before the end (Hu et al. 2024, arXiv:2404.06395).

    Runs of any length share their stable part. The shapes of the decay are those compared by Hägele et
    al. 2024 (arXiv:2405.18392), who found 1 - √progress best.
    """

    config: WSDConfig

    def shape(self, t: int, total: int) -> float:
        """1 until t = (1 - decay) total, then a fall to `min_factor` at t = total."""
        length = round(self.config.decay * total)
        elapsed = t - (total - length)
        if elapsed <= 0:
            return 1.0
        curve = _CURVES[self.config.decay_shape]
        return curve(1.0, self.config.min_factor, min(elapsed / max(length, 1), 1))


def _linear(begin: float, end: float, progress: float) -> float:
    return begin + (end - begin) * progress


def _cosine(begin: float, end: float, progress: float) -> float:
    return end + (begin - end) * (1 + math.cos(math.pi * progress)) / 2


def _sqrt(begin: float, end: float, progress: float) -> float:
    return begin + (end - begin) * math.sqrt(progress)


_CURVES = {"linear": _linear, "cosine": _cosine, "sqrt": _sqrt}
