"""Checks a user's own optimizer and schedule."""

from __future__ import annotations

import inspect
from math import isfinite
from typing import Any

import torch
from torch import nn

from bigmodel.build.custom_parts.isolation import reported_as
from bigmodel.errors import SpecError
from bigmodel.optim.schedulers import Schedule
from bigmodel.registry import EntryConfig, optimizers, schedulers

_REQUIRED = ("param_groups", "state", "step", "state_dict", "load_state_dict")
"""What training needs of an optimizer; one that wraps another need not derive from torch's class."""


def check_optimizer(optimizer: Any, model: nn.Module, config: EntryConfig) -> list[str]:
    """Checks that an optimizer can train a model; returns warnings.

    Raises:
        SpecError: it is no optimizer, its `step` needs a closure, or it trains other parameters.
    """
    label = f"optimizer={config.name}"
    if optimizers.is_builtin(config.name):
        return []
    if lacking := [name for name in _REQUIRED if not hasattr(optimizer, name)]:
        raise SpecError(
            f"{label}: it returned a {type(optimizer).__name__} without {lacking[0]} when called with "
            "its config and the model. It must return a torch.optim.Optimizer over model.parameters(), "
            f"or an object with the same {', '.join(_REQUIRED)}."
        )
    if isinstance(optimizer, torch.optim.LBFGS) or _needs_closure(optimizer):
        raise SpecError(
            f"{label}: its step() needs a closure that recomputes the loss, which training does not "
            "provide."
        )
    theirs = {p for group in optimizer.param_groups for p in group["params"]}
    trainable = {p: name for name, p in model.named_parameters() if p.requires_grad}
    if theirs - set(model.parameters()):
        raise SpecError(
            f"{label}: it was given tensors that are not the model's parameters, such as copies, so the "
            "model would not change. Pass it model.parameters()."
        )
    left = [name for p, name in trainable.items() if p not in theirs]
    if len(left) == len(trainable):
        raise SpecError(f"{label}: it was given none of the model's trainable parameters.")
    if not left:
        return []
    listed = ", ".join(left[:3]) + (", …" if len(left) > 3 else "")
    return [f"{label} does not train {len(left):,} of {len(trainable):,} parameters ({listed})."]


def _needs_closure(optimizer: torch.optim.Optimizer) -> bool:
    """Whether `step` cannot be called without an argument."""
    parameters = list(inspect.signature(optimizer.step).parameters.values())
    return any(p.default is p.empty and p.kind is p.POSITIONAL_OR_KEYWORD for p in parameters)


def try_schedule(schedule: Schedule, steps: int, config: EntryConfig) -> None:
    """Checks that a schedule returns multipliers of the learning rate.

    Args:
        steps: length of the run.

    Raises:
        SpecError: it fails, or returns something other than finite numbers of 0 or more.
    """
    if schedulers.is_builtin(config.name):
        return
    label = f"scheduler={config.name}"
    for step in {0, min(1, steps - 1), steps // 2, steps - 1}:
        with reported_as(label, f"step {step:,} of {steps:,}"):
            factor: Any = schedule.factor(step)
        is_number = isinstance(factor, int | float) and not isinstance(factor, bool)
        if not is_number or not isfinite(factor) or factor < 0:
            raise SpecError(
                f"{label}: its multiplier of the learning rate at step {step:,} is {factor!r}"
                f" ({type(factor).__name__}). `shape(t, total)` returns a number of 0 or more."
            )
