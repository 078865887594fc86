"""The results as a table: in the terminal, and in the documentation."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from marks import replace_between
from rich.console import Console
from rich.table import Table

from benchmarks.lines import AT_LEAST, LINES, Line

PAIRS = 5
"""The usual number of pairs; the table names any other."""


def shown(value: float, measure: str) -> str:
    """A figure with its unit."""
    if measure == "added":
        return f"{value:.1f} µs"
    if measure == "rate":
        return f"{100 * value:.0f} %"
    return f"{value:.3f} ×" if measure == "slowed" else f"{value:.2f} ×"


def goal_of(cell: dict[str, Any]) -> str:
    """What is aimed at, or nothing."""
    if cell["goal"] is None:
        return ""
    sign, goal = "≥" if cell["measure"] in AT_LEAST else "≤", cell["goal"]
    if cell["measure"] == "rate":
        return f"{sign} {100 * goal:g} %"
    return f"{sign} {goal:g} {'µs' if cell['measure'] == 'added' else '×'}"


def measured(cell: dict[str, Any]) -> str:
    """The median with its spread, or why there is none."""
    if "ratio" not in cell:
        return str(cell["note"])
    ratio, measure = cell["ratio"], cell["measure"]
    low, high = shown(ratio["low"], measure), shown(ratio["high"], measure)
    pairs = ratio["pairs"]
    few = "" if pairs == PAIRS else f"; {pairs} pair{'s' if pairs > 1 else ''}"
    return f"{shown(ratio['median'], measure)} ({low.split()[0]} to {high.split()[0]}{few})"


def totals_of(result: dict[str, Any]) -> str:
    """Seconds of whole runs, with empty and filled caches, and of the run that filled ours."""
    totals = []
    for side, seconds in result["totals"].items():
        states = [
            f"{state} {value:.{1 if value >= 1 else 2}f}"
            for state, value in seconds.items()
            if value is not None
        ]
        if states:
            totals.append(f"{side}: {', '.join(states)} s")
    if totals and result.get("filling"):
        totals.append(f"ours filled its cache in {result['filling']:.0f} s")
    return "; ".join(totals)


def remarks(result: dict[str, Any]) -> list[str]:
    """What a reader has to know of a line's figures."""
    notes = [result["note"]] if result["note"] else []
    if engines := result.get("engines"):
        notes.append(f"ours by {' or '.join(engines)} steps")
    sizes = result.get("parameters", {})
    if len(set(sizes.values())) > 1:
        notes.append(", ".join(f"{side} has {count:,} parameters" for side, count in sizes.items()))
    for cell in result["cells"]:
        if cell["part"] > 1 and "ratio" in cell:
            notes.append(f"{cell['against']}: ran 1/{cell['part']} of the steps, compared per step")
        if cell.get("total_longer"):
            notes.append(
                f"a whole run takes longer ({cell['against']}): {', '.join(cell['total_longer'])}"
            )
    return notes


def show(results: dict[str, dict[str, Any]], console: Console | None = None) -> None:
    """The table in the terminal."""
    table = Table(title="Speed, ours against others", show_lines=True)
    for heading in ("#", "work", "against", "measured", "goal", "", "whole runs, seconds"):
        table.add_column(heading, overflow="fold")
    for key, result in results.items():
        for row, cell in enumerate(result["cells"]):
            verdict = {True: "reached", False: "missed", None: ""}[cell.get("reached")]
            first = row == 0
            work = "\n".join([result["title"], *remarks(result)]) if first else ""
            checks = "\n".join([cell["against"], *cell["checked"]])
            totals = totals_of(result) if first else ""
            table.add_row(
                key if first else "", work, checks, measured(cell), goal_of(cell), verdict, totals
            )
    if console is None:
        console = Console()
        if not console.is_terminal:
            console = Console(width=160)
    console.print(table)


def markdown(files: list[dict[str, Any]]) -> str:
    """The table of the documentation, with a column for each device; missing figures are marked."""
    cpu = next((file["lines"] for file in files if file["device"] == "cpu"), {})
    gpus = [file["lines"] for file in files if file["device"] == "cuda"]
    columns = {"cpu": cpu, "cuda": gpus[-1] if gpus else {}}
    rows = [
        "| # | work | against | one CPU thread | GPU |",
        "|---|---|---|---|---|",
    ]
    for line in LINES:
        for index, contest in enumerate(line.contests):
            cells = [
                _entry(line, contest.against, device, known.get(line.key))
                for device, known in columns.items()
            ]
            first = index == 0
            heads = [line.key if first else "", line.title if first else "", contest.against]
            rows.append("| " + " | ".join(heads + cells) + " |")
    order = {line.key: place for place, line in enumerate(LINES)}
    foot = [
        _foot(name, dict(sorted(known.items(), key=lambda item: order[item[0]])))
        for name, known in columns.items()
        if known
    ]
    return "\n".join([*rows, "", *foot])


def _entry(line: Line, against: str, device: str, result: dict[str, Any] | None) -> str:
    if device not in line.devices:
        return "–"
    cells = result["cells"] if result is not None else []
    cell = next((cell for cell in cells if cell["against"] == against), None)
    if cell is None:
        return "not yet measured"
    text = measured(cell)
    if goal := goal_of(cell):
        text += f"; goal {goal}" + ("" if cell.get("reached") in (True, None) else ", missed")
    return text


def _foot(name: str, known: dict[str, Any]) -> str:
    """Machines, versions and dates beneath the table, each with its lines; remarks and whole runs."""
    machines: dict[str, list[str]] = {}
    for key, result in known.items():
        machine = result["machine"]
        where = f"{machine.get('gpu', machine['cpu'])}, {machine['cores']} cores"
        versions = ", ".join(f"{package} {number}" for package, number in result["versions"].items())
        machines.setdefault(f"{where}; {versions}; {result['date']}", []).append(key)
    lines = []
    for how, keys in machines.items():
        which = f", line{'s' if len(keys) > 1 else ''} {', '.join(keys)}" if len(machines) > 1 else ""
        lines.append(f"- {'CPU' if name == 'cpu' else 'GPU'}{which}: {how}.")
    for key, result in known.items():
        notes = [*remarks(result), *([totals] if (totals := totals_of(result)) else [])]
        if notes:
            lines.append(f"- Line {key}: {'; '.join(notes)}.")
    return "\n".join(lines)


def update(page: Path, folder: Path) -> None:
    """Replaces the table of a page by one of all results that are kept.

    Raises:
        ValueError: the page has no marks.
    """
    files = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(folder.glob("*.json"))]
    replace_between(page, "bench", markdown(files))
