"""The charts of a report: learning curves, ROC, calibration, residuals, confusion."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from bigmodel.reporting.formatting import figure
from bigmodel.reporting.report.axes import Axes, Range, Series, tick_text
from bigmodel.reporting.report.drawing import (
    Box,
    Dots,
    Drawing,
    Path,
    Point,
    Words,
    shortened,
    text_width,
)
from bigmodel.reporting.report.score_curves import Bin, Curve

Floats = NDArray[np.float64]

_MOST_POINTS = 300  # of a line
_MOST_DOTS = 1000
LABELLED = 30
"""Up to this many classes have names and counts in a confusion matrix."""
MOST_CLASSES = 200
"""With more classes, a confusion matrix shows nothing."""


def learning_curves(
    title: str, lines: Sequence[Series], *, log: bool = False, over: str = "epoch"
) -> Drawing:
    """Figures over epochs.

    Args:
        title: such as `loss`.
        lines: not empty, each with a point.
        log: a logarithmic axis, where all values are positive.
        over: what they are drawn over, if not epochs.
    """
    lines = [
        Series(line.name, thinned(line.points), line.colour, line.dashed)
        for line in lines
        if line.points
    ]
    xs = [x for line in lines for x, _ in line.points]
    ys = [y for line in lines for _, y in line.points]
    log = log and min(ys) > 0 and max(ys) / min(ys) > 20
    span = (min(ys), max(ys)) if log else _padded((min(ys), max(ys)))
    ends = "; ".join(f"{line.name}: {figure(line.points[-1][1])} at the end" for line in lines)
    names = (line.name != title for line in lines)
    axes = Axes.framed(
        title,
        ends,
        (min(xs), max(xs)),
        span,
        (over, ""),
        legend=lines if len(lines) > 1 or any(names) else (),
        log_y=log,
        whole_x=max(xs) > 2,
    )
    for line in lines:
        axes.line(line)
    return axes.drawing


def score_curves(title: str, curves: Sequence[tuple[str, Curve]], *, roc: bool) -> Drawing:
    """ROC curves, or those of precision over recall, each with its area in the legend."""
    lines = [
        Series(f"{name}: {curve.area:.4f}", thinned(list(zip(curve.x, curve.y, strict=True))), number)
        for number, (name, curve) in enumerate(curves)
    ]
    labels = ("false positive rate", "true positive rate") if roc else ("recall", "precision")
    described = f"Areas under the curves: {'; '.join(line.name for line in lines)}"
    axes = Axes.framed(title, described, (0, 1), (0, 1.02), labels, legend=lines)
    if roc:
        axes.drawing.add(Path([axes.at(0, 0), axes.at(1, 1)], "faint", dashed=True))
    for line in lines:
        axes.line(line)
    return axes.drawing


def reliability(title: str, bins: Sequence[Bin], labels: tuple[str, str]) -> Drawing:
    """How often what is said with a probability is so; bars are samples, on the same axis as a share."""
    described = "; ".join(
        f"{each.count:,} samples of probability {each.confidence:.2f}: {each.share:.2f}" for each in bins
    )
    axes = Axes.framed(title, described, (0, 1), (0, 1.02), labels)
    total = sum(each.count for each in bins)
    for each in bins:
        (left, top), (right, bottom) = axes.at(each.low, each.count / total), axes.at(each.high, 0)
        said = f"{each.count:,} samples, {each.low:.1f} to {each.high:.1f}"
        axes.drawing.add(Box(left + 0.5, top, right - left - 1, bottom - top, "c7", 0.25, said))
    axes.drawing.add(Path([axes.at(0, 0), axes.at(1, 1)], "faint", dashed=True))
    points = [axes.at(each.confidence, each.share) for each in bins]
    if len(points) > 1:
        axes.drawing.add(Path(points, "c0", 1.8))
    axes.drawing.add(Dots(points, "c0", 6.0, 1.0))
    return axes.drawing


def scatter(title: str, x: Floats, y: Floats, labels: tuple[str, str], *, diagonal: bool) -> Drawing:
    """Two figures of each sample, of at most some 1,000 samples; they should lie on the dashed line: the
    diagonal, or 0."""
    stride = max(1, math.ceil(len(x) / _MOST_DOTS))
    x, y = x[::stride], y[::stride]
    across, up = _padded((float(x.min()), float(x.max()))), _padded((float(y.min()), float(y.max())))
    if diagonal:
        across = up = (min(across[0], up[0]), max(across[1], up[1]))
    else:
        up = (min(up[0], 0.0), max(up[1], 0.0))
    described = f"{len(x):,} samples, each a dot at its {labels[0]} and its {labels[1]}"
    axes = Axes.framed(title, described, across, up, labels)
    ends = [axes.at(value, value if diagonal else 0.0) for value in axes.x]
    axes.drawing.add(Path(ends, "faint", 1.2, dashed=True))
    axes.drawing.add(Dots([axes.at(*point) for point in zip(x.tolist(), y.tolist(), strict=True)], "c0"))
    return axes.drawing


def histogram(title: str, values: Floats, label: str) -> Drawing:
    """How many samples have which value, in up to 30 equal ranges."""
    low, high = float(values.min()), float(values.max())
    if not low < high:
        low, high = low - 0.5, high + 0.5
    counts, edges = np.histogram(
        values, bins=max(5, min(30, round(2 * len(values) ** 0.4))), range=(low, high)
    )
    described = (
        f"{len(values):,} samples, mean {figure(float(values.mean()))}, from {low:.4g} to {high:.4g}"
    )
    axes = Axes.framed(
        title, described, (low, high), (0, float(counts.max()) * 1.05), (label, "samples")
    )
    for count, left, right in zip(counts.tolist(), edges[:-1].tolist(), edges[1:].tolist(), strict=True):
        (x, top), (end, bottom) = axes.at(left, count), axes.at(right, 0)
        said = f"{count:,} samples, {tick_text(left)} to {tick_text(right)}"
        axes.drawing.add(Box(x + 0.4, top, end - x - 0.8, bottom - top, "c0", 0.8, said))
    if low < 0 < high:
        axes.drawing.add(Path([axes.at(0, 0), (axes.at(0, 0)[0], axes.top)], "faint", 1.2, dashed=True))
    return axes.drawing


def confusion_matrix(title: str, counts: NDArray[np.int64], names: Sequence[str]) -> Drawing:
    """Counts, truth by prediction: (classes, classes). Colour is the share of the row's truth, on a
    square-root scale, so that rare mistakes are visible."""
    size = len(names)
    labelled = size <= LABELLED
    cell = (32.0 if size <= 12 else 26.0) if labelled else max(2.0, 480 / size)
    shown = [shortened(name, 110) for name in names] if labelled else []
    longest = max(map(text_width, shown), default=0.0)
    flat = longest <= cell - 4
    left, top = 24 + longest + 6, 44 + (14.0 if flat else longest + 6)
    right = int(np.trace(counts))
    described = f"{right:,} of {int(counts.sum()):,} samples are on the diagonal, which is right"
    width = max(left + cell * size + 6, text_width(title, 12) + 6)
    drawing = Drawing(width, top + cell * size + 8, title, described)
    drawing.add(Words(0, 10, title, size=12.0, bold=True))
    drawing.add(Words(left, 30, "prediction", colour="faint"))
    drawing.add(Words(8, top, "truth", "end", "faint", upwards=True))
    corners = [(left, top), (left + cell * size, top), (left + cell * size, top + cell * size)]
    drawing.add(Path([*corners, (left, top + cell * size), (left, top)], "rule"))
    for index, name in enumerate(shown):
        middle = cell * (index + 0.5)
        drawing.add(Words(left - 6, top + middle, name, "end"))
        drawing.add(Words(left + middle, top - 8, name, "middle" if flat else "start", upwards=not flat))
    _draw_cells(drawing, counts, names, (left, top), cell, labelled)
    return drawing


def _draw_cells(
    drawing: Drawing,
    counts: NDArray[np.int64],
    names: Sequence[str],
    corner: Point,
    cell: float,
    labelled: bool,
) -> None:
    sums = counts.sum(axis=1)
    for row, column in np.argwhere(counts):  # row by row
        count = int(counts[row, column])
        share = count / int(sums[row])
        x, y = corner[0] + cell * column, corner[1] + cell * row
        said = f"truth {names[row]}, prediction {names[column]}: {count:,}"
        depth = 0.08 + 0.92 * math.sqrt(share)
        gap = 0.5 if labelled else 0.0
        side = cell - 2 * gap
        drawing.add(Box(x + gap, y + gap, side, side, "cell", depth, said if labelled else ""))
        if labelled:
            text = compact(count)
            size = min(11.0, (cell - 4) / text_width(text, 1.0))
            ink = "on-cell" if depth > 0.55 else "ink"
            drawing.add(Words(x + cell / 2, y + cell / 2, text, "middle", ink, size))


def compact(count: int) -> str:
    """At most five characters: `1234`, `12.3k`, `1.2M`."""
    if count < 10_000:
        return str(count)
    return f"{count / 1000:.1f}k" if count < 1_000_000 else f"{count / 1e6:.1f}M"


def sparkline(title: str, values: Floats, width: float = 180.0, height: float = 64.0) -> Drawing:
    """Values over time, (steps, features), a line each, without axes; at most 8 lines."""
    drawing = Drawing(width, height, title)
    low, high = float(values.min()), float(values.max())
    scale = (height - 4) / (high - low) if high > low else 0.0
    for feature in range(min(8, values.shape[1])):
        column = values[:, feature]
        places = (np.arange(len(column)) * (width - 2) / max(1, len(column) - 1) + 1).tolist()
        heights = (height - 2 - (column - low) * scale).tolist()
        points = thinned(list(zip(places, heights, strict=True)), round(width))
        drawing.add(Path(points, f"c{feature}", 1.2))
    return drawing


def thinned(points: Sequence[Point], most: int = _MOST_POINTS) -> list[Point]:
    """At most about `most` points of a line: the lowest and highest of each stretch, and the ends."""
    if len(points) <= most:
        return list(points)
    stretch = math.ceil(2 * len(points) / most)
    kept = {0, len(points) - 1}
    for first in range(0, len(points), stretch):
        places = range(first, min(first + stretch, len(points)))
        kept |= {min(places, key=lambda p: points[p][1]), max(places, key=lambda p: points[p][1])}
    return [points[place] for place in sorted(kept)]


def _padded(span: Range) -> Range:
    """A range with some room at both ends."""
    low, high = span
    return low - 0.04 * (high - low), high + 0.04 * (high - low)
