"""An update that a flag on the device can skip, without waiting for the device."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from bigmodel.runtime import torch_internals


def masked_step(optimizer: torch.optim.Optimizer, found_inf: Tensor) -> None:
    """Does an update, or none if `found_inf` is 1.

    On a CPU the flag can simply be read. On another device reading it would wait for all work that is
    queued there; so the decision is made on the device, except for the first update.

    Args:
        optimizer: whose `step` to call.
        found_inf: float32 without dimensions on the device of the parameters: 0 to update, 1 to leave
            everything as it is, but for what an optimizer counts in plain numbers on the host.
    """
    if found_inf.device.type == "cpu":
        if not found_inf.item():
            optimizer.step()
    else:
        step_on_device(optimizer, found_inf)


def step_on_device(optimizer: torch.optim.Optimizer, found_inf: Tensor) -> None:
    """See `masked_step`: by the optimizer's own kernel if it is fused, else by blending the old values
    back in, which takes a temporary copy of weights and state.

    An update that would create state is decided on the host, once. The state that an optimizer creates
    need not be zeros (schedule-free's is a copy of the weights, a fused SGD's momentum is memory that
    only an update fills), so that a first update that is skipped must not be begun.
    """
    without = _without_state(optimizer)
    if without:
        if not found_inf.item():
            optimizer.step()
            stateless = {p for p in without if not optimizer.state.get(p)}
            vars(optimizer).setdefault(_STATELESS, set()).update(stateless)
    elif torch_internals.skips_in_kernel(optimizer):
        step_in_kernel(optimizer, found_inf)
    else:
        step_and_blend(optimizer, found_inf)


_STATELESS = "_updated_without_state"


def _without_state(optimizer: torch.optim.Optimizer) -> set[nn.Parameter]:
    """Parameters to update that have no state yet, but may get one: plain SGD never creates any."""
    known: set[nn.Parameter] = vars(optimizer).get(_STATELESS, set())
    return {
        p
        for group in optimizer.param_groups
        for p in group["params"]
        if p.grad is not None and not optimizer.state.get(p) and p not in known
    }


def step_in_kernel(optimizer: torch.optim.Optimizer, found_inf: Tensor) -> None:
    """The update of a fused optimizer, whose kernel reads the flag."""
    optimizer.found_inf = found_inf  # type: ignore[attr-defined]
    try:
        optimizer.step()
    finally:
        del optimizer.found_inf  # type: ignore[attr-defined]


@torch.no_grad()
def step_and_blend(optimizer: torch.optim.Optimizer, found_inf: Tensor) -> None:
    """The update of any optimizer, undone on the device if the flag is set."""
    parameters = [p for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
    for parameter in parameters:
        assert parameter.grad is not None
        # The update that is undone has to be finite, since 0 times NaN is NaN.
        parameter.grad.masked_fill_(found_inf.bool(), 0.0)
    before = {tensor: tensor.clone() for tensor in _tensors(optimizer, parameters, found_inf.device)}
    optimizer.step()
    keep = 1.0 - found_inf
    for tensor in _tensors(optimizer, parameters, found_inf.device):
        tensor.mul_(keep).add_(before[tensor].mul_(found_inf))


def _tensors(
    optimizer: torch.optim.Optimizer, parameters: list[nn.Parameter], device: torch.device
) -> list[Tensor]:
    """Weights and floating-point state on the device, which is what an update changes there."""
    state = [value for parameter in parameters for value in optimizer.state.get(parameter, {}).values()]
    return [
        tensor
        for tensor in [*parameters, *state]
        if isinstance(tensor, Tensor) and tensor.is_floating_point() and tensor.device == device
    ]
