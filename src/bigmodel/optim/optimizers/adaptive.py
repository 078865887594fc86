"""Optimizers that scale each parameter's step by the size of its gradients so far."""

from __future__ import annotations

from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import nn

from bigmodel.optim.optimizers.base import Betas, OptimizerConfig, build
from bigmodel.optim.optimizers.light import light
from bigmodel.optim.optimizers.quick_adam import quick
from bigmodel.registry import optimizers

_EPS = "added to the divisor, so that it is never 0"
_DECOUPLED = "shrink weights directly, as AdamW does; false: add the decay to the gradient"


class MomentsConfig(OptimizerConfig):
    """Options of optimizers that keep running means of the gradient and of its square."""

    lr: float = Field(
        2e-3, gt=0, description="learning rate, which the scheduler multiplies; auto: by a range test"
    )
    betas: Betas = Field(
        [0.9, 0.999],
        description="decay of the running averages of gradient and its square, 0 to 1",
    )
    eps: float = Field(1e-8, gt=0, description=_EPS)


class AdamConfig(MomentsConfig):
    amsgrad: bool = Field(False, description="divide by the largest running average so far")


@optimizers.register("adam", AdamConfig)
def adam(config: AdamConfig, model: nn.Module) -> torch.optim.Optimizer:
    """Adam (Kingma and Ba 2014, arXiv:1412.6980); AMSGrad of Reddi et al. 2018 as an option.

    Weight decay adds to the gradient, and is scaled with it: adamw is the one that does not.
    """
    return build(quick(torch.optim.Adam), config, model, "cpu", "cuda")


USUAL_DECAY = 0.01
_MOST_DECAY, _SPANS, _ROWS = 10.0, 20.0, 400
"""On a table of up to so many rows, weights are remembered for a twentieth of the run, if that takes no
more than this decay, which bounds them to some 1 / decay; for longer where there are more rows."""


class AdamWConfig(AdamConfig):
    weight_decay: Annotated[float, Field(ge=0)] | Literal["auto"] = Field(  # type: ignore[assignment]
        "auto",
        description="pull to 0; spares biases, norms, embeddings; auto: 0.01, and for tables 20 / (lr ×"
        " steps), at most 10, if that is more; less in proportion over 400 rows",
    )

    def decided(self, steps: int = 0, rows: int | None = None) -> AdamWConfig:
        """The same with a number as its decay.

        Weights of AdamW are averages of updates over the last 1 / (lr × decay) steps, and that number as
        a share of the run is what should be kept from one run to another (Wang and Aitchison 2024,
        arXiv:2405.13698). Small tables are learnt by heart without such a decay.

        Args:
            steps: length of the run.
            rows: of the table that is learnt from; None: it is no table.
        """
        if self.weight_decay != "auto":
            return self
        decay = USUAL_DECAY
        if rows is not None:
            strong = min(_MOST_DECAY, _SPANS / (self.lr * max(steps, 1)))
            decay = max(decay, strong * min(1.0, _ROWS / max(rows, 1)))
        return self.model_copy(update={"weight_decay": decay})


@optimizers.register("adamw", AdamWConfig)
def adamw(config: AdamWConfig, model: nn.Module) -> torch.optim.Optimizer:
    """Adam whose weight decay shrinks the weights directly (Loshchilov and Hutter 2017,
    arXiv:1711.05101)."""
    config = config.decided()
    return build(quick(torch.optim.AdamW), config, model, "cpu", "cuda")


class NAdamConfig(MomentsConfig):
    momentum_decay: float = Field(4e-3, ge=0, description="how fast the momentum rises to its full size")
    decoupled_weight_decay: bool = Field(True, description=_DECOUPLED)


@optimizers.register("nadam", NAdamConfig)
def nadam(config: NAdamConfig, model: nn.Module) -> torch.optim.Optimizer:
    """Adam with Nesterov momentum (Dozat 2016)."""
    return build(light(torch.optim.NAdam), config, model)


class RAdamConfig(MomentsConfig):
    decoupled_weight_decay: bool = Field(True, description=_DECOUPLED)


@optimizers.register("radam", RAdamConfig)
def radam(config: RAdamConfig, model: nn.Module) -> torch.optim.Optimizer:
    """Adam that holds back until its estimate of the variance is sound (Liu et al. 2019,
    arXiv:1908.03265)."""
    return build(light(torch.optim.RAdam), config, model)


class RMSpropConfig(OptimizerConfig):
    alpha: float = Field(0.99, ge=0, lt=1, description="share of the mean of squares kept, 0 to 1")
    eps: float = Field(1e-8, gt=0, description=_EPS)
    momentum: float = Field(
        0.0, ge=0, lt=1, description="share of the last update that is added again, 0 to 1"
    )
    centered: bool = Field(False, description="divide by the deviation, not the root of the mean square")


@optimizers.register("rmsprop", RMSpropConfig)
def rmsprop(config: RMSpropConfig, model: nn.Module) -> torch.optim.Optimizer:
    """RMSprop (Hinton 2012, lecture 6e); centred after Graves 2013 (arXiv:1308.0850)."""
    return build(light(torch.optim.RMSprop), config, model)


class AdagradConfig(OptimizerConfig):
    lr: float = Field(
        1e-2, gt=0, description="learning rate, which the scheduler multiplies; auto: by a range test"
    )
    lr_decay: float = Field(0.0, ge=0, description="the rate is divided by 1 + steps × this")
    initial_accumulator_value: float = Field(
        0.0, ge=0, description="what the sums of squared gradients begin at"
    )
    eps: float = Field(1e-10, gt=0, description=_EPS)


@optimizers.register("adagrad", AdagradConfig)
def adagrad(config: AdagradConfig, model: nn.Module) -> torch.optim.Optimizer:
    """Adagrad (Duchi et al. 2011): steps shrink with the sum of squared gradients."""
    return build(light(torch.optim.Adagrad), config, model, "cpu")
