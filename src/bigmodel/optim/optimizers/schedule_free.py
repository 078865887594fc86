"""Schedule-free AdamW."""

from __future__ import annotations

import torch
from pydantic import Field, field_validator
from torch import nn

from bigmodel.optim.optimizers.base import Betas, OptimizerConfig, build
from bigmodel.optim.optimizers.light import light
from bigmodel.registry import optimizers


class ScheduleFreeAdamWConfig(OptimizerConfig):
    lr: float = Field(
        2.5e-3,
        gt=0,
        description="learning rate; auto: by a range test; the scheduler should be constant",
    )
    weight_decay: float = Field(0.01, ge=0, description="pull to 0; spares biases, norms, embeddings")
    betas: Betas = Field(
        [0.9, 0.999],
        description="how close to the average gradients are taken; decay of the mean square, 0 to 1",
    )
    eps: float = Field(1e-8, gt=0, description="added to the divisor, so that it is never 0")

    @field_validator("betas")
    @classmethod
    def _divides(cls, betas: list[float]) -> list[float]:
        if betas[0] == 0:
            raise ValueError("the first must be above 0: the average is worked out by dividing by it")
        return betas


@optimizers.register("schedule_free_adamw", ScheduleFreeAdamWConfig)
def schedule_free_adamw(config: ScheduleFreeAdamWConfig, model: nn.Module) -> torch.optim.Optimizer:
    """AdamW that averages weights as it goes, instead of a schedule (Defazio et al. 2024,
    arXiv:2405.15682).

    Use it with scheduler=constant, since a rate that falls to 0 as well would average too little;
    scheduler.warmup works. The model holds other weights in training than for evaluation:
    `training_weights` and `evaluation_weights` switch, and a step with the latter raises an error.
    """
    import schedulefree

    optimizer: torch.optim.Optimizer = build(light(schedulefree.AdamWScheduleFree), config, model)
    return optimizer
