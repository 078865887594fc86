"""CSV and TSV files as batches of rows whose every value is the text that stands there."""

from __future__ import annotations

import csv
import io
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from bigmodel.data.plain_files import check_not_wide, check_utf8, is_packed, unpacked
from bigmodel.data.tabular.sources import check_names
from bigmodel.errors import DataError

BLOCKS = (1 << 20, 32 << 20)
"""Bytes parsed at once, and so the longest row. Arrow reads many ahead: first try with small ones."""

_HEAD = 1 << 20  # bytes within which the header ends
_SEPARATORS = ",;\t|"
_IN_USE: deque[Any] = deque(maxlen=64)
"""The newest options. Threads of Arrow drop them last, and with them our function: where Python ends at
that moment, as after a message on a small file, the process aborts. So they are never the last."""


class LongRowError(Exception):
    """A row is longer than what is parsed at once."""


def batches_of_rows(
    path: Path, kind: str, refuse: Callable[[str], None], block: int = BLOCKS[-1]
) -> Iterator[Any]:
    """The rows of a CSV or TSV file, as Arrow batches of text; an empty field is null.

    Args:
        path: the file, gzip or not.
        kind: `CSV`, separated by what separates most in the header, or `TSV`.
        refuse: told of each row that has too many fields or too few; what it raises ends the reading.
        block: bytes to parse at once.

    Raises:
        LongRowError: a row is longer than `block`, and a larger one can be tried.
        DataError: there is no header, it is not UTF-8, or it cannot be told apart into rows.
    """
    import pyarrow as pa
    import pyarrow.csv as pa_csv

    header, separator = _header(path, kind)
    names = _named(path, header)
    bad: list[Any] = []
    last: Any = None

    def note(row: Any) -> str:
        bad.append((row.number, row.actual_columns))
        return "skip"

    schema = pa.schema([(name, pa.string()) for name in names])
    parsing = pa_csv.ParseOptions(delimiter=separator, newlines_in_values=True, invalid_row_handler=note)
    _IN_USE.append(parsing)
    try:
        with _opened(path) as file:
            reader = pa_csv.open_csv(
                file,
                read_options=pa_csv.ReadOptions(use_threads=False, block_size=block),
                parse_options=parsing,
                convert_options=pa_csv.ConvertOptions(
                    column_types=dict.fromkeys(header, pa.string()),
                    null_values=[""],
                    strings_can_be_null=True,
                ),
            )
            yield pa.RecordBatch.from_pylist([], schema=schema)
            for batch in reader:
                yield pa.RecordBatch.from_arrays(batch.columns, schema=schema)
                _tell(bad, len(names), separator, refuse)
                last = batch if batch.num_rows else last
            _tell(bad, len(names), separator, refuse)
        if last is not None:
            _check_closed(path, last.column(-1)[-1].as_py())
    except (pa.ArrowInvalid, pa.ArrowKeyError) as error:
        check_utf8(path)
        long = "straddling" in str(error) or "larger than" in str(error)
        if long and block < BLOCKS[-1]:
            raise LongRowError from None
        hint = f" A row is longer than {block:,} bytes: is a quotation mark left open?" if long else ""
        raise DataError(f"{path}: cannot be read as {kind}: {error}.{hint}") from error
    except OSError as error:  # what Arrow says of a damaged gzip file
        check_utf8(path)
        raise DataError(f"{path}: cannot be read: {error}.") from error


def _opened(path: Path) -> Any:
    """The file for Arrow, which then keeps what it reads ahead in memory that it gives back."""
    import pyarrow as pa

    file = pa.OSFile(str(path))
    return pa.CompressedInputStream(file, "gzip") if is_packed(path) else file


def _check_closed(path: Path, last: str | None) -> None:
    """Refuses a file whose last value is all that follows a quotation mark that is never closed."""
    if last is None or "\n" not in last:
        return
    with unpacked(path) as file:
        quotes = sum(piece.count(b'"') for piece in iter(lambda: file.read(_HEAD), b""))
    if quotes % 2:
        raise DataError(
            f"{path}: a quotation mark is left open, before {last[:40]!r}. Close it, or double it where"
            " it belongs to the value."
        )


def _tell(bad: list[Any], expected: int, separator: str, refuse: Callable[[str], None]) -> None:
    """Says of each bad row what is wrong with it, and forgets it."""
    name = "a tab" if separator == "\t" else f"'{separator}'"
    while bad:
        number, actual = bad.pop(0)
        fields = "1 field" if actual == 1 else f"{actual:,} fields"
        hint = (
            f"Is {name} within a value? Then that value must stand in quotation marks."
            if actual > expected
            else "Is a value missing, or a quotation mark left open?"
        )
        refuse(
            f"row {number - 2} (counted from 0, below the header) has {fields}, but there are"
            f" {expected:,} columns. {hint}"
        )


def _header(path: Path, kind: str) -> tuple[list[str], str]:
    """The names of the columns as they stand in the file, and what separates them."""
    with unpacked(path) as file:
        head = file.read(_HEAD)
    check_not_wide(path, head[:4096])
    try:
        text = head.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        if error.start < len(head) - 4 or len(head) < _HEAD:  # not just a character that is cut in two
            check_utf8(path)
        text = head[: error.start].decode("utf-8-sig")
    line = next((line for line in text.splitlines() if line.strip()), "")
    separator = "\t" if kind == "TSV" else max(_SEPARATORS, key=_outside_quotes(line).count)
    try:
        rows = csv.reader(io.StringIO(text, newline=""), delimiter=separator)
        header = next((row for row in rows if row), None)
    except csv.Error as error:
        raise DataError(f"{path}: its header cannot be read: {error}.") from error
    if header is None:
        raise DataError(f"{path}: the file is empty.")
    return header, separator


def _outside_quotes(line: str) -> str:
    return "".join(line.split('"')[::2])


def _named(path: Path, header: list[str]) -> list[str]:
    """The names of the columns, without spaces around them; those without a name get one."""
    names = [name.strip() or f"column {place}" for place, name in enumerate(header, start=1)]
    check_names(path, names)
    if all(_is_number(name) for name in names):
        raise DataError(
            f"{path}: its first row holds only numbers ({', '.join(names[:3])}, …), but must name the"
            " columns. Add a header."
        )
    return names


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
