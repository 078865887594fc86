"""Stochastic gradient descent."""

from __future__ import annotations

import torch
from pydantic import Field, ValidationInfo, field_validator
from torch import nn

from bigmodel.optim.optimizers.base import OptimizerConfig, build
from bigmodel.optim.optimizers.light import light
from bigmodel.registry import optimizers


class SGDConfig(OptimizerConfig):
    lr: float = Field(
        0.05, gt=0, description="learning rate, which the scheduler multiplies; auto: by a range test"
    )
    momentum: float = Field(
        0.9, ge=0, lt=1, description="share of the last update that is added again, 0 to 1"
    )
    nesterov: bool = Field(False, description="look ahead along the momentum; needs momentum above 0")

    @field_validator("nesterov")
    @classmethod
    def _needs_momentum(cls, nesterov: bool, info: ValidationInfo) -> bool:
        if nesterov and info.data.get("momentum") == 0:
            raise ValueError("needs optimizer.momentum above 0, such as 0.9")
        return nesterov


@optimizers.register("sgd", SGDConfig)
def sgd(config: SGDConfig, model: nn.Module) -> torch.optim.Optimizer:
    """Stochastic gradient descent with momentum, also Nesterov's (Sutskever et al. 2013)."""
    return build(light(torch.optim.SGD), config, model, "cpu", "cuda")
