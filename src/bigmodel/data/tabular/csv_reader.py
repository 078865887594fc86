"""CSV and TSV files as batches of rows whose every value is the text that stands there."""

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
from bigmodel.data.tabular.csv_dialect import CsvDialect
from bigmodel.data.text_encoding import check_utf8, is_utf8, open_as_utf8
from bigmodel.errors import DataError

BLOCK_SIZES = (1 << 20, 32 << 20)
"""Bytes parsed at once, and so the longest row. Arrow reads many ahead: first try with small ones."""

_CHUNK = 1 << 20
_ROWS = 10_000  # made one batch
_SUM_LABELS = (
    *("total", "totals", "sum", "grand total"),
    *("summe", "gesamt", "insgesamt", "somme", "totale"),
)
_KEPT_ALIVE: deque[Any] = deque(maxlen=64)
"""The newest options. Threads of Arrow drop them last, and with them our function: where Python ends at
that moment, as after a message on a small file, the process aborts. So they are never the last."""


class LongRowError(Exception):
    """A row is longer than what is parsed at once."""


@dataclass
class CsvScan:
    """What was seen of a file besides its rows.

    Attributes:
        headers: how many rows repeat the header.
        last: the first value of the last row.
    """

    headers: int = 0
    last: str | None = None

    def header_rows(self, path: Path) -> list[tuple[str, str]]:
        """Lines for the header of a run."""
        lines = []
        if self.headers:
            rows = "a row" if self.headers == 1 else f"{self.headers:,} rows"
            lines.append(("Passed over", f"{rows} of {path.name} that repeat the header"))
        if self.last is not None and self.last.strip().lower().rstrip(":") in _SUM_LABELS:
            text = f"{path}: its last row begins with {self.last!r}. Remove it if it is a total."
            lines.append(("Warning", text))
        return lines

    def without_headers(self, batch: Any, heading: CsvDialect) -> Any:
        """The rows of a batch that do not repeat the header; the others are counted."""
        if len(heading.header) < 2 or not all(heading.header):
            return batch
        same = pc.equal(batch.column(0), heading.header[0])
        if not pc.any(same).as_py():
            return batch
        for place, name in enumerate(heading.header):
            same = pc.and_(same, pc.fill_null(pc.equal(batch.column(place), name), False))
        self.headers += pc.sum(same).as_py() or 0
        return batch.filter(pc.invert(pc.fill_null(same, False)))


def read_csv_batches(
    path: Path,
    heading: CsvDialect,
    refuse: Callable[[str], None],
    block: int = BLOCK_SIZES[-1],
    seen: CsvScan | None = None,
) -> Iterator[Any]:
    """The rows of a CSV or TSV file, as Arrow batches of text; an empty field is null.

    Rows that repeat the header, as where files were put one below the other, are left out.

    Args:
        path: the file, gzip or not.
        heading: what stands before its rows.
        refuse: told of each row that has too many fields or too few; what it raises ends the reading.
        block: bytes to parse at once.
        seen: is told what else is there.

    Raises:
        LongRowError: a row is longer than `block`, and a larger one can be tried.
        DataError: it is not of the encoding, or it cannot be told apart into rows.
    """
    schema = pa.schema([(name, pa.string()) for name in heading.names])
    yield pa.RecordBatch.from_pylist([], schema=schema)
    seen = seen or CsvScan()
    last: Any = None
    try:
        with open_as_utf8(path, heading.encoding) as file:
            file.read(heading.size)
            rows = _python_rows if heading.spaced else _arrow_rows
            for batch in rows(file, heading, refuse, block):
                columns = batch.columns[: len(heading.names)]
                if heading.closed and batch.columns[-1].null_count < batch.num_rows:
                    refuse("a row has more values than the header. Name the extra column in the header.")
                if batch.num_rows:
                    last, seen.last = columns[-1][-1].as_py(), columns[0][-1].as_py()
                yield seen.without_headers(pa.RecordBatch.from_arrays(columns, schema=schema), heading)
        _check_closed(path, heading.encoding, last)
    except (pa.ArrowInvalid, pa.ArrowKeyError, csv.Error) as error:
        if is_utf8(heading.encoding):
            check_utf8(path)
        long = "straddling" in str(error) or "larger than" in str(error)
        if long and block < BLOCK_SIZES[-1]:
            raise LongRowError from None
        hint = f" A row is longer than {block:,} bytes: is a quotation mark left open?" if long else ""
        raise DataError(f"{path}: cannot be read as {heading.kind}: {error}.{hint}") from error


def _arrow_rows(
    file: BinaryIO, heading: CsvDialect, refuse: Callable[[str], None], block: int
) -> Iterator[Any]:
    """The rows as Arrow reads them."""
    names = [*heading.names, ""] if heading.closed else heading.names
    bad: list[Any] = []

    def note(row: Any) -> str:
        bad.append((row.number - 1, row.actual_columns))
        return "skip"

    if not cast(io.BufferedReader, file).peek(1):
        return
    parsing = pa_csv.ParseOptions(
        delimiter=heading.separator, newlines_in_values=True, invalid_row_handler=note
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
            _report_bad_rows(bad, heading, refuse)
        _report_bad_rows(bad, heading, refuse)
    finally:
        blocks.end()


class _BlockFile:
    """A file as Arrow reads it, block by block, none of which ends between CR and LF.

    Arrow would lose such an LF where both stand within quotation marks (apache/arrow#51368).
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
        """Ends what Arrow's threads read ahead: they find nothing more."""
        with self._reading:
            self.closed = True

    def close(self) -> None:
        """As a file has it; the file itself is its opener's."""


def _python_rows(
    file: BinaryIO, heading: CsvDialect, refuse: Callable[[str], None], block: int
) -> Iterator[Any]:
    """The rows where blanks stand before quotation marks, which Arrow takes for a part of the value."""
    del block
    csv.field_size_limit(max(csv.field_size_limit(), BLOCK_SIZES[-1]))
    text = io.TextIOWrapper(file, encoding="utf-8", newline="")
    reader = csv.reader(text, delimiter=heading.separator, skipinitialspace=True)
    width = len(heading.names) + heading.closed
    bad: list[Any] = []
    for first, some in enumerate(iter(lambda: [row for row in islice(reader, _ROWS) if row], [])):
        kept = [row for row in some if len(row) == width]
        bad += [(first * _ROWS + n, len(row)) for n, row in enumerate(some) if len(row) != width]
        _report_bad_rows(bad, heading, refuse)
        if kept:
            found = ([value or None for value in column] for column in zip(*kept, strict=True))
            columns = [pa.array(values, pa.string()) for values in found]
            yield pa.RecordBatch.from_arrays(columns, names=[str(n) for n in range(width)])
    text.detach()


def _check_closed(path: Path, encoding: str, last: str | None) -> None:
    """Refuses a file whose last value is all that follows a quotation mark that is never closed."""
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


def _report_bad_rows(bad: list[Any], heading: CsvDialect, refuse: Callable[[str], None]) -> None:
    """Says of each bad row what is wrong with it, and forgets it."""
    separator, expected = heading.separator, len(heading.names) + heading.closed
    name = "a tab" if separator == "\t" else f"'{separator}'"
    while bad:
        number, actual = bad.pop(0)
        fields = "1 field" if actual == 1 else f"{actual:,} fields"
        hint = "Is a value missing, or a quotation mark left open?"
        if actual > expected:
            hint = f"Is {name} within a value? Then that value must stand in quotation marks."
        row = f"row {number} (counted from 0, below the header)"
        refuse(f"{row} has {fields}, but there are {expected:,} columns. {hint}")
