"""Where the columns of a file are read from, one at a time, as they are asked for.

CSV and JSON lines are brought once, block by block, into an Arrow file on disk that has no name, so
that none is ever left half-written; columns are read from it one at a time. A file may be larger than
memory as long as each of its columns fits, and so do the numbers that are made of them all.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import shutil
import tempfile
import weakref
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import Any, BinaryIO, Protocol, cast

from bigmodel.data.libraries import pa, pq
from bigmodel.data.text_encoding import is_gzip, open_decompressed
from bigmodel.errors import DataError

_IN_MEMORY = 8 << 20  # bytes up to which a table needs no file on disk


def check_names(path: Path, names: Sequence[str]) -> None:
    """Raises DataError where two columns have the same name."""
    twice = next((name for name, count in Counter(names).items() if count > 1), None)
    if twice is not None:
        raise DataError(f"{path}: column '{twice}' is there twice. Give one of them another name.")


class ColumnSource(Protocol):
    """The columns of one file.

    Attributes:
        names: in the order of the file.
        rows: how many there are.
    """

    names: list[str]
    rows: int

    def read(self, name: str) -> Any:
        """One column, a `pyarrow.ChunkedArray`."""


class SpooledColumns:
    """Columns that were brought into a file without a name, column by column of each batch of rows.

    Neither a mapped Arrow file nor Arrow's reader of some columns will do: the first counts as memory
    once it is read, the second takes memory for all columns to read one.
    """

    def __init__(self, path: Path, batches: Iterator[Any]) -> None:
        self._file = tempfile.SpooledTemporaryFile(max_size=_IN_MEMORY)  # noqa: SIM115  (lives as long)
        weakref.finalize(self, self._file.close)
        self.rows = 0
        self._places: list[list[tuple[int, int]]] = []  # offset and size of each column, by batch
        first = next(batches)  # always there: it tells the columns, even without a row
        try:
            for batch in _merge_small_batches(chain([first], batches)):
                self._places.append([self._write(batch, place) for place in range(batch.num_columns)])
                self.rows += batch.num_rows
        except OSError as error:
            raise DataError(
                f"{path}: no room to unpack it in {tempfile.gettempdir()}: {error.strerror or error}."
                " Free some, or name another folder by TMPDIR."
            ) from error
        self.names = list(first.schema.names)
        self._schema = first.schema
        self._index = {name: place for place, name in enumerate(self.names)}
        self._taken = 0  # bytes read since memory was given back

    def _write(self, batch: Any, place: int) -> tuple[int, int]:
        """Adds one column of a batch to the file; where it lies there."""
        offset = self._file.tell()
        self._file.write(memoryview(batch.select([place]).serialize()))
        return offset, self._file.tell() - offset

    def read(self, name: str) -> Any:

        place = self._index[name]
        self._taken += sum(batch[place][1] for batch in self._places)
        if self._taken > _IN_MEMORY:  # after each column of a long table, once for many of a short one
            give_back()
            self._taken = 0
        schema = pa.schema([self._schema.field(place)])
        found = []
        for offset, size in (batch[place] for batch in self._places):
            self._file.seek(offset)
            found.append(pa.ipc.read_record_batch(pa.py_buffer(self._file.read(size)), schema))
        return pa.Table.from_batches(found, schema=schema).column(0)


def _merge_small_batches(batches: Iterable[Any]) -> Iterator[Any]:
    """The same rows in larger batches: a block of a wide table holds few rows, of each column."""

    waiting: list[Any] = []
    size = 0
    for batch in batches:
        waiting.append(batch)
        size += batch.nbytes
        if size > _IN_MEMORY:
            yield from pa.Table.from_batches(waiting).combine_chunks().to_batches()
            waiting, size = [], 0
    if waiting:
        yield from pa.Table.from_batches(waiting).combine_chunks().to_batches()


def give_back() -> None:
    """Hands memory that is free back to the system: else the peak is what all columns took in turn."""
    pa.default_memory_pool().release_unused()
    with contextlib.suppress(OSError, AttributeError):  # not every C library has it
        _c_library().malloc_trim(0)


@functools.cache
def _c_library() -> ctypes.CDLL:
    return ctypes.CDLL(None)


class ParquetColumns:
    """Columns of a Parquet file, which keeps them apart already."""

    def __init__(self, path: Path) -> None:

        source: Any = path
        if is_gzip(path):
            source = tempfile.TemporaryFile()  # noqa: SIM115  (lives as long as this)
            weakref.finalize(self, source.close)
            with open_decompressed(path) as file:
                shutil.copyfileobj(file, cast(BinaryIO, source))
        try:
            self._file = pq.ParquetFile(source)
        except pa.ArrowInvalid as error:
            raise DataError(f"{path}: not a Parquet file, or a damaged one: {error}.") from error
        weakref.finalize(self, self._file.close)
        self._path = path
        self.names: list[str] = list(self._file.schema_arrow.names)
        check_names(path, self.names)
        self.rows: int = self._file.metadata.num_rows

    def read(self, name: str) -> Any:

        try:
            found = self._file.read(columns=[name], use_threads=False).column(name)
        except (pa.ArrowInvalid, OSError) as error:
            raise DataError(f"{self._path}: column '{name}' is damaged: {error}.") from error
        kind = found.type.value_type if pa.types.is_dictionary(found.type) else found.type
        # few functions of Arrow's take views
        kind = {pa.string_view(): pa.string(), pa.binary_view(): pa.binary()}.get(kind, kind)
        return found.cast(kind)
