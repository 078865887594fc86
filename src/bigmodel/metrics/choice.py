"""The metrics of each kind of target."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch

from bigmodel.metrics.classes import ClassMetrics, FlagMetrics
from bigmodel.metrics.multitask import MultitaskMetrics
from bigmodel.metrics.sums import Metrics
from bigmodel.metrics.tokens import TokenMetrics
from bigmodel.metrics.values import ValueMetrics
from bigmodel.spec import Classes, Flags, Multitask, NextTokens, Target, Values


def metric_names(target: Target) -> dict[str, str]:
    """The metrics of an evaluation, without the part's prefix, each with its direction.

    Returns:
        `max` or `min` by name, `loss` included.
    """
    match target:
        case Classes(count=count):
            top5 = {"top5_accuracy": "max"} if count > 5 else {}
            return {"loss": "min", "accuracy": "max", **top5, "macro_f1": "max"}
        case Flags():
            return {"loss": "min", "accuracy": "max", "macro_f1": "max"}
        case Values():
            return {"loss": "min", "mae": "min", "rmse": "min", "r2": "max"}
        case Multitask(names=names, parts=parts):
            each = {
                f"{name}/{key}": direction
                for name, part in zip(names, parts, strict=True)
                for key, direction in metric_names(part).items()
                if key != "loss"
            }
            return {"loss": "min", **each}
        case NextTokens(characters=characters):
            counted = {} if characters is None else {"bits_per_character": "min"}
            return {"loss": "min", "perplexity": "min", **counted, "accuracy": "max"}


_UNDEFINED_REASONS = {
    "r2": "all of its values are equal",
    "macro_f1": "no label is set in it, and none is predicted",
    "bits_per_character": "its tokens decode to no text",
}


def undefined_reasons(metrics: Mapping[str, float]) -> dict[str, str]:
    """Explains each metric that is NaN because it is undefined for the samples of a part.

    Args:
        metrics: of an evaluation in which all outputs were finite.
    """
    return {
        name: why
        for name, value in metrics.items()
        if math.isnan(value) and (why := _UNDEFINED_REASONS.get(name.rpartition("/")[2]))
    }


def default_monitor(target: Target) -> str:
    """The metric that chooses the best weights; it can be compared between runs with other losses.

    `accuracy` for classes, `rmse` for real values. For yes/no labels the `loss`: most labels are rare,
    so that accuracy is high for a model that never predicts one, and macro-F1 stays 0 until it does.
    `perplexity` for next tokens, since label smoothing does not change it. For several targets the
    `loss`, which weighs them.
    """
    match target:
        case Classes():
            return "accuracy"
        case Flags() | Multitask():
            return "loss"
        case Values():
            return "rmse"
        case NextTokens():
            return "perplexity"


def metrics_for(target: Target, device: torch.device | str, light: bool = False) -> Metrics:
    """Empty metrics for a kind of target.

    Args:
        device: of outputs and targets.
        light: without `top5_accuracy`, which doubles the time of an update: for training steps.
    """
    device = torch.device(device)
    match target:
        case Classes():
            return ClassMetrics(target, device, light)
        case Flags():
            return FlagMetrics(target, device)
        case Values():
            return ValueMetrics(target, device)
        case NextTokens():
            return TokenMetrics(target, device)
        case Multitask():
            return MultitaskMetrics(target, device, light)
