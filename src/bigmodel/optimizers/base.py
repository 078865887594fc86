"""What a custom optimizer may derive from and use."""

from bigmodel.optim.optimizers.base import (
    MATRICES,
    NORMS,
    Betas,
    Decay,
    OptimizerConfig,
    decays,
    fused,
    parameter_groups,
    portable,
    trainable,
)

__all__ = [
    "MATRICES",
    "NORMS",
    "Betas",
    "Decay",
    "OptimizerConfig",
    "decays",
    "fused",
    "parameter_groups",
    "portable",
    "trainable",
]
