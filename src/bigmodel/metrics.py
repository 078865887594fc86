"""Metrics: what people judge a model by. They follow from the kind of target.

Sums are added up on the device, sample by sample, so that figures do not depend on how samples are
batched, and fetched once by `compute`. They are plain sums: those of several processes may be added.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from bigmodel.errors import SpecError
from bigmodel.spec import IGNORED, Classes, Flags, NextTokens, Target, Values

CONFUSION_LIMIT = 1024
"""Most classes of which a whole confusion matrix is kept: 8 MiB. Beyond, three counts for each class."""


def metric_names(target: Target) -> dict[str, str]:
    """The figures an evaluation gives, without the part's prefix, each with which way is better.

    Returns:
        `max` or `min` by name. `loss`, which the loss itself gives, is among them.
    """
    match target:
        case Classes(count=count):
            top5 = {"top5_accuracy": "max"} if count > 5 else {}
            return {"loss": "min", "accuracy": "max", **top5, "macro_f1": "max"}
        case Flags():
            return {"loss": "min", "accuracy": "max", "macro_f1": "max"}
        case Values():
            return {"loss": "min", "mae": "min", "rmse": "min", "r2": "max"}
        case NextTokens(characters=characters):
            counted = {} if characters is None else {"bits_per_character": "min"}
            return {"loss": "min", "perplexity": "min", **counted, "accuracy": "max"}


def default_monitor(target: Target) -> str:
    """The figure to choose the best weights by, comparable between runs with different losses.

    `accuracy` of classes, `rmse` of real values. Of yes/no labels the `loss`: most are rare, so that
    accuracy is high for a model that never says yes, and macro-F1 stays 0 until one does. `perplexity`
    of next tokens, which knows no label smoothing.
    """
    match target:
        case Classes():
            return "accuracy"
        case Flags():
            return "loss"
        case Values():
            return "rmse"
        case NextTokens():
            return "perplexity"


def metrics_for(target: Target, device: torch.device | str, light: bool = False) -> Metrics:
    """Empty metrics for a kind of target.

    Args:
        device: where outputs and targets will lie.
        light: leave out `top5_accuracy`, which doubles the time of an update: for training steps.
    """
    device = torch.device(device)
    match target:
        case Classes():
            return ClassMetrics(target, device, light)
        case Flags():
            return FlagMetrics(target, device)
        case Values():
            return ValueMetrics(target, device)
        case NextTokens():
            return TokenMetrics(target, device)


class Metrics:
    """Running sums over samples, and the figures that follow from them.

    Args:
        sums: zeros, on the device.
    """

    def __init__(self, sums: Tensor) -> None:
        self._sums = sums
        self._count = 0

    def update(self, outputs: Tensor, targets: Tensor) -> None:
        """Adds a batch. Never waits for the device.

        Args:
            outputs: the model's raw outputs, (batch, output_size).
            targets: (batch,) int64 for classes, (batch, count) for flags and values.

        Raises:
            SpecError: the shapes do not go together; they are never broadcast.
        """
        raise NotImplementedError

    def compute(self) -> dict[str, float]:
        """The figures of all samples since the last reset, fetched at once; none without samples."""
        return self._figures(self._sums.cpu()) if self._count else {}

    def reset(self) -> None:
        """Forgets all samples."""
        self._sums.zero_()
        self._count = 0

    @property
    def confusion(self) -> Tensor | None:
        """Counts, truth by prediction, (classes, classes) int64; None where they are not kept."""
        return None

    def state_dict(self) -> dict[str, Tensor]:
        """The sums so far, as copies."""
        return {"sums": self._sums.clone(), "count": torch.tensor(self._count)}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Takes over what `state_dict` gave.

        Raises:
            ValueError: it is the state of metrics for another target.
        """
        if state["sums"].shape != self._sums.shape:
            raise ValueError(
                f"metrics: sums of shape {tuple(state['sums'].shape)}, not {tuple(self._sums.shape)}."
            )
        self._sums.copy_(state["sums"])
        self._count = int(state["count"])

    def _figures(self, sums: Tensor) -> dict[str, float]:
        raise NotImplementedError


