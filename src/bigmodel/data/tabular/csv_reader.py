"""Reads CSV and TSV files as batches of rows, in which every value is text as it is in the file."""

from __future__ import annotations

import csv
import io
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from threading import Lock
from typing import Any, BinaryIO, cast

from bigmodel.data.libraries import pa, pa_csv, pc
from bigmodel.data.reader import HeaderRows
from bigmodel.data.tabular.csv_dialect import CsvDialect
from bigmodel.data.text_encoding import check_utf8, is_utf8, open_as_utf8
from bigmodel.errors import DataError

BLOCK_SIZES = (1 << 20, 32 << 20)
"""Bytes parsed at once, and so the longest row. Arrow reads many blocks ahead: small ones come first."""

_CHUNK = 1 << 20
_ROWS = 10_000  # in a batch
_SUM_LABELS = (
    *("total", "totals", "sum", "grand total"),
    *("summe", "gesamt", "insgesamt", "somme", "totale"),
)
_KEPT_ALIVE: deque[Any] = deque(maxlen=64)
"""The newest parse options. If one of Arrow's threads releases the last reference, and with it our
function, while Python exits, as after a message on a small file, the process aborts."""


class LongRowError(Exception):
    """A row is longer than a block."""


@dataclass
class CsvScan:
    """Notes on a file that is being read.

    Attributes:
        headers: how many rows repeat the header.
        last: the first value of the last row.
    """

    headers: int = 0
    last: str | None = None

    def header_rows(self, path: Path) -> HeaderRows:
        """Rows for the header of a run."""
        lines = []
        if self.headers:
            rows = "a row" if self.headers == 1 else f"{self.headers:,} rows"
            lines.append(("Skipped", f"{rows} of {path.name} that repeat the header"))
        if self.last is not None and self.last.strip().lower().rstrip(":") in _SUM_LABELS:
            text = f"{path}: its last row begins with {self.last!r}. Remove it if it is a total."
            lines.append(("Warning", text))
        return lines

    def without_headers(self, batch: Any, dialect: CsvDialect) -> Any:
        """The rows of a batch that do not repeat the header; the others are counted."""
        if len(dialect.header) < 2 or not all(dialect.header):
            return batch
        same = pc.equal(batch.column(0), dialect.header[0])
        if not pc.any(same).as_py():
            return batch
        for place, name in enumerate(dialect.header):
            same = pc.and_(same, pc.fill_null(pc.equal(batch.column(place), name), False))
        self.headers += pc.sum(same).as_py() or 0
        return batch.filter(pc.invert(pc.fill_null(same, False)))


def read_csv_batches(
    path: Path,
    dialect: CsvDialect,
    refuse: Callable[[str], None],
    block: int = BLOCK_SIZES[-1],
    seen: CsvScan | None = None,
) -> Iterator[Any]:
    """The rows of a CSV or TSV file, as Arrow batches of text; an empty field is null.

    Rows that repeat the header, as in concatenated files, are left out.

    Args:
        path: the file, gzip or not.
        dialect: of the file.
        refuse: called with a message for each row with too many or too few fields; may raise.
        block: bytes to parse at once.
        seen: filled with notes on the file.

    Raises:
        LongRowError: a row is longer than `block`, and a larger one can be tried.
        DataError: it is not in the encoding, or cannot be parsed.
    """
    schema = pa.schema([(name, pa.string()) for name in dialect.names])
    yield pa.RecordBatch.from_pylist([], schema=schema)
    seen = seen or CsvScan()
    last: Any = None
    try:
        with open_as_utf8(path, dialect.encoding) as file:
            file.read(dialect.size)
            rows = _python_rows if dialect.spaced else _arrow_rows
            for batch in rows(file, dialect, refuse, block):
                columns = batch.columns[: len(dialect.names)]
                if dialect.closed and batch.columns[-1].null_count < batch.num_rows:
                    refuse("a row has more values than the header. Name the extra column in the header.")
                if batch.num_rows:
                    last, seen.last = columns[-1][-1].as_py(), columns[0][-1].as_py()
                yield seen.without_headers(pa.RecordBatch.from_arrays(columns, schema=schema), dialect)
        _check_closed(path, dialect.encoding, last)
    except (pa.ArrowInvalid, pa.ArrowKeyError, csv.Error) as error:
        if is_utf8(dialect.encoding):
            check_utf8(path)
        long = "straddling" in str(error) or "larger than" in str(error)
        if long and block < BLOCK_SIZES[-1]:
            raise LongRowError from None
        hint = f" A row is longer than {block:,} bytes: is a quotation mark left open?" if long else ""
        raise DataError(f"{path}: cannot be read as {dialect.kind}: {error}.{hint}") from error


