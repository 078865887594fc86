"""Any loss as one of ours: torch's own, a plain module or function, a mean.

Training divides a sum over samples by a number that it knows apart (see `Loss`), so that unequal
micro-batches, filled up texts and evaluations count right. A loss that gives a mean says so by
`reduction = "mean"`, as torch's do; then mean times number is that sum.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from bigmodel.errors import SpecError
from bigmodel.losses.base import Loss
from bigmodel.registry import EntryConfig, losses
from bigmodel.spec import IGNORED, Classes, DataSpec, Flags, NextTokens, Values

_WEIGHING = (nn.CrossEntropyLoss, nn.NLLLoss)
_REDUCTIONS = {"sum": "sum", "mean": "mean", "batchmean": "mean", "none": "none"}


def build_loss(config: EntryConfig, spec: DataSpec) -> Loss:
    """The loss that `config` names, whatever it is made of.

    Raises:
        SpecError: what is registered gives nothing that can be called with outputs and targets.
    """
    made = losses.build(config, spec)
    if isinstance(made, Loss) and made.reduction == "sum":
        return made
    return Adapted(made, config, spec)


class Adapted(Loss):
    """Sums of a loss that is none of ours, or that gives a mean.

    Args:
        made: called with float32 outputs and targets, else as `Loss.forward` has them; torch's own
            losses are given tokens one by one: outputs (batch * length, vocab_size), targets (batch *
            length,). It gives the sum, or what its `reduction` says: `mean`, or `none` for a loss of
            each sample or target. Its `normaliser`, if it has one, is what a mean is over.

    Raises:
        SpecError: it cannot be called, or its `reduction` is none of these.
    """

    accepts = (Classes, Flags, Values, NextTokens)

    def __init__(self, made: Any, config: EntryConfig, spec: DataSpec) -> None:
        super().__init__(config, spec)
        if not callable(made):
            raise SpecError(
                f"loss={config.name}: what is registered gives a {type(made).__name__}, called with its"
                " config and the spec. It has to give an nn.Module, such as torch.nn.HuberLoss(), or a"
                " function of outputs and targets."
            )
        reduction = getattr(made, "reduction", "sum")
        if reduction not in _REDUCTIONS:
            raise SpecError(
                f"loss={config.name}: its reduction is {reduction!r}; 'sum', 'mean' or 'none' are known."
            )
        if type(made) in _WEIGHING:  # exact where all targets of a micro-batch are ignored, too
            reduction = made.reduction = "sum"
        self.made = made
        self.reduction = _REDUCTIONS[reduction]
        self._of_tokens = isinstance(spec.target, NextTokens)
        self._one_by_one = self._of_tokens and isinstance(made, nn.modules.loss._Loss)

    def forward(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """See `Loss.forward`.

        Raises:
            SpecError: what the loss gives is no tensor.
        """
        outputs = outputs.float()
        if self._one_by_one:
            given = self.made(outputs.flatten(0, -2), targets.flatten())
        else:
            given = self.made(outputs, targets)
        if not isinstance(given, Tensor):
            raise SpecError(
                f"loss={self.name}: it gives a {type(given).__name__}. A loss gives one tensor: the sum"
                ' of the samples\' losses, or their mean where it says reduction = "mean".'
            )
        if given.ndim == 0:
            total = given.float()
            return total * self.normaliser(targets) if self.reduction == "mean" else total
        if given.shape[0] not in (targets.shape[0], targets.numel()):
            raise SpecError(
                f"loss={self.name}: it gives shape {tuple(given.shape)} for targets of shape"
                f" {tuple(targets.shape)}. A loss gives one number, or one for each sample or target."
            )
        if given.shape == targets.shape or self._of_tokens or hasattr(self.made, "normaliser"):
            return given.float().sum()
        return given.float().mean() * self.normaliser(targets)  # one for each sample

    def normaliser(self, targets: Tensor) -> Tensor | int:
        """See `Loss.normaliser`: the loss's own; of torch's cross-entropies the sum of the weights of
        what is not ignored; of tokens how many are asked for."""
        made = self.made
        if hasattr(made, "normaliser"):
            own: Tensor | int = made.normaliser(targets)
            return own
        if not isinstance(made, _WEIGHING):
            return (targets != IGNORED).sum() if self._of_tokens else targets.numel()
        asked = targets != made.ignore_index
        if made.weight is None:
            return asked.sum()
        return made.weight[targets.where(asked, 0)].where(asked, 0.0).sum()
