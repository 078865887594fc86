"""The best settings of a sweep, to be trained again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from bigmodel.errors import counted, shell_quoted
from bigmodel.runtime import disk
from bigmodel.sweeps.leaderboard import Board, JobResult, Row, group, rank

FOLDER = "experiment"


@dataclass(frozen=True)
class Winner:
    """The best settings among those of jobs that monitor the same metric.

    Attributes:
        job: the best job with them.
        repeats: keys in which their jobs differ: those of seeds and folds.
        metric: what they are ranked by.
        value: of the job; the mean if there are repetitions.
        runs: how many jobs with them have finished.
        candidates: of how many settings they are the best.
    """

    job: JobResult
    repeats: Sequence[str]
    metric: str
    value: float
    runs: int
    candidates: int

    @property
    def among(self) -> str:
        """What they are the best of: `4 jobs`."""
        return counted(self.candidates, "setting" if self.repeats else "job")


def winners(results: Sequence[JobResult]) -> list[Winner]:
    """The best settings by each monitored metric; none if no job has finished with a figure."""
    return [winner for board in rank(results) if (winner := _best(board)) is not None]


def _best(board: Board) -> Winner | None:
    grouping = group(board)
    if grouping is None:
        rows = _finished(board.rows)
        if not rows:
            return None
        value = rows[0].value
        assert value is not None
        return Winner(rows[0].result, (), board.metric, value, 1, len(rows))
    groups = [each for each in grouping.groups if each.estimate is not None]
    if not groups:
        return None
    best = groups[0].estimate
    assert best is not None
    job = _finished(groups[0].rows)[0].result
    return Winner(job, grouping.repeats, board.metric, best.mean, best.n, len(groups))


def _finished(rows: Sequence[Row]) -> list[Row]:
    return [row for row in rows if row.result.status == "finished" and row.place is not None]


@dataclass(frozen=True)
class Refit:
    """A run with the best settings of a sweep.

    Attributes:
        winner: those settings.
        announcement: what is said when it begins.
        name: of its experiment.
        experiment: the experiment's YAML.
        plugins: modules that the settings need.
    """

    winner: Winner
    announcement: str
    name: str
    experiment: str
    plugins: Sequence[str] = ()

    def write(self, folder: Path) -> None:
        """Writes the experiment into the run's folder.

        Raises:
            CheckpointError: it cannot be written.
        """
        disk.make_folder(folder / FOLDER)
        disk.write_text(folder / FOLDER / f"{self.name}.yaml", self.experiment)

    def conclusion(self, folder: str, test: Mapping[str, float]) -> list[str]:
        """The lines that are said at the end.

        Args:
            folder: the run's.
            test: its figures of the test set; empty if there is none.
        """
        words = [f"--config-dir={folder}", f"experiment={self.name}"]
        words += [f"plugins=[{','.join(self.plugins)}]"] if self.plugins else []
        named = f"These settings again: bigmodel-train {' '.join(map(shell_quoted, words))}"
        if self.winner.candidates < 2:  # nothing was picked
            return [named]
        metric = self.winner.metric
        figure = f"test/{metric.partition('/')[2]}"
        advice = (
            f"Report {figure if figure in test else 'the test figures'}."
            if test
            else ("There is no test set, whose figure could be reported instead.")
        )
        return [
            f"The best of {self.winner.among} was picked on the validation set, so that its {metric} is"
            f" optimistic. {advice}",
            named,
        ]
