"""Adapts any loss to `Loss`: torch's own, a plain module or function, one that returns a mean.

Training divides a sum over samples by a separate number (see `Loss`), so that unequal micro-batches,
padded texts and evaluations are weighted correctly. A loss that returns a mean says so by
`reduction = "mean"`, as torch's do; mean times number is then that sum.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from bigmodel.errors import SpecError
from bigmodel.losses.base import Loss
from bigmodel.registry import EntryConfig, losses
from bigmodel.runtime import torch_internals
from bigmodel.spec import IGNORED, Classes, DataSpec, Flags, NextTokens, Values

_WEIGHTED = (nn.CrossEntropyLoss, nn.NLLLoss)
_REDUCTIONS = {"sum": "sum", "mean": "mean", "batchmean": "mean", "none": "none"}


def build_loss(config: EntryConfig, spec: DataSpec) -> Loss:
    """Builds the loss that `config` names, adapted if it does not return sums.

    Raises:
        SpecError: the registered function does not return a callable.
    """
    made = losses.build(config, spec)
    if isinstance(made, Loss) and made.reduction == "sum":
        return made
    return Adapted(made, config, spec)


class Adapted(Loss):
    """Sums of a loss that does not derive from `Loss`, or that returns a mean.

    Args:
        made: called with float32 outputs, and targets as in `Loss.forward`; torch's own losses get
            tokens one by one: outputs (batch * length, vocab_size), targets (batch * length,). It
            returns the sum, or what its `reduction` says: `mean`, or `none` for a loss of each sample or
            target. Its `normaliser`, if it has one, says what a mean is divided by.

    Raises:
        SpecError: it cannot be called, or its `reduction` is none of these.
    """

    accepts = (Classes, Flags, Values, NextTokens)

    def __init__(self, made: Any, config: EntryConfig, spec: DataSpec) -> None:
        super().__init__(config, spec)
        if not callable(made):
            raise SpecError(
                f"loss={config.name}: it returned a {type(made).__name__} when called with its config "
                "and the spec. It must return an nn.Module, such as torch.nn.HuberLoss(), or a "
                "function of outputs and targets."
            )
        reduction = getattr(made, "reduction", "sum")
        if reduction not in _REDUCTIONS:
            raise SpecError(
                f"loss={config.name}: reduction={reduction!r} is not supported. Allowed: 'sum', 'mean', "
                "'none'."
            )
        if type(made) in _WEIGHTED:  # exact even if all targets of a micro-batch are ignored
            reduction = made.reduction = "sum"
        self.made = made
        self.reduction = _REDUCTIONS[reduction]
        self._of_tokens = isinstance(spec.target, NextTokens)
        self._one_by_one = self._of_tokens and torch_internals.is_torchs_loss(made)

    def forward(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """See `Loss.forward`.

        Raises:
            SpecError: the loss returns no tensor, or one of an unknown shape.
        """
        outputs = outputs.float()
        if self._one_by_one:
            value = self.made(outputs.flatten(0, -2), targets.flatten())
        else:
            value = self.made(outputs, targets)
        if not isinstance(value, Tensor):
            raise SpecError(
                f"loss={self.name}: it returned a {type(value).__name__}. A loss returns one tensor:"
                " the sum of the samples' losses, or their mean if it sets reduction = 'mean'."
            )
        if value.ndim == 0:
            total = value.float()
            return total * self.normaliser(targets) if self.reduction == "mean" else total
        if value.shape[0] not in (targets.shape[0], targets.numel()):
            raise SpecError(
                f"loss={self.name}: it gives shape {tuple(value.shape)} for targets of shape"
                f" {tuple(targets.shape)}. A loss returns one number, or one for each sample or target."
            )
        if value.shape == targets.shape or self._of_tokens or hasattr(self.made, "normaliser"):
            return value.float().sum()
        return value.float().mean() * self.normaliser(targets)  # a loss for each sample

    def normaliser(self, targets: Tensor) -> Tensor | int:
        """See `Loss.normaliser`: the loss's own, if it has one. For torch's cross-entropies, the sum of
        the weights of targets that are not ignored; for tokens, how many are not ignored."""
        made = self.made
        if hasattr(made, "normaliser"):
            own: Tensor | int = made.normaliser(targets)
            return own
        if not isinstance(made, _WEIGHTED):
            return (targets != IGNORED).sum() if self._of_tokens else targets.numel()
        is_target = targets != made.ignore_index
        if made.weight is None:
            return is_target.sum()
        return made.weight[targets.where(is_target, 0)].where(is_target, 0.0).sum()
