"""The results as a table: in the terminal, and in the documentation with the pictures."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from marks import replace_between
from rich.console import Console
from rich.table import Table

from costs.draw import picture
from costs.fit import SLACK, Growth, growth
from costs.series import SERIES

HEADS = (
    "what grows", "from … to", "engine", "CPU seconds", "grow as", "their work as", "MB above a start",
    "grow as", "asked for as", "faster than the work",
)  # fmt: skip
NAMES = {"seconds": "growth-seconds.svg", "bytes": "growth-memory.svg"}


def rows(kept: Mapping[str, Any]) -> Iterator[list[str]]:
    """The table's lines, one for each series and engine.

    Args:
        kept: points by series and engine.
    """
    for series in SERIES:
        for engine, points in kept.get(series.key, {}).items():
            known = [point for point in points if point["seconds"] is not None]
            time, memory = (growth(series, points, what) for what in ("seconds", "bytes"))
            faster = [name for name, each in (("seconds", time), ("bytes", memory)) if each.faster]
            notes = [f"{point['size']:,}: {point['note']}" for point in points if point["note"]]
            kind = "a step" if series.batch is not None else "a run"
            yield [
                series.title,
                f"{known[0]['size']:,} to {known[-1]['size']:,}",
                engine,
                f"{known[0]['seconds']:.2g} to {known[-1]['seconds']:.2g} {kind}",
                *_grown(time),
                f"{known[0]['bytes'] / 1e6:,.0f} to {known[-1]['bytes'] / 1e6:,.0f}",
                *_grown(memory),
                "; ".join([f"**{' and '.join(faster)}**" if faster else "no", *notes]),
            ]


def _grown(found: Growth) -> tuple[str, str]:
    cost = "not seen to" if found.cost is None else f"n^{found.cost:.2f}"
    return cost, f"n^{found.work:.2f}"


def show(kept: Mapping[str, Any]) -> None:
    """The table in the terminal."""
    table = Table(title="How cost grows", show_lines=True)
    for head in HEADS:
        table.add_column(head, overflow="fold")
    for row in rows(kept):
        table.add_row(*(cell.replace("**", "") for cell in row))
    console = Console()
    (console if console.is_terminal else Console(width=180)).print(table)


def update(page: Path, images: Path, files: list[dict[str, Any]]) -> None:
    """Puts the tables of all processors between the marks of a page, and draws the last one's pictures.

    Raises:
        ValueError: the page has no marks.
    """
    images.mkdir(parents=True, exist_ok=True)
    parts = []
    for file in files:
        lines = [
            f"| {' | '.join(line)} |" for line in (HEADS, ["---"] * len(HEADS), *rows(file["points"]))
        ]
        versions = ", ".join(f"{name} {number}" for name, number in file["versions"].items())
        parts.append(
            "\n".join([*lines, "", f"- {file['processor']}, one thread; {versions}; {file['date']}."])
        )
    for what, name in NAMES.items():
        (images / name).write_text(picture(files[-1]["points"], what), encoding="utf-8")
    parts += [
        f"Exponents are least squares over the upper half of the sizes; above that of the work by more"
        f" than {SLACK:g} counts as faster.",
        *(f"![How {what} grow](../.github/images/{name})" for what, name in NAMES.items()),
    ]
    replace_between(page, "growth", "\n\n".join(parts))
