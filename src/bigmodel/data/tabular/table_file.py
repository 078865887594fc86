"""Files of columns: CSV, TSV, Parquet and JSON lines, each gzip or not, one file or a folder of them.

Nothing is guessed here. The cells of a CSV stay the text that they are in the file, so that `007` stays
an identifier and a prediction can be written next to it unchanged; other modules convert columns to
numbers. Types guessed from the first rows, as in pandas and Hugging Face `datasets`, fail if a later row
has another one.
"""

from __future__ import annotations

import contextlib
import shlex
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, cast

from bigmodel.data.ignored_files import is_ignored
from bigmodel.data.libraries import pa
from bigmodel.data.paths import check_inside
from bigmodel.data.reader import HeaderRows
from bigmodel.data.tabular.column_storage import (
    ArrowColumns,
    ColumnSource,
    ParquetColumns,
    SpooledColumns,
    check_names,
)
from bigmodel.data.tabular.json_values import is_json, to_castable, to_json_column
from bigmodel.data.tabular.missing_values import null_missing_words
from bigmodel.data.tabular.number_formats import NumberFormat
from bigmodel.data.tabular.type_inference import infer_type
from bigmodel.data.text_encoding import name_without_gz
from bigmodel.errors import DataError, did_you_mean

IN_MEMORY = "the table"
"""What messages call a table that is no file."""

_MAX_NAMES = 30  # names that a message lists at most


