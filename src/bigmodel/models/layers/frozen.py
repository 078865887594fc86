"""Layers whose weights are not trained: in fewer bits, and with low-rank updates beside them (LoRA)."""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bigmodel.models.fine_tuning import FrozenPrecision
from bigmodel.models.layers.fast_linear import Linear, linear


class FrozenLinear(Linear):
    """A linear layer whose weight is not trained, and may be stored in bf16 or int8.

    Products are computed in the format of the inputs, as of a layer in fp32. Of a weight in fewer bits a
    copy in that format exists while it is multiplied with, and no longer: the backward pass makes it
    again.

    Args:
        layer: whose weight and bias it takes over, with its device.

    Attributes:
        scale: (out_features, 1): what a row of int8 is multiplied with; None: the weight is itself.

    Shapes: (…, in_features) → (…, out_features).
    """

    is_linear = False  # no loss may multiply by `weight` itself
    scale: nn.Parameter | None

    def __init__(self, layer: nn.Linear) -> None:
        nn.Module.__init__(self)  # the weights exist already
        self.in_features, self.out_features = layer.in_features, layer.out_features
        self.stacked = getattr(layer, "stacked", None)
        self.weight, self.bias = layer.weight, layer.bias
        self.register_parameter("scale", getattr(layer, "scale", None))
        self.train(layer.training)

    def forward(self, inputs: Tensor) -> Tensor:
        if self.weight.dtype == torch.float32:
            return linear(inputs, self.weight, self.bias)
        if torch.is_autocast_enabled(inputs.device.type):
            inputs = inputs.to(torch.get_autocast_dtype(inputs.device.type))
        rows = inputs.reshape(-1, self.in_features)
        outputs: Tensor = _FrozenProduct.apply(rows, self.weight, self.scale)  # type: ignore[no-untyped-call]
        if self.bias is not None:
            outputs = outputs.add_(self.bias)
        return outputs.view(*inputs.shape[:-1], -1)

    def compress(self, precision: FrozenPrecision) -> None:
        """Stores the weight in fewer bits; see `compressed`."""
        self.weight, self.scale = compressed(self.weight, precision)

    def merged(self) -> Linear:
        """The same as a usual layer in fp32."""
        with torch.device("meta"):  # without numbers of its own
            layer = Linear(self.in_features, self.out_features, bias=self.bias is not None)
        layer.stacked = self.stacked
        layer.weight = nn.Parameter(restored(self.weight, self.scale) + self.update())
        layer.bias = self.bias
        return layer.train(self.training)

    def update(self) -> Tensor | float:
        """What is added to the weight: (out_features, in_features), or 0."""
        return 0.0


class LoRALinear(FrozenLinear):
    """A frozen linear layer with a low-rank update that is trained (Hu et al. 2021, arXiv:2106.09685):
    y = x Wᵀ + b + scaling · dropout(x) Aᵀ Bᵀ.

    A begins as a linear layer does and B at zero, so that the model is the frozen one at first. Where
    several layers are stacked in one weight, such as queries, keys and values, each has an A and a B of
    its own, and so the same update as if it were stored alone.

    Args:
        layer: whose weight and bias it takes over.
        rank: inner width r of the update.
        scaling: what the update is multiplied with: alpha / r, or alpha / √r.
        dropout: share of the inputs of the update that is dropped in training, 0 to 1.

    Attributes:
        lora_a: (r, in_features), one for each stacked layer, one below the other.
        lora_b: (out_features, r).

    Shapes: (…, in_features) → (…, out_features).
    """

    def __init__(self, layer: nn.Linear, rank: int, scaling: float, dropout: float = 0.0) -> None:
        super().__init__(layer)
        self.rank, self.scaling, self.dropout = rank, scaling, dropout
        self._rows = self.stacked or [self.out_features]
        weight = self.weight
        options: dict[str, Any] = {"device": weight.device, "dtype": torch.float32}
        self.lora_a = nn.Parameter(torch.empty(len(self._rows) * rank, self.in_features, **options))
        self.lora_b = nn.Parameter(torch.zeros(self.out_features, rank, **options))
        nn.init.kaiming_uniform_(self.lora_a, a=math.sqrt(5))  # as torch's own layers begin

    def forward(self, inputs: Tensor) -> Tensor:
        rows = inputs.reshape(-1, self.in_features)  # so that no library's product is a view
        outputs = super().forward(rows)
        if self.dropout and self.training:
            rows = F.dropout(rows, self.dropout)
        inner = linear(rows, self.lora_a) * self.scaling
        apart = self.lora_b
        if self.stacked is not None:
            apart = torch.block_diag(*self._matrices())  # type: ignore[no-untyped-call]
        outputs = outputs.add_(linear(inner, apart))  # in place: no product needs its own outputs
        return outputs.view(*inputs.shape[:-1], -1)

    def _matrices(self) -> tuple[Tensor, ...]:
        """B of each stacked layer."""
        return torch.split(self.lora_b, self._rows)

    def update(self) -> Tensor:
        """See `FrozenLinear.update`: scaling · B A."""
        parts = zip(self._matrices(), torch.split(self.lora_a, self.rank), strict=True)
        return torch.cat([rows @ inner for rows, inner in parts]).detach() * self.scaling


