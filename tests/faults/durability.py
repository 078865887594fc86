"""In which order files are written, synced and renamed; what a power cut would leave of them."""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

Identity = tuple[int, int]


class Order:
    """Follows each sync, rename and new folder of this process, and notes what a power cut could undo.

    Attributes:
        faults: what was done in a wrong order, in words.
        renames: how many there were.
    """

    def __init__(self) -> None:
        self.faults: list[str] = []
        self.renames = 0
        self._synced: dict[Identity, tuple[int, int]] = {}
        self._new_names: dict[Identity, str] = {}

    @contextlib.contextmanager
    def watching(self) -> Iterator[None]:
        """Within it, every such call is checked."""
        acts = {"rename": self._renaming, "replace": self._renaming, "mkdir": self._making}
        with contextlib.ExitStack() as stack:
            stack.enter_context(mock.patch("os.fsync", self._syncing(os.fsync)))
            for name, act in acts.items():
                stack.enter_context(mock.patch(f"os.{name}", act(getattr(os, name))))
            yield

    def check_synced(self, what: str, *paths: Path) -> None:
        """Checks that `paths`, files or folders with their contents, would survive a power cut."""
        for file in _files(*paths):
            if self._synced.get(_identity(file)) != _state(file):
                self.faults.append(f"{what}: {file} is not synced")
        self.faults += [f"{what}: the name of {name} is not synced" for name in self._new_names.values()]

    def _syncing(self, real: Callable[[int], None]) -> Callable[[int], None]:
        def fsync(handle: int) -> None:
            real(handle)
            found = os.fstat(handle)
            if stat.S_ISDIR(found.st_mode):
                self._new_names.pop((found.st_dev, found.st_ino), None)
            else:
                self._synced[found.st_dev, found.st_ino] = (found.st_size, found.st_mtime_ns)

        return fsync

    def _renaming(self, real: Callable[..., None]) -> Callable[..., None]:
        def rename(source: Any, target: Any, **more: Any) -> None:
            self.renames += 1
            for file in _files(Path(source)):
                if self._synced.get(_identity(file)) != _state(file):
                    self.faults.append(f"{file} is not synced, and renamed to {target}")
            within = self._new_names.get(_identity(Path(source)))
            if within is not None:
                self.faults.append(f"the name of {within} is not synced, and {source} is renamed")
            real(source, target, **more)
            for path in (Path(source), Path(target)):
                self._new_names[_identity(path.parent)] = str(target)

        return rename

    def _making(self, real: Callable[..., None]) -> Callable[..., None]:
        def mkdir(path: Any, *args: Any, **more: Any) -> None:
            real(path, *args, **more)
            self._new_names[_identity(Path(path).absolute().parent)] = str(path)

        return mkdir


def _files(*paths: Path) -> Iterator[Path]:
    for path in paths:
        yield from (p for p in (path, *path.rglob("*")) if p.is_file() and p.name != ".lock")


def _identity(path: Path) -> Identity:
    found = path.stat()
    return found.st_dev, found.st_ino


def _state(path: Path) -> tuple[int, int]:
    found = path.stat()
    return found.st_size, found.st_mtime_ns
