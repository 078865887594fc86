"""Other tensors in the place of a module's or an optimizer's own, while a step is a function of them."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch
from torch import Tensor, nn


@contextlib.contextmanager
def swapped(module: nn.Module, tensors: dict[str, Tensor]) -> Iterator[None]:
    """Within it a module computes with other tensors than its own, wherever it has them.

    Weights may have several places, and so may whole parts; torch's recurrent layers keep a list of
    their weights besides, which their kernels read.

    Args:
        tensors: by the names of the module's own parameters and buffers.
    """
    own = dict((*module.named_parameters(), *module.named_buffers()))
    new = {id(own[name]): value for name, value in tensors.items()}
    parts = list(module.modules())
    places = [
        (held, name, value)
        for held in (held for part in parts for held in (part._parameters, part._buffers))
        for name, value in held.items()
        if id(value) in new
    ]
    recurrent = [(part, part._flat_weights) for part in parts if isinstance(part, nn.RNNBase)]
    try:
        for held, name, value in places:
            held[name] = new[id(value)]  # type: ignore[assignment]
        for part, _ in recurrent:
            part._flat_weights = [getattr(part, name) for name in part._flat_weights_names]
        yield
    finally:
        for held, name, value in places:
            held[name] = value  # type: ignore[assignment]
        for part, weights in recurrent:
            part._flat_weights = weights


@contextlib.contextmanager
def working_on(
    optimizer: torch.optim.Optimizer,
    own: dict[str, Tensor],
    weights: dict[str, Tensor],
    state: dict[str, Tensor],
    rates: Tensor,
) -> Iterator[None]:
    """Within it an optimizer works on other tensors than its own, as torch's compiler has it work:
    without a look at any value."""
    names = {p: name for name, p in own.items()}
    groups, before = [dict(group) for group in optimizer.param_groups], optimizer.state.copy()
    compiling = torch.compiler._is_compiling_flag
    try:
        optimizer.state.clear()
        for entry, value in state.items():
            key, name = entry.split(".", 1)
            optimizer.state[weights[name]][key] = value
        for group, rate in zip(optimizer.param_groups, rates.unbind(), strict=True):
            group["params"] = [weights[names[p]] for p in group["params"]]
            # SGD multiplies with a rate instead of reading it only where that has a gradient.
            group["lr"] = rate.detach().requires_grad_()
            group |= {"foreach": False, "fused": False, "capturable": True}
        torch.compiler._is_compiling_flag = True
        yield
    finally:
        torch.compiler._is_compiling_flag = compiling
        optimizer.state.clear()
        optimizer.state.update(before)
        for group, old in zip(optimizer.param_groups, groups, strict=True):
            group.clear()
            group.update(old)
