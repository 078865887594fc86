"""The results as a table: in the terminal, and in the documentation."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from marks import replace_between
from rich.console import Console
from rich.table import Table

from benchmarks.lines import AT_LEAST, Contest, lines_of

PAIRS = 5
"""The usual number of pairs; the table names any other."""


UNITS = {"added": "µs", "rate": "%", "val_loss": "%", "compile": "s"}
"""Of all other figures it is ×."""


def shown(value: float, measure: str) -> str:
    """A figure with its unit."""
    if measure == "rate":
        return f"{100 * value:.0f} %"
    digits = {"added": 1, "compile": 1, "slowed": 3}.get(measure, 2)
    return f"{value:.{digits}f} {UNITS.get(measure, '×')}"


def goal_of(cell: dict[str, Any]) -> str:
    """What is aimed at, or nothing; `cell` has `goal` and `measure`."""
    if cell["goal"] is None:
        return ""
    sign, goal = "≥" if cell["measure"] in AT_LEAST else "≤", cell["goal"]
    if cell["measure"] == "rate":
        goal = 100 * goal
    return f"{sign} {goal:g} {UNITS.get(cell['measure'], '×')}"


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
    """The tables of the documentation: a column for each processor, and for each GPU."""
    return "\n\n".join(
        _table(device, [file["lines"] for file in files if file["device"] == device])
        for device in ("cpu", "cuda")
    )


def _table(device: str, columns: list[dict[str, Any]]) -> str:
    """The lines of a device; beneath, machines and remarks."""
    lines = lines_of(device, [])
    if not any(columns):
        return f"On a {'GPU' if device == 'cuda' else 'CPU'}: not yet measured."
    names = [_machine(next(iter(known.values()))["machine"]) for known in columns]
    heads = ["#", "work", "against", "goal", *names]
    rows = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    for line in lines:
        for place, contest in enumerate(line.contests):
            goal = {"goal": contest.goals.get(device), "measure": contest.measure}
            cells = ["", ""] if place else [line.key, line.title]
            cells += [contest.against, goal_of(goal)]
            cells += [_entry(contest, device, known.get(line.key)) for known in columns]
            rows.append(f"| {' | '.join(cells)} |")
    foot = [
        _foot(name, {line.key: known[line.key] for line in lines if line.key in known})
        for name, known in zip(names, columns, strict=True)
    ]
    return "\n".join([*rows, "", *foot])


def _machine(machine: dict[str, Any]) -> str:
    """A short name: the GPU, or the processor with its widest instructions."""
    if gpu := machine.get("gpu"):
        return str(gpu)
    widest = machine.get("instructions")
    return f"{machine['cpu']} ({widest})" if widest else str(machine["cpu"])


def _entry(contest: Contest, device: str, result: dict[str, Any] | None) -> str:
    """A figure, judged by what is aimed at today."""
    cells = result["cells"] if result is not None else []
    cell = next((cell for cell in cells if cell["against"] == contest.against), None)
    if cell is None:
        return "not yet measured"
    missed = "ratio" in cell and contest.reached(device, cell["ratio"]["median"]) is False
    return measured(cell) + (", missed" if missed else "")


def _foot(name: str, known: dict[str, Any]) -> str:
    """Cores, versions and dates of a column, each with its lines; remarks and whole runs."""
    machines: dict[str, list[str]] = {}
    for key, result in known.items():
        versions = ", ".join(f"{package} {number}" for package, number in result["versions"].items())
        where = f"{result['machine']['cores']} cores; {versions}; {result['date']}"
        machines.setdefault(where, []).append(key)
    lines = []
    for how, keys in machines.items():
        which = f", line{'s' if len(keys) > 1 else ''} {', '.join(keys)}" if len(machines) > 1 else ""
        lines.append(f"- {name}{which}: {how}.")
    for key, result in known.items():
        notes = [*remarks(result), *([totals] if (totals := totals_of(result)) else [])]
        if notes:
            lines.append(f"  - Line {key}: {'; '.join(notes)}.")
    return "\n".join(lines)


def update(page: Path, folder: Path) -> None:
    """Replaces the table of a page by one of all results that are kept.

    Raises:
        ValueError: the page has no marks.
    """
    files = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(folder.glob("*.json"))]
    replace_between(page, "bench", markdown(files))
