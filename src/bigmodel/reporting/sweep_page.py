"""The jobs of a sweep as one HTML page: ranking, learning curves, and how settings bear on the metric.

The page holds all that it shows, plotly's program too, and a policy that keeps it from asking the
network for anything. It needs plotly, from the extra `sweeps`.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bigmodel.errors import counted
from bigmodel.reporting.formatting import duration, figure, shown_path
from bigmodel.reporting.html_text import LIGHT, STYLE, html_text, variables
from bigmodel.reporting.leaderboard_cells import group_cells
from bigmodel.reporting.leaderboard_words import cautions, verdict
from bigmodel.reporting.sweep_pictures import Curve, pictures
from bigmodel.sweeps.groups import Grouping, group
from bigmodel.sweeps.leaderboard import Board, changed_keys, labels_of

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

    sections = [f"<p class=verdict>{html_text(line)}</p>" for line in cautions(boards)]
    for number, board in enumerate(boards):
        grouping = group(board, by)
        sections.append(_heading(board, boards))
        if grouping is not None:
            sections.append(_groups_table(grouping, board))
        sections.append(_jobs_table(board))
        if number < _MOST_DRAWN:
            sections += [_figures(*drawn) for drawn in pictures(board, curve)]
    jobs = counted(sum(len(board.rows) for board in boards), "job")
    words = {"title": html_text(title), "jobs": jobs, "style": _STYLE, "plotly": get_plotlyjs()}
    return _PAGE.format(**words, body="\n".join(sections)) + _SORTING


def _heading(board: Board, boards: Sequence[Board]) -> str:
    loss = f" of {board.loss}" if board.loss and len(boards) > 1 else ""
    better = "higher" if board.mode == "max" else "lower"
    return f"<h2>{html_text(board.metric + loss)} <small>{better} is better</small></h2>"


def _groups_table(grouping: Grouping, board: Board) -> str:
    heads, *rows = group_cells(grouping, board)
    said = verdict(grouping, board)
    words = f"<p class=verdict>{html_text(said)}</p>" if said else ""
    return f"<h3>Means</h3>{_table(heads, [('finished', cells) for cells in rows])}{words}"


def _jobs_table(board: Board) -> str:
    keys = changed_keys(row.result for row in board.rows)
    figures = [board.metric, "final", "epochs", "time"]
    labels = labels_of([board])
    heads = ["#", "job", *labels, *keys, *figures, "status", "folder", "checkpoint", "error"]
    rows = []
    for row in board.rows:
        result = row.result
        cells = ["–" if row.place is None else str(row.place), result.job]
        cells += [result.labels[label] for label in labels]
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
    head = "".join(f"<th>{html_text(each)}</th>" for each in heads)
    lines = [
        f'<tr class="{html_text(status)}">{"".join(map(_cell, heads, cells))}</tr>'
        for status, cells in rows
    ]
    body = f"<thead><tr>{head}</tr></thead><tbody>{''.join(lines)}</tbody>"
    return f"<div class=wide><table>{body}</table></div>"


def _cell(head: str, text: str) -> str:
    return f"<td{' class=error' if head == 'error' else ''}>{html_text(text)}</td>"


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
    return f"<h3>{html_text(heading)}</h3>{inner}"


# Plotly's pictures are light: so is the page, whatever the reader has.
_STYLE = (
    f":root {{ color-scheme: light; {variables(LIGHT)} }}{STYLE}"
    + """
th { cursor: pointer; }
td.error { white-space: normal; min-width: 30rem; }
.pairs { display: grid; grid-template-columns: repeat(auto-fill, minmax(430px, 1fr)); gap: 1rem; }
tbody tr:first-child td { font-weight: 600; }
tbody tr:hover { background: var(--shade); }
tr.failed { color: var(--bad); }
tr.stopped, tr.pruned, tr.running, tr.waiting { color: #8a6100; }
"""
)

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
