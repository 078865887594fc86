"""Chooses the usual loss for the target, or the usual losses for several."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn

from bigmodel.errors import ConfigError, did_you_mean
from bigmodel.losses.base import Loss, usual
from bigmodel.metrics.multitask import split_outputs, split_targets
from bigmodel.registry import EntryConfig, losses
from bigmodel.spec import DataSpec, Multitask


class AutoConfig(EntryConfig):
    weights: dict[str, Annotated[float, Field(gt=0)]] = Field(
        {}, description="of several targets' losses, such as {price: 2}; 1 if not given"
    )


class MultitaskLoss(Loss):
    """The weighted sum of the usual losses of several targets.

    Values are standardised, so that their squared errors are near 1 at first, as a cross-entropy is.

    Raises:
        ConfigError: a weight is for none of the targets.
    """

    accepts = (Multitask,)

    def __init__(self, config: AutoConfig, spec: DataSpec) -> None:
        super().__init__(config, spec)
        assert isinstance(spec.target, Multitask)
        self.target, names = spec.target, spec.target.names
        for name in config.weights:
            if name not in names:
                raise ConfigError(
                    f"loss.weights.{name}: there is no such target.{did_you_mean(name, names)} Known:"
                    f" {', '.join(names)}."
                )
        self.weights = [config.weights.get(name, 1.0) for name in names]
        parts = [_usual(replace(spec, target=part)) for part in spec.target.parts]
        self.parts = nn.ModuleList(parts)
        terms = zip(self.weights, parts, names, strict=True)
        self.described = " + ".join(f"{w:g} × {part.name} of {name}" for w, part, name in terms)

    def forward(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """See `Loss.forward`; targets are (batch, count)."""
        samples = len(targets)
        if outputs.shape != (samples, self.output_size) or targets.shape != (samples, self.target.count):
            raise self.misfit(outputs, targets, f"(batch, {self.target.count})")
        split = split_outputs(outputs, self.target), split_targets(targets, self.target)
        total = outputs.new_zeros((), dtype=torch.float32)
        for weight, part, own, truths in zip(self.weights, self.parts, *split, strict=True):
            total = total + weight * part(own, truths)
        return total

    def normaliser(self, targets: Tensor) -> int:
        """See `Loss.normaliser`: the number of samples."""
        return len(targets)


@losses.register("auto", AutoConfig)
def auto(config: AutoConfig, spec: DataSpec) -> Loss:
    """The usual loss for the data's target, with its defaults.

    cross_entropy for classes and next tokens, bce_with_logits for yes/no labels, mse for real values; of
    several targets, the weighted sum.

    Raises:
        ConfigError: weights are given, and there is one target, or not such a one.
    """
    if isinstance(spec.target, Multitask):
        return MultitaskLoss(config, spec)
    if config.weights:
        raise ConfigError(
            f"loss.weights: are for several targets, and {spec.name} has {spec.target}. Leave them out."
        )
    return _usual(spec)


def _usual(spec: DataSpec) -> Loss:
    loss: Loss = losses.build(losses.parse({"name": usual(spec.target)}), spec)
    return loss
