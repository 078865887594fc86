"""What a search may set and what it optimizes, checked before anything starts."""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from bigmodel.errors import ConfigError, did_you_mean, require, setting
from bigmodel.sweeps.config import SearchConfig


@dataclass(frozen=True)
class Choices:
    """One of a few values, as Hydra reads them."""

    values: tuple[str, ...]


@dataclass(frozen=True)
class Range:
    """A number from `low` to `high`, both included.

    Attributes:
        log: small ones as often as large ones.
        step: distance between two values; None: any number.
    """

    low: float
    high: float
    log: bool = False
    step: float | None = None

    @property
    def whole(self) -> bool:
        return isinstance(self.low, int) and isinstance(self.high, int)


Space = Mapping[str, Choices | Range]
"""What may be set, by key."""


@dataclass(frozen=True)
class Objective:
    """What is optimized.

    Attributes:
        metric: such as `val/accuracy`, or a field of the summary, such as `seconds`.
        mode: `max` or `min`.
    """

    metric: str
    mode: str


def check(config: SearchConfig, space: Space) -> None:
    """Makes sure that a search can be done, before anything starts.

    Raises:
        ConfigError: the space is empty, or not one for the sampler; or the pruner does not fit.
        MissingPackageError: Optuna is not installed, or what the sampler needs.
    """
    require("optuna", "sweep=optuna")
    if config.sampler == "cmaes":
        require("cmaes", "sweep.sampler=cmaes")
    if not space:
        raise ConfigError(
            "sweep=optuna: there is nothing to search. Give settings several values, such as"
            " optimizer.lr='tag(log,interval(1e-4,1))' model=fnn,cnn"
        )
    ranges = [key for key, values in space.items() if isinstance(values, Range)]
    for name in ("seeds", "folds", "zip", "plan"):
        if value := getattr(config, name):
            raise ConfigError(
                f"{setting(f'sweep.{name}', value)}: is for a sweep over lists; sweep=optuna chooses its"
                " jobs itself. Leave it out."
            )
    if config.sampler == "cmaes" and len(ranges) < 2:
        raise ConfigError(
            "sweep.sampler=cmaes: needs two settings or more whose values are an interval or a range"
            f" (here: {', '.join(ranges) or 'none'}). Use sweep.sampler=tpe."
        )
    if config.sampler == "grid":
        for key in ranges:
            if space[key].step is None:  # type: ignore[union-attr]
                raise ConfigError(
                    f"sweep.sampler=grid: {key} is an interval, which has no list of values. Use"
                    f" {key}=0.1,0.01 or {key}='range(1,5)', or another sampler, such as tpe."
                )
    if not _can_prune(config) and config.pruner not in ("auto", "none"):
        raise ConfigError(
            f"sweep.pruner={config.pruner}: trials are pruned by one metric of each evaluation, not by"
            f" {' and '.join(config.metrics)}. Use sweep.pruner=none, or one metric, such as val/loss."
        )


def chosen_pruner(config: SearchConfig) -> str:
    """The pruner that `auto` stands for, or the one that is named."""
    if config.pruner == "auto":
        return "median" if _can_prune(config) else "none"
    return config.pruner


def _can_prune(config: SearchConfig) -> bool:
    return not config.metrics or (len(config.metrics) == 1 and "/" in config.metrics[0])


def objectives(config: SearchConfig, monitor: str, modes: Mapping[str, str]) -> list[Objective]:
    """What a search optimizes.

    Args:
        monitor: the metric that chooses a run's best checkpoint.
        modes: `max` or `min` for each metric of a run.

    Raises:
        ConfigError: there is no such metric.
    """
    known = dict(modes) | dict.fromkeys(("seconds", "steps", "parameters"), "min")
    for metric in config.metrics:
        if metric not in known:
            raise ConfigError(
                f"sweep.metrics={metric}: no such metric.{did_you_mean(metric, known)}"
                f" There will be: {', '.join(known)}."
            )
    return [Objective(metric, known[metric]) for metric in config.metrics or [monitor]]


def shuffled_grid(space: Space, seed: int) -> list[dict[str, Any]]:
    """Every combination, in a random order: a pruner learns nothing from neighbours in a row."""
    values = [
        list(choices.values) if isinstance(choices, Choices) else _steps(choices)
        for choices in space.values()
    ]
    combinations = [dict(zip(space, chosen, strict=True)) for chosen in itertools.product(*values)]
    random.Random(seed).shuffle(combinations)
    return combinations


def _steps(values: Range) -> list[float]:
    step = values.step or 1
    count = math.floor((values.high - values.low) / step + 1e-9) + 1
    return [values.low + index * step for index in range(count)]
