"""What trackers are told of a run before its first record, and what is kept of each tracker."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, TypeVar

from bigmodel.errors import CheckpointError
from bigmodel.reporting.trackers import FOLDER, NAMES
from bigmodel.runtime import disk, nested_json

RUN = "run.json"

T = TypeVar("T", bound="_Kept")


@dataclass
class _Kept:
    """Facts that are kept in a file of JSON."""

    def write(self, path: Path) -> None:
        """Writes the file whole.

        Raises:
            CheckpointError: it cannot be written.
        """
        disk.write_text(path, json.dumps(asdict(self), ensure_ascii=False, indent=1, default=str) + "\n")

    @classmethod
    def read(cls: type[T], path: Path) -> T | None:
        """What a file holds; None if there is none.

        Raises:
            CheckpointError: it cannot be read.
        """
        try:
            found = nested_json.loads(disk.read_text(path))
            return cls(**{each.name: found[each.name] for each in fields(cls) if each.name in found})
        except FileNotFoundError:
            return None
        except (OSError, ValueError, TypeError) as error:
            raise CheckpointError(
                f"{path}: cannot be read: {error}. Move it away to send the run as a new one."
            ) from error


@dataclass
class Description(_Kept):
    """A run.

    Attributes:
        title: such as `fnn on digits`.
        name: what the user calls it, or model, data and what was changed.
        group: the sweep that it is a job of, or empty.
        folder: the run's.
        records: the name of its file of records.
        config: all settings, secrets left out.
    """

    title: str
    name: str
    folder: str
    records: str
    config: dict[str, Any]
    tags: list[str] = field(default_factory=list)
    notes: str = ""
    group: str = ""


@dataclass
class Progress(_Kept):
    """What a tracker has of a run.

    Attributes:
        id: of the run there; empty: it does not know the run yet.
        position: how many bytes of the file of records it has.
        ended: how the run has ended, once the tracker knows it.
        place: where it is kept, as environment variables of the library.
        unsent: names of folders in which a library keeps what it has not sent.
    """

    id: str = ""
    position: int = 0
    ended: str = ""
    place: dict[str, str] = field(default_factory=dict)
    unsent: list[str] = field(default_factory=list)


def description_path(folder: Path) -> Path:
    """Where the description of the run in `folder` is kept."""
    return folder / FOLDER / RUN


def progress_path(folder: Path, name: str) -> Path:
    """Where it is kept what the tracker `name` has of the run in `folder`."""
    return folder / FOLDER / f"{name}.json"


def log_path(folder: Path, name: str) -> Path:
    """What the library of a tracker prints."""
    return folder / FOLDER / f"{name}.log"


def lock_path(folder: Path, name: str) -> Path:
    """What one process at a time has, which tells the tracker."""
    return folder / FOLDER / f"{name}.lock"


def known_trackers(folder: Path) -> list[str]:
    """The trackers that the run in `folder` has been told to, or was going to."""
    return [name for name in NAMES if progress_path(folder, name).is_file()]


def flat_settings(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Settings by dotted key; `model.name` is `model`."""
    flat: dict[str, Any] = {}
    for name, value in config.items():
        key = prefix.removesuffix(".") if prefix and name == "name" else f"{prefix}{name}"
        if isinstance(value, Mapping):
            flat |= flat_settings(value, f"{key}.")
        elif value is not None:
            flat[key] = value
    return flat
