"""A sweep's jobs ranked: plain data, for tables and pages."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

HIGHER_IS_BETTER = frozenset({"accuracy", "top5_accuracy", "macro_f1", "r2", "bleu"})
"""Metrics, without the part, of which more is better; of all others less is."""


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
        directions: that way of each metric, without its prefix; empty if an earlier version wrote them.
        loss: a description of its loss.
        best: the figures of its best checkpoint by name, those of the test part too.
        final: the figures of its last evaluation.
        epochs: epochs done.
        steps: optimizer steps done.
        seconds: how long it ran.
        name, tags, notes: what the user calls it.
    """

    job: str
    changed: Mapping[str, str]
    status: str
    error: str | None = None
    folder: str = ""
    checkpoint: str = ""
    monitor: str = ""
    mode: str = ""
    directions: Mapping[str, str] = field(default_factory=dict)
    loss: str = ""
    best: Mapping[str, float | None] = field(default_factory=dict)
    final: Mapping[str, float | None] = field(default_factory=dict)
    epochs: float = 0.0
    steps: int = 0
    seconds: float = 0.0
    name: str = ""
    tags: Sequence[str] = ()
    notes: str = ""

    @property
    def labels(self) -> dict[str, str]:
        """What the user calls it, as text."""
        return {"name": self.name, "tags": ", ".join(self.tags), "notes": self.notes}


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


def labels_of(boards: Sequence[Board]) -> list[str]:
    """Which of name, tags and notes any of the jobs has."""
    labels = [row.result.labels for board in boards for row in board.rows]
    return [key for key in ("name", "tags", "notes") if any(each[key] for each in labels)]


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
    name, known = metric.partition("/")[2], list(results)
    usual = "max" if name in HIGHER_IS_BETTER else "min"
    told = next((result.directions[name] for result in known if name in result.directions), usual)
    return next((result.mode for result in known if result.monitor == metric), told)


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
        return "no validation set to be ranked on"
    if metric != result.monitor:
        return f"no {metric}"
    others = [value for name, value in result.final.items() if name.startswith("val/")]
    if any(value is not None for value in others):
        return f"{metric} was never a number: the validation part leaves it undefined"
    return f"{metric} was never a number: the model gave NaN or infinity in every evaluation"
