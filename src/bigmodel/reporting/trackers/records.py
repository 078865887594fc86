"""The file of a run's records, read while it grows."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

Figures = dict[str, float]
"""A record without the figures that are not defined."""

_MOST = 1 << 20  # bytes read at once


class Records:
    """Reads the records that a tracker does not have yet.

    Args:
        path: the file, one JSON object a line; it may not exist yet.
        position: how many bytes of it the tracker has.
    """

    def __init__(self, path: Path, position: int = 0) -> None:
        self._path = path
        self.position = position

    def read(self) -> tuple[list[Figures], int]:
        """The next complete records, and the position after them; none while there is nothing new, or
        while the file is shorter than it was, which `rewind` will explain."""
        try:
            with self._path.open("rb") as file:
                file.seek(self.position)
                content = file.read(_MOST)
        except FileNotFoundError:
            return [], self.position
        whole = content[: content.rfind(b"\n") + 1]
        records = [record for line in whole.splitlines() if (record := _figures(line))]
        return records, self.position + len(whole)

    def rewind(self, step: int) -> None:
        """The run goes on after `step`: what is recorded after it is new to the tracker."""
        try:
            with self._path.open("rb") as file:
                end = 0
                for line in file:
                    if end >= self.position or _figures(line).get("step", 0) > step:
                        break
                    end += len(line)
        except FileNotFoundError:
            end = 0
        self.position = min(self.position, end)

    def left(self) -> int:
        """How many records the tracker does not have."""
        return sum(1 for _ in self._lines_left())

    def _lines_left(self) -> Iterator[bytes]:
        try:
            with self._path.open("rb") as file:
                file.seek(self.position)
                yield from file
        except FileNotFoundError:
            return


def _figures(line: bytes) -> Figures:
    try:
        found = json.loads(line)
        return {name: value for name, value in found.items() if isinstance(value, int | float)}
    except (ValueError, AttributeError, RecursionError):
        return {}
