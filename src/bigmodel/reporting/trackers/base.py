"""The interface of a tracker, as its worker knows it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bigmodel.reporting.trackers.described import Description, Progress
from bigmodel.reporting.trackers.records import Figures


class Tracker:
    """A library that keeps runs. It lives in a process of its own: it may wait, print, raise and exit.

    Args:
        folder: for files of its own; it exists.

    Attributes:
        names: the environment variables that name a project; a resumed run goes to the same one.
        places: those that say where projects are. The user has to set the same ones again: the file that
            knows them may be a stranger's, to whose server no key is sent.
    """

    names: Sequence[str] = ()
    places: Sequence[str] = ()

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def new_id(self, run: Description) -> str:  # noqa: ARG002
        """The identity of a new run; empty: the library chooses it in `open`."""
        return ""

    def open(self, run: Description, progress: Progress) -> str:
        """Begins a run, or goes on with the one that is known there.

        Args:
            progress: `id` is that of the run; if it is empty it is set.

        Returns:
            Where to see the run, for the user.
        """
        raise NotImplementedError

    def log(self, records: Sequence[Figures]) -> None:
        """Hands over records; each has its `step`. The library has them when this returns."""
        raise NotImplementedError

    def finish(self, status: str, results: Figures, facts: Mapping[str, Any]) -> str:
        """The run is over.

        Args:
            status: `finished`, `stopped`, `pruned` or `failed`.
            results: figures of the best record and of the test set, `best/val/loss`, `test/loss`, ….
            facts: such as seconds, parameters and the error.

        Returns:
            What the user has to do for the rest to be sent; empty: nothing.
        """
        raise NotImplementedError
