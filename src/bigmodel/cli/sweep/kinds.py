"""What the kinds of sweeps have in common: `grid`, `models` and `search` are one each."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from bigmodel.sweeps.jobs import Job, JobSource
from bigmodel.sweeps.manifest import Manifest


def _nothing() -> None:
    return None


@dataclass(frozen=True)
class Begun:
    """A sweep that has its folder and may run.

    Attributes:
        source: gives the jobs that are not done.
        total: how many those are.
        describe: what tells a job from the others, in one line.
        known: those jobs that are known now, before any has ended.
        pruned_by: the metric by which the source ends jobs early; None: it does not.
        conclusion: when all have run, what the table of jobs does not say; None: nothing.
    """

    source: JobSource
    total: int
    describe: Callable[[Job], str]
    known: Sequence[Job] = ()
    pruned_by: str | None = None
    conclusion: Callable[[], str | None] = _nothing


class Kind(Protocol):
    """One kind of sweep. When it is made it checks all that is asked for, and writes nothing.

    Attributes:
        jobs: those that are known before it begins.
    """

    jobs: Sequence[Job]

    def begin(self, folder: Path, resumed: Manifest | None) -> Begun:
        """Begins the sweep in its folder, or goes on with it.

        Args:
            folder: the sweep's, which the caller has locked.
            resumed: its record, which gets the jobs that are new; None for a new sweep, whose record is
                written afterwards.

        Raises:
            ConfigError: what is asked for does not go with what the folder holds.
            CheckpointError: something there cannot be read or written.
        """
