"""An update that is left out where a flag on the device says so, without waiting for the device."""

from __future__ import annotations

import torch
from torch import Tensor, nn


def masked_step(optimizer: torch.optim.Optimizer, unfit: Tensor) -> None:
    """Does an update, or none where `unfit` is not 0.

    On a CPU the flag can simply be read. On another device reading it would wait for all that is queued
    there, so that the decision is made there, but for the first update.

    Args:
        optimizer: whose `step` to call. Gradients are those of its parameters.
        unfit: a float32 without dimensions on the device of the parameters: 0 to update, 1 to leave all
            as it is. What an optimizer counts in plain numbers on the host is counted on even then.
    """
    if unfit.device.type == "cpu":
        if not unfit.item():
            optimizer.step()
    else:
        step_on_device(optimizer, unfit)


def step_on_device(optimizer: torch.optim.Optimizer, unfit: Tensor) -> None:
    """See `masked_step`: by the optimizer's own kernel where it is a fused one, and otherwise by
    blending the old values back in, which costs a copy of weights and state for a moment.

    An update that would make state is decided on the host, once: what an optimizer makes in its first
    step need not be zeros (schedule-free's is a copy of the weights, a fused SGD's momentum is memory
    that only an update fills), so that a first step that is left out must not be begun.
    """
    without = _without_state(optimizer)
    if without:
        if not unfit.item():
            optimizer.step()
            stateless = {p for p in without if not optimizer.state.get(p)}
            vars(optimizer).setdefault(_STATELESS, set()).update(stateless)
    elif getattr(optimizer, "_step_supports_amp_scaling", False):
        step_in_kernel(optimizer, unfit)
    else:
        step_and_blend(optimizer, unfit)


_STATELESS = "_updated_without_state"


def _without_state(optimizer: torch.optim.Optimizer) -> set[nn.Parameter]:
    """Parameters to be updated for which nothing is kept yet, and for all that is known something will
    be: plain SGD never keeps anything."""
    known: set[nn.Parameter] = vars(optimizer).get(_STATELESS, set())
    return {
        p
        for group in optimizer.param_groups
        for p in group["params"]
        if p.grad is not None and not optimizer.state.get(p) and p not in known
    }


def step_in_kernel(optimizer: torch.optim.Optimizer, unfit: Tensor) -> None:
    """The update of a fused optimizer, whose kernel looks at the flag."""
    optimizer.found_inf = unfit  # type: ignore[attr-defined]
    try:
        optimizer.step()
    finally:
        del optimizer.found_inf  # type: ignore[attr-defined]


@torch.no_grad()
def step_and_blend(optimizer: torch.optim.Optimizer, unfit: Tensor) -> None:
    """The update of any optimizer, undone on the device where the flag is set.

    Gradients that are not finite are set to 0 first, so that what is blended is finite: 0 times NaN
    would be NaN.
    """
    parameters = [p for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
    for parameter in parameters:
        assert parameter.grad is not None
        parameter.grad.masked_fill_(unfit.bool(), 0.0)
    before = {tensor: tensor.clone() for tensor in _tensors(optimizer, parameters, unfit.device)}
    optimizer.step()
    fit = 1.0 - unfit
    for tensor in _tensors(optimizer, parameters, unfit.device):
        tensor.mul_(fit).add_(before[tensor].mul_(unfit))


def _tensors(
    optimizer: torch.optim.Optimizer, parameters: list[nn.Parameter], device: torch.device
) -> list[Tensor]:
    """Weights and floating-point state on the device."""
    state = [value for parameter in parameters for value in optimizer.state.get(parameter, {}).values()]
    return [
        tensor
        for tensor in [*parameters, *state]
        if isinstance(tensor, Tensor) and tensor.is_floating_point() and tensor.device == device
    ]
