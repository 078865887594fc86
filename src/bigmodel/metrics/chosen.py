"""The metrics of an evaluation that are chosen by name, beside those that every one has."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor

from bigmodel.errors import BigModelError, SpecError, first_line, is_too_large
from bigmodel.metrics.base import Metric, SumMetric, WholeMetric
from bigmodel.spec import Classes, Flags, Target, Values


class Gathered(NamedTuple):
    """What one process has seen of a part, on the CPU: sums by metric, outputs and targets."""

    sums: dict[int, Tensor]
    outputs: Tensor | None
    targets: Tensor | None


@dataclass(frozen=True)
class Figures:
    """What the metrics say of a part.

    Attributes:
        values: by figure; NaN if it is undefined.
        reasons: why, of each that is NaN.
        by_class: by figure and class, label or value.
    """

    values: dict[str, float] = field(default_factory=dict)
    reasons: dict[str, str] = field(default_factory=dict)
    by_class: dict[str, dict[str, float]] = field(default_factory=dict)


class ChosenMetrics:
    """Collects what the metrics need, batch by batch, and computes them at the end.

    Args:
        metrics: in the order in which their figures are shown.
    """

    def __init__(self, metrics: Sequence[Metric] = ()) -> None:
        self.metrics = list(metrics)
        self.reset()

    @property
    def directions(self) -> dict[str, str]:
        """All figures, each with the way it is better."""
        return {name: way for metric in self.metrics for name, way in metric.directions.items()}

    def reset(self, *, keeps: bool = False) -> None:
        """Forgets all samples.

        Args:
            keeps: whether to keep the outputs of those to come, even if no metric needs them.
        """
        self._keeps = keeps or any(isinstance(metric, WholeMetric) for metric in self.metrics)
        self._sums: dict[int, Tensor] = {}
        self._outputs: list[Tensor] = []
        self._targets: list[Tensor] = []

    def update(self, outputs: Tensor, targets: Tensor, decided: Tensor | None = None) -> None:
        """Adds a batch.

        Args:
            outputs, targets: as `SumMetric.sums` has it, of any floating type.
            decided: outputs moved by a decision threshold; None: there is none.
        """
        if not (self.metrics or self._keeps):
            return
        outputs, decided = outputs.float(), (outputs if decided is None else decided).float()
        if outputs.device.type == "mps":  # it has no float64
            outputs, targets, decided = outputs.cpu(), targets.cpu(), decided.cpu()
        for index, metric in enumerate(self.metrics):
            if isinstance(metric, SumMetric):
                given = decided if metric.decides else outputs
                sums = call(metric, partial(metric.sums, given, targets))
                self._sums[index] = self._sums[index] + sums if index in self._sums else sums
        if self._keeps:
            self._outputs.append(outputs.cpu())
            self._targets.append(targets.cpu())

    def gathered(self) -> Gathered:
        """What this process has seen."""
        sums = {index: value.cpu() for index, value in self._sums.items()}
        if not self._outputs:
            return Gathered(sums, None, None)
        return Gathered(sums, torch.cat(self._outputs), torch.cat(self._targets))

    def compute(self, parts: Sequence[Gathered], *, by_class: bool = False) -> Figures:
        """The figures of all samples that processes have seen, each sample by one of them.

        Args:
            by_class: whether to compute those of each class, too.

        Raises:
            SpecError: a user's own metric fails.
        """
        whole, found = whole_of(parts), Figures()
        for index, metric in enumerate(self.metrics):
            given: tuple[Any, ...] | None = whole
            if isinstance(metric, SumMetric):
                sums = [part.sums[index] for part in parts if index in part.sums]
                given = (torch.stack(sums).sum(0),) if sums else None
            if given is not None:
                _add(metric, given, found, by_class)
        return found


def whole_of(parts: Sequence[Gathered]) -> tuple[Tensor, Tensor] | None:
    """The outputs and targets of all samples; None if they were not kept."""
    outputs = [part.outputs for part in parts if part.outputs is not None]
    targets = [part.targets for part in parts if part.targets is not None]
    return (torch.cat(outputs), torch.cat(targets)) if outputs else None


def _add(metric: Any, given: tuple[Any, ...], found: Figures, by_class: bool) -> None:
    values = named(metric, call(metric, lambda: metric.compute(*given)))
    for name, value in values.items():
        found.values[name] = value if math.isfinite(value) else math.nan
        if math.isnan(found.values[name]):
            found.reasons[name] = metric.undefined
    names = class_names(metric.target)
    if by_class and len(names) > 1:
        for name, each in call(metric, lambda: metric.by_class(*given)).items():
            found.by_class[name] = dict(zip(names, each.tolist(), strict=True))


def call(metric: Metric, action: Any) -> Any:
    """What a metric's method returns.

    Raises:
        SpecError: it fails.
    """
    try:
        return action()
    except BigModelError:
        raise
    except Exception as error:
        if is_too_large(error):
            raise
        words = f"{type(error).__name__}: {first_line(error)}"
        raise SpecError(f"metrics=[{metric.name}]: it fails: {words}") from error


def named(metric: Metric, result: Any) -> dict[str, float]:
    """A metric's figures by name.

    Raises:
        SpecError: they are no numbers, or not those of its `directions`.
    """
    expected = list(metric.directions)
    given = (
        result if isinstance(result, Mapping) else {expected[0]: result} if len(expected) == 1 else {}
    )
    try:
        values = {str(name): float(value) for name, value in given.items()}
    except (TypeError, ValueError, RuntimeError):
        values = {}
    if values.keys() != set(expected):
        kind = (
            f"a {type(result).__name__}" if not isinstance(result, Mapping) else f"{dict(result)!r:.100}"
        )
        raise SpecError(
            f"metrics=[{metric.name}]: compute returned {kind}. It returns a number for each name in"
            f" `directions`, by name: {', '.join(expected)}."
        )
    return values


def class_names(target: Target) -> tuple[str, ...]:
    """The names of a target's classes, labels or values; none for next tokens."""
    return target.names if isinstance(target, Classes | Flags | Values) else ()
