"""Optimizers: how gradients change weights. A new one is a new file here and a YAML in
configs/optimizer."""

from bigmodel.optim.optimizers.base import (
    OptimizerConfig,
    evaluation_weights,
    own_options,
    parameter_groups,
    training_weights,
)
from bigmodel.optim.optimizers.masked import masked_step

__all__ = [
    "OptimizerConfig",
    "evaluation_weights",
    "masked_step",
    "own_options",
    "parameter_groups",
    "training_weights",
]
