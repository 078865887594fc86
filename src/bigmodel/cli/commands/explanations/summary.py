"""What `bigmodel explain` found, in a few lines of a terminal."""

from __future__ import annotations

import math

import numpy as np

from bigmodel.cli.commands.explanations.subject import ExplainedPart
from bigmodel.cli.commands.loaded_run import LoadedRun
from bigmodel.errors import ConfigError, counted
from bigmodel.explain.path_integral import TOLERANCE
from bigmodel.explain.results import Attributions, Dependence, Importances, Result, TextResult
from bigmodel.explain.subject import Subject, score_words
from bigmodel.reporting.formatting import figure, shown_path
from bigmodel.reporting.metrics_table import print_table
from bigmodel.spec import Classes, DataSpec, Features, Flags, NextTokens

_MOST_LINES = 40

Cells = list[list[str]]


def check_printable(spec: DataSpec) -> None:
    """Refuses to print what is no table.

    Raises:
        ConfigError: the samples are pictures or sequences.
    """
    if not isinstance(spec.input, Features):
        raise ConfigError(
            f"explain draws {spec.input}. Say where: --output FOLDER for a picture of each sample, or"
            " --output NAME.npz for the numbers."
        )


def notes_of(result: Result | TextResult, subject: Subject) -> list[str]:
    """What has to be known to read a result, and what is wrong with it."""
    if not isinstance(result, Attributions) or not result.baseline:
        return []
    lines = [f"Explained: {_explained(subject)}. Compared with {result.baseline}."]
    if result.complete:
        short = int((result.gaps > 2 * TOLERANCE).sum())
        if short:
            lines.append(
                f"Warning: of {counted(short, 'sample')} of {len(result.gaps):,} the attributions do not"
                f" add up to the difference of the scores: they are up to"
                f" {float(result.gaps.max()):.2g} of it away."
            )
    return lines


def print_summary(loaded: LoadedRun, result: Result, subject: Subject, part: ExplainedPart) -> None:
    """Prints what matters in general, most important first."""
    rows = [
        ("Model", f"{loaded.name}, weights of step {loaded.step:,}"),
        ("Data", f"{part.source}, {counted(_samples(result, subject), 'sample')}"),
    ]
    if isinstance(result, Importances):
        rows.append(("Figure", f"{result.figure} {figure(result.value)}"))
        cells = _importances(result)
    elif isinstance(result, Attributions):
        rows += [tuple(line.split(": ", 1)) for line in notes_of(result, subject)]  # type: ignore[misc]
        cells = _mean_sizes(result)
    else:
        cells = _ranges(result)
    print_table(shown_path(loaded.run_path.folder), rows, cells[: _MOST_LINES + 1])
    if len(cells) > _MOST_LINES + 1:
        print_table(f"and {len(cells) - 1 - _MOST_LINES:,} more: --output FILE has all", [], [])


def _samples(result: Result, subject: Subject) -> int:
    return result.samples if isinstance(result, Importances) else len(subject)


def _importances(result: Importances) -> Cells:
    cells = [["column", f"{result.figure} is worse by", "from", "to"]]
    numbers = zip(result.drops.tolist(), result.low.tolist(), result.high.tolist(), strict=True)
    for name, row in zip(result.names, numbers, strict=True):
        cells.append([name, *("–" if math.isnan(number) else f"{number:.4g}" for number in row)])
    return cells


def _mean_sizes(result: Attributions) -> Cells:
    sizes = result.values.abs().double().mean(0).numpy()
    order = np.argsort(-sizes, kind="stable")
    rows = [[result.names[index], f"{sizes[index]:.4g}"] for index in order]
    return [["column", "mean size of what it adds"], *rows]


def _ranges(result: tuple[Dependence, ...]) -> Cells:
    cells = [["column", "lowest", "at", "highest", "at"]]
    spread = sorted(result, key=lambda each: float(each.mean.min() - each.mean.max()))
    for each in spread:
        row = [each.name]
        for place in (int(each.mean.argmin()), int(each.mean.argmax())):
            row += [f"{float(each.mean[place]):.4g}", each.values[place]]
        cells.append(row)
    return cells


def _explained(subject: Subject) -> str:
    target, words = subject.target, score_words(subject.target)
    if subject.output is not None:
        return f"{subject.output_name(subject.output)}, its {words}"
    if isinstance(target, Classes | Flags):
        one = "class that is predicted" if isinstance(target, Classes) else "likeliest label"
        return f"the {one} of each sample, its {words}"
    if isinstance(target, NextTokens):
        return f"the likeliest next token, its {words}"
    return f"{subject.output_name(0)}, its {words}" if target.output_size > 1 else subject.output_name(0)
