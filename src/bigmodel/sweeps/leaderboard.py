"""A sweep's jobs ranked, and grouped over seeds and folds: plain data, for tables and pages."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from bigmodel.sweeps.statistics import (
    UNBOUNDED,
    Comparison,
    Estimate,
    compare,
    estimate,
    selection_bias,
)

FOLD = "data.val_fold"
REPEATS = ("seed", FOLD)
"""Keys in which jobs differ that are repetitions of the same settings."""

HIGHER_IS_BETTER = frozenset({"accuracy", "top5_accuracy", "macro_f1", "r2", "bleu"})
"""Metrics, without the part, of which more is better; of all others less is."""

RANGES = {
    **dict.fromkeys(("accuracy", "top5_accuracy", "macro_f1"), (0.0, 1.0)),
    **dict.fromkeys(("mae", "rmse", "bits_per_character"), (0.0, math.inf)),
    "r2": (-math.inf, 1.0),
    "bleu": (0.0, 100.0),
    "perplexity": (1.0, math.inf),
}
"""The least and the largest value of metrics, without the part. A loss may have any."""


Repeat = tuple[str | None, ...]
"""What tells a job from the others of its group, such as its seed."""


@dataclass(frozen=True)
class JobResult:
    """How far a job came.

    Attributes:
        job: its number or name.
        changed: the overrides in which jobs differ, key to value.
        status: `waiting`, `running`, `finished`, `stopped`, `failed` or `pruned`.
        error: why it failed, stopped or was pruned.
        folder: its run folder; empty if it never had one.
        checkpoint: its best checkpoint, or the last one if there is no best; empty if there is none.
        monitor: the metric that chose its best checkpoint; empty if it never got so far.
        mode: which way that metric is better, `max` or `min`.
        loss: a description of its loss.
        best: the figures of its best checkpoint by name, those of the test part too.
        final: the figures of its last evaluation.
        epochs: epochs done.
        steps: optimizer steps done.
        seconds: how long it ran.
    """

    job: str
    changed: Mapping[str, str]
    status: str
    error: str | None = None
    folder: str = ""
    checkpoint: str = ""
    monitor: str = ""
    mode: str = ""
    loss: str = ""
    best: Mapping[str, float | None] = field(default_factory=dict)
    final: Mapping[str, float | None] = field(default_factory=dict)
    epochs: float = 0.0
    steps: int = 0
    seconds: float = 0.0


@dataclass(frozen=True)
class Row:
    """One job in a ranking.

    Attributes:
        place: from 1; None if it has no figure to be ranked by.
        value: the metric at its best checkpoint.
        final: the metric at its last evaluation.
        remark: why the job failed, or has no place.
    """

    result: JobResult
    place: int | None
    value: float | None
    final: float | None
    remark: str | None


@dataclass(frozen=True)
class Board:
    """Jobs that can be compared with each other.

    Attributes:
        metric: what they are ranked by.
        mode: which way it is better, `max` or `min`.
        loss: the loss that they share, if they are ranked by it; otherwise empty.
        rows: best first: those that finished, then the unfinished, then those without a figure, then the
            failed.
    """

    metric: str
    mode: str
    loss: str
    rows: Sequence[Row]


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


def changed_keys(results: Iterable[JobResult]) -> list[str]:
    """The keys in which jobs differ, in the order of their overrides."""
    return list(dict.fromkeys(key for result in results for key in result.changed))


def metric_names(results: Iterable[JobResult]) -> list[str]:
    """The metrics that jobs can be ranked by."""
    names = dict.fromkeys(name for result in results for name in result.best)
    return [name for name in names if name.startswith(("val/", "test/", "train/"))]


def keys_of(boards: Sequence[Board]) -> list[str]:
    """The keys in which jobs of any board differ."""
    return changed_keys(row.result for board in boards for row in board.rows)


def metrics_of(boards: Sequence[Board]) -> list[str]:
    """The metrics that boards are ranked by; `metric` where there is none."""
    return list(dict.fromkeys(board.metric for board in boards)) or ["metric"]


def losses_of(boards: Sequence[Board], metric: str) -> set[str]:
    """The losses that jobs are ranked by, if the metric is the loss; otherwise none."""
    return {board.loss for board in boards if board.metric == metric and board.loss}


def rank(results: Sequence[JobResult], metric: str | None = None) -> list[Board]:
    """Ranks jobs: those with different monitored metrics apart, and those with different losses if the
    metric is the loss.

    Of equal ones the job with the lower validation loss comes first, if all jobs use the same loss. Jobs
    that never told what they monitor are listed with the largest board.

    Args:
        metric: what to rank all by; None takes the one that each job monitors.
    """
    chosen_mode = _mode(metric, results) if metric else ""
    parts: dict[tuple[str, str, str], list[tuple[int, JobResult]]] = {}
    unknown = []
    for index, result in enumerate(results):
        name = metric or result.monitor
        if not name or (metric is not None and result.best.get(metric) is None):
            unknown.append((index, result))
            continue
        loss = result.loss if name.endswith("/loss") else ""
        parts.setdefault((name, chosen_mode or result.mode, loss), []).append((index, result))
    if not parts and unknown:
        parts[metric or "metric", chosen_mode or "max", ""] = []
    if parts:
        largest = max(parts.values(), key=len)
        largest[:] = sorted(largest + unknown, key=lambda each: each[0])
    return [_board(*key, [result for _, result in part]) for key, part in parts.items()]


def _mode(metric: str, results: Iterable[JobResult]) -> str:
    usual = "max" if metric.partition("/")[2] in HIGHER_IS_BETTER else "min"
    return next((result.mode for result in results if result.monitor == metric), usual)


_RANKED, _UNFINISHED, _UNKNOWN, _FAILED = range(4)


def _board(metric: str, mode: str, loss: str, results: Sequence[JobResult]) -> Board:
    comparable = len({result.loss for result in results if result.loss}) <= 1

    def order(result: JobResult) -> tuple[int, float, float]:
        if result.status == "failed":
            return _FAILED, 0.0, 0.0
        if (value := _finite(result.best.get(metric))) is None:
            return _UNKNOWN, 0.0, 0.0
        tie = _finite(result.best.get("val/loss")) if comparable else None
        group = _RANKED if result.status == "finished" else _UNFINISHED
        return group, -value if mode == "max" else value, math.inf if tie is None else tie

    rows = []
    for place, result in enumerate(sorted(results, key=order), start=1):
        value = result.best.get(metric)
        has_place = result.status != "failed" and _finite(value) is not None
        rows.append(
            Row(
                result,
                place if has_place else None,
                value,
                result.final.get(metric),
                _remark(result, metric),
            )
        )
    return Board(metric, mode, loss, rows)


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None


def _remark(result: JobResult, metric: str) -> str | None:
    """Why a job failed, or why it has no place."""
    if result.status != "finished" or result.best.get(metric) is not None:
        return result.error
    if not result.monitor:
        return "has no validation set to be ranked on"
    if metric != result.monitor:
        return f"has no {metric}"
    others = [value for name, value in result.final.items() if name.startswith("val/")]
    if any(value is not None for value in others):
        return f"{metric} was never a number: the validation part leaves it undefined"
    return f"{metric} was never a number: the model gave NaN or infinity in every evaluation"


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
        if row.result.status == "finished" and (value := _finite(row.value)) is not None:
            of_repeat.append(value)
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
