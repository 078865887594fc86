"""What all losses share: a sum, what to divide it by, and a check against the target."""

from __future__ import annotations

from textwrap import shorten

from torch import Tensor, nn

from bigmodel.errors import SpecError
from bigmodel.registry import EntryConfig
from bigmodel.spec import Classes, DataSpec, Flags, NextTokens, Target, Values

_SHOWN = 40  # characters of a setting

_KINDS: dict[type, str] = {
    Classes: "classes",
    Flags: "yes/no labels",
    Values: "real values",
    NextTokens: "tokens",
}


class Loss(nn.Module):
    """Base of all losses; built from its typed config and the `DataSpec`.

    What a loss gives is the **sum** of the samples' losses; the mean that is trained and told is the sum
    over whole batches, or parts, over the sum of `normaliser`. One that gives a mean has to say so:
    `reduction = "mean"`, and a `normaliser` of its own where it is not the mean over all targets. A loss
    need not derive from this class: any `nn.Module` of outputs and targets will do, torch's own too.

    `accepts` names the kinds of target a subclass can score; `name` is the registered name it was built
    by, which for loss=auto is the one chosen; `described` adds the settings that are not the defaults,
    such as weights: losses of other settings cannot be compared. `fuses` says that training need not
    have all outputs: it is given features and head instead, by `with_head`.

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
            needs = " or ".join(_KINDS[kind] for kind in self.accepts)
            raise SpecError(
                f"loss={config.name} needs {needs}, but {spec.name} has {spec.target}."
                f" Use loss={usual(spec.target)} (or loss=auto)."
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
            SpecError: the shapes do not go together; they are never broadcast.
        """
        raise NotImplementedError

    def with_head(self, features: Tensor, head: nn.Module, targets: Tensor) -> Tensor:
        """The same from a model's features, for losses that need not keep all outputs at once."""
        total: Tensor = self(head(features), targets)
        return total

    def normaliser(self, targets: Tensor) -> Tensor | int:
        """What the sum is divided by to give the mean: here the number of target elements."""
        return targets.numel()

    def misfit(self, outputs: Tensor, targets: Tensor, expected: str) -> SpecError:
        """The error of outputs and targets that do not go together; `expected` of the targets."""
        return SpecError(
            f"loss={self.name}: outputs of shape {tuple(outputs.shape)} do not go with targets of shape"
            f" {tuple(targets.shape)}. Expected outputs (batch, {self.output_size}) and targets"
            f" {expected}."
        )


def _described(config: EntryConfig) -> str:
    settings = config.model_dump(exclude_defaults=True, exclude={"name"})
    told = [f"{key}={shorten(str(value), _SHOWN)}" for key, value in settings.items()]
    return f"{config.name} ({', '.join(told)})" if told else config.name


def usual(target: Target) -> str:
    """The name of the usual loss of a kind of target."""
    match target:
        case Classes() | NextTokens():
            return "cross_entropy"
        case Flags():
            return "bce_with_logits"
        case Values():
            return "mse"
