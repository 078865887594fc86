"""Tries steps on a run without leaving a trace."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import chain
from typing import Any

import torch
from torch import Tensor

from bigmodel.engine.step import Step
from bigmodel.models.freezing import train_mode
from bigmodel.optim.optimizers import training_weights
from bigmodel.runtime import rng


@contextmanager
def state_kept(step: Step) -> Iterator[None]:
    """Within the block, steps may be done as in training. Afterwards everything that they change is as
    it was: weights, buffers, the optimizer's state, averages, metrics and random numbers. If memory ran
    out meanwhile, micro-batches stay as small as they became."""
    tensors = _changed_tensors(step)
    # On the host: a model may fill most of a GPU's memory, whose use may be what is measured.
    copies = [tensor.detach().to("cpu", copy=True) for tensor in tensors]
    slots, groups = _optimizer_state(step.optimizer)
    random, python = rng.torch_states(), rng.python_states()
    samples, updates = step.metrics.samples, 0 if step.ema is None else step.ema.updates
    scale = None if step.scaler is None else step.scaler.state_dict()
    training_weights(step.optimizer)
    train_mode(step.parallel.model)
    try:
        yield
    finally:
        with torch.no_grad():
            for tensor, copy in zip(tensors, copies, strict=True):
                tensor.copy_(copy)
        _restore_optimizer(step.optimizer, slots, groups)
        rng.restore(random, python)
        step.metrics.count(samples - step.metrics.samples)
        if step.ema is not None:
            step.ema.updates = updates
        if step.scaler is not None and scale is not None:
            step.scaler.load_state_dict(scale)
        step.abandon()


def _changed_tensors(step: Step) -> list[Tensor]:
    """The tensors that a step changes in place, each once; the optimizer's are not among them."""
    averages = [] if step.ema is None else list(step.ema.weights.values())
    found = chain(
        step.model.parameters(),
        step.model.buffers(),
        step.parallel.model.buffers(),
        step.loss.buffers(),
        averages,
        [step.metrics.sums],
    )
    return list({id(tensor): tensor for tensor in found}.values())


Slots = dict[Tensor, dict[str, Any]]


def _optimizer_state(optimizer: torch.optim.Optimizer) -> tuple[Slots, list[dict[str, Any]]]:
    """Copies of its state and of the options of its groups, which some count in."""
    slots = {
        parameter: {key: _copied(value) for key, value in slot.items()}
        for parameter, slot in optimizer.state.items()
    }
    groups = [
        {key: _copied(value) for key, value in group.items() if key != "params"}
        for group in optimizer.param_groups
    ]
    return slots, groups


def _restore_optimizer(
    optimizer: torch.optim.Optimizer, slots: Slots, groups: list[dict[str, Any]]
) -> None:
    optimizer.state.clear()  # in place: an optimizer of several parts shares it among them
    optimizer.state.update(slots)
    for group, before in zip(optimizer.param_groups, groups, strict=True):
        params = group["params"]
        group.clear()
        group.update(params=params, **before)


def _copied(value: Any) -> Any:
    return value.clone() if isinstance(value, Tensor) else value
