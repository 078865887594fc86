"""Adam's and AdamW's update on a CPU by one call of torch's kernel, and next to nothing around it.

Torch gathers weights, gradients and moments anew in each step, checks them and groups them by device:
for a small network that takes several times as long as the kernel. They stay the same tensors from step
to step, all but the gradients, so that they are gathered once here.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.optim.optimizer import _global_optimizer_post_hooks, _global_optimizer_pre_hooks

from bigmodel.optim.optimizers.light import OptimizerT, light, named_as


class _Gathered(NamedTuple):
    """The tensors of one parameter group.

    `listed` is the group's own list of parameters, and `first` the moment of the first of them: where
    these are others, a state was loaded, or parameters were changed.
    """

    listed: list[Tensor]
    first: Tensor
    weights: list[Tensor]
    means: list[Tensor]
    squares: list[Tensor]
    largest: list[Tensor]
    steps: list[Tensor]


def quick(kind: type[OptimizerT], kernel: Callable[..., None]) -> type[OptimizerT]:
    """The same optimizer with such updates; whatever is not as usual is left to torch's own `step`.

    Args:
        kind: torch.optim.Adam or AdamW.
        kernel: torch._fused_adam_ or torch._fused_adamw_.
    """
    base: Any = light(kind)

    def step(self: Any, closure: Callable[[], float] | None = None) -> float | None:
        gathered = None if closure is not None else _all_gathered(self)
        if gathered is None:
            loss: float | None = base.step(self, closure)
            return loss
        with torch.no_grad():
            for group, (own, gradients) in zip(self.param_groups, gathered, strict=True):
                torch._foreach_add_(own.steps, 1)
                kernel(
                    own.weights,
                    gradients,
                    own.means,
                    own.squares,
                    own.largest,
                    own.steps,
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

    def quickest(self: Any, closure: Callable[[], float] | None = None) -> Any:
        # Torch's wrapper marks the step for a profiler, which takes as long as the kernel.
        return (hooked if _has_hooks(self) else step)(self, closure)

    quickest.hooked = True  # type: ignore[attr-defined]
    return named_as(kind, base, {"step": quickest})


def _has_hooks(optimizer: Any) -> bool:
    """Whether anyone wants to be told of its steps."""
    own = optimizer._optimizer_step_pre_hooks, optimizer._optimizer_step_post_hooks
    return any((*own, _global_optimizer_pre_hooks, _global_optimizer_post_hooks))


def _all_gathered(optimizer: Any) -> list[tuple[_Gathered, list[Tensor]]] | None:
    """The tensors of all groups with their gradients; None where anything is not as usual."""
    if hasattr(optimizer, "found_inf") or hasattr(optimizer, "grad_scale"):
        return None
    kept: dict[int, _Gathered] = vars(optimizer).setdefault("_gathered", {})
    found = []
    for number, group in enumerate(optimizer.param_groups):
        own, state = kept.get(number), optimizer.state
        listed = group["params"]
        moment = state[listed[0]].get("exp_avg") if listed[0] in state else None
        if own is None or own.listed is not listed or own.first is not moment:
            own = _gather(group, state)
            if own is None:
                return None
            kept[number] = own
        gradients = [weight.grad for weight in own.weights if weight.grad is not None]
        if len(gradients) < len(own.weights):
            return None
        found.append((own, gradients))
    return found


def _gather(group: dict[str, Any], state: dict[Tensor, dict[str, Tensor]]) -> _Gathered | None:
    """The tensors of a group that has been updated before, of one kind on the CPU; None of any other."""
    listed: list[Tensor] = group["params"]
    kept = [state.get(weight) for weight in listed]
    usual = group["fused"] and not isinstance(group["lr"], Tensor) and all(kept)
    if not usual or any(not _is_plain(weight) for weight in listed):
        return None
    columns = {
        key: [values[key] for values in kept if values] for key in ("exp_avg", "exp_avg_sq", "step")
    }
    largest = [values["max_exp_avg_sq"] for values in kept if values] if group["amsgrad"] else []
    means = columns["exp_avg"]
    return _Gathered(
        listed, means[0], list(listed), means, columns["exp_avg_sq"], largest, columns["step"]
    )


def _is_plain(weight: Tensor) -> bool:
    return weight.device.type == "cpu" and weight.dtype is torch.float32
