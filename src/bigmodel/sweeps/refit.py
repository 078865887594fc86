"""The best settings of a sweep, to be trained again."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import median

from pydantic import TypeAdapter

from bigmodel.errors import counted
from bigmodel.runtime import disk, nested_json
from bigmodel.sweeps.groups import choice_bias, group
from bigmodel.sweeps.jobs import FOLD
from bigmodel.sweeps.leaderboard import Board, JobResult, Row, rank
from bigmodel.sweeps.statistics import Estimate, estimate

FOLDER, RECORD = "experiment", "refit.json"


@dataclass(frozen=True)
class Winner:
    """The best settings among those of jobs that are ranked by the same metric.

    Attributes:
        jobs: the finished ones with them, best first.
        repeats: keys in which they differ: those of seeds and folds.
        metric, mode: what they are ranked by, and which way it is better, `max` or `min`.
        estimate: its mean over the repetitions; of the one job if there are none.
        candidates: of how many settings they are the best.
        unit: what the repetitions are: `seed`, `fold` or `run`.
        bias: by how much the mean is too good for having been picked; see `choice_bias`.
    """

    jobs: Sequence[JobResult]
    repeats: Sequence[str]
    metric: str
    mode: str
    estimate: Estimate
    candidates: int
    unit: str = "run"
    bias: float | None = None

    @property
    def job(self) -> JobResult:
        """The best job with them."""
        return self.jobs[0]

    @property
    def value(self) -> float:
        """Of the job; the mean if there are repetitions."""
        return self.estimate.mean

    @property
    def runs(self) -> int:
        """How many repetitions have finished."""
        return self.estimate.n

    @property
    def among(self) -> str:
        """What they are the best of: `4 jobs`."""
        return counted(self.candidates, "setting" if self.repeats else "job")

    @property
    def changed(self) -> Mapping[str, str]:
        """The settings, as far as the sweep changed them."""
        return {key: value for key, value in self.job.changed.items() if key not in self.repeats}


def winners(results: Sequence[JobResult], metric: str | None = None) -> list[Winner]:
    """The best settings by each monitored metric; none if no job has finished with a figure.

    Args:
        metric: what to rank all by; None takes the one that each job monitors.
    """
    return [winner for board in rank(results, metric) if (winner := _best(board)) is not None]


def _best(board: Board) -> Winner | None:
    grouping = group(board)
    if grouping is None:
        rows = _finished(board.rows)
        if not rows:
            return None
        value = rows[0].value
        assert value is not None
        single = estimate([value])
        return Winner([rows[0].result], (), board.metric, board.mode, single, len(rows))
    groups = [each for each in grouping.groups if each.estimate is not None]
    if not groups:
        return None
    best = groups[0].estimate
    assert best is not None
    jobs = [row.result for row in _finished(groups[0].rows)]
    unit = "fold" if FOLD in grouping.counted else "seed" if grouping.counted == ["seed"] else "run"
    bias = choice_bias(board, grouping)
    return Winner(jobs, grouping.repeats, board.metric, board.mode, best, len(groups), unit, bias)


def _finished(rows: Sequence[Row]) -> list[Row]:
    return [row for row in rows if row.result.status == "finished" and row.place is not None]


@dataclass(frozen=True)
class Length:
    """How long the winner's runs took to their best checkpoint.

    Attributes:
        epochs: the median over the runs, at least 1; None if that was within half an epoch.
        steps: the median in optimizer steps.
        each: epochs of each run.
    """

    epochs: int | None
    steps: int
    each: Sequence[float]


def length_to_best(winner: Winner) -> Length | None:
    """How long it took to the best checkpoint; None if a run does not tell."""
    epochs, steps = [], []
    for job in winner.jobs:
        step = job.best.get("step")
        if not step or not job.steps or not job.epochs:
            return None
        steps.append(step)
        epochs.append(step * job.epochs / job.steps)
    middle = median(epochs)
    return Length(max(1, round(middle)) if middle >= 0.5 else None, round(median(steps)), epochs)


@dataclass(frozen=True)
class Refit:
    """A run with the best settings of a sweep.

    Attributes:
        winner: those settings.
        announcement: what is said when it begins.
        name: of its experiment.
        experiment: the experiment's YAML.
        flags: those of the sweep's command line that say where configurations are.
        search_path: folders in which it looked for more of them.
        plugins: modules that the settings need.
        moved_to: the folder that relative paths start from, if the user is in another one.
    """

    winner: Winner
    announcement: str
    name: str
    experiment: str
    flags: Sequence[str] = ()
    search_path: Sequence[str] = ()
    plugins: Sequence[str] = ()
    moved_to: Path | None = None

    def write(self, folder: Path) -> None:
        """Writes the experiment into the run's folder, and what `read` needs.

        Raises:
            CheckpointError: they cannot be written.
        """
        disk.make_folder(folder / FOLDER)
        disk.write_text(folder / FOLDER / f"{self.name}.yaml", self.experiment)
        winner = replace(self.winner, jobs=())
        kept = replace(self, winner=winner, announcement="", experiment="", moved_to=Path.cwd())
        disk.write_text(folder / FOLDER / RECORD, json.dumps(asdict(kept), default=str))

    @classmethod
    def read(cls, folder: Path, plugins: Sequence[str] = ()) -> Refit | None:
        """What the run in a folder trains, without the sweep's jobs; None if that is something else.

        Args:
            plugins: those that the user has named now; the folder may come from somebody else.
        """
        try:
            content = nested_json.loads(disk.read_text(folder / FOLDER / RECORD))
            found = TypeAdapter(cls).validate_python(content)
        except (OSError, ValueError):
            return None
        moved_to = None if found.moved_to == Path.cwd() else found.moved_to
        return replace(found, plugins=plugins, moved_to=moved_to)
