"""The jobs of a sweep as one HTML page: ranking, learning curves, and how settings bear on the metric.

The page holds all that it shows, plotly's program too, and a policy that keeps it from asking the
network for anything. It needs plotly, from the extra `sweeps`.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

from bigmodel.errors import counted
from bigmodel.reporting.formatting import duration, figure, shown_path
from bigmodel.reporting.leaderboard_cells import group_cells
from bigmodel.reporting.leaderboard_words import cautions, verdict
from bigmodel.runtime.escaping import escape_line
from bigmodel.sweeps.jobs import in_one_line
from bigmodel.sweeps.leaderboard import (
    REPEATS,
    Board,
    Grouping,
    JobResult,
    Row,
    changed_keys,
    group,
)

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
_MOST_DRAWN = 6
"""Rankings that have pictures."""


def page(title: str, boards: Sequence[Board], curve: Curve, by: Sequence[str] = ()) -> str:
    """The page, as HTML.

    Args:
        title: such as the sweep's folder.
        boards: from `bigmodel.sweeps.leaderboard.rank`.
        curve: reads the learning curve of a job.
        by: keys that tell groups apart; none takes all but seeds and folds.
    """
    from plotly.offline import get_plotlyjs

    sections = [f"<p class=verdict>{_text(line)}</p>" for line in cautions(boards)]
    for number, board in enumerate(boards):
        grouping = group(board, by)
        sections.append(_heading(board, boards))
        if grouping is not None:
            sections.append(_groups_table(grouping, board))
        sections.append(_jobs_table(board))
        if number < _MOST_DRAWN:
            sections += [_figures(*drawn) for drawn in _pictures(board, curve)]
    jobs = counted(sum(len(board.rows) for board in boards), "job")
    words = {"title": _text(title), "jobs": jobs, "style": _STYLE, "plotly": get_plotlyjs()}
    return _PAGE.format(**words, body="\n".join(sections)) + _SORTING


def _text(text: str) -> str:
    return escape(escape_line(text))


def _heading(board: Board, boards: Sequence[Board]) -> str:
    loss = f" of {board.loss}" if board.loss and len(boards) > 1 else ""
    better = "higher" if board.mode == "max" else "lower"
    return f"<h2>{_text(board.metric + loss)} <small>{better} is better</small></h2>"


def _groups_table(grouping: Grouping, board: Board) -> str:
    heads, *rows = group_cells(grouping, board)
    said = verdict(grouping, board)
    words = f"<p class=verdict>{_text(said)}</p>" if said else ""
    return f"<h3>Means</h3>{_table(heads, [('finished', cells) for cells in rows])}{words}"


def _jobs_table(board: Board) -> str:
    keys = changed_keys(row.result for row in board.rows)
    figures = [board.metric, "final", "epochs", "time"]
    heads = ["#", "job", *keys, *figures, "status", "folder", "checkpoint", "error"]
    rows = []
    for row in board.rows:
        result = row.result
        cells = ["–" if row.place is None else str(row.place), result.job]
        cells += [result.changed.get(key, "") for key in keys]
        cells += ["–" if value is None else figure(value) for value in (row.value, row.final)]
        folder = shown_path(Path(result.folder)) if result.folder else ""
        cells += [f"{result.epochs:.3g}", duration(result.seconds), result.status, folder]
        cells += [result.checkpoint.removeprefix(result.folder).strip("/\\"), row.remark or ""]
        rows.append((result.status, cells))
    if not any(row.remark for row in board.rows):
        heads, rows = heads[:-1], [(status, cells[:-1]) for status, cells in rows]
    return f"<h3>Jobs</h3>{_table(heads, rows)}"


def _table(heads: Sequence[str], rows: Sequence[tuple[str, Sequence[str]]]) -> str:
    head = "".join(f"<th>{_text(each)}</th>" for each in heads)
    lines = [
        f'<tr class="{_text(status)}">{"".join(map(_cell, heads, cells))}</tr>' for status, cells in rows
    ]
    body = f"<thead><tr>{head}</tr></thead><tbody>{''.join(lines)}</tbody>"
    return f"<div class=wide><table>{body}</table></div>"


def _cell(head: str, text: str) -> str:
    return f"<td{' class=error' if head == 'error' else ''}>{_text(text)}</td>"


def _pictures(board: Board, curve: Curve) -> list[tuple[str, list[Any]]]:
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


def _figures(heading: str, drawn: Sequence[Any]) -> str:
    config = {"displaylogo": False, "responsive": True}
    parts = []
    for each in drawn:
        each.update_layout(
            template="plotly_white",
            font={"family": "system-ui, sans-serif", "size": 13},
            modebar={"bgcolor": "rgba(0,0,0,0)", "color": "#9aa3ad"},
        )
        parts.append(each.to_html(full_html=False, include_plotlyjs=False, config=config))
    inner = parts[0] if len(parts) == 1 else f"<div class=pairs>{''.join(parts)}</div>"
    return f"<h3>{_text(heading)}</h3>{inner}"


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
        name = _text(f"{row.result.job}: {in_one_line(row.result.changed)}")
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
        yaxis_title=_text(metric),
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
            "label": _text(axis.key),
            "values": axis.places,
            "tickvals": list(axis.ticks),
            "ticktext": [
                _cut(escape_line(label), 22) for label in axis.labels
            ],  # plotly reads no HTML here
        }
        for axis in axes
    ]
    dimensions.append({"label": _text(board.metric), "values": values})
    line = {
        "color": values,
        "colorscale": "Viridis",
        "reversescale": board.mode == "max",
        "showscale": True,
        "colorbar": {"title": _text(board.metric)},
    }
    drawn = go.Figure(go.Parcoords(dimensions=dimensions, line=line))
    drawn.update_layout(height=430, margin={"l": 130, "r": 40, "t": 70, "b": 30})
    return drawn


def _heatmap(board: Board, rows: Sequence[Row], across: _Axis, down: _Axis) -> Any:
    """A cell for each pair of values: the mean of the jobs that share both."""
    import plotly.graph_objects as go

    means, counts = _means(rows, across, down)
    values = [float(row.value or 0.0) for row in rows]
    hover = f"{_text(across.key)} %{{x}}<br>{_text(down.key)} %{{y}}<br>{_text(board.metric)} %{{z:.5g}}"
    drawn = go.Figure(
        go.Heatmap(
            x=[_text(label) for label in across.labels],
            y=[_text(label) for label in down.labels],
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
    drawn.update_xaxes(title=_text(across.key), type="category", automargin=True)
    drawn.update_yaxes(title=_text(down.key), type="category", automargin=True)
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


_STYLE = """
body { font: 15px/1.45 system-ui, sans-serif; color: #1c1f23; background: #fff; margin: 2rem auto;
       max-width: 1180px; padding: 0 1.2rem; }
