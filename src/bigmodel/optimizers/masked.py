"""An update that is left out where a flag on the device says so, without waiting for the device."""

from __future__ import annotations

import torch
from torch import Tensor


def masked_step(optimizer: torch.optim.Optimizer, unfit: Tensor) -> None:
    """Does an update, or none where `unfit` is not 0.

    On a CPU the flag can simply be read. On another device reading it would wait for all that is queued
    there, so that the decision is made there: by the optimizer's own kernel where it is a fused one, and
    otherwise by blending the old values back in, which costs a copy of weights and state for a moment.

    Args:
        optimizer: whose `step` to call. Gradients are those of its parameters.
        unfit: a float32 without dimensions on the device of the parameters: 0 to update, 1 to leave all
            as it is. What an optimizer counts in plain numbers on the host is counted on even then.
    """
    if unfit.device.type == "cpu":
        if not unfit.item():
            optimizer.step()
    elif all(group.get("fused") for group in optimizer.param_groups):
        step_in_kernel(optimizer, unfit)
    else:
        step_and_blend(optimizer, unfit)


def step_in_kernel(optimizer: torch.optim.Optimizer, unfit: Tensor) -> None:
    """The update of a fused optimizer, whose kernel looks at the flag; gradient scaling uses it too."""
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
        # State made by this very step began as zeros in every optimizer here.
        old = before.get(tensor)
        tensor.mul_(fit)
        if old is not None:
            tensor.add_(old.mul_(unfit))


def _tensors(
    optimizer: torch.optim.Optimizer, parameters: list[torch.nn.Parameter], device: torch.device
) -> list[Tensor]:
    """Weights and floating-point state on the device."""
    state = [value for parameter in parameters for value in optimizer.state.get(parameter, {}).values()]
    return [
        tensor
        for tensor in [*parameters, *state]
        if isinstance(tensor, Tensor) and tensor.is_floating_point() and tensor.device == device
    ]
