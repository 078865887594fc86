"""`bigmodel track`: sends runs to trackers, or what could not be sent while they trained."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path

import yaml  # type: ignore[import-untyped]

from bigmodel.cli.commands.run_files import RunFiles
from bigmodel.cli.commands.run_paths import resolve_run
from bigmodel.cli.launch.lock import locked
from bigmodel.cli.messages import note
from bigmodel.errors import BigModelError, CheckpointError, ConfigError, require
from bigmodel.reporting import jsonl
from bigmodel.reporting.formatting import shown_path
from bigmodel.reporting.trackers import NAMES, check_names
from bigmodel.reporting.trackers.described import (
    Progress,
    description_path,
    known_trackers,
    progress_path,
)
from bigmodel.reporting.trackers.sink import describe
from bigmodel.reporting.trackers.supervisor import Supervisor, take
from bigmodel.runtime import disk


def run(arguments: Namespace) -> None:
    """Sends each run to each of its trackers, or to those that are named.

    Raises:
        ConfigError: there is no such tracker, or a run has none.
        BigModelError: a tracker does not have everything.
    """
    try:
        names = check_names(arguments.logger)
    except ValueError as error:
        raise ConfigError(f"--logger {','.join(arguments.logger)}: {error}.") from error
    folders = [_folder(text) for text in arguments.runs]
    chosen = {folder: names or known_trackers(folder) for folder in folders}
    for folder, trackers in chosen.items():
        if not trackers:
            raise ConfigError(
                f"{shown_path(folder)}: the run has no tracker yet. Choose one with --logger:"
                f" {', '.join(NAMES)}."
            )
        for name in trackers:
            require(name, f"--logger {name}")
    failures = [failure for folder in folders for failure in _send(folder, chosen[folder])]
    if failures:
        raise BigModelError("\n".join(failures))


def _folder(text: str) -> Path:
    folder = Path(text).expanduser()
    return folder if (folder / jsonl.NAME).is_file() else resolve_run(text).folder


def _send(folder: Path, names: Sequence[str]) -> list[str]:
    """What went wrong."""
    failures = []
    with locked(folder):
        _describe(folder)
        for name in names:
            if _is_known(folder, name):
                note(f"{name}: has all of {shown_path(folder)}")
                continue
            tracker = Supervisor(name, folder, once=True)
            try:
                while not tracker.wait(0.5):
                    take(tracker.messages, lambda text, _: note(text))
            finally:
                tracker.end()
            take(tracker.messages, lambda text, _: note(text))
            if tracker.done:
                note(f"{name}: has all of {shown_path(folder)}")
            else:
                failures.append(f"{shown_path(folder)}: {name}: {tracker.failure}")
    return failures


def _describe(folder: Path) -> None:
    """Writes what trackers are told of the run, if it was trained without any."""
    path = description_path(folder)
    if path.is_file():
        return
    config = yaml.safe_load(RunFiles.read(folder).config)
    if not isinstance(config, dict):
        raise CheckpointError(f"{shown_path(folder)}: the settings of the run cannot be read.")
    parts = [group["name"] for kind in ("model", "data") if isinstance(group := config.get(kind), dict)]
    disk.make_folder(path.parent)
    describe(" on ".join(parts), config, folder).write(path)


def _is_known(folder: Path, name: str) -> bool:
    """Whether the tracker has everything."""
    progress = Progress.read(progress_path(folder, name))
    if progress is None or not progress.ended or progress.unsent:
        return False
    return progress.position >= (folder / jsonl.NAME).stat().st_size
