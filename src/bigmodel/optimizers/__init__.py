"""Optimizers: how gradients change weights. A new one is a new file here and a YAML in
configs/optimizer."""

from bigmodel.optimizers.base import (
    OptimizerConfig,
    evaluation_weights,
    parameter_groups,
    training_weights,
)

__all__ = ["OptimizerConfig", "evaluation_weights", "parameter_groups", "training_weights"]
