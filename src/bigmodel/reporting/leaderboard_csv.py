"""The leaderboard of a sweep as `leaderboard.csv`, in full precision."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path

from bigmodel.reporting.leaderboard_cells import LOSS, shows_losses
from bigmodel.runtime import disk
from bigmodel.sweeps.groups import Group, group
from bigmodel.sweeps.leaderboard import Board, keys_of, labels_of, metrics_of


def write_csv(boards: Sequence[Board], path: Path, by: Sequence[str] = ()) -> None:
    """Writes `leaderboard.csv` atomically: a column for each changed key, in full precision, and for
    name, tags and notes if a job has them.

    Args:
        boards: from `bigmodel.sweeps.leaderboard.rank`.
        path: of the file.
        by: keys that tell groups apart; none takes all but seeds and folds.

    Raises:
        CheckpointError: it cannot be written.
    """
    keys, metrics = keys_of(boards), metrics_of(boards)
    loss = [LOSS] if shows_losses(boards) else []
    groupings = [group(board, by) for board in boards]
    means = ["mean", "interval_low", "interval_high", "n"] if any(groupings) else []
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    figures = [*metrics, *loss, "seconds", "status", "folder", "error", "final", "epochs", "checkpoint"]
    labels = labels_of(boards)
    writer.writerow(["rank", "job", *labels, *keys, *figures, *means])
    for board, grouping in zip(boards, groupings, strict=True):
        of_group = {id(row): each for each in (grouping.groups if grouping else []) for row in each.rows}
        for row in board.rows:
            result = row.result
            values = [_exact(row.value) if metric == board.metric else "" for metric in metrics]
            mine = of_group.get(id(row))
            writer.writerow(
                ["" if row.place is None else row.place, result.job]
                + [result.labels[label] for label in labels]
                + [result.changed.get(key, "") for key in keys]
                + [*values, *([result.loss] if loss else []), f"{result.seconds:.3f}", result.status]
                + [result.folder, row.remark or "", _exact(row.final), f"{result.epochs:g}"]
                + [result.checkpoint, *(_mean_cells(mine) if means else [])]
            )
    disk.write_text(path, text.getvalue())


def _exact(value: float | None) -> str:
    return "" if value is None else repr(float(value))


def _mean_cells(group: Group | None) -> list[str]:
    if group is None or group.estimate is None:
        return ["", "", "", "" if group is None else "0"]
    low, high = group.estimate.interval or (None, None)
    return [_exact(group.estimate.mean), _exact(low), _exact(high), str(group.estimate.n)]
