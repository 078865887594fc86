"""The base of all losses: a sum, what to divide it by, and a check against the target."""

from __future__ import annotations

from textwrap import shorten

from torch import Tensor, nn

from bigmodel.errors import SpecError
from bigmodel.registry import EntryConfig
from bigmodel.spec import KINDS, Classes, DataSpec, Flags, Multitask, NextTokens, Target, Values

_MAX_SHOWN = 40  # characters of a setting


class Loss(nn.Module):
    """Base of all losses; built from its typed config and the `DataSpec`.

    A loss returns the **sum** of the samples' losses. The mean that is trained and reported is this sum
    over the sum of `normaliser`, both over a whole batch or part. A loss that returns a mean has to say
    so: `reduction = "mean"`, and a `normaliser` of its own if it is not the mean over all targets. A
    loss need not derive from this class: any `nn.Module` of outputs and targets will do, torch's own
    too.

    Attributes:
        accepts: the kinds of target that it can score.
        name: the registered name, for loss=auto that of the chosen loss.
        described: the name and the settings that are not the defaults, such as weights: losses with
            other settings cannot be compared.
        fuses: whether training calls `with_head` with features and head, and keeps no outputs.

    Raises:
        SpecError: the spec's target is of another kind.
    """

    accepts: tuple[type[Target], ...] = ()
    fuses = False
    reduction: str = "sum"

    def __init__(self, config: EntryConfig, spec: DataSpec) -> None:
        super().__init__()
        self.name = config.name
        self.described = _described(config)
        self.output_size = spec.target.output_size
        if not isinstance(spec.target, self.accepts):
            needs = " or ".join(KINDS[kind] for kind in self.accepts)
            raise SpecError(
                f"loss={config.name} needs {needs}, but {spec.name} has {spec.target}."
                f" Use loss={usual(spec.target)}{_or_auto(spec.target)}."
            )

    def forward(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """The sum of the samples' losses.

        Args:
            outputs: the model's raw outputs, (batch, output_size), of any floating type.
            targets: (batch,) int64 for classes, (batch, count) for flags and values; for next tokens
                both have a `length` after the batch, and targets may be `spec.IGNORED`.

        Returns:
            A float32 tensor without dimensions.

        Raises:
            SpecError: the shapes do not match; they are never broadcast.
        """
        raise NotImplementedError

    def with_head(self, features: Tensor, head: nn.Module, targets: Tensor) -> Tensor:
        """The same from a model's features, for losses that do not need all outputs in memory."""
        total: Tensor = self(head(features), targets)
        return total

    def normaliser(self, targets: Tensor) -> Tensor | int:
        """What the sum is divided by for the mean: here the number of target elements."""
        return targets.numel()

    def misfit(self, outputs: Tensor, targets: Tensor, expected: str) -> SpecError:
        """The error for outputs and targets that do not match; `expected` is the shape of the
        targets."""
        return SpecError(
            f"loss={self.name}: outputs of shape {tuple(outputs.shape)} do not go with targets of shape"
            f" {tuple(targets.shape)}. Expected outputs (batch, {self.output_size}) and targets"
            f" {expected}."
        )


def _or_auto(target: Target) -> str:
    return "" if usual(target) == "auto" else " (or loss=auto)"


def _described(config: EntryConfig) -> str:
    settings = config.model_dump(exclude_defaults=True, exclude={"name"})
    shown = [f"{key}={shorten(str(value), _MAX_SHOWN)}" for key, value in settings.items()]
    return f"{config.name} ({', '.join(shown)})" if shown else config.name


def usual(target: Target) -> str:
    """The name of the usual loss for a kind of target."""
    match target:
        case Classes() | NextTokens():
            return "cross_entropy"
        case Flags():
            return "bce_with_logits"
        case Values():
            return "mse"
        case Multitask():
            return "auto"
