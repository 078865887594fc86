"""One optimizer step and nothing else: forward, loss, backward, clip, update.

A narrow door: a batch in, figures out. It knows no epochs, logs or files, and never waits for the
device: losses stay there as tensors until `drain` fetches them all at once.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from bigmodel.data.base import Batch
from bigmodel.ema import EMA
from bigmodel.losses import Loss
from bigmodel.metrics import Metrics
from bigmodel.runtime import Runtime


class StepFigures(NamedTuple):
    """What one step gave.

    Attributes:
        loss: mean loss of the batch, before the update.
        weight: what that mean was divided by (samples, or the sum of their weights).
    """

    loss: float
    weight: float


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
        clip_norm: bound on the norm of the whole gradient, or None.
        ema: averaged weights to update, or None.
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
        clip_norm: float | None = None,
        ema: EMA | None = None,
    ) -> None:
        self.model = model
        self.loss = loss
        self.optimizer = optimizer
        self.metrics = metrics
        self.micro_batch = micro_batch
        self.clip_norm = clip_norm
        self.ema = ema
        self.scaler = runtime.scaler()
        self.grad_norm: Tensor | None = None
        self._device = runtime.device
        self._mixed = runtime.autocast()
        self._parameters = [p for p in model.parameters() if p.requires_grad]
        self._sums: list[Tensor] = []
        self._shares: dict[int, Tensor] = {}
        self._weights: list[Tensor | int] = []

    def __call__(self, batch: Batch, measure: bool = False) -> None:
        """Does one update.

        Args:
            batch: all samples of this update.
            measure: whether to leave the norm of the gradient, before clipping, in `grad_norm`.
        """
        for parameter in self._parameters:  # optimizer.zero_grad() takes thirty microseconds more
            parameter.grad = None
        weight = self.loss.normaliser(batch.targets)
        share = self._share(weight)
        if len(batch) <= self.micro_batch:
            total = self._gradients(batch.inputs, batch.targets, share)
        else:
            size = self.micro_batch
            pieces = zip(torch.split(batch.inputs, size), torch.split(batch.targets, size), strict=True)
            total = torch.stack([self._gradients(x, y, share) for x, y in pieces]).sum()
        self._sums.append(total)
        self._weights.append(weight)
        self._update(measure)
        if self.ema is not None:
            self.ema.update()

    def drain(self) -> list[StepFigures]:
        """The figures of the steps since the last call, in order. This one waits for the device."""
        if not self._sums:
            return []
        sums: list[float] = torch.stack(self._sums).tolist()
        weights = _numbers(self._weights)
        self._sums.clear()
        self._weights.clear()
        return [StepFigures(total / weight, weight) for total, weight in zip(sums, weights, strict=True)]

    def _gradients(self, inputs: Tensor, targets: Tensor, share: Tensor) -> Tensor:
        """Adds this piece's part of the mean loss's gradient; returns the sum of its samples' losses."""
        with self._mixed:
            outputs = self.model(inputs)
            total: Tensor = self.loss(outputs, targets)
        scaled = total if self.scaler is None else self.scaler.scale(total)
        torch.autograd.backward(scaled, share)
        self.metrics.update(outputs.detach(), targets)
        return total.detach()

    def _share(self, weight: Tensor | int) -> Tensor:
        """1 / weight, on the device: backward begins with it, so that no division enters the graph."""
        if isinstance(weight, Tensor):
            return weight.reciprocal()
        if weight not in self._shares:
            self._shares[weight] = torch.full((), 1 / weight, device=self._device)
        return self._shares[weight]

    def _update(self, measure: bool) -> None:
        if self.clip_norm is not None or measure:
            if self.scaler is not None:
                self.scaler.unscale_(self.optimizer)
            gradients = [p.grad for p in self._parameters if p.grad is not None]
            self.grad_norm = nn.utils.get_total_norm(gradients)
            if self.clip_norm is not None:
                nn.utils.clip_grads_with_norm_(self._parameters, self.clip_norm, self.grad_norm)
        if self.scaler is None:
            self.optimizer.step()
        else:
            self.scaler.step(self.optimizer)
            self.scaler.update()


def _numbers(values: list[Tensor | int]) -> list[float]:
    """Plain numbers; tensors among them are fetched in one transfer."""
    tensors = [value for value in values if isinstance(value, Tensor)]
    fetched = iter(torch.stack(tensors).tolist() if tensors else [])
    return [float(next(fetched)) if isinstance(value, Tensor) else float(value) for value in values]
