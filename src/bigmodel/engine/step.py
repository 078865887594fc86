"""One optimizer step and nothing else: forward, loss, backward, clip, update.

A narrow interface: a batch in, metrics out. A step knows no epochs, logs or files, and never waits for
the device: losses stay there as tensors until `drain` fetches them all at once. If the loss or a
gradient is not finite, the update is skipped; that, too, is decided on the device.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from bigmodel.data.base import Batch
from bigmodel.distributed.parallel import Parallel
from bigmodel.distributed.ranks import ALONE, Ranks
from bigmodel.engine.accumulation import Accumulation
from bigmodel.engine.ema import EMA
from bigmodel.engine.step_metrics import StepMetricsBuffer, StepMetricsList
from bigmodel.errors import DataError
from bigmodel.losses import Loss
from bigmodel.metrics import Metrics
from bigmodel.models.base import Model
from bigmodel.optim.optimizers import masked_step
from bigmodel.runtime import torch_internals
from bigmodel.runtime.device import Precision, Runtime

Phase = Callable[[str], AbstractContextManager[Any]]
"""Marks a phase of a step, given its name: entered before the phase, left after it."""

_UNMARKED = nullcontext()


def unmarked(name: str) -> AbstractContextManager[None]:  # noqa: ARG001
    """Marks nothing, for steps that are not profiled: `record_function` takes microseconds even then."""
    return _UNMARKED


class Step:
    """Updates a model from one batch.

    Args:
        model: in training mode; of several ranks, this one's part of it (`Parallel.own`).
        loss: gives the sum over samples, and what to divide it by.
        optimizer: its learning rates are set from outside.
        metrics: count the model's outputs for the training batches.
        runtime: device and precision.
        micro_batch: samples that go through the model at once. A larger batch is split, and the
            gradients of its parts add up to that of the whole batch.
        micro_tokens: the same in tokens, padding included; None: no bound.
        clip_norm: bound on the norm of the whole gradient, or None.
        ema: averaged weights to update, or None.
        undoable: keep what a step changes before its update, so that `undo` can restore it.
        ranks: the processes that share each batch.
        parallel: how they share the model; None: `model` is all there is.

    Attributes:
        accumulation: the step in progress; part of a run's state.
        last_micro_batch: samples that went through the model at once in the newest step.
        fuses: whether the loss is given features and head instead of outputs.
        updating: whether weights are being changed, so that nothing can be undone.
        should_pause: called between two micro-batches; if it returns True, the step is interrupted.
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
        ranks: Ranks = ALONE,
        parallel: Parallel | None = None,
    ) -> None:
        self.model = model
        self.parallel = Parallel(model) if parallel is None else parallel
        self._ranks, self._call = ranks, self.parallel.in_training
        self._is_idle = False
        self.loss = loss
        self.optimizer = optimizer
        self.metrics = metrics
        self.accumulation = Accumulation(micro_batch)
        self.micro_tokens = micro_tokens
        self.clip_norm = clip_norm
        self.ema = ema
        self.should_pause: Callable[[], bool] = lambda: False
        self.phase: Phase = unmarked
        self.scaler = runtime.scaler()
        self.last_micro_batch = micro_batch
        self.fuses = getattr(loss, "fuses", False) and isinstance(model, Model)
        self._undoable = undoable
        state = model.state_dict(keep_vars=True).values()
        self._buffers = [value for value in state if not isinstance(value, nn.Parameter)]
        self._statistics = [buffer for buffer in self._buffers if buffer.is_floating_point()]
        self._buffers_before: list[Tensor] | None = None
        self.updating = False
        self.runtime = runtime
        self._device = runtime.device
        self._autocast = runtime.autocast()
        self._parameters = [p for p in model.parameters() if p.requires_grad]
        self._one = torch.ones((), device=self._device)
        self._reciprocals: dict[int, Tensor] = {}
        self._step_metrics = StepMetricsBuffer()

    def __call__(self, batch: Batch, measure: bool = False) -> bool:
        """Does one update, or continues one that was interrupted.

        Args:
            batch: all samples of this update.
            measure: whether to leave the norm of the gradient, before clipping, in `accumulation`.

        Returns:
            Whether the update was done. If `should_pause` interrupted it between two micro-batches, the
            next call needs the same batch again.

        Raises:
            DataError: every target of the batch is ignored, so the mean loss is undefined.
        """
        weight = self.loss.normaliser(batch.targets)
        reciprocal = self._reciprocal(weight)
        batch, reciprocal, most = self._share(batch, reciprocal)
        losses, size = self.accumulation.losses, self.micro_batch_size(batch)
        self.last_micro_batch = min(size, len(batch))
        if not losses:
            self._begin()
        if most <= size:
            total, found_inf = self._forward_backward(batch, reciprocal)
        else:
            micro_batches = list(zip(*(torch.split(tensor, size) for tensor in batch), strict=True))
            own, count = len(micro_batches), -(-most // size)
            micro_batches += [tuple(tensor[:1] for tensor in batch)] * (count - own)
            done, metrics = len(losses), self._micro_batch_metrics()
            for inputs, targets in micro_batches[done:]:
                if len(losses) > done and self.should_pause():
                    return False
                if len(losses) == own:  # another rank has one more
                    self._is_idle, reciprocal = True, torch.zeros_like(reciprocal)
                with nullcontext() if len(losses) + 1 == count else self.parallel.accumulating():
                    outputs, total = self._accumulate(inputs, targets, reciprocal)
                if outputs is not None and not self._is_idle:
                    metrics.update(outputs, targets)
                losses.append(total)
            total = self._ranks.sum(torch.stack(losses[:own]).sum())
            found_inf = self._found_inf(total)
            if not self.fuses:
                self.metrics.add(metrics.sums, len(batch), found_inf == 0)
        self._update(found_inf, measure)
        self._step_metrics.add(total, found_inf, weight)
        losses.clear()
        return True

    def retrain(self) -> None:
        """Called when other parameters are trained than before."""
        self._parameters = [p for p in self.model.parameters() if p.requires_grad]
        for parameter in self.model.parameters():
            if not parameter.requires_grad:
                parameter.grad = None
        self.parallel.retrain()
        self._call = self.parallel.in_training

    def use_precision(self, precision: Precision) -> None:
        """Sets the number format of matrix products, here and wherever else `runtime` is used."""
        self.runtime.precision = precision
        self._autocast = self.runtime.autocast()

    def forward(self, inputs: Tensor, targets: Tensor) -> tuple[Tensor | None, Tensor]:
        """Forward pass and loss.

        Returns:
            The outputs, None if the loss is fused with the head, and the sum of the samples' losses.
        """
        with self._autocast:
            if self.fuses:
                return None, self._call(inputs, partial(self.loss.with_head, targets=targets))
            outputs = self._call(inputs)
            return outputs, self.loss(outputs, targets)

    def full_batch_step(self, batch: Batch) -> Tensor:
        """Does one update with a batch that goes through the model at once; nothing is kept for `drain`.

        Returns:
            (4,) float32: the sum of the samples' losses, what to divide it by, 1 if the update was
            skipped, else 0, and the gradient's norm before clipping.
        """
        self._begin()
        weight = self.loss.normaliser(batch.targets)
        total, found_inf = self._forward_backward(batch, self._reciprocal(weight))
        self._update(found_inf, measure=True)
        norm, self.accumulation.grad_norm = self.accumulation.grad_norm, None
        weight = weight if isinstance(weight, Tensor) else torch.full_like(total, weight)
        assert norm is not None
        return torch.stack([value.float() for value in (total, weight, found_inf, norm)])

    def add_step_metrics(self, step_metrics: Tensor, samples: int) -> None:
        """Adds steps that an engine did, which has added to the sums of `metrics` itself.

        Args:
            step_metrics: (steps, 4), as `full_batch_step` returns them.
            samples: how many samples these steps had in all.
        """
        self._step_metrics.add_block(step_metrics)
        if not self.fuses:
            self.metrics.count(samples)

    def drain(self) -> StepMetricsList:
        """Returns the metrics of the steps since the last call, in order. Waits for the device."""
        return self._step_metrics.drain()

    def discard_step_metrics(self) -> None:
        """Discards the metrics that were not drained."""
        self._step_metrics.clear()

    def abandon(self) -> None:
        """Forgets the steps that were tried: their metrics, gradients, and one that is unfinished."""
        self.discard_step_metrics()
        self.accumulation.losses.clear()
        self.accumulation.sums = self.accumulation.grad_norm = None
        self._buffers_before, self.updating = None, False
        for parameter in self._parameters:
            parameter.grad = None

    def undo(self) -> bool:
        """Restores what an unfinished step has changed, so that its whole batch can be repeated.

        Returns:
            Whether everything is as it was before the step. It is not if another process began the step,
            if its update had started, or if it is not `undoable`.
        """
        if self._buffers_before is None:  # no step is in progress, or it cannot be undone any more
            return not (self.updating or self.accumulation.losses)
        if not self._undoable:
            return False
        with torch.no_grad():
            for buffer, before in zip(self._buffers, self._buffers_before, strict=True):
                buffer.copy_(before)
        self.accumulation.losses.clear()
        return True

    def _begin(self) -> None:
        self.updating = False
        # A forward pass changes running statistics; a bad batch must not.
        self._buffers_before = [buffer.clone() for buffer in self._buffers]
        for parameter in self._parameters:  # optimizer.zero_grad() takes thirty microseconds more
            parameter.grad = None

    def _share(self, batch: Batch, reciprocal: Tensor) -> tuple[Batch, Tensor, int]:
        """This rank's rows of a batch. A rank without any takes part in all sums too: it computes
        the first row, which counts nothing.

        Returns:
            The rows, what their losses are multiplied with, and for how many rows there are passes: in
            lockstep another rank may have one more.
        """
        if self._ranks.size == 1:
            return batch, reciprocal, len(batch)
        rows = self._ranks.rows(len(batch))
        self._is_idle = rows.start == rows.stop
        most = -(-len(batch) // self._ranks.data_size)
        if self._is_idle:
            batch, reciprocal = batch.rows(slice(0, 1)), torch.zeros_like(reciprocal)
        else:
            batch = batch.rows(rows)
        return batch, reciprocal, most if self.parallel.lockstep else len(batch)

    def micro_batch_size(self, batch: Batch) -> int:
        """How many samples of a batch go through the model at once."""
        size = self.accumulation.micro_batch
        if self.micro_tokens is None:
            return size
        return min(size, max(1, self.micro_tokens // batch.inputs.shape[-1]))

    def _micro_batch_metrics(self) -> Metrics:
        """The metrics of a step's micro-batches, which count only if the whole gradient is finite."""
        if not self.accumulation.losses or self.accumulation.sums is None:
            self.accumulation.sums = torch.zeros_like(self.metrics.sums)
        return self.metrics.over(self.accumulation.sums)

    def _forward_backward(self, batch: Batch, reciprocal: Tensor) -> tuple[Tensor, Tensor]:
        """Gradient and metrics of a whole batch; returns the sum of its losses, and `_found_inf`."""
        outputs, own = self._accumulate(batch.inputs, batch.targets, reciprocal)
        total = self._ranks.sum(torch.zeros_like(own) if self._is_idle else own)
        found_inf = self._found_inf(total)
        if outputs is None or self._is_idle:
            return total, found_inf
        if found_inf.device.type != "cpu":
            self.metrics.update(outputs, batch.targets, found_inf == 0)
        elif found_inf.item():  # on a CPU the flag can simply be read
            self.metrics.count(len(batch))
        else:
            self.metrics.update(outputs, batch.targets)
        return total, found_inf

    def _accumulate(
        self, inputs: Tensor, targets: Tensor, reciprocal: Tensor
    ) -> tuple[Tensor | None, Tensor]:
        """Adds a micro-batch's part of the gradient; returns what `forward` does, detached."""
        with self.phase("forward"):
            outputs, total = self.forward(inputs, targets)
        with self.phase("backward"):
            scaled = total if self.scaler is None else self.scaler.scale(total)
            torch_internals.backward(scaled, reciprocal)
        return None if outputs is None else outputs.detach(), total.detach()

    def _reciprocal(self, weight: Tensor | int) -> Tensor:
        """1 / weight, on the device: backward starts from it, so that no division enters the graph."""
        if isinstance(weight, Tensor):
            return weight.reciprocal()
        if weight not in self._reciprocals:
            if weight == 0:
                raise DataError(
                    f"loss={self.loss.name}: every target of a batch is ignored, so the mean loss is "
                    "undefined. Check the targets, or use a larger data.batch_size."
                )
            self._reciprocals[weight] = torch.full((), 1 / weight, device=self._device)
        return self._reciprocals[weight]

    def _found_inf(self, total: Tensor) -> Tensor:
        """1 if the loss, a running statistic or the gradient is NaN or infinite, else 0. In fp16, whose
        gradients overflow on purpose, they do not count."""
        self.parallel.collect()
        gradients = [] if self.scaler is not None else self._present_gradients()
        flag = torch.zeros((), device=self._device)
        # The one kernel that gradient scaling uses; scaling by one leaves the tensors as they are.
        tensors = [total, *self._statistics, *gradients]
        torch_internals.flag_non_finite(tensors, flag, self._one)
        return self.parallel.any(flag)

    def _present_gradients(self) -> list[Tensor]:
        return [p.grad for p in self._parameters if p.grad is not None]

    def _update(self, found_inf: Tensor, measure: bool) -> None:
        """Updates weights and averages, or nothing if `found_inf` is 1."""
        with self.phase("optimizer"):
            buffers_before, self._buffers_before, self.updating = self._buffers_before, None, True
            skip = found_inf if self.scaler is None else self._unscale(self.scaler, found_inf)
            if self.clip_norm is not None or measure:
                norm = self.parallel.norm(self._parameters)
                self.accumulation.grad_norm = norm
                if self.clip_norm is not None:
                    nn.utils.clip_grads_with_norm_(self._parameters, self.clip_norm, norm)
            masked_step(self.optimizer, skip)
            if self.scaler is not None:
                self.scaler.update()
            if buffers_before:
                self._restore_buffers(found_inf, buffers_before)
            if self.ema is not None:
                self.ema.update()
            self.updating = False

    def _unscale(self, scaler: torch.amp.GradScaler, found_inf: Tensor) -> Tensor:
        """Divides the gradients by fp16's scale; returns `found_inf`, or 1 if one has overflowed.

        `scaler.step` would wait for the device unless the optimizer is fused, and a fused one would
        create its state even if its first step is skipped.
        """
        scaler.unscale_(self.optimizer)
        overflow = torch_internals.overflow_flag(scaler, self.optimizer)
        # The scaler's own flag, since it follows that: all ranks have to go on with the same scale.
        overflow.copy_(self.parallel.any(overflow))
        return torch.maximum(found_inf, overflow)

    @torch.no_grad()
    def _restore_buffers(self, found_inf: Tensor, before: list[Tensor]) -> None:
        """Restores running statistics that the forward pass of a bad batch has changed."""
        if found_inf.device.type == "cpu" and not found_inf.item():
            return
        for buffer, old in zip(self._buffers, before, strict=True):
            buffer.copy_(torch.where(found_inf.bool(), old, buffer))
