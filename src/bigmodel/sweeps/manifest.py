"""What a sweep consists of and how far it is: `sweep.jsonl` in its folder.

The first line says what was asked for; each further line is something that happened to a job, or other
words with which the sweep went on. Lines are only ever added, so that a process that is killed loses one
at most; what a job has reached is in its own folder.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bigmodel.errors import CheckpointError
from bigmodel.runtime import disk, nested_json
from bigmodel.sweeps.jobs import Job, Observer, Outcome, Status

NAME = "sweep.jsonl"
VERSION = 1


@dataclass
class JobState:
    """How far a job is.

    Attributes:
        folder: its run folder; None if it never owned one.
        attempts: how often it was begun.
    """

    job: Job
    status: Status = "waiting"
    error: str | None = None
    folder: Path | None = None
    attempts: int = 0


class Manifest(Observer):
    """A sweep's record, which grows as its jobs begin and end.

    Args:
        folder: the sweep's, which the caller has locked.
        words: what was typed.
        states: by number, the jobs.
        started_in: the folder that relative paths in the words start from; None: unknown.
    """

    def __init__(
        self,
        folder: Path,
        words: Sequence[str],
        states: dict[int, JobState],
        started_in: Path | None = None,
    ) -> None:
        self.folder, self.words, self.states = folder, tuple(words), states
        self.started_in = started_in
        self._cut_off = False

    @classmethod
    def create(cls, folder: Path, words: Sequence[str], jobs: Sequence[Job]) -> Manifest:
        """Begins the record of a new sweep.

        Raises:
            CheckpointError: it cannot be written.
        """
        manifest = cls(folder, words, {job.number: JobState(job) for job in jobs}, Path.cwd())
        head = {"version": VERSION, "words": list(words), "started_in": str(manifest.started_in)}
        lines = [head, *map(_entry, jobs)]
        disk.write_text(folder / NAME, "".join(_line(line) for line in lines))
        return manifest

    @classmethod
    def read(cls, folder: Path) -> Manifest:
        """Reads the record of a sweep that was begun.

        Raises:
            CheckpointError: there is none, it cannot be read, or a later version wrote it.
        """
        path = folder / NAME
        try:
            first, *lines = disk.read_text(path).split("\n")
            head = nested_json.loads(first)
            version, words, place = head["version"], _words(head["words"]), head.get("started_in")
            started_in = None if place is None else Path(place)
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise CheckpointError(
                f"{path}: is not a sweep's record. Name the folder of a sweep, which holds {NAME}."
            ) from error
        if version != VERSION:
            raise CheckpointError(
                f"{path}: was written by another version of bigmodel-train: its format is {version}, and"
                f" this one reads {VERSION}. Use that version to go on with the sweep."
            )
        manifest = cls(folder, words, {}, started_in)
        manifest._cut_off = bool(lines and lines[-1])
        for line in lines:
            try:
                manifest._apply(nested_json.loads(line))
            except (ValueError, KeyError, TypeError):  # cut off when its writer was killed
                continue
        return manifest

    def reword(self, words: Sequence[str]) -> None:
        """Records what was typed to go on: from now on the sweep is resumed with these words."""
        self._append({"words": list(words)})

    def add(self, job: Job) -> None:
        """Adds a job."""
        self._append(_entry(job))

    @property
    def jobs(self) -> list[Job]:
        """All jobs."""
        return [state.job for state in self.states.values()]

    def chosen(self, job: Job) -> None:
        if job.number not in self.states:  # a search chooses its jobs as it goes
            self.add(job)

    def started(self, job: Job, folder: Path) -> None:
        with contextlib.suppress(ValueError):  # below the sweep's, it stays known when that is moved
            folder = folder.resolve().relative_to(self.folder.resolve())
        self._append({"job": job.number, "status": "running", "folder": str(folder)})

    def ended(self, job: Job, outcome: Outcome) -> None:
        self._append({"job": job.number, "status": outcome.status, "error": outcome.error})

    def _append(self, entry: dict[str, Any]) -> None:
        path, line = self.folder / NAME, _line(entry)
        if self._cut_off:
            line, self._cut_off = f"\n{line}", False
        try:
            with path.open("a", encoding="utf-8") as file:
                file.write(line)
        except OSError as error:
            raise disk.write_error(path, error, len(line)) from error
        self._apply(entry)

    def _apply(self, entry: dict[str, Any]) -> None:
        if "words" in entry:
            self.words = _words(entry["words"])
            return
        number = int(entry["job"])
        if "overrides" in entry:
            self.states[number] = JobState(Job(number, _words(entry["overrides"])))
            return
        state = self.states[number]
        state.status, state.error = entry["status"], entry.get("error")
        if state.status == "running":
            state.attempts += 1
            state.folder = self.folder.absolute() / entry["folder"]


def _words(value: Any) -> tuple[str, ...]:
    """What was typed, as a record has it, which anybody may have written.

    Raises:
        ValueError: it is something else.
    """
    if not isinstance(value, list | tuple) or not all(isinstance(word, str) for word in value):
        raise ValueError("not a list of texts")
    return tuple(value)


def _entry(job: Job) -> dict[str, Any]:
    return {"job": job.number, "overrides": list(job.overrides)}


def _line(entry: dict[str, Any]) -> str:
    return json.dumps(entry) + "\n"  # in ASCII, since a file's name may be no text
