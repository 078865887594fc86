"""Reads the columns of a file one at a time, when they are needed.

CSV and JSON lines are converted once, block by block, into a temporary Arrow file without a name, so
that nothing is left behind; columns are read from there. A file may be larger than memory as long as
each of its columns fits, and so do the numbers that all of them become.
"""

from __future__ import annotations

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


def check_names(path: Path | str, names: Sequence[str]) -> None:
    """Raises DataError if two columns have the same name."""
    twice = next((name for name, count in Counter(names).items() if count > 1), None)
    if twice is not None:
        raise DataError(f"{path}: column '{twice}' occurs twice. Rename one of them.")


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
    """Columns in a temporary file, stored column by column for each batch of rows.

    With an Arrow table in memory, or mapped into it, a million rows of 20 columns need half as much
    memory again at the peak; and Arrow's own reader of some columns allocates memory for all of them.
    """

    def __init__(self, path: Path, batches: Iterator[Any]) -> None:
        self._file = tempfile.SpooledTemporaryFile(max_size=_IN_MEMORY)  # noqa: SIM115  (lives as long)
        weakref.finalize(self, self._file.close)
        self.rows = 0
        self._places: list[list[tuple[int, int]]] = []  # offset and size of each column, by batch
        first = next(batches)  # has the names and types, even without rows
        try:
            for batch in _merge_small_batches(chain([first], batches)):
                self._places.append([self._write(batch, place) for place in range(batch.num_columns)])
                self.rows += batch.num_rows
        except OSError as error:
            raise DataError(
                f"{path}: no space to unpack it in {tempfile.gettempdir()}: {error.strerror or error}."
                " Free some, or set TMPDIR to another folder."
            ) from error
        self.names = list(first.schema.names)
        self._schema = first.schema
        self._index = {name: place for place, name in enumerate(self.names)}

    def _write(self, batch: Any, place: int) -> tuple[int, int]:
        """Appends one column of a batch to the file; its offset and size there."""
        offset = self._file.tell()
        self._file.write(memoryview(batch.select([place]).serialize()))
        return offset, self._file.tell() - offset

    def read(self, name: str) -> Any:
        place = self._index[name]
        schema = pa.schema([self._schema.field(place)])
        batches = []
        for offset, size in (places[place] for places in self._places):
            self._file.seek(offset)
            batches.append(pa.ipc.read_record_batch(pa.py_buffer(self._file.read(size)), schema))
        return pa.Table.from_batches(batches, schema=schema).column(0)


def _merge_small_batches(batches: Iterable[Any]) -> Iterator[Any]:
    """The same rows in larger batches: a block of a wide table has only a few rows."""
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


class ArrowColumns:
    """Columns of a `pyarrow.Table` in memory."""

    def __init__(self, table: Any) -> None:
        self.names: list[str] = list(table.column_names)
        self.rows: int = table.num_rows
        self._table = table

    def read(self, name: str) -> Any:
        return plain(self._table.column(name))


class ParquetColumns:
    """Columns of a Parquet file, which stores them separately."""

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
            column = self._file.read(columns=[name], use_threads=False).column(name)
        except (pa.ArrowInvalid, OSError) as error:
            raise DataError(f"{self._path}: column '{name}' is damaged: {error}.") from error
        return plain(column)


def plain(column: Any) -> Any:
    """A column without indices of categories and views, which few of Arrow's functions support."""
    if not pa.types.is_dictionary(column.type):
        kind = _without_view(stored := column.type)
        return column if kind is stored else column.cast(kind)
    stored = column.type.value_type
    kind = _without_view(stored)
    if kind is not stored:
        coded = ((chunk.indices, chunk.dictionary.cast(kind)) for chunk in column.chunks)
        chunks = [pa.DictionaryArray.from_arrays(*each) for each in coded]
        column = pa.chunked_array(chunks, pa.dictionary(column.type.index_type, kind))
    return column.cast(kind)


def _without_view(kind: Any) -> Any:
    if pa.types.is_string_view(kind):
        return pa.string()
    return pa.binary() if pa.types.is_binary_view(kind) else kind
