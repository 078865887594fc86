"""A sweep's folder, with its plan and its leaderboard, belongs to one sweep."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hydra.core.plugins import Plugins

from bigmodel.cli.launch import lock
from bigmodel.errors import ConfigError
from bigmodel.runtime import disk

PLAN = "multirun.yaml"
"""What Hydra writes before the first job."""

LEADERBOARD = "leaderboard.csv"


@contextlib.contextmanager
def owning() -> Iterator[None]:
    """Within it, a sweep that Hydra begins first makes its folder its own, up to the end of it all.

    What is raised out of the sweep then: ConfigError, where the folder holds a sweep already, or cannot
    be made; CheckpointError, where another process has it.
    """
    plain = Plugins.instantiate_sweeper
    with contextlib.ExitStack() as stack:

        def instantiate(self: Plugins, **context: Any) -> Any:
            sweeper = plain(self, **context)
            begin = sweeper.sweep

            def sweep(arguments: list[str]) -> Any:
                folder = Path(str(context["config"].hydra.sweep.dir))
                _claim(folder, stack)
                try:
                    return begin(arguments)
                except BaseException:
                    if not any(folder.glob("*/.hydra")):  # no job has begun, and nothing is planned
                        (folder / PLAN).unlink(missing_ok=True)
                    raise

            sweeper.sweep = sweep  # type: ignore[method-assign]
            return sweeper

        Plugins.instantiate_sweeper = instantiate  # type: ignore[method-assign]
        try:
            yield
        finally:
            Plugins.instantiate_sweeper = plain  # type: ignore[method-assign]


def _claim(folder: Path, stack: contextlib.ExitStack) -> None:
    try:
        disk.make_folder(folder)
    except OSError as error:
        raise ConfigError(
            f"hydra.sweep.dir: {folder} cannot be made: {error.strerror or error}. Name a folder"
            " that can."
        ) from error
    _check_free(folder)
    stack.enter_context(lock.owned(folder))
    _check_free(folder)  # another process may have been quicker


def _check_free(folder: Path) -> None:
    found = [name for name in (PLAN, LEADERBOARD) if os.path.lexists(folder / name)]
    if found:
        raise ConfigError(
            f"hydra.sweep.dir: {folder} holds {' and '.join(found)} already, as a sweep would. Name"
            " another folder with hydra.sweep.dir=<folder>."
        )
