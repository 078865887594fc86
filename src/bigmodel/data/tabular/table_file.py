"""Files of columns: CSV, TSV, Parquet and JSON lines, each gzip or not, one file or a folder of them.

Nothing is guessed here. What stands in a CSV stays text as it stands there, so that `007` stays an
identifier and a prediction can be written beside it unchanged; whoever asks for numbers converts a
column. Types that are guessed from a file's first rows, as pandas and Hugging Face `datasets` do it,
fail where a later row says otherwise.
"""

from __future__ import annotations

import contextlib
import shlex
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, cast

from bigmodel.data.ignored_files import is_ignored
from bigmodel.data.libraries import pa
from bigmodel.data.paths import check_inside
from bigmodel.data.tabular.column_storage import ColumnSource, ParquetColumns, SpooledColumns
from bigmodel.data.tabular.json_values import is_json, to_castable, to_json_column
from bigmodel.data.tabular.missing_values import null_missing_words
from bigmodel.data.tabular.number_formats import NumberFormat
from bigmodel.data.tabular.type_inference import infer_type
from bigmodel.data.text_encoding import name_without_gz
from bigmodel.errors import DataError, did_you_mean

_MAX_NAMES = 30  # names that a message lists at most


class Table:
    """The columns of a table, each read when it is asked for.

    Attributes:
        path: the file or folder that they come from.
        column_names: in the order of the file.
        num_rows: in each column.
        left_out: how many rows were left out because they could not be read, by reason.
        header_rows: what else is to be told of the files, label and text of each line.
        files: that they were read from.
        missing: words that stand for a missing value, that the user names.
        missing_counts: how often each word was taken for a missing value, by column.
    """

    def __init__(
        self,
        path: Path,
        files: list[Path],
        sources: list[ColumnSource],
        left_out: dict[str, int],
        header_rows: list[tuple[str, str]],
    ) -> None:
        self.path = path
        self.files = files
        self.left_out = left_out
        self.header_rows = header_rows
        self.column_names = sources[0].names
        self._known = frozenset(self.column_names)
        self.num_rows = sum(source.rows for source in sources)
        self._sources = sources
        self.missing: Sequence[str] = ()
        self.missing_counts: dict[str, dict[str, int]] = {}
        self._number_formats: dict[str, NumberFormat | None] = {}

    def __contains__(self, name: str) -> bool:
        """Whether there is a column of that name."""
        return name in self._known

    def column(self, name: str) -> Any:
        """One column of the table, `raw_column`, but null where it holds one of `missing`, and text
        where its values are of several kinds."""
        found = self.raw_column(name)
        if is_json(found.type):
            found = pa.chunked_array([to_castable(found)])
        if self.missing:
            found, counts = null_missing_words(found, self.missing, partial(self._number_format, name))
            self.count_missing(name, counts)
        return found

    def _number_format(self, name: str, column: Any) -> NumberFormat | None:
        """How a column's numbers are written; None if it holds no numbers."""
        if name not in self._number_formats:  # the same each time that it is read
            inferred = infer_type(column)
            is_number = inferred.kind == "number"
            self._number_formats[name] = inferred.number_format if is_number else None
        return self._number_formats[name]

    def count_missing(self, name: str, missing_counts: Mapping[str, int]) -> None:
        """Notes how often which words of a column are taken for missing."""
        self.missing_counts.setdefault(name, {}).update(missing_counts)

    def raw_column(self, name: str) -> Any:
        """One column of the table, a `pyarrow.ChunkedArray`: text, as it stands there, in CSV and TSV
        and numbers, text or whatever else the file says otherwise, JSON where its values are of several
        kinds; what is empty is null."""
        found = [source.read(name) for source in self._sources]
        if len(found) == 1:
            return found[0]
        tables = [pa.table({name: part}) for part in found]
        try:
            return pa.concat_tables(tables, promote_options="permissive").column(0)
        except (pa.ArrowInvalid, pa.ArrowTypeError):  # of several kinds
            return pa.chunked_array([chunk for part in found for chunk in to_json_column(part).chunks])


