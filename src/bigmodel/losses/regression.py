"""Losses for real values, element by element, in the standardised unit of the targets."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import ClassVar

import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from bigmodel.losses.base import Loss
from bigmodel.registry import EntryConfig, losses
from bigmodel.spec import DataSpec, Values


class Regression(Loss):
    """Base of the losses that compare real values, by a function of torch's.

    Attributes:
        function: of outputs and targets of one shape; with `reduction="sum"`, the sum over all elements.
        options: its other arguments.
    """

    accepts = (Values,)
    function: ClassVar[Callable[..., Tensor]]
    options: Mapping[str, float] = {}

    def forward(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """See `Loss.forward`; targets have the outputs' shape, (batch, count)."""
        if outputs.shape != targets.shape:
            raise self.misfit(outputs, targets, f"(batch, {self.output_size})")
        return self.total(outputs.float(), targets)

    def total(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """The sum over all elements of two tensors of one shape."""
        return type(self).function(outputs, targets, reduction="sum", **self.options)


@losses.register("mse", EntryConfig)
class MSE(Regression):
    """e², with e = output - target."""

    function = F.mse_loss


@losses.register("l1", EntryConfig)
class L1(Regression):
    """|e|: less sensitive to outliers than the square."""

    function = F.l1_loss


class HuberConfig(EntryConfig):
    delta: float = Field(
        1.0, gt=0, description="error at which squared turns to absolute, in standard deviations"
    )


@losses.register("huber", HuberConfig)
class Huber(Regression):
    """½e² for |e| <= delta, delta (|e| - ½ delta) beyond (Huber 1964)."""

    function = F.huber_loss

    def __init__(self, config: HuberConfig, spec: DataSpec) -> None:
        super().__init__(config, spec)
        self.options = {"delta": config.delta}