class FrozenEmbedding(nn.Embedding):
    """An embedding that is not trained, in bf16 or int8, with a scale for each row.

    Shapes: (…) → (…, embedding_dim), in fp32.
    """

    max_norm, norm_type, scale_grad_by_freq, sparse = None, 2.0, False, False  # torch's defaults
    scale: nn.Parameter | None

    def __init__(self, layer: nn.Embedding, precision: FrozenPrecision) -> None:
        weight, scale = compressed(layer.weight, precision)
        nn.Module.__init__(self)  # the weights exist already
        self.num_embeddings, self.embedding_dim = layer.num_embeddings, layer.embedding_dim
        self.padding_idx, self.weight = layer.padding_idx, weight
        self.register_parameter("scale", scale)
        self.train(layer.training)

    def forward(self, inputs: Tensor) -> Tensor:
        scale = None if self.scale is None else F.embedding(inputs, self.scale)
        return restored(F.embedding(inputs, self.weight), scale)

    def merged(self) -> nn.Embedding:
        """The same as a usual layer in fp32."""
        weight = restored(self.weight, self.scale)
        layer = nn.Embedding(self.num_embeddings, self.embedding_dim, self.padding_idx, _weight=weight)
        return layer.train(self.training)


def compressed(weight: Tensor, precision: FrozenPrecision) -> tuple[nn.Parameter, nn.Parameter | None]:
    """A matrix in fewer bits, and what its rows are multiplied with.

    In int8 the largest number of each row is ±127 steps of the row's scale (symmetric, as LLM.int8()
    stores rows: Dettmers et al. 2022, arXiv:2208.07339): no number is off by more than half a step.
    """
    weight = weight.detach().float()
    if precision != "int8":
        dtype = torch.bfloat16 if precision == "bf16" else torch.float32
        return nn.Parameter(weight.to(dtype), requires_grad=False), None
    scale = weight.abs().amax(dim=1, keepdim=True) / 127
    scale[scale == 0] = 1.0  # a row of zeros
    steps = (weight / scale).round().to(torch.int8)
    return nn.Parameter(steps, requires_grad=False), nn.Parameter(scale, requires_grad=False)


def restored(weight: Tensor, scale: Tensor | None) -> Tensor:
    """Rows of a compressed matrix in fp32."""
    return weight.detach().float() if scale is None else weight.detach().float() * scale.detach()


def _in_format(weight: Tensor, scale: Tensor | None, dtype: torch.dtype) -> Tensor:
    """A compressed matrix as the usual layer's would be cast. It is scaled before the product: sums of
    unscaled steps, up to ±127 each, are beyond fp16."""
    return weight.to(dtype) if scale is None else restored(weight, scale).to(dtype)


class _FrozenProduct(torch.autograd.Function):
    """x Wᵀ with a compressed W, which has no gradient."""

    @staticmethod
    def forward(ctx: Any, inputs: Tensor, weight: Tensor, scale: Tensor | None) -> Tensor:
        ctx.save_for_backward(weight, scale)
        return F.linear(inputs, _in_format(weight, scale, inputs.dtype))

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        weight, scale = ctx.saved_tensors
        return gradients[0] @ _in_format(weight, scale, gradients[0].dtype), None, None