def _arrow_rows(
    file: BinaryIO, dialect: CsvDialect, refuse: Callable[[str], None], block: int
) -> Iterator[Any]:
    names = [*dialect.names, ""] if dialect.closed else dialect.names
    bad: list[Any] = []

    def note(row: Any) -> str:
        bad.append((row.number - 1, row.actual_columns))
        return "skip"

    if not cast(io.BufferedReader, file).peek(1):
        return
    parsing = pa_csv.ParseOptions(
        delimiter=dialect.separator, newlines_in_values=True, invalid_row_handler=note
    )
    blocks = _BlockFile(file)
    source = pa.PythonFile(blocks, mode="r")
    _KEPT_ALIVE.append((parsing, source))
    reader = pa_csv.open_csv(
        source,
        read_options=pa_csv.ReadOptions(use_threads=False, block_size=block, column_names=names),
        parse_options=parsing,
        convert_options=pa_csv.ConvertOptions(
            column_types=dict.fromkeys(names, pa.string()), null_values=[""], strings_can_be_null=True
        ),
    )
    try:
        for batch in reader:
            yield batch
            _report_bad_rows(bad, dialect, refuse)
        _report_bad_rows(bad, dialect, refuse)
    finally:
        blocks.end()


class _BlockFile:
    """A file for Arrow, read in blocks that never end between CR and LF.

    Arrow would lose such an LF if both are within quotation marks (apache/arrow#51368).
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._held = b""
        self._reading = Lock()
        self.closed = False

    def read(self, size: int) -> bytes:
        """At most `size` bytes; none at the end."""
        with self._reading:
            if self.closed:
                return b""
            piece = self._held + self._file.read(size - len(self._held))
            self._held = b""
            if len(piece) == size and size > 1 and piece.endswith(b"\r"):
                self._held, piece = piece[-1:], piece[:-1]
            return piece

    def end(self) -> None:
        """Stops threads of Arrow that read ahead: they find the end of the file."""
        with self._reading:
            self.closed = True

    def close(self) -> None:
        """Part of the interface of a file; the file itself is closed by its opener."""


def _python_rows(
    file: BinaryIO, dialect: CsvDialect, refuse: Callable[[str], None], block: int
) -> Iterator[Any]:
    """The rows of a `spaced` file: Arrow takes spaces before quotation marks for a part of the value."""
    del block
    csv.field_size_limit(max(csv.field_size_limit(), BLOCK_SIZES[-1]))
    text = io.TextIOWrapper(file, encoding="utf-8", newline="")
    reader = csv.reader(text, delimiter=dialect.separator, skipinitialspace=True)
    width = len(dialect.names) + dialect.closed
    bad: list[Any] = []
    for first, rows in enumerate(iter(lambda: [row for row in islice(reader, _ROWS) if row], [])):
        kept = [row for row in rows if len(row) == width]
        bad += [(first * _ROWS + n, len(row)) for n, row in enumerate(rows) if len(row) != width]
        _report_bad_rows(bad, dialect, refuse)
        if kept:
            cells = ([value or None for value in column] for column in zip(*kept, strict=True))
            columns = [pa.array(values, pa.string()) for values in cells]
            yield pa.RecordBatch.from_arrays(columns, names=[str(n) for n in range(width)])
    text.detach()


def _check_closed(path: Path, encoding: str, last: str | None) -> None:
    """Refuses a file that ends within quotation marks."""
    if last is None or "\n" not in last or not last.strip("\r\n"):
        return
    value, tail = last.replace('"', '""').encode(), b""
    with open_as_utf8(path, encoding) as file:
        for piece in iter(lambda: file.read(_CHUNK), b""):
            tail = (tail + piece)[-len(value) :]
    if tail == value:
        raise DataError(
            f"{path}: a quotation mark is left open, before {last[:40]!r}. Close it, or double it where"
            " it belongs to the value."
        )


def _report_bad_rows(bad: list[Any], dialect: CsvDialect, refuse: Callable[[str], None]) -> None:
    """Refuses each bad row with a message, and empties the list."""
    separator, expected = dialect.separator, len(dialect.names) + dialect.closed
    name = "a tab" if separator == "\t" else f"'{separator}'"
    while bad:
        number, actual = bad.pop(0)
        fields = "1 field" if actual == 1 else f"{actual:,} fields"
        hint = "Is a value missing, or a quotation mark left open?"
        if actual > expected:
            hint = f"Is {name} within a value? Then put that value in quotation marks."
        row = f"row {number} (counted from 0, below the header)"
        refuse(f"{row} has {fields}, but there are {expected:,} columns. {hint}")
