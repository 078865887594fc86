"""Chooses the usual loss for the target."""

from __future__ import annotations

from bigmodel.losses.base import Loss, usual
from bigmodel.registry import EntryConfig, losses
from bigmodel.spec import DataSpec


@losses.register("auto", EntryConfig)
def auto(config: EntryConfig, spec: DataSpec) -> Loss:  # noqa: ARG001  every entry is called alike
    """The usual loss for the data's target, with its defaults.

    cross_entropy for classes and next tokens, bce_with_logits for yes/no labels, mse for real values.
    """
    loss: Loss = losses.build(losses.parse({"name": usual(spec.target)}), spec)
    return loss
