"""Adam's and AdamW's update on a CPU by one call of torch's kernel, with almost no overhead.

Torch collects weights, gradients and moments again in each step, checks them and groups them by device.
For a small network that takes several times as long as the kernel. All but the gradients are the same
tensors in every step, so that they are collected once here.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from bigmodel.optim.optimizers.light import OptimizerT, light, named_as
from bigmodel.runtime import torch_internals


class _Gathered(NamedTuple):
    """The tensors of one parameter group.

    Attributes:
        parameters: the group's own list.
        first_mean: the first parameter's. If these two are other objects, a state was loaded, or the
            parameters were changed.
    """

    parameters: list[Tensor]
    first_mean: Tensor
    weights: list[Tensor]
    means: list[Tensor]
    squares: list[Tensor]
    largest: list[Tensor]
    steps: list[Tensor]


def quick(kind: type[OptimizerT]) -> type[OptimizerT]:
    """The same optimizer with such updates; unusual cases are left to torch's own `step`.

    Args:
        kind: torch.optim.Adam or AdamW.
    """
    base: Any = light(kind)
    kernel = torch_internals.adam_kernel(kind)
    if kernel is None:
        return light(kind)

    def step(self: Any, closure: Callable[[], float] | None = None) -> float | None:
        gathered = None if closure is not None else _all_gathered(self)
        if gathered is None:
            loss: float | None = base.step(self, closure)
            return loss
        with torch.no_grad():
            for group, (tensors, gradients) in zip(self.param_groups, gathered, strict=True):
                torch_internals.each("add_", tensors.steps, 1)
                kernel(
                    tensors.weights,
                    gradients,
                    tensors.means,
                    tensors.squares,
                    tensors.largest,
                    tensors.steps,
                    lr=group["lr"],
                    beta1=group["betas"][0],
                    beta2=group["betas"][1],
                    weight_decay=group["weight_decay"],
                    eps=group["eps"],
                    amsgrad=group["amsgrad"],
                    maximize=group["maximize"],
                )
        return None

    hooked = torch.optim.Optimizer.profile_hook_step(step)

    def dispatch(self: Any, closure: Callable[[], float] | None = None) -> Any:
        # Torch's wrapper marks the step for a profiler and calls hooks: it takes as long as the kernel.
        return (hooked if torch_internals.may_have_step_hooks(self) else step)(self, closure)

    dispatch.hooked = True  # type: ignore[attr-defined]
    return named_as(kind, base, {"step": dispatch})


def _all_gathered(optimizer: Any) -> list[tuple[_Gathered, list[Tensor]]] | None:
    """The tensors of all groups with their gradients; None in unusual cases."""
    if hasattr(optimizer, "found_inf") or hasattr(optimizer, "grad_scale"):
        return None
    cache: dict[int, _Gathered] = vars(optimizer).setdefault("_gathered", {})
    gathered = []
    for number, group in enumerate(optimizer.param_groups):
        tensors, state = cache.get(number), optimizer.state
        parameters = group["params"]
        mean = state[parameters[0]].get("exp_avg") if parameters[0] in state else None
        if tensors is None or tensors.parameters is not parameters or tensors.first_mean is not mean:
            tensors = _gather(group, state)
            if tensors is None:
                return None
            cache[number] = tensors
        gradients = [weight.grad for weight in tensors.weights if weight.grad is not None]
        if len(gradients) < len(tensors.weights):
            return None
        gathered.append((tensors, gradients))
    return gathered


def _gather(group: dict[str, Any], state: dict[Tensor, dict[str, Tensor]]) -> _Gathered | None:
    """The tensors of a group whose state exists and lies on the CPU in float32; else None."""
    parameters: list[Tensor] = group["params"]
    states = [state[p] for p in parameters if state.get(p)]
    if not group["fused"] or isinstance(group["lr"], Tensor) or len(states) < len(parameters):
        return None
    if any(p.device.type != "cpu" or p.dtype is not torch.float32 for p in parameters):
        return None
    keys = ("exp_avg", "exp_avg_sq", "step")
    means, squares, steps = ([state[key] for state in states] for key in keys)
    largest = [values["max_exp_avg_sq"] for values in states] if group["amsgrad"] else []
    return _Gathered(parameters, means[0], list(parameters), means, squares, largest, steps)
