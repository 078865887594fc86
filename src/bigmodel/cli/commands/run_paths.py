"""Finds the run that a path leads to, or explains why there is none."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from bigmodel.errors import CheckpointError, did_you_mean

_LISTED = 5  # runs or jobs that a message names
_DEPTH = 4  # folders between `outputs` and a run: multirun, date, time, job


@dataclass(frozen=True)
class RunPath:
    """A run.

    Attributes:
        folder: the run's folder.
        checkpoint: the requested one; None for any.
    """

    folder: Path
    checkpoint: Path | None = None

    @property
    def checkpoints(self) -> Path:
        """The folder of the run's checkpoints."""
        return self.folder / "checkpoints" if self.checkpoint is None else self.checkpoint.parent


def resolve_run(text: str) -> RunPath:
    """The run that a path leads to.

    Raises:
        CheckpointError: there is none; the message lists runs nearby.
    """
    path = Path(text).expanduser()
    if path.is_file() and path.parent.is_dir() and (path.parent / "manifest.json").is_file():
        path = path.parent  # a file of a checkpoint
    if not path.exists():
        raise CheckpointError(f"{text}: there is no such folder.{_nearest(path)}{_newest()}")
    if not path.is_dir():
        raise CheckpointError(f"{text}: this is a file. Name a run's folder, which holds checkpoints/.")
    if (path / "checkpoints").is_dir():
        return RunPath(path)
    if path.name == "checkpoints" and path.absolute().parent.is_dir():
        return RunPath(path.absolute().parent)
    if (path / "manifest.json").is_file():
        checkpoint = path.absolute()
        return RunPath(checkpoint.parent.parent, checkpoint)
    if (path / ".hydra").is_dir():
        raise CheckpointError(
            f"{text}: the run has no checkpoint: it ended before its first save, or the checkpoint was "
            "deleted."
        )
    jobs = runs_in(path)
    if not jobs:
        raise CheckpointError(
            f"{text}: this is not a run's folder: it has no checkpoints/. bigmodel-train prints a run's"
            f" folder as Output.{_newest()}"
        )
    kind = "a sweep's" if _is_sweep(path) else "a"
    shown = [str(job) for job in jobs[:_LISTED]]
    more = f" and {len(jobs) - _LISTED:,} more" if len(jobs) > _LISTED else ""
    raise CheckpointError(
        f"{text}: this is {kind} folder of runs. Choose one: {', '.join(shown)}{more}."
    )


def runs_in(folder: Path) -> list[Path]:
    """The runs below a folder: in the order of jobs for a sweep, otherwise the newest first."""
    runs: list[Path] = []
    level = [folder]
    for _ in range(_DEPTH):
        level = [inner for outer in level for inner in _folders(outer)]
        runs += [inner for inner in level if (inner / "checkpoints").is_dir()]
        level = [inner for inner in level if inner not in runs]
    if _is_sweep(folder):
        return sorted(runs, key=lambda run: (len(run.name), run.name))
    return sorted(runs, key=lambda run: run.stat().st_mtime, reverse=True)


def _is_sweep(folder: Path) -> bool:
    return (folder / "leaderboard.csv").is_file() or (folder / "multirun.yaml").is_file()


def _folders(folder: Path) -> list[Path]:
    try:
        return [path for path in folder.iterdir() if path.is_dir() and not path.name.startswith(".")]
    except OSError:
        return []


def _nearest(path: Path) -> str:
    parent = path.absolute().parent
    if not parent.is_dir():
        return ""
    return did_you_mean(str(path), [str(path.with_name(other.name)) for other in _folders(parent)])


def _newest() -> str:
    runs = runs_in(Path("outputs"))[:_LISTED] if Path("outputs").is_dir() else []
    if not runs:
        return " There are no runs in outputs."
    return f" The newest runs: {', '.join(map(str, runs))}."
