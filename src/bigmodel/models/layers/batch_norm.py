"""Batch normalisation that copes with a single value per channel, with padding, and with ranks."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bigmodel.model_parts import is_frozen
from bigmodel.runtime import torch_internals


class BatchNorm(nn.BatchNorm1d):
    """Batch normalisation (Ioffe and Szegedy 2015, arXiv:1502.03167), in one dimension, two or none.

    A single value in each channel, as in a last batch of one sample, has no deviation, and torch refuses
    it in training: here the running statistics normalise it.

    Shapes: (batch, channels, *size) → the same. With `mask`, (batch, 1, *size) and False at padding, the
    statistics are those of the real values alone.
    """

    def forward(self, inputs: Tensor, mask: Tensor | None = None) -> Tensor:
        if self.training and mask is not None:
            return self._masked(inputs, mask)
        if inputs.numel() > inputs.shape[1]:
            return super().forward(inputs)
        mean, var = self.running_mean, self.running_var
        return F.batch_norm(inputs, mean, var, self.weight, self.bias, eps=self.eps)

    def _masked(self, inputs: Tensor, mask: Tensor) -> Tensor:
        assert self.running_mean is not None
        assert self.running_var is not None
        assert self.num_batches_tracked is not None
        assert self.momentum is not None
        places = (0, *range(2, inputs.ndim))
        x = inputs.float()  # sums over a batch overflow half precision
        count = mask.sum()
        mean = x.masked_fill(~mask, 0.0).sum(places, keepdim=True) / count
        var = (x - mean).square().masked_fill(~mask, 0.0).sum(places, keepdim=True) / count
        # The count stays on the device: `where` decides, and nothing waits.
        has_several, shape = count > 1, mean.shape
        used_mean = torch.where(has_several, mean, self.running_mean.clone().view(shape))
        used_var = torch.where(has_several, var, self.running_var.clone().view(shape))
        with torch.no_grad():
            share = self.momentum * has_several
            unbiased = var * (count / (count - 1).clamp(min=1))
            self.running_mean.lerp_(mean.flatten(), share)
            self.running_var.lerp_(unbiased.flatten(), share)
            self.num_batches_tracked += 1
        normed = (x - used_mean) * torch.rsqrt(used_var + self.eps)
        return (normed * self.weight.view(shape) + self.bias.view(shape)).to(inputs.dtype)

    def _check_input_dim(self, inputs: Tensor) -> None:
        """Accepts any number of dimensions: the arithmetic is the same."""


class SyncBatchNorm(nn.SyncBatchNorm):
    """Batch normalisation with the statistics of all ranks' rows, however many each has. It is torch's
    own, which computes on CUDA alone. Padding is not left out: training with a mask is refused before.
    """

    def forward(self, inputs: Tensor, mask: Tensor | None = None) -> Tensor:
        assert mask is None or not self.training
        normed: Tensor = super().forward(inputs)
        return normed


_SAME = (BatchNorm, nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
"""Layers with the arithmetic of `SyncBatchNorm`; a subclass may have another."""


def batch_norms(model: nn.Module) -> dict[str, bool]:
    """The names of a model's batch norms, and whether each can be synchronised. Those that are frozen do
    not count: they use no statistics of a batch."""
    kinds = torch_internals.batch_norm_kinds()
    layers = {
        name: layer
        for name, layer in model.named_modules()
        if isinstance(layer, kinds) and not is_frozen(layer)
    }
    return {n: type(layer) in (*_SAME, nn.SyncBatchNorm) for n, layer in layers.items()}


def synchronise_batch_norms(model: nn.Module) -> None:
    """Gives a model's batch norms the statistics of all ranks. Names and tensors stay as they are."""
    for layer in model.modules():
        if type(layer) in _SAME:
            layer.__class__ = SyncBatchNorm
            vars(layer)["process_group"] = None  # all ranks
