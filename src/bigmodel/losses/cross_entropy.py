"""Cross-entropy, for classes."""

from __future__ import annotations

from typing import Any, Literal

import torch
import torch.nn.functional as F
from pydantic import Field, field_validator
from torch import Tensor

from bigmodel.errors import SpecError
from bigmodel.losses.base import Loss
from bigmodel.registry import EntryConfig, losses
from bigmodel.spec import Classes, DataSpec


class CrossEntropyConfig(EntryConfig):
    label_smoothing: float = Field(
        default=0.0, ge=0, lt=1, description="share of each label spread evenly over all classes, 0 to 1"
    )
    class_weights: Literal["balanced"] | list[float] | None = Field(
        default=None, description="one weight per class; balanced: by rarity; null: all equal"
    )

    @field_validator("class_weights")
    @classmethod
    def _positive(cls, weights: Any) -> Any:
        # A batch of nothing but samples without weight would have no mean.
        if isinstance(weights, list) and any(weight <= 0 for weight in weights):
            raise ValueError("every weight must be above 0")
        return weights


@losses.register("cross_entropy", CrossEntropyConfig)
class CrossEntropy(Loss):
    """-log softmax(outputs)[target], with label smoothing (Szegedy et al. 2016, arXiv:1512.00567).

    With class weights the normaliser is the sum of the samples' weights, as in torch. "balanced" gives
    class c the weight samples / (classes * count of c), so that all classes count alike.

    Raises:
        SpecError: the target has no classes; a number of weights other than the number of classes;
            balanced weights where a class has no training sample.
    """

    accepts = (Classes,)
    class_weights: Tensor | None

    def __init__(self, config: CrossEntropyConfig, spec: DataSpec) -> None:
        super().__init__(config, spec)
        self.label_smoothing = config.label_smoothing
        assert isinstance(spec.target, Classes)  # the base class has refused the others
        weights = _weights(config.class_weights, spec.target, spec.name)
        buffer = None if weights is None else torch.tensor(weights, dtype=torch.float32)
        self.register_buffer("class_weights", buffer, persistent=False)

    def forward(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """See `Loss.forward`; targets are class indices of shape (batch,)."""
        if targets.dim() != 1 or outputs.shape != (targets.shape[0], self.output_size):
            raise self.misfit(outputs, targets, "(batch,)")
        return F.cross_entropy(
            outputs.float(),
            targets,
            weight=self.class_weights,
            reduction="sum",
            label_smoothing=self.label_smoothing,
        )

    def normaliser(self, targets: Tensor) -> Tensor | int:
        """The number of samples, or the sum of their classes' weights (on the device)."""
        return targets.shape[0] if self.class_weights is None else self.class_weights[targets].sum()


def _weights(
    choice: Literal["balanced"] | list[float] | None, target: Classes, data: str
) -> list[float] | None:
    """One weight per class, or None where all are equal."""
    if choice == "balanced":
        for name, count in zip(target.names, target.counts, strict=True):
            if count == 0:
                raise SpecError(
                    f"loss.class_weights='balanced': class '{name}' of {data} has no training sample to"
                    " balance by. Give the weights as a list, or null."
                )
        total = sum(target.counts)
        return [total / (target.count * count) for count in target.counts]
    if choice is not None and len(choice) != target.count:
        raise SpecError(
            f"loss.class_weights={choice}: {len(choice)} weights, but {data} has {target}. Give"
            f" {target.count} of them, or 'balanced', or null."
        )
    return choice