@dataclass(eq=False)
class Table:
    """The columns of a table, each read when it is needed.

    Attributes:
        path: the file or folder that they come from.
        files: that they were read from.
        sources: the columns of each file.
        left_out: how many unreadable rows were left out, by reason.
        header_rows: label and text of rows for the header of a run.
        missing: the user's words for missing values.
        max_bad: how many unreadable files that a column names count as missing.
        cache: see `decode_cache.cache_folder`; None: the files that columns name are decoded each time.
        missing_counts: how often each word was taken for a missing value, by column.
        column_names: in the order of the file.
        num_rows: in each column.
    """

    path: Path
    files: list[Path]
    sources: list[ColumnSource]
    left_out: dict[str, int]
    header_rows: HeaderRows
    missing: Sequence[str] = ()
    max_bad: int = 0
    cache: str | None = None
    missing_counts: dict[str, dict[str, int]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.column_names = self.sources[0].names
        self._known = frozenset(self.column_names)
        self.num_rows = sum(source.rows for source in self.sources)
        self._number_formats: dict[str, NumberFormat | None] = {}

    def __contains__(self, name: str) -> bool:
        return name in self._known

    @property
    def folder(self) -> Path:
        """Where relative paths in its cells begin."""
        return self.path if self.path.is_dir() else self.path.parent

    def column(self, name: str) -> Any:
        """The `raw_column`, with null for `missing` words; values of several kinds become text."""
        column = self.raw_column(name)
        if is_json(column.type):
            column = pa.chunked_array([to_castable(column)])
        if self.missing:
            column, counts = null_missing_words(column, self.missing, partial(self._number_format, name))
            self.count_missing(name, counts)
        return column

    def _number_format(self, name: str, column: Any) -> NumberFormat | None:
        """The format of a column of numbers; None if it is of another kind."""
        if name not in self._number_formats:  # the same each time that the column is read
            inferred = infer_type(column)
            is_number = inferred.kind == "number"
            self._number_formats[name] = inferred.number_format if is_number else None
        return self._number_formats[name]

    def count_missing(self, name: str, missing_counts: Mapping[str, int]) -> None:
        """Records how often each word of a column was taken for missing."""
        self.missing_counts.setdefault(name, {}).update(missing_counts)

    def raw_column(self, name: str) -> Any:
        """One column, a `pyarrow.ChunkedArray`, with null for empty cells.

        It is text in CSV and TSV, else of the type in the file; JSON if its values are of several kinds.
        """
        columns = [source.read(name) for source in self.sources]
        if len(columns) == 1:
            return columns[0]
        tables = [pa.table({name: column}) for column in columns]
        try:
            return pa.concat_tables(tables, promote_options="permissive").column(0)
        except (pa.ArrowInvalid, pa.ArrowTypeError):  # of several kinds
            return pa.chunked_array([chunk for one in columns for chunk in to_json_column(one).chunks])


def read_table(path: Path, key: str, max_bad: int = 0, encoding: str = "utf-8") -> Table:
    """The columns of a CSV, TSV, Parquet or JSON lines file, gzip or not, or of a folder of such files.

    Args:
        path: the file or folder; files of a folder are concatenated in the order of their names.
        key: the option that names it, such as `data.path`, for messages.
        max_bad: unreadable rows that may be left out; `Table.left_out` counts them.
        encoding: of text, unless there is a byte-order mark.

    Raises:
        DataError: it is of another kind, empty, damaged, in another encoding, or a row has more or fewer
            fields than there are columns. The message names the file and the row.
    """
    files = _table_files(path, key) if path.is_dir() else [path]
    bad: list[str] = []  # what is wrong with each row that is left out
    header_rows: HeaderRows = []
    sources: list[ColumnSource] = []
    for file in files:
        try:
            sources.append(_read_file(file, key, bad, max_bad, encoding, header_rows))
        except OSError as error:
            raise DataError(f"{file}: cannot be read: {error.strerror or error}.") from error
        if set(sources[-1].names) != set(sources[0].names):
            differing = sorted(set(sources[-1].names) ^ set(sources[0].names))
            raise DataError(
                f"{key}={path}: all files of a folder must have the same columns, but {file.name} and"
                f" {files[0].name} differ in {name_list(differing)}."
            )
    if sum(source.rows for source in sources) == 0:
        raise DataError(f"{path}: it has columns ({name_list(sources[0].names)}), but no rows.")
    left_out = {"unreadable row": len(bad)} if bad else {}
    table = Table(path, files, sources, left_out, header_rows)
    table.max_bad = max_bad
    return table


def table_in_memory(table: Any) -> Table:
    """The columns of a `pyarrow.Table`.

    Raises:
        DataError: it has no rows, or two columns of the same name.
    """
    path = Path(IN_MEMORY)
    check_names(path, table.column_names)
    if table.num_rows == 0:
        raise DataError(f"{path}: it has columns ({name_list(table.column_names)}), but no rows.")
    return Table(path, [], [ArrowColumns(table)], {}, [])


def get_column(table: Table, name: str, key: str) -> Any:
    """One column by a name that the user gives, a `pyarrow.ChunkedArray`.

    Args:
        table: from `read_table`.
        name: of the column.
        key: the option that names it, such as `data.target`, for the message.

    Raises:
        DataError: there is no such column; the message lists all.
    """
    check_column(table, name, key)
    return table.column(name)


def check_column(table: Table, name: str, key: str) -> None:
    """Raises DataError if there is no such column; see `get_column`."""
    if name not in table:
        raise DataError(
            f"{key}={name}: {table.path} has no such column.{did_you_mean(name, table.column_names)}"
            f" Known: {name_list(table.column_names)}."
        )


def as_strings(column: Any) -> list[str | None]:
    """A column of any type as strings; None for a missing value."""
    return cast("list[str | None]", to_castable(column).cast(pa.string()).to_pylist())


def name_list(names: Iterable[str]) -> str:
    """Names for a message; the first ones if there are many."""
    known = list(names)
    more = f", … ({len(known):,} in all)" if len(known) > _MAX_NAMES else ""
    return ", ".join(known[:_MAX_NAMES]) + more


def _table_files(folder: Path, key: str) -> list[Path]:
    """The files of a folder, all of one kind, sorted by name."""
    inside = (path for path in folder.iterdir() if path.is_file() and not is_ignored(path.name))
    tables = sorted(path for path in inside if _file_type(path) is not None)
    kinds = sorted({str(_file_type(path)) for path in tables})
    if len(kinds) != 1:
        holds = f"holds files of several kinds ({', '.join(kinds)})" if kinds else "holds no table"
        raise DataError(f"{key}={folder}: the folder {holds}. Name one file. {_KNOWN_TYPES}")
    for path in tables:
        check_inside(path, folder, key)
    return tables


_FILE_TYPES = {
    **dict.fromkeys((".csv", ".txt"), "CSV"),
    **dict.fromkeys((".tsv", ".tab"), "TSV"),
    **dict.fromkeys((".parquet", ".pq"), "Parquet"),
    **dict.fromkeys((".jsonl", ".ndjson", ".json"), "JSON lines"),
}
_KNOWN_TYPES = "Supported are .csv, .tsv, .parquet and .jsonl, each also with .gz."


def _file_type(path: Path) -> str | None:
    return _FILE_TYPES.get(Path(name_without_gz(path)).suffix.lower())


def _read_file(
    path: Path, key: str, bad: list[str], max_bad: int, encoding: str, header_rows: HeaderRows
) -> ColumnSource:
    kind = _file_type(path)
    if kind is None:
        advice = f"{_conversion_advice(path)} {_KNOWN_TYPES}"
        raise DataError(f"{key}={path}: not a table format that can be read.{advice}")
    if path.stat().st_size == 0:
        raise DataError(f"{path}: the file is empty.")
    if kind == "Parquet":
        return ParquetColumns(path)
    refuse = _bad_row_counter(path, bad, max_bad)
    if kind == "JSON lines":
        from bigmodel.data.tabular.json_lines import read_json_batches

        return SpooledColumns(path, read_json_batches(path, refuse, encoding))
    from bigmodel.data.tabular.csv_dialect import detect_dialect
    from bigmodel.data.tabular.csv_reader import BLOCK_SIZES, CsvScan, LongRowError, read_csv_batches

    dialect = detect_dialect(path, kind, encoding)
    header_rows += dialect.header_rows(path)
    before = len(bad)
    for block in BLOCK_SIZES:
        seen = CsvScan()
        with contextlib.suppress(LongRowError):
            source = SpooledColumns(path, read_csv_batches(path, dialect, refuse, block, seen))
            header_rows += seen.header_rows(path)
            return source
        del bad[before:]
    raise AssertionError("with the last block size, LongRowError is not raised")


_PACKERS = {".zip": "unzip", ".bz2": "bunzip2 -k", ".xz": "unxz -k", ".zst": "unzstd", ".7z": "7z x"}


def _conversion_advice(path: Path) -> str:
    """How to convert a file to a table that can be read."""
    suffix = path.suffix.lower()
    if suffix in (".xls", ".xlsx", ".ods"):
        return " Save the sheet as CSV."
    if suffix in _PACKERS:
        return f" Unpack it: {_PACKERS[suffix]} {shlex.quote(str(path))}"
    return ""


def _bad_row_counter(path: Path, bad: list[str], max_bad: int) -> Callable[[str], None]:
    """A function that records what is wrong with a row; it raises DataError after `max_bad` rows."""

    def refuse(fault: str) -> None:
        bad.append(fault)
        if len(bad) > max_bad:
            others = f" (row {len(bad)} of those that cannot be read; data.max_bad={max_bad})"
            raise DataError(f"{path}: {fault}{others if max_bad else ''}")

    return refuse