class ClassMetrics(Metrics):
    """accuracy, top5_accuracy (of more than 5 classes) and macro_f1.

    The prediction is the class of the largest output. macro_f1 is the mean of F1 = 2 TP / (2 TP + FP +
    FN) over the classes that occur as truth or prediction.
    """

    def __init__(self, target: Classes, device: torch.device, light: bool = False) -> None:
        self._classes = target.count
        self._square = target.count <= CONFUSION_LIMIT
        size = target.count * (target.count if self._square else 3)
        super().__init__(torch.zeros(size + 1, dtype=torch.int64, device=device))
        # One tensor, so that one transfer fetches all: counts, then hits among the first five.
        self._counts, self._top5_hits = self._sums[:-1], self._sums[-1]
        self._top5 = target.count > 5 and not light
        self._ones = torch.ones(0, dtype=torch.int64, device=device)

    def update(self, outputs: Tensor, targets: Tensor) -> None:
        """See `Metrics.update`."""
        samples = targets.shape[0]
        if outputs.shape != (samples, self._classes) or targets.dim() != 1:
            raise _misfit(outputs, targets, (samples, self._classes))
        if samples != self._ones.shape[0]:
            self._ones = torch.ones(samples, dtype=torch.int64, device=self._sums.device)
        predictions = outputs.argmax(1)
        if self._square:
            cells = torch.add(predictions, targets, alpha=self._classes)
            self._counts.index_add_(0, cells, self._ones)
        else:
            truths, predicted, hits = self._counts.view(3, -1)
            truths.index_add_(0, targets, self._ones)
            predicted.index_add_(0, predictions, self._ones)
            hits.index_add_(0, targets, (predictions == targets).long())
        if self._top5:
            first = outputs.detach().topk(5, dim=1, sorted=False).indices
            self._top5_hits.add_((first == targets.unsqueeze(1)).sum())
        self._count += samples

    @property
    def confusion(self) -> Tensor | None:
        """See `Metrics.confusion`; a copy."""
        return self._counts.view(self._classes, -1).clone() if self._square else None

    def _figures(self, sums: Tensor) -> dict[str, float]:
        counts = sums[:-1].view(-1, self._classes).double()
        if self._square:
            truths, predicted, hits = counts.sum(1), counts.sum(0), counts.diagonal()
        else:
            truths, predicted, hits = counts
        occurring = truths + predicted > 0
        figures = {"accuracy": float(hits.sum()) / self._count}
        if self._top5:
            figures["top5_accuracy"] = int(sums[-1]) / self._count
        figures["macro_f1"] = float(_f1(hits, truths, predicted)[occurring].mean())
        return figures


class FlagMetrics(Metrics):
    """accuracy, the share of single labels that are right, and macro_f1, the mean of F1 over all labels.

    A label is said to be set where its output is above 0. The F1 of a label that is neither set nor
    predicted anywhere is 0.
    """

    def __init__(self, target: Flags, device: torch.device) -> None:
        super().__init__(torch.zeros(3, target.count, dtype=torch.int64, device=device))

    def update(self, outputs: Tensor, targets: Tensor) -> None:
        """See `Metrics.update`."""
        if outputs.shape != targets.shape or outputs.dim() != 2:
            raise _misfit(outputs, targets, tuple(targets.shape))
        said, true = outputs > 0, targets > 0.5
        self._sums.add_(torch.stack((true, said, true & said)).sum(1))
        self._count += targets.shape[0]

    def _figures(self, sums: Tensor) -> dict[str, float]:
        truths, predicted, hits = sums.double()
        wrong = float((truths + predicted - 2 * hits).mean()) / self._count
        return {"accuracy": 1.0 - wrong, "macro_f1": float(_f1(hits, truths, predicted).mean())}


