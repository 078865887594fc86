"""Checks a user's own optimizer and schedule."""

from __future__ import annotations

import copy
import inspect
import json
from math import isfinite
from typing import Any

import torch
from torch import nn

from bigmodel.build.custom_parts.isolation import isolated_randomness, reported_as
from bigmodel.errors import SpecError, is_too_large, line_of
from bigmodel.optim.optimizers import training_weights
from bigmodel.optim.schedulers import Schedule
from bigmodel.registry import EntryConfig, optimizers, schedulers

_REQUIRED = ("param_groups", "state", "step", "state_dict", "load_state_dict")
"""What training needs of an optimizer; one that wraps another need not derive from torch's class."""


_LARGEST = 250_000_000
"""The most parameters of a model that is copied to try an update."""


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
    try:
        warnings = _try_step(model, config)
    except Exception as error:
        if not is_too_large(error):
            raise
        warnings = []  # training itself needs no copy
    left = [name for p, name in trainable.items() if p not in theirs]
    if len(left) == len(trainable):
        raise SpecError(f"{label}: it was given none of the model's trainable parameters.")
    if not left:
        return warnings
    listed = ", ".join(left[:3]) + (", …" if len(left) > 3 else "")
    untrained = f"{label} does not train {len(left):,} of {len(trainable):,} parameters ({listed})."
    return [*warnings, untrained]


def _try_step(model: nn.Module, config: EntryConfig) -> list[str]:
    """Tries an update, of a copy of the model with made-up gradients; returns warnings.

    Raises:
        SpecError: it fails, or makes NaN of numbers.
    """
    label, size = f"optimizer={config.name}", sum(p.numel() for p in model.parameters())
    if size > _LARGEST or any(hasattr(p, "device_mesh") for p in model.parameters()):
        return []
    try:
        model = copy.deepcopy(model)
    except Exception:  # such as of a lock
        return []
    with isolated_randomness(), reported_as(label, "an update of the model"):
        optimizer = optimizers.build(config, model)
        if any("lr" not in group for group in optimizer.param_groups):
            raise SpecError(
                f"{label}: its param_groups have no 'lr', which the schedule sets. Pass a dict with it"
                ' to super().__init__: {"lr": config.lr}.'
            )
        trained = [p for group in optimizer.param_groups for p in group["params"] if p.requires_grad]
        training_weights(optimizer)
        before = [p.detach().clone() for p in trained]
        for _ in range(2):
            for parameter in trained:
                parameter.grad = torch.full_like(parameter, 0.01)
            _step(optimizer, label)
        again = optimizers.build(config, model)
        again.load_state_dict(optimizer.state_dict())
    if not all(p.isfinite().all() for p in trained):
        raise SpecError(
            f"{label}: its step() makes NaN or infinity of parameters and gradients that are none."
        )
    if all(map(torch.equal, before, trained)):
        return [f"{label}: two calls of its step() have changed no parameter."]
    return []


def _step(optimizer: Any, label: str) -> None:
    try:
        optimizer.step()
    except NotImplementedError as error:
        raise SpecError(f"{label}: it defines no step(), which updates the parameters.") from error
    except RuntimeError as error:
        if "leaf Variable" not in str(error):
            raise
        raise SpecError(
            f"{label}: its step() changes parameters while gradients are recorded{line_of(error)}. Put"
            " @torch.no_grad() above it."
        ) from error


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
    tried = copy.deepcopy(schedule)
    if schedule.follows_metric:
        with reported_as(label, "observe(value, mode)"):
            for value in (1.0, 2.0):
                tried.observe(value, "min", steps - 1)
    with reported_as(label, "its state_dict(), which may hold numbers only"):
        tried.load_state_dict(json.loads(json.dumps(tried.state_dict())), steps - 1)
