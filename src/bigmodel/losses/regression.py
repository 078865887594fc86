"""Losses for real values, element by element, in the standardised unit of the targets."""

from __future__ import annotations

import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from bigmodel.losses.base import Loss
from bigmodel.registry import EntryConfig, losses
from bigmodel.spec import DataSpec, Values


class Regression(Loss):
    """Base of the losses that compare real values; a subclass sums its own."""

    accepts = (Values,)

    def forward(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """See `Loss.forward`; targets have the outputs' shape, (batch, count)."""
        if outputs.shape != targets.shape:
            raise self.misfit(outputs, targets, f"(batch, {self.output_size})")
        return self.total(outputs.float(), targets)

    def total(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """The sum over all elements of two tensors of one shape."""
        raise NotImplementedError


class MSEConfig(EntryConfig):
    pass


@losses.register("mse", MSEConfig)
class MSE(Regression):
    """e², with e = output - target."""

    def total(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """See `Regression.total`."""
        return F.mse_loss(outputs, targets, reduction="sum")


class L1Config(EntryConfig):
    pass


@losses.register("l1", L1Config)
class L1(Regression):
    """|e|: less sensitive to outliers than the square."""

    def total(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """See `Regression.total`."""
        return F.l1_loss(outputs, targets, reduction="sum")


class HuberConfig(EntryConfig):
    delta: float = Field(
        default=1.0, gt=0, description="error at which squared turns to absolute, in standard deviations"
    )


@losses.register("huber", HuberConfig)
class Huber(Regression):
    """½e² for |e| <= delta, delta (|e| - ½ delta) beyond (Huber 1964)."""

    def __init__(self, config: HuberConfig, spec: DataSpec) -> None:
        super().__init__(config, spec)
        self.delta = config.delta

    def total(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """See `Regression.total`."""
        return F.huber_loss(outputs, targets, reduction="sum", delta=self.delta)