class ValueMetrics(Metrics):
    """mae and rmse in the target's own unit, and r2 = 1 - Σ error² / Σ (truth - mean truth)².

    Of several outputs, the mean over them. Targets come standardised, that is, shifted near 0 already,
    so that sums of squares in float64 lose nothing to cancellation. Where all truths are equal, r2 is 1
    for predictions without error and 0 otherwise.
    """

    def __init__(self, target: Values, device: torch.device) -> None:
        # MPS has no float64
        precision = torch.float32 if device.type == "mps" else torch.float64
        super().__init__(torch.zeros(4, target.count, dtype=precision, device=device))
        self._std = torch.tensor(target.std, dtype=torch.float64)

    def update(self, outputs: Tensor, targets: Tensor) -> None:
        """See `Metrics.update`."""
        if outputs.shape != targets.shape or outputs.dim() != 2:
            raise _misfit(outputs, targets, tuple(targets.shape))
        truth = targets.to(self._sums.dtype)
        error = outputs.detach() - truth
        self._sums.add_(torch.stack((error.abs(), error * error, truth, truth * truth)).sum(1))
        self._count += targets.shape[0]

    def _figures(self, sums: Tensor) -> dict[str, float]:
        count = self._count
        absolute, squared, truth, truth_squared = sums.double()
        spread = truth_squared - truth * truth / count
        # what rounding leaves of a spread of 0
        spread[spread <= count * torch.finfo(self._sums.dtype).eps * truth_squared] = 0.0
        r2 = torch.where(spread > 0, 1 - squared / spread, (squared == 0).double())
        return {
            "mae": float((absolute / count * self._std).mean()),
            "rmse": float(((squared / count).sqrt() * self._std).mean()),
            "r2": float(r2.mean()),
        }


class TokenMetrics(Metrics):
    """perplexity, bits_per_character where characters are counted, and accuracy, token by token.

    Perplexity is exp of the mean -log p of each token asked for. Bits per character divides the sum of
    their -log2 p by how many characters they stand for, so that it can be compared between vocabularies.
    """

    def __init__(self, target: NextTokens, device: torch.device) -> None:
        precision = torch.float32 if device.type == "mps" else torch.float64
        # -log p, hits, tokens, characters
        super().__init__(torch.zeros(4, dtype=precision, device=device))
        self._vocab_size = target.vocab_size
        self._characters: Tensor | None = None
        if target.characters is not None:
            self._characters = torch.tensor(target.characters, device=device)

    def update(self, outputs: Tensor, targets: Tensor) -> None:
        """See `Metrics.update`; outputs (batch, length, vocab_size), targets (batch, length)."""
        if outputs.shape != (*targets.shape, self._vocab_size):
            raise _misfit(outputs, targets, (*targets.shape, self._vocab_size))
        logits, truths = outputs.flatten(0, -2).float(), targets.flatten()
        asked = truths != IGNORED
        surprise = F.cross_entropy(logits, truths, ignore_index=IGNORED, reduction="sum")
        hits = (logits.argmax(1) == truths).sum()
        characters = asked.new_zeros(())
        if self._characters is not None:
            characters = (self._characters[truths.clamp(min=0)] * asked).sum()
        self._sums.add_(torch.stack((surprise, hits, asked.sum(), characters)))
        self._count += targets.shape[0]

    def _figures(self, sums: Tensor) -> dict[str, float]:
        surprise, hits, tokens, characters = sums.tolist()
        figures = {"perplexity": math.exp(min(surprise / max(tokens, 1), 700.0))}
        if self._characters is not None:
            figures["bits_per_character"] = surprise / math.log(2) / max(characters, 1)
        return {**figures, "accuracy": hits / max(tokens, 1)}


def _f1(hits: Tensor, truths: Tensor, predicted: Tensor) -> Tensor:
    """2 TP / (truths + predictions) of each class or label; 0 where there are neither."""
    return 2 * hits / (truths + predicted).clamp(min=1)


def _misfit(outputs: Tensor, targets: Tensor, expected: tuple[int, ...]) -> SpecError:
    return SpecError(
        f"metrics: outputs of shape {tuple(outputs.shape)} do not go with targets of shape"
        f" {tuple(targets.shape)}; expected outputs of shape {expected}."
    )
