"""Binary cross-entropy, for labels that do not exclude each other, and for classes one by one."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from pydantic import Field, field_validator
from torch import Tensor

from bigmodel.errors import SpecError
from bigmodel.losses.base import Loss
from bigmodel.registry import EntryConfig, losses
from bigmodel.spec import Classes, DataSpec, Flags


class BCEWithLogitsConfig(EntryConfig):
    pos_weight: float | list[float] | None = Field(
        None, description="weight of positive targets: one for all or one per output; null: 1"
    )

    @field_validator("pos_weight")
    @classmethod
    def _not_negative(cls, weights: Any) -> Any:
        values = weights if isinstance(weights, list) else [weights]
        if any(weight is not None and weight < 0 for weight in values):
            raise ValueError("must be at least 0")
        return weights


@losses.register("bce_with_logits", BCEWithLogitsConfig)
class BCEWithLogits(Loss):
    """Binary cross-entropy of each output's sigmoid.

    For yes/no labels; also for classes, each against all others (Wightman et al. 2021,
    arXiv:2110.00476). The mean is over samples and outputs.

    Raises:
        SpecError: the target is real values, or the number of weights is not that of outputs.
    """

    accepts = (Flags, Classes)
    pos_weight: Tensor | None

    def __init__(self, config: BCEWithLogitsConfig, spec: DataSpec) -> None:
        super().__init__(config, spec)
        self.one_hot = isinstance(spec.target, Classes)
        choice, size = config.pos_weight, self.output_size
        weights = [choice] * size if isinstance(choice, float) else choice
        if weights is not None and len(weights) != size:
            raise SpecError(
                f"loss.pos_weight={choice}: {len(weights)} numbers, but {spec.name} has {spec.target}."
                f" Pass {size} weights, or one number for all, or null."
            )
        buffer = None if weights is None else torch.tensor(weights, dtype=torch.float32)
        self.register_buffer("pos_weight", buffer, persistent=False)

    def forward(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """See `Loss.forward`; class indices (batch,) are read as one-hot rows."""
        if self.one_hot:
            if targets.dim() != 1:
                raise self.misfit(outputs, targets, "(batch,)")
            targets = F.one_hot(targets, self.output_size)
        if outputs.shape != targets.shape or outputs.dim() != 2:
            raise self.misfit(outputs, targets, f"(batch, {self.output_size}), or (batch,) for classes")
        return F.binary_cross_entropy_with_logits(
            outputs.float(), targets.float(), reduction="sum", pos_weight=self.pos_weight
        )

    def normaliser(self, targets: Tensor) -> Tensor | int:
        """The number of outputs scored, batch * output_size."""
        return targets.shape[0] * self.output_size
