"""Cross-entropy, for classes and for next tokens."""

from __future__ import annotations

from typing import Any, Literal, cast

import torch
import torch.nn.functional as F
from pydantic import Field, field_validator
from torch import Tensor, nn

from bigmodel.errors import SpecError
from bigmodel.losses.base import Loss
from bigmodel.losses.chunked import total_cross_entropy
from bigmodel.registry import EntryConfig, losses
from bigmodel.spec import IGNORED, Classes, DataSpec, NextTokens

_MANY_LOGITS = 1 << 26
"""From this many logits on (256 MiB, and as much for their gradient) they are computed in chunks.

This saves memory. On one CPU core, with 1,024 positions × 8,000 tokens (width 256), forward and backward
take 0.75 times as long as without chunks."""


class CrossEntropyConfig(EntryConfig):
    label_smoothing: float = Field(
        0.0, ge=0, lt=1, description="share of each label spread evenly over all classes, 0 to 1"
    )
    class_weights: Literal["balanced"] | list[float] | None = Field(
        None, description="one weight per class; balanced: by rarity; null: all equal"
    )

    @field_validator("class_weights")
    @classmethod
    def _positive(cls, weights: Any) -> Any:
        # A batch in which no sample has any weight would have no mean.
        if isinstance(weights, list) and any(weight <= 0 for weight in weights):
            raise ValueError("every weight must be above 0")
        return weights


@losses.register("cross_entropy", CrossEntropyConfig)
class CrossEntropy(Loss):
    """-log softmax(outputs)[target], with label smoothing (Szegedy et al. 2016, arXiv:1512.00567).

    For next tokens, the mean is over all positions of all samples that have a target.

    With class weights the normaliser is the sum of the samples' weights, as in torch. "balanced" gives
    class c the weight samples / (classes * count of c), so that all classes count alike.

    Raises:
        SpecError: the target has no classes or tokens; the number of weights is not that of classes;
            balanced weights, and a class without training sample; weights for tokens.
    """

    accepts = (Classes, NextTokens)
    class_weights: Tensor | None

    def __init__(self, config: CrossEntropyConfig, spec: DataSpec) -> None:
        super().__init__(config, spec)
        self.label_smoothing = config.label_smoothing
        weights = _weights(config.class_weights, spec)
        self.of_tokens = self.fuses = isinstance(spec.target, NextTokens)
        buffer = None if weights is None else torch.tensor(weights, dtype=torch.float32)
        self.register_buffer("class_weights", buffer, persistent=False)

    def forward(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """See `Loss.forward`; targets are class indices of shape (batch,), or tokens (batch, length)."""
        if outputs.shape != (*targets.shape, self.output_size) or targets.dim() != 1 + self.of_tokens:
            raise self.misfit(outputs, targets, "(batch, length)" if self.of_tokens else "(batch,)")
        return F.cross_entropy(
            outputs.float().flatten(0, -2),
            targets.flatten(),
            ignore_index=IGNORED,
            weight=self.class_weights,
            reduction="sum",
            label_smoothing=self.label_smoothing,
        )

    def with_head(self, features: Tensor, head: nn.Module, targets: Tensor) -> Tensor:
        """See `Loss.with_head`; with a linear head, many logits are computed in chunks."""
        few = targets.numel() * self.output_size < _MANY_LOGITS or not self.of_tokens
        is_linear = getattr(head, "is_linear", isinstance(head, nn.Linear))
        if few or not is_linear:
            return super().with_head(features, head, targets)
        weight, bias = cast(Tensor, head.weight), cast("Tensor | None", head.bias)
        positions = features.flatten(0, -2), weight, bias, targets.flatten()
        return total_cross_entropy(*positions, self.label_smoothing)

    def normaliser(self, targets: Tensor) -> Tensor | int:
        """The number of samples, or the sum of their classes' weights; for tokens, how many have a
        target."""
        if self.of_tokens:
            return (targets != IGNORED).sum()
        return targets.shape[0] if self.class_weights is None else self.class_weights[targets].sum()


def _weights(choice: Literal["balanced"] | list[float] | None, spec: DataSpec) -> list[float] | None:
    """One weight per class, or None if all are equal."""
    target, data = spec.target, spec.name
    if choice is None:
        return None
    if not isinstance(target, Classes):
        raise SpecError(
            f"loss.class_weights={choice!r}: {data} has {target}, not classes. Set"
            " loss.class_weights=null."
        )
    if choice == "balanced":
        for name, count in zip(target.names, target.counts, strict=True):
            if count == 0:
                raise SpecError(
                    f"loss.class_weights='balanced': class '{name}' of {data} has no training sample to "
                    "balance by. Pass the weights as a list, or null."
                )
        total = sum(target.counts)
        return [total / (target.count * count) for count in target.counts]
    if len(choice) != target.count:
        raise SpecError(
            f"loss.class_weights={choice}: {len(choice)} weights, but {data} has {target}. "
            f"Pass {target.count} weights, or 'balanced', or null."
        )
    return choice
