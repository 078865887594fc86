"""Where a CSV or TSV file's rows begin, what its columns are called, and what separates them."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from bigmodel.data.tabular.column_storage import check_names
from bigmodel.data.tabular.numeric import is_number
from bigmodel.data.text_encoding import check_not_utf16, check_utf8, open_as_utf8
from bigmodel.errors import DataError

_HEAD = 1 << 20  # bytes within which the header ends
_SAMPLE_ROWS = 50  # rows by which a header is told from what stands above it
_MAX_ROWS_ABOVE = 20  # rows
_ROWS_TO_MATCH = 3  # rows that have as many fields as the header has names
_SEPARATORS = ",;\t|"


@dataclass(frozen=True)
class CsvDialect:
    """What stands before a file's rows, and how they are written.

    Attributes:
        kind: `CSV` or `TSV`.
        encoding: see `in_utf8`.
        header: names of the columns as they stand in the file.
        names: of the columns, without blanks around them; each has one.
        separator: between fields.
        size: bytes of UTF-8 of the header and of what stands before it.
        above: rows before the header that are none of the table.
        spaced: blanks stand between a separator and a quotation mark.
        closed: rows end with a separator, which the header does not.
    """

    kind: str
    encoding: str
    header: list[str]
    names: list[str]
    separator: str
    size: int
    above: list[str]
    spaced: bool
    closed: bool

    def header_rows(self, path: Path) -> list[tuple[str, str]]:
        """Lines for the header of a run on what was passed over."""
        lines = []
        if self.above:
            count = "a line" if len(self.above) == 1 else f"{len(self.above)} lines"
            text = f"{count} above the header of {path.name}: {self.above[0][:60]!r}"
            lines.append(("Passed over", text))
        if self.spaced:
            lines.append(("Passed over", f"blanks behind separators in {path.name}"))
        if self.closed:
            lines.append(("Passed over", f"a separator at the end of each row of {path.name}"))
        return lines


def detect_dialect(path: Path, kind: str, encoding: str) -> CsvDialect:
    """What stands before a file's rows.

    Args:
        kind: `CSV`, separated by what separates most in the header, or `TSV`.
        encoding: see `in_utf8`.

    Raises:
        DataError: there is no header, or it is not of the encoding.
    """
    text = _head(path, encoding)
    said, start = _sep_line(text)
    line = next((line for line in text[start:].splitlines() if line.strip()), "")
    unquoted = "".join(line.split('"')[::2])
    most = max(_SEPARATORS, key=unquoted.count)
    likely = said or ("\t" if kind == "TSV" else most)
    others = [] if said or kind == "TSV" else [one for one in _SEPARATORS if one != likely]
    try:
        found, separator = _Candidate.of(text, start, likely), likely
        if not found.fits:
            tries = {one: _Candidate.of(text, start, one) for one in others}
            fitting = [one for one, other in tries.items() if other.fits and other.above]
            if fitting:
                separator = max(fitting, key=lambda one: len(tries[one].header or ()))
                found = tries[separator]
    except csv.Error as error:
        raise DataError(f"{path}: its header cannot be read: {error}.") from error
    if found.header is None:
        raise DataError(f"{path}: the file is empty.")
    rows, width = found.below, len(found.header)
    closed = bool(rows) and all(len(row) == width + 1 and not row[-1].strip() for row in rows)
    return CsvDialect(
        kind=kind,
        encoding=encoding,
        header=found.header,
        names=_column_names(path, found.header),
        separator=separator,
        size=len(text[: found.end].encode()),
        above=([text[:start].strip()] if said else []) + found.above,
        spaced=_has_spaced(text, separator, [found.header, *rows]),
        closed=closed,
    )


def _head(path: Path, encoding: str) -> str:
    with open_as_utf8(path, encoding) as file:
        head = file.read(_HEAD)
    check_not_utf16(path, head[:4096])
    try:
        return head.decode()
    except UnicodeDecodeError as error:
        if error.start < len(head) - 4 or len(head) < _HEAD:  # not just a character that is cut in two
            check_utf8(path)
        return head[: error.start].decode()


def _sep_line(text: str) -> tuple[str | None, int]:
    """What a first line as Excel has it, `sep=;`, says, and where the next one begins."""
    line = next(io.StringIO(text, newline=""), "")
    word = line.strip('\r\n"')
    if len(word) == len("sep=;") and word.lower().startswith("sep="):
        return word[-1], len(line)
    return None, 0


@dataclass
class _Candidate:
    """A file's header, as one separator has it.

    Attributes:
        header: None if there is none.
        end: characters up to its end.
        above: lines before it that are none of the table.
        below: some rows.
    """

    header: list[str] | None
    end: int
    above: list[str]
    below: list[list[str]]

    @property
    def fits(self) -> bool:
        """Whether there are several columns, and the rows below the header have as many fields."""
        width = len(self.header or ())
        return width > 1 and all(len(row) == width for row in self.below[:_ROWS_TO_MATCH])

    @classmethod
    def of(cls, text: str, start: int, separator: str) -> _Candidate:
        lines = list(io.StringIO(text[start:], newline=""))
        reader = csv.reader(lines, delimiter=separator)
        rows: list[list[str]] = []
        ends: list[int] = []  # lines up to the end of each row
        try:
            for row in reader:
                if row:
                    rows.append(row)
                    ends.append(reader.line_num)
                if len(rows) == _SAMPLE_ROWS:
                    break
        except csv.Error:
            if not rows:
                raise
        if not rows:
            return cls(None, start, [], [])
        place = _header_place(rows)
        filled = (row for row in rows[:place] if any(map(str.strip, row)))
        above = [separator.join(row).strip(separator) for row in filled]
        end = start + sum(map(len, lines[: ends[place]]))
        return cls(rows[place], end, above, rows[place + 1 :])


def _header_place(rows: Sequence[Sequence[str]]) -> int:
    """Which row is the header: the first, unless titles or comments stand above it."""
    first, last = 0, len(rows) - 1
    while first < last and _is_comment(rows[first], rows[first + 1 : first + 2 + _ROWS_TO_MATCH]):
        first += 1
    for place in range(first, min(len(rows) - 1, first + _MAX_ROWS_ABOVE)):
        row = rows[place]
        rest = rows[place + 1 : place + 1 + _ROWS_TO_MATCH]
        names = all(name.strip() and not is_number(name) for name in row)
        if len(row) > 1 and names and all(len(other) == len(row) for other in rest):
            few = all(_is_title(other, len(row)) for other in rows[first:place])
            return place if few else first
    return first


def _is_title(row: Sequence[str], width: int) -> bool:
    """Whether half of a row or more is empty, and it is not the names of columns of which only the first
    one's is, as pandas writes an index."""
    filled = [bool(field) for field in row]
    beside_index = width > 1 and filled == [False] + [True] * (width - 1)
    return 2 * sum(filled) <= width and not beside_index


