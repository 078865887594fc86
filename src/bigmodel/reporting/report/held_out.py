"""What predictions of held-out samples show: confusion, ROC, calibration, residuals, and the worst."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bigmodel.errors import counted
from bigmodel.reporting.formatting import figure
from bigmodel.reporting.predictions import decode_outputs
from bigmodel.reporting.report import charts
from bigmodel.reporting.report.content import Block, Chart, Charts, Note, Section, Table, cut
from bigmodel.reporting.report.score_curves import (
    Curve,
    calibration_error,
    precision_recall_curve,
    reliability_bins,
    roc_curve,
)
from bigmodel.spec import Classes, Flags, Target, Values

_MOST_CURVES = 5
_MOST_ROWS = 30  # of a table of classes
_MOST_PAIRS = 10
_MOST_VALUES = 4  # that have charts
_MOST_LETTERS = 80  # of a name

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Mistake:
    """A sample that was predicted wrongly, or of a value far from the truth.

    Attributes:
        index: of the sample in its set.
        prediction, truth: in words.
    """

    index: int
    prediction: str
    truth: str


def sections(outputs: Tensor, targets: Tensor, target: Target) -> list[Section]:
    """Charts and tables of all predictions.

    Args:
        outputs: (samples, output_size), raw and defined.
        targets: as in `data.base.Batch`.
    """
    target = _with_short_names(target)
    decoded = decode_outputs(outputs, target).double().numpy()
    match target:
        case Classes():
            scores = torch.softmax(outputs.double(), dim=1).numpy()
            return _of_classes(scores, targets.numpy(), target.names)
        case Flags():
            return _of_flags(
                torch.sigmoid(outputs.double()).numpy(), targets.numpy() > 0.5, target.names
            )
        case Values():
            return _of_values(decoded, decode_outputs(targets, target).numpy(), target)
        case _:
            return []


def worst(outputs: Tensor, targets: Tensor, target: Target, count: int) -> list[Mistake]:
    """The mistakes that cost most: the truth was given the least probability, or a value is the most
    standard deviations away. Samples that are predicted rightly are none.

    Args:
        outputs, targets: see `sections`.
        count: the most that are returned.
    """
    raw, target = outputs.double(), _with_short_names(target)
    match target:
        case Classes():
            cost = -torch.log_softmax(raw, 1).gather(1, targets[:, None])[:, 0]
            wrong = raw.argmax(1) != targets
        case Flags():
            truth = targets.double()
            cost = torch.nn.functional.binary_cross_entropy_with_logits(
                raw, truth, reduction="none"
            ).sum(1)
            wrong = ((raw > 0) != (truth > 0.5)).any(1)
        case Values():
            cost = (raw - targets.double()).abs().amax(1)
            wrong = cost > 0
        case _:
            return []
    order = torch.argsort(cost, descending=True, stable=True)
    chosen = order[wrong[order]][:count].tolist()
    return [_mistake(index, raw[index], targets[index], target) for index in chosen]


def _with_short_names(target: Target) -> Target:
    """A target whose names bear being repeated hundreds of times on a page."""
    if isinstance(target, Classes | Flags | Values):
        return replace(target, names=tuple(cut(name, _MOST_LETTERS) for name in target.names))
    return target


def _mistake(index: int, raw: Tensor, truth: Tensor, target: Target) -> Mistake:
    match target:
        case Classes(names=names):
            shares = torch.softmax(raw, 0)
            best, right = int(raw.argmax()), int(truth)
            said = f"{names[best]} ({float(shares[best]):.1%})"
            return Mistake(index, said, f"{names[right]} ({float(shares[right]):.1%})")
        case Flags(names=names):
            each = [f"{n} ({p:.0%})" for n, p in zip(names, torch.sigmoid(raw).tolist(), strict=True)]
            said = ", ".join(each[i] for i in (raw > 0).nonzero().flatten().tolist())
            true = ", ".join(each[i] for i in (truth > 0.5).nonzero().flatten().tolist())
            return Mistake(index, said or "none", true or "none")
        case _:
            words = [_values(decode_outputs(one[None], target)[0], target) for one in (raw, truth)]
            return Mistake(index, *words)


def _values(values: Tensor, target: Target) -> str:
    assert isinstance(target, Values)
    shown = [_value(*pair) for pair in zip(values.tolist(), target.std, strict=True)]
    if target.count == 1:
        return shown[0]
    return ", ".join(f"{name} {value}" for name, value in zip(target.names, shown, strict=True))


def _value(value: float, deviation: float) -> str:
    """A value with four digits of what values differ by."""
    digits = 3 - math.floor(math.log10(deviation)) if deviation > 0 else 3
    return f"{round(value, max(0, digits)) + 0.0:.10g}"  # no -0


def _of_classes(scores: Floats, truth: NDArray[np.int64], names: Sequence[str]) -> list[Section]:
    predicted, size = scores.argmax(axis=1), len(names)
    found = []
    if size <= charts.MOST_CLASSES:
        matrix = np.bincount(truth * size + predicted, minlength=size * size).reshape(size, size)
        drawn = charts.confusion_matrix("Confusion matrix", matrix, names)
        blocks: list[Block] = [Charts([Chart("confusion", drawn)])]
        if size > 2 and (pairs := _confused(matrix, names)) is not None:
            blocks.append(pairs)
        found.append(Section("Which class is taken for which", blocks))
        marks = truth[:, None] == np.arange(size)
        curves = _Curves.of(scores, marks, names)
        found.append(Section("Each class", [_each_class(matrix, names, curves)]))
        shown = [1] if size == 2 else None
        found += _ranking(curves, shown, "class")
    confidence = scores.max(axis=1)
    labels = ("probability of the predicted class", "share that is right")
    found.append(_calibration(confidence, predicted == truth, labels))
    return found


def _of_flags(scores: Floats, truth: NDArray[np.bool_], names: Sequence[str]) -> list[Section]:
    curves = _Curves.of(scores, truth, names)
    rows = []
    for index, name in enumerate(names):
        predicted, true = scores[:, index] > 0.5, truth[:, index]
        right = int((predicted & true).sum())
        rows.append(
            [name, f"{int(true.sum()):,}", *_rates(right, int(predicted.sum()), int(true.sum()))]
        )
        rows[-1] += curves.cells(index)
    heads = ["label", "yes", "precision", "recall", "F1", *_AREAS]
    table = Table(heads, rows[:_MOST_ROWS], frozenset(range(1, len(heads))))
    note = [Note(f"The first {_MOST_ROWS} of {len(rows)} labels.")] if len(rows) > _MOST_ROWS else []
    labels = ("probability of yes", "share that is yes")
    return [
        Section("Each label", [table, *note]),
        *_ranking(curves, None, "label"),
        _calibration(scores.ravel(), truth.ravel(), labels),
    ]


_AREAS = ("ROC AUC", "average precision")


@dataclass(frozen=True)
class _Curves:
    """Both curves of each class or label, one against the rest; None if they are undefined."""

    names: Sequence[str]
    roc: list[Curve | None]
    precision: list[Curve | None]

    @classmethod
    def of(cls, scores: Floats, marks: NDArray[np.bool_], names: Sequence[str]) -> _Curves:
        columns = list(zip(scores.T, marks.T, strict=True))
        roc, precision = ([one(s, m) for s, m in columns] for one in (roc_curve, precision_recall_curve))
        return cls(names, roc, precision)

    def cells(self, index: int) -> list[str]:
        areas = (self.roc[index], self.precision[index])
        return ["–" if area is None else figure(area.area) for area in areas]

    def chosen(self, curves: list[Curve | None], shown: list[int] | None) -> list[tuple[str, Curve]]:
        """Those of `shown`, or of the smallest areas."""
        known = [(self.names[i], c) for i, c in enumerate(curves) if c and (shown is None or i in shown)]
        if len(known) > _MOST_CURVES:
            known = sorted(known, key=lambda pair: pair[1].area)[:_MOST_CURVES]
        return known


def _ranking(curves: _Curves, shown: list[int] | None, one: str) -> list[Section]:
    drawn = []
    for name, title, roc in (("roc", "ROC", True), ("precision-recall", "Precision and recall", False)):
        known = curves.chosen(curves.roc if roc else curves.precision, shown)
        if known:
            drawn.append(Chart(name, charts.score_curves(title, known, roc=roc)))
    if not drawn:
        return []
    blocks: list[Block] = [Charts(drawn)]
    defined = [curve.area for curve in curves.roc if curve is not None]
    if shown is None and len(defined) > _MOST_CURVES:
        many = "classes" if one == "class" else f"{one}s"
        mean = figure(float(np.mean(defined)))
        blocks.append(
            Note(
                f"Drawn are the {_MOST_CURVES} {many} with the smallest areas, each against the rest."
                f" The mean area under the ROC curves of {counted(len(defined), one, many)} is {mean}."
            )
        )
    elif shown is None:
        blocks.append(Note(f"Each {one} against the rest."))
    return [Section("Ranking: ROC, precision and recall", blocks)]


def _calibration(confidence: Floats, correct: NDArray[np.bool_], labels: tuple[str, str]) -> Section:
    bins = reliability_bins(confidence, correct)
    error = figure(calibration_error(bins))
    mean, share = figure(float(confidence.mean())), figure(float(correct.mean()))
    text = (
        f"Expected calibration error: {error}. The mean probability is {mean}, the {labels[1]} {share}."
        " On the dashed line they agree; below it the model is too sure. Bars show how many samples have"
        " such a probability."
    )
    drawn = charts.reliability("Calibration", bins, labels)
    return Section("Calibration", [Charts([Chart("calibration", drawn)]), Note(text)])


def _each_class(matrix: NDArray[np.int64], names: Sequence[str], curves: _Curves) -> Table | Note:
    rows = []
    for index, name in enumerate(names):
        true = int(matrix[index].sum())
        right, predicted = int(matrix[index, index]), int(matrix[:, index].sum())
        rates = _rates(right, predicted, true)
        rows.append((right / true if true else 2.0, [name, f"{true:,}", *rates, *curves.cells(index)]))
    heads = ["class", "samples", "precision", "recall", "F1", *_AREAS]
    if len(rows) > _MOST_ROWS:
        rows.sort(key=lambda row: row[0])
        heads[0] = f"class (the {_MOST_ROWS} of {len(rows)} with the lowest recall)"
    cells = [cells for _, cells in rows[:_MOST_ROWS]]
    return Table(heads, cells, frozenset(range(1, len(heads))))


def _rates(right: int, predicted: int, true: int) -> list[str]:
    """Precision, recall and F1; a dash where there is nothing to divide by."""
    pairs = ((right, predicted), (right, true), (2 * right, predicted + true))
    return [figure(part / whole) if whole else "–" for part, whole in pairs]


def _confused(matrix: NDArray[np.int64], names: Sequence[str]) -> Table | None:
    """The pairs that are most often confused."""
    off = matrix - np.diag(np.diag(matrix))
    order = np.argsort(-off, axis=None, kind="stable")[:_MOST_PAIRS].tolist()
    rows = []
    for place in order:
        row, column = divmod(place, len(names))
        if off[row, column]:
            share = off[row, column] / matrix[row].sum()
            rows.append([names[row], names[column], f"{off[row, column]:,}", f"{share:.1%}"])
    heads = ["truth", "prediction", "samples", "share of the truth's"]
    return Table(heads, rows, frozenset({2, 3})) if rows else None


def _of_values(predicted: Floats, truth: Floats, target: Values) -> list[Section]:
    residuals = predicted - truth
    rows = []
    for index, name in enumerate(target.names):
        each = np.abs(residuals[:, index])
        quantiles = np.quantile(each, (0.5, 0.9, 1.0)).tolist()
        mean = float(residuals[:, index].mean())
        rows.append([name, *(figure(value) for value in (mean, float(each.mean()), *quantiles))])
    heads = ["value", "mean residual", "mean error", "half below", "90 % below", "largest"]
    table = Table(heads, rows[:_MOST_ROWS], frozenset(range(1, 6)))
    scaled = np.abs(residuals).mean(axis=0) / np.array(target.std).clip(min=1e-300)
    shown = sorted(np.argsort(-scaled, kind="stable")[:_MOST_VALUES].tolist())
    blocks: list[Block] = [table]
    for index in shown:
        name = target.names[index]
        ending = f"-{index + 1}" if len(target.names) > 1 else ""
        said, true, residual = predicted[:, index], truth[:, index], residuals[:, index]
        drawn = {
            "truth": charts.scatter(
                f"{name}: prediction and truth", true, said, ("truth", "prediction"), diagonal=True
            ),
            "residuals": charts.scatter(
                f"{name}: residuals", said, residual, ("prediction", _RESIDUAL), diagonal=False
            ),
            "residual-histogram": charts.histogram(
                f"{name}: histogram of residuals", residual, _RESIDUAL
            ),
        }
        blocks.append(Charts([Chart(f"{kind}{ending}", drawing) for kind, drawing in drawn.items()]))
    if len(shown) < len(target.names):
        blocks.append(
            Note(f"Charts show the {len(shown)} of {len(target.names)} values with the largest errors.")
        )
    return [Section("Residuals", blocks)]


_RESIDUAL = "prediction − truth"
