"""How fast training is: samples and tokens a second; on a GPU also the share of its peak, and memory."""

from __future__ import annotations

import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import reduce
from operator import mul
from typing import Any

import torch
from torch import Tensor, nn

from bigmodel.data.base import Dataset
from bigmodel.data.packing import PackedDocuments
from bigmodel.data.parts import TextPairs
from bigmodel.distributed.ranks import ALONE, Ranks
from bigmodel.models.base import eval_mode
from bigmodel.runtime import torch_internals
from bigmodel.runtime.device import Runtime
from bigmodel.spec import PackedTokens, TokenPair, Tokens

BACKWARD = 2
"""FLOPs of the backward pass for each of the forward pass: one product for the inputs' gradient, and one
for the weights' (Kaplan et al. 2020, arXiv:2001.08361, section 2.1)."""

PEAKS: Mapping[str, Mapping[str, float]] = {
    r"A100\b.*": {"bf16": 312, "fp16": 312, "tf32": 156, "fp32": 19.5},
    r"A30": {"bf16": 165, "fp16": 165, "tf32": 82, "fp32": 10.3},
    r"A10": {"bf16": 125, "fp16": 125, "tf32": 62.5, "fp32": 31.2},
    r"H100 80GB HBM3|H100 SXM\S*": {"bf16": 989, "fp16": 989, "tf32": 494, "fp32": 67},
    r"H100 PCIe": {"bf16": 756, "fp16": 756, "tf32": 378, "fp32": 51},
    r"H100 NVL": {"bf16": 835, "fp16": 835, "tf32": 417, "fp32": 60},
    r"H200": {"bf16": 989, "fp16": 989, "tf32": 494, "fp32": 67},
    r"L4": {"bf16": 121, "fp16": 121, "tf32": 60, "fp32": 30.3},
    r"L40": {"bf16": 181, "fp16": 181, "tf32": 90.5, "fp32": 90.5},
    r"L40S": {"bf16": 362, "fp16": 362, "tf32": 183, "fp32": 91.6},
    r"(GeForce )?RTX 3090": {"bf16": 71, "fp16": 71, "tf32": 35.6, "fp32": 35.6},
    r"(GeForce )?RTX 4090": {"bf16": 165, "fp16": 165, "tf32": 82.6, "fp32": 82.6},
    r"V100-SXM2\S*": {"fp16": 125, "fp32": 15.7},
    r"V100-PCIE\S*": {"fp16": 112, "fp32": 14},
    r"T4": {"fp16": 65, "fp32": 8.1},
}
"""Dense TFLOP/s by GPU and number format, as the makers state them, with sums in fp32; names as torch
gives them, without the maker's. A part of a GPU (MIG), or one for a notebook, has none here."""


@dataclass(frozen=True)
class Throughput:
    """Turns samples per second into all metrics of speed.

    Attributes:
        tokens: mean tokens of a sample; None if samples are not texts.
        flops: floating-point operations that training takes for a sample; None: not known.
        peak: FLOP/s that a rank's device can do; None: not known.
        device: whose memory is reported; None: none.
        ranks: the processes that train together, each on a device like this one's.
    """

    tokens: float | None = None
    flops: float | None = None
    peak: float | None = None
    device: torch.device | None = None
    ranks: Ranks = ALONE

    @classmethod
    def of(
        cls, dataset: Dataset, model: nn.Module, runtime: Runtime, sample: Tensor, ranks: Ranks = ALONE
    ) -> Throughput:
        """Measures what the metrics need. FLOPs are counted only if the peak is known.

        Args:
            model: the whole of it, on the device.
            sample: (1, *input shape), inputs of one sample, on the device.
        """
        tokens = tokens_of(dataset)
        if runtime.device.type != "cuda":
            return cls(tokens, ranks=ranks)
        torch.cuda.reset_peak_memory_stats(runtime.device)  # jobs of a sweep share a process
        name = torch.cuda.get_device_name(runtime.device)
        peak = peak_of(name, runtime.precision, torch.backends.cuda.matmul.allow_tf32)
        flops = None
        if peak is not None:
            with suppress(Exception), runtime.autocast():  # no run should fail because of a metric
                flops = training_flops(model, sample)
                if tokens is not None:  # the sample at hand may be longer or shorter than others
                    packed = isinstance(dataset.spec.input, PackedTokens)  # row 1 holds positions
                    flops *= tokens / (sample.shape[-1] if packed else sample[0].numel())
        return cls(tokens, flops, peak, runtime.device, ranks)

    def metrics(self, samples_per_second: float) -> dict[str, float]:
        """`samples_per_second`, and if known `tokens_per_second`, `mfu` (0 to 1) and `memory_gib`, the
        peak of memory in use, of several ranks the largest. All of them have to call this together.

        MFU counts what the model asks for, not what is computed twice (Chowdhery et al. 2022,
        arXiv:2204.02311, appendix B), against what the devices of all ranks can do together.

        Args:
            samples_per_second: of all ranks together.
        """
        metrics = {"samples_per_second": samples_per_second}
        if self.tokens is not None:
            metrics["tokens_per_second"] = samples_per_second * self.tokens
        if self.flops is not None and self.peak is not None:
            metrics["mfu"] = samples_per_second * self.flops / (self.ranks.size * self.peak)
        if self.device is not None:
            used = self.ranks.max(torch.cuda.max_memory_allocated(self.device))
            metrics["memory_gib"] = used / 2**30
        return metrics