def read_table(path: Path, key: str, max_bad: int = 0, encoding: str = "utf-8") -> Table:
    """The columns of a CSV, TSV, Parquet or JSON lines file, gzip or not, or of a folder of such files.

    Args:
        path: the file; the files of a folder are put one below the other, in the order of their names.
        key: the option that names it, such as `data.path`, for messages.
        max_bad: rows that may be left out because they cannot be read; `Table.left_out` counts them.
        encoding: that text is written in, unless a byte-order mark says otherwise.

    Raises:
        DataError: it is of another kind, empty, damaged, of another encoding, or a row has more or fewer
            fields than there are columns. The message names the file and the row.
    """
    files = _table_files(path, key) if path.is_dir() else [path]
    bad: list[str] = []  # what is wrong with each row that was left out
    header_rows: list[tuple[str, str]] = []
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
    return Table(path, files, sources, {"unreadable row": len(bad)} if bad else {}, header_rows)


def get_column(table: Table, name: str, key: str) -> Any:
    """One column by the name that a user gave, a `pyarrow.ChunkedArray`.

    Args:
        table: what `read_table` found.
        name: of the column.
        key: the option that names it, such as `data.target`, for the message.

    Raises:
        DataError: there is no such column; the message lists those there are.
    """
    check_column(table, name, key)
    return table.column(name)


def check_column(table: Table, name: str, key: str) -> None:
    """Raises DataError if there is no such column; see `column`."""
    if name not in table:
        raise DataError(
            f"{key}={name}: {table.path} has no such column.{did_you_mean(name, table.column_names)}"
            f" Known: {name_list(table.column_names)}."
        )


def as_strings(get_column: Any) -> list[str | None]:
    """A column as words, whatever kind it is of; None where a value is missing."""
    return cast("list[str | None]", to_castable(get_column).cast(pa.string()).to_pylist())


def name_list(names: Iterable[str]) -> str:
    """Names for a message, the first ones where they are many."""
    known = list(names)
    more = f", … ({len(known):,} in all)" if len(known) > _MAX_NAMES else ""
    return ", ".join(known[:_MAX_NAMES]) + more


def _table_files(folder: Path, key: str) -> list[Path]:
    """The files of a folder, of one kind, sorted by name."""
    inside = (path for path in folder.iterdir() if path.is_file() and not is_ignored(path.name))
    found = sorted(path for path in inside if _file_type(path) is not None)
    kinds = sorted({str(_file_type(path)) for path in found})
    if len(kinds) != 1:
        holds = f"holds files of several kinds ({', '.join(kinds)})" if kinds else "holds no table"
        raise DataError(f"{key}={folder}: the folder {holds}. Name one file. {_KNOWN_TYPES}")
    for path in found:
        check_inside(path, folder, key)
    return found


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
    path: Path, key: str, bad: list[str], max_bad: int, encoding: str, header_rows: list[tuple[str, str]]
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

    heading = detect_dialect(path, kind, encoding)
    header_rows += heading.header_rows(path)
    before = len(bad)
    for block in BLOCK_SIZES:
        seen = CsvScan()
        with contextlib.suppress(LongRowError):
            source = SpooledColumns(path, read_csv_batches(path, heading, refuse, block, seen))
            header_rows += seen.header_rows(path)
            return source
        del bad[before:]
    raise AssertionError("the last block is always tried to its end")


_PACKERS = {".zip": "unzip", ".bz2": "bunzip2 -k", ".xz": "unxz -k", ".zst": "unzstd", ".7z": "7z x"}


def _conversion_advice(path: Path) -> str:
    """What makes a table that can be read of a file that is none."""
    suffix = path.suffix.lower()
    if suffix in (".xls", ".xlsx", ".ods"):
        return " Save the sheet as CSV."
    if suffix in _PACKERS:
        return f" Unpack it: {_PACKERS[suffix]} {shlex.quote(str(path))}"
    return ""


def _bad_row_counter(path: Path, bad: list[str], max_bad: int) -> Callable[[str], None]:
    """Notes a row that cannot be read; it raises DataError where there are more than may be left out."""

    def refuse(fault: str) -> None:
        bad.append(fault)
        if len(bad) > max_bad:
            others = f" (row {len(bad)} of those that cannot be read; data.max_bad={max_bad})"
            raise DataError(f"{path}: {fault}{others if max_bad else ''}")

    return refuse
