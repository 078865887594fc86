"""A model's outputs for every sample of a set, in the order of the set, and losses of single tokens."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.nn.utils.rnn import pad_sequence

from bigmodel.data.parts import SplitData
from bigmodel.data.preprocessing import Preprocessing
from bigmodel.runtime.device import Runtime
from bigmodel.spec import IGNORED, NextTokens

_BYTES = 64 << 20  # of stored inputs that go through the model at once
_MOST = 4096  # samples of them: from there on more bring nothing


@torch.inference_mode()
def model_outputs(
    model: nn.Module,
    part: SplitData,
    preprocessing: Preprocessing,
    runtime: Runtime,
    batch_size: int | None = None,
    between: Callable[[], None] = lambda: None,
) -> Tensor:
    """A model's raw outputs for all samples of a set: (samples, output_size) float32 on the CPU.

    Args:
        model: on the runtime's device, in evaluation mode.
        part: the stored samples.
        preprocessing: makes model inputs of them; its target is not the next token.
        batch_size: samples at once; None chooses.
        between: called before each batch; what it raises ends the pass.
    """
    assert not isinstance(preprocessing.spec.target, NextTokens)
    order = None if part.lengths is None else part.lengths.argsort(stable=True)
    size = batch_size or _size(part)
    device = runtime.device
    scaling = preprocessing.scaling(device)
    outputs = torch.empty(len(part), preprocessing.spec.target.output_size)
    for first in range(0, len(part), size):
        between()
        last = min(first + size, len(part))
        chosen = slice(first, last) if order is None else order[first:last]
        stored = part.take(chosen)[0].to(device)
        inputs = stored if scaling is None else scaling(stored)
        with runtime.autocast():
            raw = model(inputs)
        outputs[chosen] = raw.float().cpu()
    return outputs


@torch.inference_mode()
def token_losses(model: nn.Module, part: SplitData, chosen: Tensor, runtime: Runtime) -> Tensor:
    """The loss of each next token: (samples, length) float32 on the CPU; NaN where there is none.

    Args:
        model: as in `model_outputs`; it predicts next tokens.
        part: the stored samples.
        chosen: indices of samples, (count,) int64.
        runtime: the model's device.
    """
    found = []
    for index in chosen:  # one at a time: the logits of a sample may be large
        inputs, targets = (each.to(runtime.device) for each in part.take(index[None]))
        with runtime.autocast():
            logits = model(inputs)
        losses = cross_entropy(logits[0].float(), targets[0], reduction="none", ignore_index=IGNORED)
        found.append(losses.masked_fill(targets[0] == IGNORED, math.nan).cpu())
    return pad_sequence(found, batch_first=True, padding_value=math.nan)


def _size(part: SplitData) -> int:
    one = part.take(slice(0, 1) if part.lengths is None else part.lengths.argmax()[None])[0]
    return max(1, min(_MOST, _BYTES // max(1, one.numel() * max(4, one.element_size()))))
