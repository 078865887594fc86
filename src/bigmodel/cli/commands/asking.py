"""Samples through a model: many at once, in their own order, nothing kept for gradients."""

from __future__ import annotations

import torch
from torch import Tensor

from bigmodel.cli.commands.load import Loaded
from bigmodel.data.parts import SplitData
from bigmodel.spec import Classes, NextTokens, Target, Values

_BYTES = 64 << 20  # of stored inputs that go through the model at once
_MOST = 4096  # samples of them: from there on more bring nothing


@torch.inference_mode()
def outputs_of(loaded: Loaded, part: SplitData, batch_size: int | None) -> Tensor:
    """The model's raw outputs for all samples of a part: (samples, output_size) float32 on the CPU.

    Args:
        batch_size: samples at once; None: as many as make sense.
    """
    assert not isinstance(loaded.prepared.spec.target, NextTokens)
    order = None if part.lengths is None else part.lengths.argsort(stable=True)
    size = batch_size or _size(part)
    device = loaded.runtime.device
    scaling = loaded.prepared.scaling(device)
    outputs = torch.empty(len(part), loaded.prepared.spec.target.output_size)
    for first in range(0, len(part), size):
        last = min(first + size, len(part))
        chosen = slice(first, last) if order is None else order[first:last]
        stored = part.take(chosen)[0].to(device)
        inputs = stored if scaling is None else scaling(stored)
        with loaded.runtime.autocast():
            found = loaded.model(inputs)
        outputs[chosen] = found.float().cpu()
    return outputs


def in_words(outputs: Tensor, target: Target) -> Tensor:
    """What outputs say: probabilities of classes and labels, values in their own unit."""
    match target:
        case Classes():
            return torch.softmax(outputs.double(), dim=1).float()
        case Values(mean=mean, std=std):
            return outputs.double() * torch.tensor(std).double() + torch.tensor(mean).double()
        case _:
            return torch.sigmoid(outputs.double()).float()


def _size(part: SplitData) -> int:
    one = part.take(slice(0, 1) if part.lengths is None else part.lengths.argmax()[None])[0]
    return max(1, min(_MOST, _BYTES // max(1, one.numel() * max(4, one.element_size()))))
