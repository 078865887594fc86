"""A training step as one function of tensors: forward, loss, backward, clip, update, averages, metrics.

It computes what `Step` computes and changes the same tensors in place, but reads nothing else. So it can
be traced and compiled as one piece, across the boundaries of forward, backward and optimizer.
"""

from __future__ import annotations

import copy
from collections import defaultdict
from collections.abc import Iterable
from itertools import chain
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.func import functional_call

from bigmodel.engine.step import Step
from bigmodel.optim.optimizers.light import kind_of
from bigmodel.runtime import torch_internals

FUNCTIONAL_OPTIMIZERS = (
    *(torch.optim.Adam, torch.optim.AdamW, torch.optim.NAdam, torch.optim.RAdam),
    *(torch.optim.RMSprop, torch.optim.SGD),
)
"""Optimizers whose update is a function of tensors: all their state is tensors, step counts included."""


class UntraceableError(Exception):
    """A step cannot be written as a function of tensors; the message says why."""


class StepInputs(NamedTuple):
    """What differs from step to step.

    Attributes:
        inputs, targets: the batch.
        rates: (groups + 1,) float64: the learning rate of each parameter group, then the share by which
            averaged weights move towards the model, 0 to 1.
    """

    inputs: Tensor
    targets: Tensor
    rates: Tensor


Named = dict[str, Tensor]
ForwardResults = tuple[Tensor | None, Tensor, Tensor]
"""What `Step.forward` returns, and what to divide the sum by."""


class StepTensors(NamedTuple):
    """All tensors that a step reads or changes, by name.

    Attributes:
        weights: trainable parameters, detached.
        buffers: running statistics and other buffers of the model's state.
        optimizer_state: as `exp_avg.layers.0.weight`.
        averages: averaged weights.
        metric_sums: one entry.
        constants: read only: frozen weights and masks as `model.NAME`, the loss's own as `loss.NAME`.
    """

    weights: Named
    buffers: Named
    optimizer_state: Named
    averages: Named
    metric_sums: Named
    constants: Named

    @classmethod
    def of(cls, step: Step) -> StepTensors:
        """The step's own tensors, not copies."""
        model, loss = step.model, step.loss
        persistent = {id(value) for value in model.state_dict(keep_vars=True).values()}
        parameters = {name: p for name, p in model.named_parameters() if p.requires_grad}
        buffers = {name: b for name, b in model.named_buffers() if id(b) in persistent}
        rest = {
            f"model.{name}": value
            for name, value in chain(model.named_parameters(), model.named_buffers())
            if name not in parameters and name not in buffers
        }
        of_loss = chain(loss.named_parameters(), loss.named_buffers())
        return cls(
            weights={name: p.detach() for name, p in parameters.items()},
            buffers=buffers,
            optimizer_state={
                f"{key}.{name}": value
                for name, p in parameters.items()
                for key, value in sorted(step.optimizer.state.get(p, {}).items())
                if isinstance(value, Tensor)
            },
            averages={} if step.ema is None else step.ema.weights,
            metric_sums={"sums": step.metrics.sums},
            constants=rest | {f"loss.{name}": value for name, value in of_loss},
        )

    @property
    def changed(self) -> Named:
        """The tensors that a step changes, as `weights.layers.0.weight`."""
        kinds = list(zip(self._fields, self, strict=True))[:-1]
        return {f"{kind}.{name}": tensor for kind, named in kinds for name, tensor in named.items()}

    def flatten(self) -> list[Tensor]:
        """All tensors in a fixed order."""
        return [tensor for named in self for tensor in named.values()]

    def unflatten(self, tensors: Iterable[Tensor]) -> StepTensors:
        """Other tensors under the same names, in the order of `flatten`."""
        rest = iter(tensors)
        return StepTensors(*({name: next(rest) for name in named} for named in self))


