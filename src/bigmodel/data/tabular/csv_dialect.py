"""The dialect of a CSV or TSV file: its separator, its header, and lines above the header."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from bigmodel.data.reader import HeaderRows
from bigmodel.data.tabular.column_storage import check_names
from bigmodel.data.tabular.numeric import is_number
from bigmodel.data.text_encoding import check_not_utf16, check_utf8, open_as_utf8
from bigmodel.errors import DataError

_HEAD = 1 << 20  # bytes within which the header ends
_SAMPLE_ROWS = 50  # rows that are read to find the header
_MAX_ROWS_ABOVE = 20  # rows above the header at most
_ROWS_TO_MATCH = 3  # rows below the header that must have as many fields
_SEPARATORS = ",;\t|"


@dataclass(frozen=True)
class CsvDialect:
    """How the rows of a file are written, and what is above them.

    Attributes:
        kind: `CSV` or `TSV`.
        encoding: see `in_utf8`.
        header: names of the columns as they are in the file.
        names: of the columns, without spaces around them; each has one.
        separator: between fields.
        size: bytes of UTF-8 up to the end of the header.
        above: lines above the header that are not part of the table.
        spaced: whether there are spaces between separators and quotation marks.
        closed: whether rows end with a separator, but the header does not.
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

    def header_rows(self, path: Path) -> HeaderRows:
        """Rows for the header of a run about what is skipped in the file."""
        texts = []
        if self.above:
            count = "a line" if len(self.above) == 1 else f"{len(self.above)} lines"
            texts.append(f"{count} above the header of {path.name}: {self.above[0][:60]!r}")
        if self.spaced:
            texts.append(f"spaces after separators in {path.name}")
        if self.closed:
            texts.append(f"a separator at the end of each row of {path.name}")
        return [("Skipped", text) for text in texts]


def detect_dialect(path: Path, kind: str, encoding: str) -> CsvDialect:
    """Infers the dialect of a file from its beginning.

    Args:
        path: the file, gzip or not.
        kind: `CSV`, whose separator is the most frequent one in the header, or `TSV`.
        encoding: see `in_utf8`.

    Raises:
        DataError: there is no header, or it is not in the encoding.
    """
    text = _head(path, encoding)
    fixed, start = _sep_line(text)
    line = next((line for line in text[start:].splitlines() if line.strip()), "")
    unquoted = "".join(line.split('"')[::2])
    fixed_or_tab = fixed or ("\t" if kind == "TSV" else None)
    likely = fixed_or_tab or max(_SEPARATORS, key=unquoted.count)
    try:
        head = _Head.parse(text, start, likely)
        if fixed_or_tab is None and not head.fits:
            others = (_Head.parse(text, start, other) for other in _SEPARATORS if other != likely)
            fitting = [other for other in others if other.fits and other.above]
            head = max(fitting, key=lambda other: len(other.header), default=head)
    except csv.Error as error:
        raise DataError(f"{path}: its header cannot be read: {error}.") from error
    if not head.header:
        raise DataError(f"{path}: the file is empty.")
    rows, width = head.below, len(head.header)
    return CsvDialect(
        kind=kind,
        encoding=encoding,
        header=head.header,
        names=_column_names(path, head.header),
        separator=head.separator,
        size=len(text[: head.end].encode()),
        above=([text[:start].strip()] if fixed else []) + head.above,
        spaced=_has_spaced(text, head.separator, [head.header, *rows]),
        closed=bool(rows) and all(len(row) == width + 1 and not row[-1].strip() for row in rows),
    )


def _head(path: Path, encoding: str) -> str:
    with open_as_utf8(path, encoding) as file:
        head = file.read(_HEAD)
    check_not_utf16(path, head[:4096])
    try:
        return head.decode()
    except UnicodeDecodeError as error:
        if error.start < len(head) - 4 or len(head) < _HEAD:  # not just a truncated character
            check_utf8(path)
        return head[: error.start].decode()


def _sep_line(text: str) -> tuple[str | None, int]:
    """The separator in a first line `sep=;`, as Excel writes it, and where the next line begins."""
    line = next(io.StringIO(text, newline=""), "")
    word = line.strip('\r\n"')
    if len(word) == len("sep=;") and word.lower().startswith("sep="):
        return word[-1], len(line)
    return None, 0


@dataclass
class _Head:
    """The beginning of a file, parsed with one separator.

    Attributes:
        header: empty if there is none.
        end: characters up to its end.
        above: lines above it that are not part of the table.
        below: some rows.
    """

    separator: str
    header: list[str]
    end: int
    above: list[str]
    below: list[list[str]]

    @property
    def fits(self) -> bool:
        """Whether there are several columns, and the rows below the header have as many fields."""
        width = len(self.header)
        return width > 1 and all(len(row) == width for row in self.below[:_ROWS_TO_MATCH])

    @classmethod
    def parse(cls, text: str, start: int, separator: str) -> _Head:
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
            return cls(separator, [], start, [], [])
        place = _header_place(rows)
        filled = (row for row in rows[:place] if any(map(str.strip, row)))
        above = [separator.join(row).strip(separator) for row in filled]
        end = start + sum(map(len, lines[: ends[place]]))
        return cls(separator, rows[place], end, above, rows[place + 1 :])


def _header_place(rows: Sequence[Sequence[str]]) -> int:
    """Which row is the header: the first, unless titles or comments are above it."""
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
    """Whether half of a row or more is empty. A header whose first name is empty is none: pandas writes
    the name of an index so."""
    filled = [bool(field) for field in row]
    beside_index = width > 1 and filled == [False] + [True] * (width - 1)
    return 2 * sum(filled) <= width and not beside_index


def _is_comment(row: Sequence[str], rest: Sequence[Sequence[str]]) -> bool:
    """Whether a row is blank or a comment, but not a header that some programs begin with `#`."""
    if not any(map(str.strip, row)):
        return True
    if not row[0].startswith("#"):
        return False
    if len(row) == 1 or any(len(other) != len(row) for other in rest) or rest[0][0].startswith("#"):
        return True
    numbers = [any(map(is_number, other)) for other in rest]
    return not numbers[0] and any(numbers)  # the header is below


def _has_spaced(text: str, separator: str, rows: Sequence[Sequence[str]]) -> bool:
    """Whether there are spaces before the quotation marks of fields."""
    blank = " " if separator != " " else "\t"
    return f"{separator}{blank}" in text and any(
        field.startswith(blank) and field.lstrip().startswith('"') for row in rows for field in row
    )


def _column_names(path: Path, header: list[str]) -> list[str]:
    """The names of the columns, without spaces around them; columns without a name get one."""
    names = [name.strip() or f"column {place}" for place, name in enumerate(header, start=1)]
    check_names(path, names)
    if all(is_number(name) for name in names):
        raise DataError(
            f"{path}: its first row holds only numbers ({', '.join(names[:3])}, …), expected column "
            "names. Add a header."
        )
    return names
