"""A whole step as one function of tensors: forward, loss, backward, clip, update, averages, metrics.

It does what `Step` does, to all tensors that a step changes, and knows nothing else: so it can be traced
and compiled as one piece, without a border between forward, backward and optimizer.
"""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor, nn

from bigmodel.engine.step import Step
from bigmodel.engine.tensor_swap import swapped, working_on
from bigmodel.optim.optimizers.light import kind_of

PLAIN = (
    *(torch.optim.Adam, torch.optim.AdamW, torch.optim.NAdam, torch.optim.RAdam),
    *(torch.optim.RMSprop, torch.optim.SGD),
)
"""Optimizers whose update is a function of tensors: what they keep are tensors, counters included."""


class UntraceableError(Exception):
    """A step does what is no function of tensors; the message says what, in words."""


class Given(NamedTuple):
    """What a step is given anew each time.

    Attributes:
        inputs, targets: the batch.
        numbers: (groups + 1,) float64: the learning rate of each of the optimizer's groups, and how far
            the averaged weights move towards the model, 0 to 1.
    """

    inputs: Tensor
    targets: Tensor
    numbers: Tensor


class Whole:
    """The function, and the tensors that it works on, in a fixed order.

    Args:
        step: whose model, loss, optimizer, metrics and averages to take; it has done one update at
            least, so that the optimizer has its state.

    Attributes:
        changed: what a step changes in place: weights, statistics, the optimizer's state, averages,
            sums of metrics.
        parts: the same by kind: `weights`, `statistics`, `state` of the optimizer without its counters,
            `averages`, `sums`.
        read: what it reads besides: frozen weights, masks, weights of classes.

    Raises:
        UntraceableError: the step keeps something else from one update to the next.
    """

    def __init__(self, step: Step) -> None:
        _check(step)
        self._step = step
        model, loss = step.model, step.loss
        self._weights: dict[str, Tensor] = {
            name: p for name, p in model.named_parameters() if p.requires_grad
        }
        named = dict((*model.named_parameters(), *model.named_buffers()))
        state = model.state_dict(keep_vars=True)
        kept = {id(value) for value in state.values()}
        rest = {name: value for name, value in named.items() if name not in self._weights}
        self._statistics = {name: value for name, value in rest.items() if _is_statistic(value, kept)}
        self._fixed = {name: value for name, value in rest.items() if name not in self._statistics}
        self._of_loss = dict((*loss.named_parameters(), *loss.named_buffers()))
        self._state = {
            f"{key}.{name}": value
            for name, p in self._weights.items()
            for key, value in sorted(step.optimizer.state.get(p, {}).items())
            if isinstance(value, Tensor)
        }
        self._averages = {} if step.ema is None else step.ema.weights
        # A weight that is used in two places has two names, and an average by each.
        first = {id(value): name for name, value in named.items()}
        self._averaged = {name: first[id(state[name])] for name in self._averages}
        self.parts: dict[str, list[Tensor]] = {
            "weights": [p.detach() for p in self._weights.values()],
            "statistics": list(self._statistics.values()),
            "state": [value for key, value in self._state.items() if not _counts(key)],
            "averages": list(self._averages.values()),
            "sums": [step.metrics.sums],
        }
        self.changed: list[Tensor] = [
            *self.parts["weights"],
            *self._statistics.values(),
            *self._state.values(),
            *self._averages.values(),
            step.metrics.sums,
        ]
        self.read: list[Tensor] = [*self._fixed.values(), *self._of_loss.values()]

    @property
    def weights(self) -> list[Tensor]:
        """Those that are trained; they come first in `changed`."""
        return self.parts["weights"]

    def __call__(self, changed: list[Tensor], read: list[Tensor], given: Given) -> Tensor:
        """One step, in place.

        Args:
            changed, read: like `self.changed` and `self.read`, or these themselves.
            given: the batch and its rates.

        Returns:
            (4,) float32: the sum of the samples' losses, what to divide it by, 1 where the update was
            left out, else 0, and the norm of the gradient before clipping.
        """
        rest = iter(changed)
        weights, statistics, state, averages = (
            {name: next(rest) for name in names}
            for names in (self._weights, self._statistics, self._state, self._averages)
        )
        sums = next(rest)
        leaves = {name: value.detach().requires_grad_() for name, value in weights.items()}
        moving = {name: value.clone() for name, value in statistics.items()}
        fixed = dict(zip(self._fixed, read, strict=False))
        of_loss = dict(zip(self._of_loss, read[len(fixed) :], strict=True))

        outputs, total, weight = self._losses(leaves | moving | fixed, of_loss, given)
        weight = weight if isinstance(weight, Tensor) else total.new_full((), weight)
        share = weight.reciprocal()
        found = torch.autograd.grad(total, list(leaves.values()), share, allow_unused=True)
        gradients = {name: g for name, g in zip(leaves, found, strict=True) if g is not None}
        with torch.no_grad():
            norm = nn.utils.get_total_norm(gradients.values(), foreach=False)
            real = [value for value in moving.values() if value.is_floating_point()]
            checks = [value.isfinite().all() for value in (total, *real, *gradients.values())]
            fit = torch.stack(checks).all()
            if outputs is not None:
                self._step.metrics.over(sums).update(outputs.detach(), given.targets, fit)
            if (clip := self._step.clip_norm) is not None:
                scale = (clip / (norm + 1e-6)).clamp(max=1.0)  # as nn.utils.clip_grads_with_norm_
                gradients = {name: g * scale for name, g in gradients.items()}
            new, kept = self._updated(weights, state, gradients, given.numbers[:-1])
            for old, value in ((weights, new), (state, kept), (statistics, moving)):
                for name, tensor in old.items():
                    value[name] = torch.where(fit, value[name].to(tensor.dtype), tensor)
                    tensor.copy_(value[name])
            live = {**new, **moving, **fixed}
            averaged = {name: live[own] for name, own in self._averaged.items()}
            self._average(averages, averaged, given.numbers[-1])
        figures = (total.detach(), weight, 1.0 - fit.to(total), norm.to(total))
        return torch.stack([figure.float() for figure in figures])

    def _losses(
        self, tensors: dict[str, Tensor], of_loss: dict[str, Tensor], given: Given
    ) -> tuple[Tensor | None, Tensor, Tensor | int]:
        """Forward and loss with other tensors in the place of the modules' own: outputs, where the loss
        does not fuse with the head, the sum of the losses, and what to divide it by."""
        step, outputs = self._step, None
        model, loss = step.model, step.loss
        with swapped(model, tensors), swapped(loss, of_loss), step.mixed:
            if step.fuses:
                total = model(given.inputs, partial(loss.with_head, targets=given.targets))
            else:
                outputs = model(given.inputs)
                total = loss(outputs, given.targets)
            weight = loss.normaliser(given.targets)
        return outputs, total, weight

    def _updated(
        self,
        weights: dict[str, Tensor],
        state: dict[str, Tensor],
        gradients: dict[str, Tensor],
        rates: Tensor,
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """What the optimizer makes of copies of the weights and of its state."""
        new = {name: value.clone() for name, value in weights.items()}
        # Counters in double precision: the powers that follow from them are close to 1.
        kept = {key: _copied(key, value) for key, value in state.items()}
        for name, value in new.items():
            value.grad = gradients.get(name)
        with working_on(self._step.optimizer, self._weights, new, kept, rates):
            self._step.optimizer.step()
        return new, kept

    def _average(self, averages: dict[str, Tensor], live: dict[str, Tensor], share: Tensor) -> None:
        """As `EMA.update`: nothing moves where a weight is not finite."""
        real = [live[name] for name in averages if live[name].is_floating_point()]
        if not real:
            return
        fit = torch.stack([value.isfinite().all() for value in real]).all()
        for name, average in averages.items():
            value = live[name]
            if value.is_floating_point():
                value = torch.where(fit, average + share.to(value.dtype) * (value - average), average)
            average.copy_(value)


def has_begun(optimizer: torch.optim.Optimizer) -> bool:
    """Whether an optimizer has done an update, and so made what it keeps from step to step; plain SGD
    keeps nothing."""
    plain = kind_of(optimizer) is torch.optim.SGD
    return bool(optimizer.state) or (plain and all(g["momentum"] == 0 for g in optimizer.param_groups))


def _check(step: Step) -> None:
    """Raises UntraceableError where it can be seen beforehand that a step is no function of tensors."""
    optimizer = step.optimizer
    if kind_of(optimizer) not in PLAIN:
        raise UntraceableError("this optimizer keeps more than tensors, or looks at them")
    if optimizer._optimizer_step_pre_hooks or optimizer._optimizer_step_post_hooks:
        raise UntraceableError("someone has asked to be told of each step of the optimizer")
    if step.scaler is not None:
        raise UntraceableError("fp16 scales its gradients")
    if step.micro_tokens is not None:
        raise UntraceableError("batches are bounded by their tokens, and so have many shapes")
    if _is_compiled(step.model):
        raise UntraceableError("device.compile=true compiles the model by itself")
    plain = [p for group in optimizer.param_groups for p in group["params"]]
    if any(not isinstance(v, Tensor) for p in plain for v in optimizer.state.get(p, {}).values()):
        raise UntraceableError("the optimizer keeps plain numbers")
    if not has_begun(optimizer):
        raise UntraceableError("the optimizer has done no update yet, and keeps nothing so far")


def _is_compiled(model: nn.Module) -> bool:
    """Whether torch compiles a model, or a part of it."""
    return any(getattr(part, "_compiled_call_impl", None) is not None for part in model.modules())


def _is_statistic(value: Tensor, kept: set[int]) -> bool:
    """Whether a buffer may change while training: those do that belong to the model's state."""
    return id(value) in kept and not isinstance(value, nn.Parameter)


def _counts(key: str) -> bool:
    """Whether that part of an optimizer's state is its counter of steps."""
    return key.startswith("step.")


def _copied(key: str, value: Tensor) -> Tensor:
    """A copy of the optimizer's state; counters in double precision, since powers near 1 follow."""
    return value.double() if _counts(key) else value.clone()
