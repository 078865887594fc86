"""What an optimizer of the user's own may derive from and use."""

from bigmodel.optim.optimizers.base import (
    OptimizerConfig,
    decays,
    fused,
    parameter_groups,
    portable,
    trainable,
)

__all__ = ["OptimizerConfig", "decays", "fused", "parameter_groups", "portable", "trainable"]
