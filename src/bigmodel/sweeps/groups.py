"""A sweep's jobs grouped over seeds and folds: means of the same settings, and how sure they are."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from bigmodel.sweeps.jobs import FOLD
from bigmodel.sweeps.leaderboard import Board, Row, changed_keys
from bigmodel.sweeps.statistics import (
    UNBOUNDED,
    Comparison,
    Estimate,
    compare,
    estimate,
    selection_bias,
)

REPEATS = ("seed", FOLD)
"""Keys in which jobs differ that are repetitions of the same settings."""

RANGES = {
    **dict.fromkeys(
        (
            *("accuracy", "top3_accuracy", "top5_accuracy", "balanced_accuracy"),
            *("precision", "recall", "f1", "macro_precision", "macro_recall", "macro_f1"),
            *("auc", "average_precision", "ece"),
        ),
        (0.0, 1.0),
    ),
    **dict.fromkeys(
        ("mae", "rmse", "error_p50", "error_p90", "mape", "bits_per_character", "log_loss"),
        (0.0, math.inf),
    ),
    "brier": (0.0, 2.0),
    "r2": (-math.inf, 1.0),
    "bleu": (0.0, 100.0),
    "perplexity": (1.0, math.inf),
}
"""The least and the largest value of metrics, without the part. A loss may have any."""

Repeat = tuple[str | None, ...]
"""What tells a job from the others of its group, such as its seed."""


@dataclass(frozen=True)
class Group:
    """Jobs of a board with the same settings.

    Attributes:
        changed: what they have in common.
        values: the metric of those that finished, by the other settings in which they differ; the mean
            of jobs with the same ones.
        estimate: their mean; None if none of them finished with a figure.
        repeats: how many values there would be if all had finished.
        rows: all of them, best first.
    """

    changed: Mapping[str, str]
    values: Mapping[Repeat, float]
    estimate: Estimate | None
    repeats: int
    rows: Sequence[Row]


@dataclass(frozen=True)
class Grouping:
    """The groups of a board.

    Attributes:
        keys: what tells groups apart.
        repeats: what tells the jobs of a group apart.
        counted: those of `repeats` by which figures are counted: within a fold, seeds are not.
        groups: best mean first.
        comparison: of the best two groups; None if there are none, or too few figures.
    """

    keys: Sequence[str]
    repeats: Sequence[str]
    counted: Sequence[str]
    groups: Sequence[Group]
    comparison: Comparison | None


def mean_of(metric: str, values: Sequence[float]) -> Estimate:
    """The mean of figures of a metric, with an interval within its range."""
    return estimate(values, RANGES.get(metric.partition("/")[2], UNBOUNDED))


def group(board: Board, by: Sequence[str] = ()) -> Grouping | None:
    """Groups jobs that are repetitions of each other, best mean first. Only finished jobs count.

    Args:
        by: keys that tell groups apart; none takes all but `REPEATS`.

    Returns:
        None if no group would have two jobs, or none has a figure.
    """
    changed = changed_keys(row.result for row in board.rows)
    keys = [key for key in changed if key in by] if by else [k for k in changed if k not in REPEATS]
    repeats = [key for key in changed if key not in keys]
    parts: dict[tuple[str | None, ...], list[Row]] = {}
    for row in board.rows:
        parts.setdefault(tuple(row.result.changed.get(key) for key in keys), []).append(row)
    if not repeats or all(len(rows) < 2 for rows in parts.values()):
        return None
    # Seeds share the samples of their fold: counted one by one they would seem to make a mean surer.
    counted = [key for key in repeats if key != "seed"] if FOLD in repeats else repeats
    groups = [_group(rows, keys, counted, board.metric) for rows in parts.values()]
    if all(each.estimate is None for each in groups):
        return None
    sign = -1 if board.mode == "max" else 1
    groups.sort(key=lambda each: math.inf if each.estimate is None else sign * each.estimate.mean)
    first, second = [*groups, None, None][:2]
    comparison = None
    if first is not None and second is not None and first.values and second.values:
        comparison = compare(first.values, second.values)
    return Grouping(keys, repeats, counted, groups, comparison)


def _group(rows: Sequence[Row], keys: Sequence[str], repeats: Sequence[str], metric: str) -> Group:
    found: dict[Repeat, list[float]] = {}
    for row in rows:
        of_repeat = found.setdefault(tuple(row.result.changed.get(key) for key in repeats), [])
        if row.result.status == "finished" and row.value is not None and math.isfinite(row.value):
            of_repeat.append(row.value)
    # The same seed in another sweep gives the same figure again, which makes nothing surer.
    values = {repeat: math.fsum(same) / len(same) for repeat, same in found.items() if same}
    own = rows[0].result.changed
    mean = mean_of(metric, list(values.values())) if values else None
    return Group({key: own[key] for key in keys if key in own}, values, mean, len(found), rows)


def by_fold(grouping: Grouping, group: Group) -> dict[str, float]:
    """The figures of a group by fold of a cross-validation, means if a fold has several; without one
    there are none."""
    if FOLD not in grouping.counted:
        return {}
    place = list(grouping.counted).index(FOLD)
    folds: dict[str, list[float]] = {}
    for repeat, value in group.values.items():
        if (fold := repeat[place]) is not None:
            folds.setdefault(fold, []).append(value)
    return {fold: math.fsum(values) / len(values) for fold, values in folds.items()}


def choice_bias(board: Board, grouping: Grouping) -> float | None:
    """By how much the best mean of a cross-validation is too good because it was picked; see
    `statistics.selection_bias`. Groups that have not finished all folds do not count.

    Returns:
        0 or more; None without a choice among groups, or if the best of them lacks a fold.
    """
    folds = [by_fold(grouping, each) for each in grouping.groups]
    every = sorted({fold for each in folds for fold in each})
    whole = [each for each in folds if len(each) == len(every)]
    if len(every) < 2 or len(whole) < 2 or not folds[0] or folds[0] is not whole[0]:
        return None
    sign = -1.0 if board.mode == "max" else 1.0
    return selection_bias([[sign * each[fold] for fold in every] for each in whole])
