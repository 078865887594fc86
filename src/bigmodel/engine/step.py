"""One optimizer step and nothing else: forward, loss, backward, clip, update.

A narrow door: a batch in, figures out. It knows no epochs, logs or files, and never waits for the
device: losses stay there as tensors until `drain` fetches them all at once. An update from a loss or
gradient that is not finite is left out, which is decided on the device too.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from bigmodel.data.base import Batch
from bigmodel.engine.accumulation import Accumulation
from bigmodel.engine.ema import EMA
from bigmodel.engine.step_figures import StepFigures, Undrained
from bigmodel.errors import DataError
from bigmodel.losses import Loss
from bigmodel.metrics import Metrics
from bigmodel.models.base import Model
from bigmodel.optim.optimizers import masked_step
from bigmodel.runtime.device import Runtime

Phase = Callable[[str], AbstractContextManager[Any]]
"""Marks a phase of a step by its name: entered before it, left after it."""

_UNMARKED = nullcontext()

_run_backward = getattr(torch.autograd.graph, "_engine_run_backward", None)  # torch's own: it may go


def unmarked(name: str) -> AbstractContextManager[None]:  # noqa: ARG001
    """No mark, for a step that nobody profiles: `record_function` takes microseconds even then."""
    return _UNMARKED


class Step:
    """Updates a model from one batch.

    Args:
        model: in training mode.
        loss: gives the sum over samples and what to divide it by.
        optimizer: its learning rates are set from outside.
        metrics: add up what the model says of the training batches.
        runtime: device and precision.
        micro_batch: samples that go through the model at once; a larger batch is cut into such pieces,
            whose gradients add up to those of the whole batch.
        micro_tokens: the same in tokens, what fills texts up included; None: no bound.
        clip_norm: bound on the norm of the whole gradient, or None.
        ema: averaged weights to update, or None.
        undoable: keep what a step changes before its update, so that `undo` can take it back.

    Attributes:
        accumulation: the step that is under way; part of a run's state.
        at_once: samples that went through the model at once in the newest step.
        mixed: what forward and loss are computed within: mixed precision, or nothing at all.
        fuses: whether the loss is given features and head instead of outputs.
        updating: whether weights are being changed, so that nothing can be taken back.
        pause: asked between two micro-batches; where it says True, the step is left there.
        phase: marks the phases `forward`, `backward` and `optimizer` for a profiler.
    """

    def __init__(
        self,
        model: nn.Module,
        loss: Loss,
        optimizer: torch.optim.Optimizer,
        metrics: Metrics,
        runtime: Runtime,
        *,
        micro_batch: int,
        micro_tokens: int | None = None,
        clip_norm: float | None = None,
        ema: EMA | None = None,
        undoable: bool = False,
    ) -> None:
        self.model = model
        self.loss = loss
        self.optimizer = optimizer
        self.metrics = metrics
        self.accumulation = Accumulation(micro_batch)
        self.micro_tokens = micro_tokens
        self.clip_norm = clip_norm
        self.ema = ema
        self.pause: Callable[[], bool] = lambda: False
        self.phase: Phase = unmarked
        self.scaler = runtime.scaler()
        self.at_once = micro_batch
        self.fuses = getattr(loss, "fuses", False) and isinstance(model, Model)
        self._undoable = undoable
        self._buffers = _changing_buffers(model)
        self._statistics = [buffer for buffer in self._buffers if buffer.is_floating_point()]
        self._before: list[Tensor] | None = None
        self.updating = False
        self.runtime = runtime
        self._device = runtime.device
        self.mixed = runtime.autocast()
        self._parameters = [p for p in model.parameters() if p.requires_grad]
        self._one = torch.ones((), device=self._device)
        self._shares: dict[int, Tensor] = {}
        self._undrained = Undrained()

    def __call__(self, batch: Batch, measure: bool = False) -> bool:
        """Does one update, or goes on with one that was left.

        Args:
            batch: all samples of this update.
            measure: whether to leave the norm of the gradient, before clipping, in `accumulation`.

        Returns:
            Whether it is done; not where `pause` had it left between two micro-batches. Then the same
            batch has to come again.

        Raises:
            DataError: no target of the batch counts, so that there is no mean loss.
        """
        losses, size = self.accumulation.losses, self._piece(batch)
        self.at_once = min(size, len(batch))
        if not losses:
            self._begin()
        weight = self.loss.normaliser(batch.targets)
        share = self._share(weight)
        if len(batch) <= size:
            total, unfit = self._whole(batch, share)
        else:
            pieces = zip(torch.split(batch.inputs, size), torch.split(batch.targets, size), strict=True)
            begun, metrics = len(losses), self._metrics_of_pieces()
            for inputs, targets in list(pieces)[begun:]:
                if len(losses) > begun and self.pause():
                    return False
                outputs, total = self._gradients(inputs, targets, share)
                if outputs is not None:
                    metrics.update(outputs, targets)
                losses.append(total)
            total = torch.stack(losses).sum()
            unfit = self._unfit(total)
            if not self.fuses:
                self.metrics.add(metrics.sums, len(batch), unfit == 0)
        self._update(unfit, measure)
        self._undrained.add(total, unfit, weight)
        losses.clear()
        return True

    def _whole(self, batch: Batch, share: Tensor) -> tuple[Tensor, Tensor]:
        """The gradient of a whole batch: the sum of its losses, and 1 where it is unfit, else 0."""
        outputs, total = self._gradients(batch.inputs, batch.targets, share)
        unfit = self._unfit(total)
        if outputs is None:
            return total, unfit
        if unfit.device.type != "cpu":
            self.metrics.update(outputs, batch.targets, unfit == 0)
        elif unfit.item():  # on a CPU the flag can simply be read
            self.metrics.count(len(batch))
        else:
            self.metrics.update(outputs, batch.targets)
        return total, unfit

    def _metrics_of_pieces(self) -> Metrics:
        """Adds up the micro-batches of a step, which count when it is known that their sum is fit."""
        if not self.accumulation.losses or self.accumulation.sums is None:
            self.accumulation.sums = torch.zeros_like(self.metrics.sums)
        return self.metrics.over(self.accumulation.sums)

    def _piece(self, batch: Batch) -> int:
        """How many samples of a batch go through the model at once."""
        size = self.accumulation.micro_batch
        if self.micro_tokens is None:
            return size
        return min(size, max(1, self.micro_tokens // batch.inputs.shape[-1]))

    def figures(self, batch: Batch) -> Tensor:
        """One update of a whole batch, whose figures are the caller's: (4,) float32, the sum of the
        samples' losses, what to divide it by, 1 where the update was left out, and the gradient's norm.
        """
        self._begin()
        weight = self.loss.normaliser(batch.targets)
        total, unfit = self._whole(batch, self._share(weight))
        self._update(unfit, measure=True)
        norm, self.accumulation.grad_norm = self.accumulation.grad_norm, None
        weight = weight if isinstance(weight, Tensor) else torch.full_like(total, weight)
        assert norm is not None
        return torch.stack([value.float() for value in (total, weight, unfit, norm)])

    def note(self, figures: Tensor, samples: int) -> None:
        """Takes over the figures of steps that an engine did; their outputs were added up as well.

        Args:
            figures: (steps, 4), as `figures` gives them.
            samples: how many these steps had in all.
        """
        self._undrained.add_block(figures)
        if not self.fuses:
            self.metrics.count(samples)

    def drain(self) -> list[StepFigures]:
        """The figures of the steps since the last call, in order. This one waits for the device."""
        return self._undrained.drain()

    def forget(self) -> None:
        """Throws away the figures that were not drained."""
        self._undrained.forget()

    def undo(self) -> bool:
        """Takes back what an unfinished step has changed, so that its batch can come again as a whole.

        Returns:
            Whether all is as it was before the step: not where it was begun by another process, where
            its update was under way, or where it is not `undoable`.
        """
        if self._before is None:  # no step is under way, or it cannot be taken back any more
            return not (self.updating or self.accumulation.losses)
        if not self._undoable:
            return False
        with torch.no_grad():
            for buffer, before in zip(self._buffers, self._before, strict=True):
                buffer.copy_(before)
        self.accumulation.losses.clear()
        return True

    def _begin(self) -> None:
        """Forgets the gradients of the step before, and keeps what forward passes change: running
        statistics. Metrics are added up when it is known that the gradient is fit."""
        self.updating = False
        self._before = [buffer.clone() for buffer in self._buffers]
        for parameter in self._parameters:  # optimizer.zero_grad() takes thirty microseconds more
            parameter.grad = None

    def _gradients(self, inputs: Tensor, targets: Tensor, share: Tensor) -> tuple[Tensor | None, Tensor]:
        """Adds this piece's part of the mean loss's gradient; returns its outputs, where there are any,
        and the sum of its samples' losses."""
        outputs, total = self._forward(inputs, targets)
        self._backward(total, share)
        return None if outputs is None else outputs.detach(), total.detach()

    def _forward(self, inputs: Tensor, targets: Tensor) -> tuple[Tensor | None, Tensor]:
        """Outputs, where the loss does not fuse with the head, and the sum of the samples' losses."""
        with self.phase("forward"), self.mixed:
            if self.fuses:
                return None, self.model(inputs, partial(self.loss.with_head, targets=targets))
            outputs = self.model(inputs)
            return outputs, self.loss(outputs, targets)

    def _backward(self, total: Tensor, share: Tensor) -> None:
        with self.phase("backward"):
            _backward(total if self.scaler is None else self.scaler.scale(total), share)

    def _share(self, weight: Tensor | int) -> Tensor:
        """1 / weight, on the device: backward begins with it, so that no division enters the graph."""
        if isinstance(weight, Tensor):
            return weight.reciprocal()
        if weight not in self._shares:
            if weight == 0:
                raise DataError(
                    f"loss={self.loss.name}: it ignores every target of a batch, so that there is no"
                    " mean loss. See to the targets, or take a larger data.batch_size."
                )
            self._shares[weight] = torch.full((), 1 / weight, device=self._device)
        return self._shares[weight]

    def _unfit(self, total: Tensor) -> Tensor:
        """1 where the loss, a running statistic or the gradient is NaN or infinite, else 0; in fp16,
        whose gradients overflow on purpose, they do not count."""
        gradients = [] if self.scaler is not None else self._present_gradients()
        return self._not_finite([total, *self._statistics, *gradients])

    def _present_gradients(self) -> list[Tensor]:
        return [p.grad for p in self._parameters if p.grad is not None]

    def _update(self, unfit: Tensor, measure: bool) -> None:
        """Updates weights and averages, or leaves all as it was where the step is unfit."""
        with self.phase("optimizer"):
            before, self._before, self.updating = self._before, None, True
            left_out = unfit if self.scaler is None else self._unscaled(self.scaler, unfit)
            if self.clip_norm is not None or measure:
                norm = nn.utils.get_total_norm(self._present_gradients())
                self.accumulation.grad_norm = norm
                if self.clip_norm is not None:
                    nn.utils.clip_grads_with_norm_(self._parameters, self.clip_norm, norm)
            masked_step(self.optimizer, left_out)
            if self.scaler is not None:
                self.scaler.update()
            if before:
                self._restore_statistics(unfit, before)
            if self.ema is not None:
                self.ema.update()
            self.updating = False

    def _unscaled(self, scaler: torch.amp.GradScaler, unfit: Tensor) -> Tensor:
        """Divides the gradients by fp16's scale; gives `unfit`, or 1 where one has overflowed.

        `scaler.step` would wait for the device with optimizers that are not fused, and has fused ones
        begin a first step that is left out.
        """
        scaler.unscale_(self.optimizer)
        (overflow,) = scaler._found_inf_per_device(self.optimizer).values()
        return torch.maximum(unfit, overflow)

    @torch.no_grad()
    def _restore_statistics(self, unfit: Tensor, before: list[Tensor]) -> None:
        """Undoes what the forward pass of a bad batch has done to running statistics."""
        if unfit.device.type == "cpu" and not unfit.item():
            return
        for buffer, old in zip(self._buffers, before, strict=True):
            buffer.copy_(torch.where(unfit.bool(), old, buffer))

    def _not_finite(self, tensors: list[Tensor]) -> Tensor:
        """1 where any value is NaN or infinite, else 0; the one kernel that gradient scaling uses."""
        flag = torch.zeros((), device=self._device)
        torch._amp_foreach_non_finite_check_and_unscale_(tensors, flag, self._one)
        return flag


def _backward(total: Tensor, gradient: Tensor) -> None:
    """torch.autograd.backward, beginning with a gradient, without its comparison of two shapes: that one
    loads sympy, a third of a second, and takes four microseconds a step."""
    if _run_backward is None:
        torch.autograd.backward(total, gradient)
    else:
        _run_backward(
            (total,), (gradient,), False, False, (), allow_unreachable=True, accumulate_grad=True
        )


def _changing_buffers(model: nn.Module) -> list[Tensor]:
    """What of a model's state is no parameter: the running statistics of batch norm and their like."""
    state = model.state_dict(keep_vars=True).values()
    return [value for value in state if not isinstance(value, nn.Parameter)]
