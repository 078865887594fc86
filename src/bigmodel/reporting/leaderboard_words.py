"""What is said beside a leaderboard: how sure it is, what cannot be compared, and what went wrong."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from bigmodel.errors import counted
from bigmodel.reporting.formatting import figure, shown_path
from bigmodel.runtime.escaping import escape_line
from bigmodel.sweeps.groups import Group, Grouping, choice_bias
from bigmodel.sweeps.jobs import FOLD, in_one_line
from bigmodel.sweeps.leaderboard import Board, Row, losses_of, metrics_of
from bigmodel.sweeps.statistics import Comparison

_REASONS = 8  # different reasons that are told
_NAMES = 5  # jobs that one reason names

_DATA = (
    "data",
    "data.path",
    "data.target",
    "data.val_path",
    "data.val_fraction",
    "data.split_seed",
    "data.folds",
)
"""Keys that decide which samples are for validation."""


def metric_title(board: Board, boards: Sequence[Board]) -> str:
    """The metric of one of several boards, and which way it is better."""
    loss = f" ({board.loss})" if board.loss and len(boards) > 1 else ""
    return f"{board.metric}{loss}, {'higher' if board.mode == 'max' else 'lower'} is better"


def footer(boards: Sequence[Board], shown: Sequence[Board], path: Path | None) -> str:
    """How many jobs there are in each state, and where those are that are not shown; empty if all is
    well and shown."""
    rows = [row for board in boards for row in board.rows]
    more = len(rows) - sum(len(board.rows) for board in shown)
    count = Counter(row.result.status for row in rows)
    lines = []
    if more or set(count) - {"finished"}:
        states = ", ".join(f"{number:,} {status}" for status, number in count.most_common())
        lines.append(f"{counted(len(rows), 'job')}: {states}.")
    if more:
        place = "" if path is None else f"; all are in {shown_path(path)}"
        lines.append(f"{more:,} are not shown{place}.")
    if len(metrics_of(boards)) > 1:
        metrics = ", ".join(metrics_of(boards))
        lines.append(f"Jobs that monitor different metrics ({metrics}) are ranked apart.")
    return " ".join(lines)


def verdict(grouping: Grouping, board: Board) -> str:
    """Whether the best group is better than the next by more than luck, in words, and of folds by how
    much the choice flatters it; nothing if they were evaluated on different samples."""
    groups = [each for each in grouping.groups if each.estimate is not None]
    others = FOLD in grouping.keys or _differing_data([each.changed for each in groups[:2]])
    if len(groups) < 2 or others:
        return ""
    first, second = (_described(each.changed) for each in groups[:2])
    found, bias = grouping.comparison, choice_bias(board, grouping)
    if found is None:
        again = "sweep.seeds=5" if grouping.counted == ["seed"] else f"more {_counted(grouping)}"
        return (
            f"Whether {first} is better than {second} or was only lucky cannot be told from a single"
            f" job: run each with {again}."
        )
    said = compared(found, first, second, _counted(grouping), board.mode)
    if FOLD in grouping.counted and found.p is not None:
        said.append("Folds share training data, so that the interval is a little too narrow.")
    if bias is not None:
        said.append(flattered(groups[0], len(groups), bias, board))
    elif found.significant and len(groups) > 2:
        said.append(f"The best of {len(groups)} is also a lucky one: confirm it with new seeds.")
    return " ".join(said)


def compared(found: Comparison, first: str, second: str, repeats: str, mode: str) -> list[str]:
    """Sentences on whether something is better than something else by more than luck.

    Args:
        found: the comparison of their figures.
        first, second: what they are; the first has the better mean.
        repeats: what the figures are of, such as `seeds`.
        mode: which way a figure is better, `max` or `min`.
    """
    by = figure(abs(found.difference))
    same = f"over the same {found.n} {repeats}" if found.kind == "paired" else f"over their {repeats}"
    if found.p is None and not found.difference:
        return [f"{first} and {second} are equally good {same}."]
    if found.p is None:
        words = f"{first} beats {second} by {by} {same}, without any spread, so that nothing can be"
        return [f"{words} tested."]
    if found.significant:
        words = f"{first} is better than {second}: by {by} on average {same}, which is hardly luck"
    else:
        words = f"{first} leads {second} by {by} on average {same}, which may well be luck"
    said = [f"{words} ({_tested(found, mode)})."]
    if not found.significant:
        more = {"seeds": "More seeds", "folds": "More data"}.get(repeats, "More runs")
        said.append(f"{more} would tell.")
    return said


def flattered(best: Group, groups: int, bias: float, board: Board) -> str:
    """By how much the mean of the best group is too good for having been picked; see `choice_bias`."""
    assert best.estimate is not None
    if not bias:
        return f"It is the best of {groups} in every fold: having been picked does not flatter it."
    mean = best.estimate.mean
    expected = mean - bias if board.mode == "max" else mean + bias
    return (
        f"As the best of {groups} on these folds it is flattered by about {figure(bias)}: on new data,"
        f" expect {board.metric} of {figure(expected)} rather than {figure(mean)}."
    )


def _tested(found: Comparison, mode: str) -> str:
    """The figures of a test: how much better the first may be, from and to."""
    assert found.p is not None
    sign = 1 if mode == "max" else -1
    low, high = (sign * found.difference + side * found.half_width for side in (-1, 1))
    test = "paired t-test" if found.kind == "paired" else "Welch's t-test"
    p = f"p = {found.p:.2g}" if found.p >= 0.001 else "p < 0.001"
    return f"95 % interval {figure(low)} to {figure(high)}, {test}, {p}"


def repeats_in_words(grouping: Grouping) -> str:
    """What its jobs are repeated over: `seeds`, `folds`, or both."""
    return _in_words(grouping.repeats)


def _counted(grouping: Grouping) -> str:
    """The same of what its figures are counted by."""
    return _in_words(grouping.counted)


def _in_words(repeats: Sequence[str]) -> str:
    names = {"seed": "seeds", FOLD: "folds"}
    known = [names[key] for key in repeats if key in names]
    return (
        " and ".join(known) if len(known) == len(repeats) else f"combinations of {' and '.join(repeats)}"
    )


def _described(changed: Mapping[str, str]) -> str:
    return escape_line(in_one_line(changed)) or "the defaults"


def cautions(boards: Sequence[Board]) -> list[str]:
    """Why the figures of some jobs cannot be compared."""
    lines = []
    apart = [metric for metric in metrics_of(boards) if len(losses_of(boards, metric)) > 1]
    if apart:
        lines.append(
            f"Warning: {apart[0]} comes from different losses and cannot be compared: each loss is"
            " ranked apart. Rank by a metric, such as trainer.checkpoint.monitor=val/rmse or"
            " val/accuracy."
        )
    keys: dict[str, None] = {}
    for board in boards:
        keys |= dict.fromkeys(
            _differing_data([row.result.changed for row in board.rows if row.place is not None])
        )
    if keys:
        lines.append(
            f"Warning: jobs differ in {' and '.join(keys)}, and so in the samples that they were"
            " evaluated on. Compare only those with the same data."
        )
    return lines


def _differing_data(changed: Sequence[Mapping[str, str]]) -> list[str]:
    """The keys of validation data in which jobs differ."""
    return [key for key in _DATA if len({each.get(key) for each in changed}) > 1]


def failures(boards: Sequence[Board]) -> list[str]:
    """Why jobs failed, or have no place: a line for each reason."""
    lines = []
    reasons: dict[tuple[str, str], list[Row]] = {}
    for row in (row for board in boards for row in board.rows if row.remark):
        if row.result.status == "pruned":  # as it should be
            continue
        reasons.setdefault((row.result.status, str(row.remark)), []).append(row)
    for (status, reason), rows in itertools.islice(reasons.items(), _REASONS):
        if len(rows) == 1:
            result = rows[0].result
            changes = f" ({in_one_line(result.changed)})" if result.changed else ""
            lines.append(f"Job {result.job}{changes} {status}: {reason}")
        else:
            names = ", ".join(row.result.job for row in rows[:_NAMES])
            more = f", … ({len(rows):,} in all)" if len(rows) > _NAMES else ""
            lines.append(f"Jobs {names}{more} {status}: {reason}")
    if len(reasons) > _REASONS:
        lines.append(f"{len(reasons) - _REASONS:,} more reasons are in the file, column `error`.")
    return lines
