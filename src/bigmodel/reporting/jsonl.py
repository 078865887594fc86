"""`metrics.jsonl`: the records of a run, one JSON object per line."""

from __future__ import annotations

import itertools
import json
import math
import shutil
import sys
from collections.abc import Iterator
from operator import itemgetter
from pathlib import Path
from typing import BinaryIO, TextIO

from bigmodel.reporting.base import Record, RunInfo, Sink
from bigmodel.reporting.summary import jsonable
from bigmodel.runtime import disk
from bigmodel.runtime.disk import check_regular

NAME = "metrics.jsonl"
_LONGEST = 1 << 20  # bytes of the longest record


class JsonLines(Sink):
    """Appends each record to `metrics.jsonl` in the run's folder, and flushes it at once.

    A resumed run first drops the records of steps that it will do again, and a last line that was cut
    off. NaN and infinity become null. Errors are raised as CheckpointError, so that no figures are lost
    silently.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / NAME
        self._file: TextIO | None = None

    def start(self, info: RunInfo) -> None:
        self._open(info.last_recorded_step)

    def rewind(self, step: int) -> None:
        self.close()
        self._open(step)

    def _open(self, step: int) -> None:
        """Opens the file to continue after `step`."""
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            if self._path.exists():
                _drop_after(self._path, step)
            self._file = self._path.open("a", encoding="utf-8", newline="")
        except OSError as error:
            raise disk.write_error(self._path, error, 0) from error

    def record(self, record: Record, best: Record) -> None:  # noqa: ARG002
        assert self._file is not None, "record before start"
        line = json.dumps(jsonable(record), allow_nan=False) + "\n"
        try:
            self._file.write(line)
            self._file.flush()
        except OSError as error:
            raise disk.write_error(self._path, error, len(line)) from error

    def close(self) -> None:
        if self._file is None:
            return
        file, self._file = self._file, None
        try:
            file.close()
        except OSError as error:
            raise disk.write_error(self._path, error, 0) from error


def read_records(folder: Path) -> list[Record]:
    """The records of a run, in their order; none if there is no file. Null becomes NaN, and lines that
    cannot be read are left out."""
    try:
        check_regular(folder / NAME)
        lines = (folder / NAME).read_bytes().splitlines(keepends=True)
    except OSError:
        return []
    records = (json.loads(line) for line in lines if _is_record(line, sys.maxsize))
    return [
        {name: math.nan if value is None else value for name, value in record.items()}
        for record in records
    ]


def damaged_lines(folder: Path) -> str | None:
    """A warning if a run's file has lines that cannot be read, other than a last one that was cut off.

    They are dropped when the run is resumed, so a copy of the file is kept beside it.
    """
    path = folder / NAME
    try:
        check_regular(path)
        with path.open("rb") as file:
            lines = _lines(file, sys.maxsize)
            broken = sum(line.endswith(b"\n") and not belongs for line, belongs in lines)
        if not broken:
            return None
        shutil.copy(path, path.with_name(f"{NAME}.damaged"))
    except OSError:  # there is no file; if it is needed, opening it raises the error
        return None
    return f"{path}: {broken:,} damaged lines are skipped; they are kept in {NAME}.damaged."


def _drop_after(path: Path, step: int) -> None:
    """Keeps the complete records up to `step`; changes the file only if others are in it."""
    check_regular(path)
    with path.open("rb") as old:
        left = sum(len(line) for line, _ in itertools.takewhile(itemgetter(1), _lines(old, step)))
        if left == path.stat().st_size:
            return
        old.seek(0)
        with disk.atomic_write(path) as new:
            while left:
                left -= new.write(old.read(min(left, _LONGEST)))
            new.writelines(line for line, belongs in _lines(old, step) if belongs)


def _lines(file: BinaryIO, step: int) -> Iterator[tuple[bytes, bool]]:
    """Each line, and whether it is a complete record up to `step`; long lines are split."""
    begins = True
    while line := file.readline(_LONGEST):
        yield line, begins and _is_record(line, step)
        begins = line.endswith(b"\n")


def _is_record(line: bytes, step: int) -> bool:
    try:
        return line.endswith(b"\n") and int(json.loads(line.decode())["step"]) <= step
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError):
        return False