h1 { font-size: 1.5rem; margin-bottom: 0; overflow-wrap: anywhere; }
h2 { font-size: 1.3rem; margin-top: 2.2rem; border-bottom: 1px solid #d8dce1; padding-bottom: .3rem; }
h3 { font-size: 1.05rem; margin: 1.8rem 0 .5rem; }
small { color: #68707a; font-weight: normal; font-size: .85rem; }
.wide { overflow: auto; max-height: 36rem; border: 1px solid #e3e6ea; border-radius: 6px; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: .88rem; width: 100%; }
th { position: sticky; top: 0; background: #f4f6f8; text-align: left; cursor: pointer;
     white-space: nowrap; }
th, td { padding: .32rem .7rem; border-bottom: 1px solid #eceff2; vertical-align: top; }
td { white-space: nowrap; }
td.error { white-space: normal; min-width: 30rem; }
.pairs { display: grid; grid-template-columns: repeat(auto-fill, minmax(430px, 1fr)); gap: 1rem; }
tbody tr:first-child td { font-weight: 600; }
tbody tr:hover { background: #f7f9fb; }
tr.failed { color: #b3261e; }
tr.stopped, tr.pruned, tr.running, tr.waiting { color: #8a6100; }
.verdict { background: #eef4fb; border-left: 4px solid #3b78b8; padding: .6rem .9rem; margin: .8rem 0; }
"""

_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data: blob:; \
style-src 'unsafe-inline'; script-src 'unsafe-inline' 'unsafe-eval'">
<meta name="viewport" content="width=device-width">
<title>{title}</title>
<style>{style}</style>
<script>{plotly}</script>
</head>
<body>
<h1>{title}</h1>
<small>{jobs}</small>
{body}
"""

_SORTING = """<script>
for (const head of document.querySelectorAll("th")) head.onclick = () => {
  const body = head.closest("table").tBodies[0], column = head.cellIndex, up = head.dataset.up !== "1";
  head.dataset.up = up ? "1" : "0";
  const value = row => row.cells[column].textContent;
  const number = text => parseFloat(text.replaceAll(",", ""));
  [...body.rows].sort((a, b) => {
    const x = number(value(a)), y = number(value(b));
    const order = isNaN(x) || isNaN(y) ? isNaN(x) - isNaN(y) || value(a).localeCompare(value(b)) : x - y;
    return up ? order : -order;
  }).forEach(row => body.append(row));
};
</script>
</body>
</html>
"""
