"""Pictures of the jobs of a sweep, by plotly: learning curves, and how settings bear on the metric."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bigmodel.reporting.formatting import figure
from bigmodel.reporting.html_text import html_text
from bigmodel.runtime.escaping import escape_line
from bigmodel.sweeps.groups import REPEATS
from bigmodel.sweeps.jobs import in_one_line
from bigmodel.sweeps.leaderboard import Board, JobResult, Row, changed_keys

Curve = Callable[[JobResult, str], Sequence[tuple[float, float]]]
"""How a metric of a job went: epochs and values."""

_MOST_CURVES = 40
_MOST_VALUES = 12
"""Distinct numbers of a key that have cells of their own; more are put into ranges."""
_MOST_WORDS = 40
"""Distinct words of a key that are drawn."""
_MOST_LABELLED = 8
"""Cells in a row that have their figure in them."""
_MOST_KEYS = 6
"""Keys of which each pair has its cells."""


def pictures(board: Board, curve: Curve) -> list[tuple[str, list[Any]]]:
    """Headings, with the figures that plotly draws below each."""
    best = f" of the best {_MOST_CURVES}" if len(board.rows) > _MOST_CURVES else ""
    drawn = [
        (f"Learning curves{best}: {metric}", [lines])
        for metric in dict.fromkeys((board.metric, "train/loss"))
        if (lines := _curves(board, metric, curve)) is not None
    ]
    rows = [row for row in board.rows if row.place is not None]
    if axes := _axes(rows):
        drawn.append(("Parallel coordinates", [_parallel(board, rows, axes)]))
    rows = [row for row in rows if row.result.status == "finished"]  # a job that was pruned says little
    swept = [axis for axis in _axes(rows) if axis.key not in REPEATS][:_MOST_KEYS]
    if len(swept) > 1:
        pairs = itertools.combinations(swept, 2)
        title = f"Mean {board.metric} of finished jobs for each pair of settings"
        drawn.append((title, [_heatmap(board, rows, *pair) for pair in pairs]))
    return drawn


def _curves(board: Board, metric: str, curve: Curve) -> Any:
    """The learning curves of the best jobs; None if there are none."""
    import plotly.graph_objects as go
    from plotly.colors import sample_colorscale

    rows = [row for row in board.rows if row.result.folder][:_MOST_CURVES]
    found = [(row, points) for row in rows if (points := curve(row.result, metric))]
    if not found:
        return None
    drawn = go.Figure()
    for number, (row, points) in enumerate(found):
        name = html_text(f"{row.result.job}: {in_one_line(row.result.changed)}")
        shade = 0.9 * number / max(1, len(found) - 1)
        line = {"color": sample_colorscale("Viridis", [shade])[0], "width": 3 if number == 0 else 1.5}
        mode = "lines+markers" if len(points) == 1 else "lines"
        hover = f"{name}<br>epoch %{{x:.3g}}: %{{y:.5g}}<extra></extra>"
        x, y = zip(*points, strict=True)
        drawn.add_scatter(x=x, y=y, name=_cut(name), mode=mode, line=line, hovertemplate=hover)
    if all(value > 0 for _, points in found for _, value in points) and metric.endswith("loss"):
        drawn.update_yaxes(type="log")
    drawn.update_layout(
        height=430,
        margin={"l": 60, "r": 20, "t": 34, "b": 50},
        xaxis_title="epoch",
        yaxis_title=html_text(metric),
    )
    return drawn


def _cut(text: str, length: int = 60) -> str:
    return text if len(text) <= length else f"{text[: length - 1]}…"


@dataclass(frozen=True)
class _Axis:
    """One key: where its values lie, and what stands there.

    Attributes:
        places: of each row.
        ticks: places with a label.
        labels: theirs.
    """

    key: str
    places: Sequence[float]
    ticks: Sequence[float]
    labels: Sequence[str]


def _axes(rows: Sequence[Row]) -> list[_Axis]:
    """Those keys that have several values."""
    found = [_axis(key, rows) for key in changed_keys(row.result for row in rows)]
    return [axis for axis in found if axis is not None and len(axis.labels) > 1]


def _axis(key: str, rows: Sequence[Row]) -> _Axis | None:
    """Numbers in their order, ranges of them if they are many; words by name; None if these are many."""
    values = [row.result.changed.get(key, "") for row in rows]
    numbers = [number for value in values if (number := _number(value)) is not None]
    if len(numbers) == len(values):
        known = sorted(set(numbers))
        if len(known) > _MOST_VALUES:
            return _ranges(key, numbers)
        labels = dict(zip(numbers, values, strict=True))
        places = [float(known.index(number)) for number in numbers]
        return _Axis(key, places, range(len(known)), [labels[number] for number in known])
    words = sorted(set(values))
    if len(words) > _MOST_WORDS:
        return None
    labels_of_words = [word or "(default)" for word in words]
    return _Axis(key, [float(words.index(v)) for v in values], range(len(words)), labels_of_words)


def _ranges(key: str, numbers: Sequence[float], count: int = 8) -> _Axis:
    """Equal ranges from the least to the largest, of logarithms if these are far apart."""
    low, high = min(numbers), max(numbers)
    logarithmic = low > 0 and high / low > 30
    scale = math.log if logarithmic else float
    width = (scale(high) - scale(low)) / count
    places = [min(count - 0.001, (scale(number) - scale(low)) / width) - 0.5 for number in numbers]
    edges = [scale(low) + width * index for index in range(count + 1)]
    shown = [_short(math.exp(edge) if logarithmic else edge) for edge in edges]
    labels = [f"{a} – {b}" for a, b in itertools.pairwise(shown)]
    return _Axis(key, places, range(count), labels)


def _short(number: float) -> str:
    return f"{number:.0f}" if 100 <= abs(number) < 1e6 else f"{number:.2g}"


def _number(text: str) -> float | None:
    try:
        number = float(text)
    except ValueError:
        return None
    return number if math.isfinite(number) else None


def _parallel(board: Board, rows: Sequence[Row], axes: Sequence[_Axis]) -> Any:
    import plotly.graph_objects as go

    values = [float(row.value or 0.0) for row in rows]
    dimensions = [
        {
            "label": html_text(axis.key),
            "values": axis.places,
            "tickvals": list(axis.ticks),
            "ticktext": [
                _cut(escape_line(label), 22) for label in axis.labels
            ],  # plotly reads no HTML here
        }
        for axis in axes
    ]
    dimensions.append({"label": html_text(board.metric), "values": values})
    line = {
        "color": values,
        "colorscale": "Viridis",
        "reversescale": board.mode == "max",
        "showscale": True,
        "colorbar": {"title": html_text(board.metric)},
    }
    drawn = go.Figure(go.Parcoords(dimensions=dimensions, line=line))
    drawn.update_layout(height=430, margin={"l": 130, "r": 40, "t": 70, "b": 30})
    return drawn


def _heatmap(board: Board, rows: Sequence[Row], across: _Axis, down: _Axis) -> Any:
    """A cell for each pair of values: the mean of the jobs that share both."""
    import plotly.graph_objects as go

    means, counts = _means(rows, across, down)
    values = [float(row.value or 0.0) for row in rows]
    named = ((across.key, "%{x}"), (down.key, "%{y}"), (board.metric, "%{z:.5g}"))
    hover = "<br>".join(f"{html_text(name)} {value}" for name, value in named)
    drawn = go.Figure(
        go.Heatmap(
            x=[html_text(label) for label in across.labels],
            y=[html_text(label) for label in down.labels],
            z=means,
            zmin=min(values),
            zmax=max(values),
            text=[["" if cell is None else figure(cell) for cell in line] for line in means],
            texttemplate="%{text}" if len(across.labels) <= _MOST_LABELLED else None,
            customdata=counts,
            hovertemplate=f"{hover}<br>%{{customdata}} jobs<extra></extra>",
            colorscale="Viridis",
            reversescale=board.mode == "max",
            showscale=False,
        )
    )
    drawn.update_xaxes(title=html_text(across.key), type="category", automargin=True)
    drawn.update_yaxes(title=html_text(down.key), type="category", automargin=True)
    drawn.update_layout(height=380, margin={"l": 20, "r": 20, "t": 34, "b": 20})
    return drawn


def _means(
    rows: Sequence[Row], across: _Axis, down: _Axis
) -> tuple[list[list[float | None]], list[list[int]]]:
    found: Mapping[tuple[int, int], list[float]] = {
        (y, x): [] for y in range(len(down.labels)) for x in range(len(across.labels))
    }
    for row, x, y in zip(rows, across.places, down.places, strict=True):
        found[round(y), round(x)].append(float(row.value or 0.0))
    means = [
        [
            math.fsum(cell) / len(cell) if (cell := found[y, x]) else None
            for x in range(len(across.labels))
        ]
        for y in range(len(down.labels))
    ]
    counts = [[len(found[y, x]) for x in range(len(across.labels))] for y in range(len(down.labels))]
    return means, counts