def tokens_of(dataset: Dataset) -> float | None:
    """The mean number of tokens of a training sample without padding; of pairs, of both texts. None if
    samples are no texts."""
    part, inputs = dataset.train, dataset.spec.input
    if not isinstance(inputs, Tokens | TokenPair):
        return None
    if isinstance(part, TextPairs):
        return float(part.sizes.sum(1).double().mean())
    if isinstance(part, PackedDocuments):
        return part.asked
    if part.lengths is not None:
        return float(part.lengths.double().mean())
    return float(inputs.length)


def peak_of(name: str, precision: str, tf32: bool) -> float | None:
    """FLOP/s that a GPU can do in a number format; None if unknown.

    Args:
        name: as torch gives it, such as `NVIDIA A100-SXM4-80GB`.
        precision: `fp32`, `bf16` or `fp16`.
        tf32: whether fp32 products may be rounded.
    """
    plain = re.sub(r"^(NVIDIA|Tesla) ", "", re.sub(r"^NVIDIA ", "", name))
    if re.search(r"MIG|Laptop|Max-Q", plain):
        return None
    for pattern, peaks in PEAKS.items():
        if re.fullmatch(pattern, plain):
            rounded = precision == "fp32" and tf32 and "tf32" in peaks
            peak = peaks.get("tf32" if rounded else precision)
            return None if peak is None else peak * 1e12
    return None


def training_flops(model: nn.Module, sample: Tensor) -> float:
    """FLOPs that training takes for one sample: products of matrices, forward and backward.

    They are counted in one forward pass, in evaluation mode and without gradients; random numbers and
    running statistics stay as they are. Of a transformer they are the 6 N + 12 L d T per token of the
    literature, N without embeddings; attention counts in full where later tokens are masked.

    Args:
        sample: (1, *input shape).
    """
    from torch.utils.flop_counter import FlopCounterMode

    custom = torch_internals.flop_formulas(_recurrent_flops, _attention_flops)
    counter = FlopCounterMode(display=False, custom_mapping=custom)
    with torch.no_grad(), eval_mode(model), counter:
        model.forward(sample)  # not `model(…)`, which may be compiled
    return float(counter.get_total_flops() * (1 + BACKWARD))


def _attention_flops(query: Any, key: Any, value: Any, *_args: Any, **_options: Any) -> int:
    """Scores and their weighted sum; (batch, heads, positions, width) are given."""
    batch, heads, positions, width = query
    return int(2 * batch * heads * positions * key[2] * (width + value[3]))


def _recurrent_flops(inputs: Any, weights: Any, *_args: Any, **_options: Any) -> int:
    """cuDNN's recurrent layers: each matrix once for each step of each sample. Shapes are given."""
    steps = inputs[0] * inputs[1]
    return int(2 * steps * sum(reduce(mul, shape) for shape in weights if len(shape) == 2))