class FunctionalStep:
    """A step as a function of its tensors.

    Args:
        step: whose model, loss, optimizer, metrics and averages to use. It has done at least one update,
            so that the optimizer has its state.

    Attributes:
        tensors: the step's own.

    Raises:
        UntraceableError: between updates the step keeps something other than tensors.
    """

    def __init__(self, step: Step) -> None:
        _check_traceable(step)
        self._step = step
        self._forward = _ForwardPass(step)
        self.tensors = StepTensors.of(step)
        self._averaged = _first_names(step.model, self.tensors.averages)

    def __call__(self, tensors: StepTensors, inputs: StepInputs) -> Tensor:
        """Does one step, in place.

        Args:
            tensors: `self.tensors`, or others under the same names.
            inputs: the batch and its rates.

        Returns:
            (4,) float32: the sum of the samples' losses, its normaliser, 1 if the update was skipped,
            else 0, and the norm of the gradient before clipping.
        """
        weights = {name: value.detach().requires_grad_() for name, value in tensors.weights.items()}
        # A forward pass updates running statistics in place, and a bad batch must leave them alone.
        buffers = {name: value.clone() for name, value in tensors.buffers.items()}
        outputs, total, normaliser = self._forward.call(weights | buffers, tensors.constants, inputs)
        # Backward starts from 1 / normaliser, so that no division enters the graph.
        start = normaliser.reciprocal()
        found = torch_internals.gradients(total, list(weights.values()), start)
        gradients = {name: g for name, g in zip(weights, found, strict=True) if g is not None}
        with torch.no_grad():
            norm = nn.utils.get_total_norm(gradients.values(), foreach=False)
            is_finite = _all_finite([total, *buffers.values(), *gradients.values()])
            if outputs is not None:
                metrics = self._step.metrics.over(tensors.metric_sums["sums"])
                metrics.update(outputs.detach(), inputs.targets, is_finite)
            if (bound := self._step.clip_norm) is not None:
                scale = (bound / (norm + 1e-6)).clamp(max=1.0)  # as nn.utils.clip_grads_with_norm_
                gradients = {name: g * scale for name, g in gradients.items()}
            new_weights, new_state = self._optimizer_step(tensors, gradients, inputs.rates[:-1])
            _assign_where(is_finite, tensors.weights, new_weights)
            _assign_where(is_finite, tensors.optimizer_state, new_state)
            _assign_where(is_finite, tensors.buffers, buffers)
            self._update_averages(tensors, new_weights | buffers, inputs.rates[-1])
        values = (total.detach(), normaliser, 1.0 - is_finite.to(total), norm.to(total))
        return torch.stack([value.float() for value in values])

    def _optimizer_step(
        self, tensors: StepTensors, gradients: Named, rates: Tensor
    ) -> tuple[Named, Named]:
        """The optimizer's update of copies of the weights and of its state."""
        weights = {name: value.clone() for name, value in tensors.weights.items()}
        # Bias corrections are powers of numbers near 1: step counts are in double precision for them.
        state = {
            key: value.double() if is_step_count(key) else value.clone()
            for key, value in tensors.optimizer_state.items()
        }
        for name, value in weights.items():
            value.grad = gradients.get(name)
        optimizer = _copied_optimizer(self._step, weights, state, rates)
        with torch_internals.values_unread():
            optimizer.step()
        return weights, state

    def _update_averages(self, tensors: StepTensors, new: Named, share: Tensor) -> None:
        """As `EMA.update`: averages stay as they are if a weight is not finite."""
        live = {f"model.{name}": value for name, value in new.items()} | tensors.constants
        values = {name: live[f"model.{own}"] for name, own in self._averaged.items()}
        if not any(value.is_floating_point() for value in values.values()):
            return
        is_finite = _all_finite(list(values.values()))
        for name, average in tensors.averages.items():
            value = values[name]
            if value.is_floating_point():
                moved = average + share.to(value.dtype) * (value - average)
                value = torch.where(is_finite, moved, average)
            average.copy_(value)


class _ForwardPass(nn.Module):
    """Model and loss as one module, so that one `functional_call` swaps the tensors of both."""

    def __init__(self, step: Step) -> None:
        super().__init__()
        self.model, self.loss = step.model, step.loss
        self._step_forward = step.forward
        # A shared weight has several names. functional_call would find them by itself, but does not
        # restore all of a module that itself has several names.
        first: dict[int, str] = {}
        self._first_names = {
            f"{path}.{name}": first.setdefault(id(value), f"{path}.{name}")
            for path, part in self.named_modules()
            for name, value in chain(
                part.named_parameters(recurse=False, remove_duplicate=False),
                part.named_buffers(recurse=False, remove_duplicate=False),
            )
        }

    def call(self, tensors: Named, constants: Named, inputs: StepInputs) -> ForwardResults:
        """Forward pass and loss with other tensors than the modules' own."""
        named = {f"model.{name}": value for name, value in tensors.items()} | constants
        swapped = {name: named[first] for name, first in self._first_names.items()}
        batch = (inputs.inputs, inputs.targets)
        results: ForwardResults = functional_call(self, swapped, batch, tie_weights=False)
        return results

    def forward(self, inputs: Tensor, targets: Tensor) -> ForwardResults:
        with torch_internals.recurrent_weights_rebound(self.model):
            outputs, total = self._step_forward(inputs, targets)
        normaliser = self.loss.normaliser(targets)
        if not isinstance(normaliser, Tensor):
            normaliser = total.new_full((), normaliser)
        return outputs, total, normaliser