def _is_comment(row: Sequence[str], rest: Sequence[Sequence[str]]) -> bool:
    """Whether a row is blank or a comment, and not the header behind a `#`, as some programs have it."""
    if not any(map(str.strip, row)):
        return True
    if not row[0].startswith("#"):
        return False
    if len(row) == 1 or any(len(other) != len(row) for other in rest) or rest[0][0].startswith("#"):
        return True
    numbers = [any(map(is_number, other)) for other in rest]
    return not numbers[0] and any(numbers)  # the header is below


def _has_spaced(text: str, separator: str, rows: Sequence[Sequence[str]]) -> bool:
    """Whether blanks stand before the quotation marks of fields."""
    blank = " " if separator != " " else "\t"
    return f"{separator}{blank}" in text and any(
        field.startswith(blank) and field.lstrip().startswith('"') for row in rows for field in row
    )


def _column_names(path: Path, header: list[str]) -> list[str]:
    """The names of the columns, without spaces around them; those without a name get one."""
    names = [name.strip() or f"column {place}" for place, name in enumerate(header, start=1)]
    check_names(path, names)
    if all(is_number(name) for name in names):
        raise DataError(
            f"{path}: its first row holds only numbers ({', '.join(names[:3])}, …), expected column "
            "names. Add a header."
        )
    return names
