"""What a report tells of several runs together: their figures and settings side by side."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from bigmodel.cli.commands.reports.single import learning_curves
from bigmodel.cli.commands.run_files import RunFiles
from bigmodel.reporting.base import Record, Summary
from bigmodel.reporting.formatting import duration, figure, figures_of, label_rows
from bigmodel.reporting.report.content import Section, Table

_NOT_COMPARED = ("output_dir", "resume", "logger", "run.name", "run.tags", "run.notes")


def together(runs: Sequence[tuple[str, RunFiles]]) -> list[Section]:
    """The runs in columns: how they ended, their figures, and the settings in which they differ.

    Args:
        runs: name and files of each.
    """
    heads = ["", *(name for name, _ in runs)]
    summaries = [files.summary or Summary("unknown") for _, files in runs]
    rows = [
        *_labels(summaries),
        ["outcome", *(each.status for each in summaries)],
        ["epochs", *(f"{each.epochs:.4g}" for each in summaries)],
        ["parameters", *(f"{each.parameters:,}" if each.parameters else "–" for each in summaries)],
        ["training took", *(duration(each.seconds) for each in summaries)],
    ]
    rows += _figures("best", summaries, lambda summary: figures_of(summary.best))
    rows += _figures("", summaries, lambda summary: dict(summary.test))
    found = [Section("Side by side", [Table(heads, rows, frozenset(range(1, len(heads))))])]
    if different := _different_settings([files for _, files in runs]):
        found.append(Section("Settings that differ", [Table(heads, different)]))
    if curves := learning_curves(runs):
        found.append(Section("Learning curves together", curves))
    return found


def _labels(summaries: Sequence[Summary]) -> list[list[str]]:
    """Names, tags and notes of the runs, if any has them."""
    each = [dict(label_rows(summary.run)) for summary in summaries]
    known = dict.fromkeys(label for labels in each for label in labels)
    return [[label.lower(), *(labels.get(label, "–") for labels in each)] for label in known]


def _figures(
    group: str, summaries: Sequence[Summary], of: Callable[[Summary], Record]
) -> list[list[str]]:
    """A row for each figure that a run has."""
    each = [of(summary) for summary in summaries]
    names = dict.fromkeys(name for figures in each for name in figures)
    return [
        [f"{group} {name}".strip(), *(_cell(figures.get(name, math.nan)) for figures in each)]
        for name in names
    ]


def _cell(value: float) -> str:
    return figure(value) if math.isfinite(value) else "–"


def _different_settings(runs: Sequence[RunFiles]) -> list[list[str]]:
    settings = [files.settings for files in runs]
    keys = dict.fromkeys(key for each in settings for key in each)
    rows = [[key, *(each.get(key, "–") for each in settings)] for key in keys]
    return [row for row in rows if len(set(row[1:])) > 1 and row[0] not in _NOT_COMPARED]
