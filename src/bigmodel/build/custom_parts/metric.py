"""Checks a user's own metrics."""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from bigmodel.errors import SpecError
from bigmodel.metrics import ChosenMetrics
from bigmodel.metrics.base import Metric, SumMetric
from bigmodel.metrics.chosen import call, named
from bigmodel.registry import metrics
from bigmodel.spec import Classes, Flags, Multitask, NextTokens, Target, Values

_SAMPLES, _LENGTH = 24, 5
_TOLERANCE = 1e-5


def try_metrics(chosen: ChosenMetrics) -> list[str]:
    """Tries each metric of the user's own on made-up samples; returns warnings.

    Raises:
        SpecError: one of them fails, gives no numbers, depends on how samples are batched or ordered, or
            is undefined for a perfect prediction.
    """
    warnings = []
    for metric in chosen.metrics:
        if not metrics.is_builtin(metric.name):
            warnings += _try(metric)
    return warnings


def _try(metric: Metric) -> list[str]:
    label = f"metrics=[{metric.name}]"
    perfect, targets = _perfect(metric.target)
    draw = torch.Generator().manual_seed(0)
    guessed = torch.randn(perfect.shape, generator=draw)
    whole = _figures(metric, guessed, targets)
    order = torch.randperm(len(targets), generator=draw)
    moved = _figures(metric, guessed[order], targets[order])
    if isinstance(metric, SumMetric):
        _check_sums(metric, guessed, targets)
    if not _same(whole, moved):
        raise SpecError(
            f"{label}: it is {_told(whole)} of some samples, and {_told(moved)} of the same in another"
            " order. Batches and processes bring them in any order: compare each output with its own"
            " target alone."
        )
    best = _figures(metric, perfect, targets)
    if undefined := [name for name, value in best.items() if math.isnan(value)]:
        raise SpecError(
            f"{label}: {undefined[0]} is NaN for a perfect prediction. Outputs are the model's raw ones"
            " (logits of classes and labels, standardised values). NaN is for samples of which the"
            " figure is not defined."
        )
    return [
        f"{label}: {name} is {best[name]:.4g} for a perfect prediction, and {whole[name]:.4g} for a"
        f" random one, but `directions` says that {'higher' if way == 'max' else 'lower'} is better."
        for name, way in metric.directions.items()
        if (best[name] < whole[name] if way == "max" else best[name] > whole[name])
    ]


def _figures(metric: Any, outputs: Tensor, targets: Tensor) -> dict[str, float]:
    given = outputs.clone(), targets.clone()
    if isinstance(metric, SumMetric):
        result = call(metric, lambda: metric.compute(metric.sums(*given)))
    else:
        result = call(metric, lambda: metric.compute(*given))
    if not (torch.equal(given[0], outputs) and torch.equal(given[1], targets)):
        raise SpecError(
            f"metrics=[{metric.name}]: it changes its outputs or targets in place, which other metrics"
            " read too. Change a copy."
        )
    return named(metric, result)


def _check_sums(metric: SumMetric, outputs: Tensor, targets: Tensor) -> None:
    """The sums of a batch are those of its parts together."""
    cut = len(targets) // 3
    pairs = [(outputs, targets), (outputs[:cut], targets[:cut]), (outputs[cut:], targets[cut:])]
    sums = [call(metric, partial(metric.sums, *pair)) for pair in pairs]
    if not all(isinstance(each, Tensor) for each in sums):
        raise SpecError(
            f"metrics=[{metric.name}]: sums returned a {type(sums[0]).__name__}. It returns a tensor,"
            " such as torch.stack([total, count]), which is added up over batches and processes."
        )
    if any(each.shape != sums[0].shape for each in sums):
        shapes = ", ".join(str(tuple(each.shape)) for each in sums)
        raise SpecError(
            f"metrics=[{metric.name}]: the shape of what sums returns depends on the batch ({shapes})."
            " Sum over the samples; a WholeMetric is given all of them at once."
        )
    whole, first, rest = (each.double() for each in sums)
    if not torch.allclose(whole, first + rest, rtol=_TOLERANCE, atol=_TOLERANCE):
        raise SpecError(
            f"metrics=[{metric.name}]: what sums returns of a batch ({whole.tolist()!s:.60}) is not the"
            f" sum of what it returns of two parts of it ({(first + rest).tolist()!s:.60}). Return"
            " totals and counts, and divide in compute."
        )


def _perfect(target: Target) -> tuple[Tensor, Tensor]:
    """Outputs without an error, and their targets, of which no two neighbours are alike."""
    numbers = torch.arange(_SAMPLES)
    match target:
        case Classes(count=count):
            targets = numbers % count
            return 10.0 * F.one_hot(targets, count).float(), targets
        case Flags(count=count):
            targets = ((numbers[:, None] + torch.arange(count)) % 2).float()
            return 20.0 * targets - 10.0, targets
        case Values(count=count):
            values = torch.linspace(-2, 2, _SAMPLES)[:, None].repeat(1, count)
            return values, values.clone()
        case NextTokens(vocab_size=size):
            targets = (numbers[:, None] + torch.arange(_LENGTH)) % size
            return 10.0 * F.one_hot(targets, size).float(), targets
        case Multitask(parts=parts):
            outputs, each = zip(*map(_perfect, parts), strict=True)
            return torch.cat(outputs, 1), torch.cat([t.float().view(len(t), -1) for t in each], 1)


def _same(first: dict[str, float], second: dict[str, float]) -> bool:
    return all(
        math.isclose(first[name], second[name], rel_tol=_TOLERANCE, abs_tol=_TOLERANCE)
        or (math.isnan(first[name]) and math.isnan(second[name]))
        for name in first
    )


def _told(figures: dict[str, float]) -> str:
    return ", ".join(f"{name} {value:.4g}" for name, value in figures.items())
