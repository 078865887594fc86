"""Text files as users have them: gzip or not, and UTF-8 or, said where and what instead, not."""

from __future__ import annotations

import codecs
import contextlib
import gzip
import shlex
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, cast

from bigmodel.errors import DataError

_CHUNK = 1 << 20
_MARKS = (
    (codecs.BOM_UTF32_LE, "UTF-32"),
    (codecs.BOM_UTF32_BE, "UTF-32"),
    (codecs.BOM_UTF16_LE, "UTF-16"),
    (codecs.BOM_UTF16_BE, "UTF-16"),
)


def is_packed(path: Path) -> bool:
    """Whether a file is gzip, by its first bytes."""
    with path.open("rb") as file:
        return file.read(2) == b"\x1f\x8b"


def name_without_gz(path: Path) -> str:
    """A file's name, without the ending that says that it is gzip."""
    return path.name[:-3] if path.suffix.lower() == ".gz" else path.name


@contextlib.contextmanager
def unpacked(path: Path) -> Iterator[BinaryIO]:
    """A file to read bytes from, those within it where it is gzip.

    Raises:
        DataError: it cannot be read, or the gzip file is damaged; also while it is read.
    """
    try:
        if is_packed(path):
            with gzip.open(path, "rb") as file:
                yield cast(BinaryIO, file)
        else:
            with path.open("rb") as plain:
                yield plain
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise DataError(
            f"{path}: the gzip file is damaged or cut short ({error}). Get it again."
        ) from error
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror or error}.") from error


def check_utf8(path: Path) -> None:
    """Raises DataError where a file is not UTF-8: at which byte, and what it may be instead."""
    decoder = codecs.getincrementaldecoder("utf-8")()
    position = 0
    with unpacked(path) as file:
        while True:
            piece = file.read(_CHUNK)
            waiting = len(decoder.getstate()[0])
            try:
                decoder.decode(piece, final=not piece)
            except UnicodeDecodeError as error:
                place = position - waiting + error.start
                raise _not_utf8(path, place, bytes(error.object)) from None
            if not piece:
                return
            position += len(piece)


def check_not_wide(path: Path, head: bytes) -> None:
    """Raises DataError where a file's first bytes say that its characters take two bytes or four."""
    for mark, encoding in _MARKS:
        if head.startswith(mark):
            raise _wrong_encoding(path, 0, encoding)
    if b"\x00" in head:
        place = head.index(b"\x00")
        if head.count(b"\x00") * 4 > len(head):  # every second byte, of a text in Latin letters
            raise _wrong_encoding(path, place, "UTF-16")
        raise DataError(
            f"{path}: byte {place:,} (counted from 0) is NUL, which no text has. Is it a text file, and"
            " whole? Get it again, or remove that byte."
        )


def _not_utf8(path: Path, position: int, around: bytes) -> DataError:
    try:
        around.decode("cp1252")
    except UnicodeDecodeError:
        return _wrong_encoding(path, position, "ISO-8859-1")
    return _wrong_encoding(path, position, "Windows-1252")


def _wrong_encoding(path: Path, position: int, encoding: str) -> DataError:
    within = ", unpacked" if is_packed(path) else ""
    plain, bare = path.with_name(f"utf8-{name_without_gz(path)}"), shlex.quote(str(path))
    convert = f"iconv -f {encoding.upper()} -t UTF-8"
    convert = f"gunzip -c {bare} | {convert}" if within else f"{convert} {bare}"
    return DataError(
        f"{path}: not UTF-8 at byte {position:,} (counted from 0{within}); likely {encoding.upper()}."
        f" Convert it: {convert} > {shlex.quote(str(plain))}"
    )