def _copied_optimizer(step: Step, weights: Named, state: Named, rates: Tensor) -> torch.optim.Optimizer:
    """The optimizer for other tensors than its own: there is no `functional_call` for optimizers."""
    names = {p: name for name, p in step.model.named_parameters()}
    optimizer = copy.copy(step.optimizer)
    optimizer.state = defaultdict(dict)
    for entry, value in state.items():
        key, name = entry.split(".", 1)
        optimizer.state[weights[name]][key] = value
    options = {"foreach": False, "fused": False, "capturable": True}
    optimizer.param_groups = []
    for group, rate in zip(step.optimizer.param_groups, rates.unbind(), strict=True):
        params = [weights[names[p]] for p in group["params"] if names[p] in weights]
        # SGD reads the value of a rate, instead of multiplying by it, unless it needs a gradient.
        lr = rate.detach().requires_grad_()
        optimizer.param_groups.append({**group, **options, "params": params, "lr": lr})
    return optimizer


def _all_finite(tensors: list[Tensor]) -> Tensor:
    return torch.stack([t.isfinite().all() for t in tensors if t.is_floating_point()]).all()


def _assign_where(condition: Tensor, tensors: Named, new: Named) -> None:
    """Writes `new` into `tensors` if the condition holds; afterwards both hold the same values."""
    for name, tensor in tensors.items():
        new[name] = torch.where(condition, new[name].to(tensor.dtype), tensor)
        tensor.copy_(new[name])


def _first_names(model: nn.Module, names: Iterable[str]) -> dict[str, str]:
    """Maps names of the state dict, of which a shared weight has several, to those in `named_parameters`
    and `named_buffers`."""
    first = {id(t): name for name, t in chain(model.named_parameters(), model.named_buffers())}
    state = model.state_dict(keep_vars=True)
    return {name: first[id(state[name])] for name in names}


def is_step_count(key: str) -> bool:
    """Whether an entry of `StepTensors.optimizer_state` counts an optimizer's steps."""
    return key.startswith("step.")


def has_state(optimizer: torch.optim.Optimizer) -> bool:
    """Whether an optimizer has done the update that creates its state, if it needs one."""
    return bool(optimizer.state) or not needs_state(optimizer)


def needs_state(optimizer: torch.optim.Optimizer) -> bool:
    """Whether an optimizer keeps any state: plain SGD does not."""
    is_sgd = kind_of(optimizer) is torch.optim.SGD
    return not is_sgd or any(group["momentum"] != 0 for group in optimizer.param_groups)


def _check_traceable(step: Step) -> None:
    """Raises UntraceableError if a step cannot be traced, as far as is known without trying."""
    optimizer = step.optimizer
    if kind_of(optimizer) not in FUNCTIONAL_OPTIMIZERS:
        raise UntraceableError("this optimizer has state that is not tensors, or reads their values")
    if torch_internals.may_have_step_hooks(optimizer):
        raise UntraceableError("the optimizer may have hooks that run at each step")
    if step.scaler is not None:
        raise UntraceableError("fp16 scales its gradients")
    if step.micro_tokens is not None:
        raise UntraceableError("batches are bounded by their tokens, and so have many shapes")
    if any(torch_internals.is_compiled(part) for part in step.model.modules()):
        raise UntraceableError("device.compile=true compiles the model by itself")
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    if any(not isinstance(v, Tensor) for p in parameters for v in optimizer.state.get(p, {}).values()):
        raise UntraceableError("the optimizer keeps plain numbers")
    if not has_state(optimizer):
        raise UntraceableError("the optimizer has no state yet: it has made no update")
