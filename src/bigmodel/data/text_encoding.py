"""Reads users' text files: gzip or not, in UTF-8 or another encoding, set or detected by a mark."""

from __future__ import annotations

import codecs
import contextlib
import gzip
import io
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, BinaryIO, cast

from pydantic import AfterValidator

from bigmodel.errors import DataError

_CHUNK = 1 << 20
_HEAD = 4096  # bytes that an encoding is detected from
_MARKS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)


_NOT_FOR_FILES = ("idna", "punycode", "undefined", "utf-7", "unicode-escape", "raw-unicode-escape")
"""Python's encodings for domain names, mail and source code, which no text file is in."""


def valid_encoding(name: str) -> str:
    """The name of a text encoding that Python knows.

    Raises:
        ValueError: there is no such encoding.
    """
    with contextlib.suppress(LookupError, UnicodeError):
        "a".encode(name)  # fails for codecs that do not encode text
        if codecs.lookup(name).name not in _NOT_FOR_FILES:
            return name
    raise ValueError(
        "there is no such text encoding. Supported are utf-8, latin-1, cp1252, utf-16, gb18030 …"
    )


Encoding = Annotated[str, AfterValidator(valid_encoding)]
"""The encoding of a text file, by Python's name."""


def is_gzip(path: Path) -> bool:
    """Whether a file is gzip, by its first bytes."""
    with path.open("rb") as file:
        return file.read(2) == b"\x1f\x8b"


def name_without_gz(path: Path) -> str:
    """A file's name, without the suffix of gzip."""
    return path.name[:-3] if path.suffix.lower() == ".gz" else path.name


def is_utf8(encoding: str) -> bool:
    """Whether an encoding is UTF-8, however it is spelt."""
    return codecs.lookup(encoding).name in ("utf-8", "utf-8-sig", "ascii")


def detect_encoding(path: Path, head: bytes, encoding: str) -> str:
    """The encoding in a file's byte-order mark, or else `encoding`, with its byte order if it has two.

    Raises:
        DataError: the byte order cannot be detected.
    """
    marked = next((marked for mark, marked in _MARKS if head.startswith(mark)), None)
    if marked is not None:
        return marked
    match codecs.lookup(encoding).name:
        case "utf-16":
            # of letters, digits and signs of ASCII, the first or the second byte
            big, little = head[::2].count(0), head[1::2].count(0)
        case "utf-32":
            big, little = head[::4].count(0), head[3::4].count(0)
        case _:
            return encoding
    if big == little and head:
        raise DataError(
            f"{path}: not {encoding}, or without a byte-order mark. Set"
            f" data.encoding=utf-8, {encoding}-le, {encoding}-be, or the encoding it is written in."
        )
    return f"{encoding}-be" if big > little else f"{encoding}-le"


@contextlib.contextmanager
def open_decompressed(path: Path) -> Iterator[BinaryIO]:
    """Opens a file to read bytes from, decompressed if it is gzip.

    Raises:
        DataError: it cannot be read, or is a damaged gzip file; also while it is read.
    """
    try:
        if is_gzip(path):
            with gzip.open(path, "rb") as file:
                yield cast(BinaryIO, file)
        else:
            with path.open("rb") as plain:
                yield plain
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        fault = f"the gzip file is damaged or cut short ({error})"
        raise DataError(f"{path}: {fault}. Get it again.") from error
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror or error}.") from error


@contextlib.contextmanager
def open_as_utf8(path: Path, encoding: str) -> Iterator[BinaryIO]:
    """Opens a text file in any encoding, gzip or not, to read it as UTF-8 without a byte-order mark.

    Args:
        encoding: of the file, unless a byte-order mark says otherwise. A file in UTF-8 is read without
            checks: `check_utf8` says what is wrong with it.

    Raises:
        DataError: see `open_decompressed`; or a byte is not valid in the encoding.
    """
    with open_decompressed(path) as file:
        buffered = io.BufferedReader(cast(io.RawIOBase, file), _CHUNK)
        head = buffered.peek(_HEAD)[:_HEAD]
        encoding = detect_encoding(path, head, encoding)
        if is_utf8(encoding):
            buffered.read(len(codecs.BOM_UTF8) if head.startswith(codecs.BOM_UTF8) else 0)
            yield cast(BinaryIO, buffered)
            return
        try:
            transcoded = _Transcoded(cast(BinaryIO, buffered), encoding)
            yield cast(BinaryIO, io.BufferedReader(transcoded, _CHUNK))
        except UnicodeError:
            check_encoding(path, encoding)
            raise


class _Transcoded(io.RawIOBase):
    """A file in another encoding, as a stream of UTF-8."""

    def __init__(self, file: BinaryIO, encoding: str) -> None:
        self._file = file
        self._decoder = codecs.getincrementaldecoder(encoding)()
        self._ready = b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        while not self._ready:
            piece = self._file.read(_CHUNK)
            self._ready = self._decoder.decode(piece, final=not piece).encode()
            if not piece:
                break
        count = min(len(buffer), len(self._ready))
        buffer[:count] = self._ready[:count]
        self._ready = self._ready[count:]
        return count


def check_utf8(path: Path) -> None:
    """Raises DataError if a file is not UTF-8: in which line, and what it may be instead."""
    check_encoding(path, "utf-8")


def check_encoding(path: Path, encoding: str) -> None:
    """Raises DataError if a file is not in an encoding: in which line, and what it may be instead."""
    decoder = codecs.getincrementaldecoder(encoding)()
    lines = 1
    with open_decompressed(path) as file:
        while True:
            piece = file.read(_CHUNK)
            try:
                lines += decoder.decode(piece, final=not piece).count("\n")
            except UnicodeDecodeError as error:
                before = bytes(error.object)[: error.start].decode(encoding, "ignore")
                raise _encoding_error(path, encoding, lines + before.count("\n"), error) from None
            if not piece:
                return


def check_not_utf16(path: Path, head: bytes) -> None:
    """Raises DataError if a file's first bytes are not text in UTF-8."""
    if b"\x00" in head:
        place = head.index(b"\x00")
        if (wide := guess_utf16(head)) is not None:
            likely = f"likely {wide}: set data.encoding={wide}"
            raise DataError(f"{path}: not UTF-8: byte 0x00 in line 1; {likely}")
        raise DataError(
            f"{path}: byte {place:,} (counted from 0) is NUL, which does not occur in text. Is it a "
            "complete text file? Get it again, or remove that byte."
        )


def guess_utf16(text: bytes) -> str | None:
    """The UTF-16 encoding of a text in Latin letters; None: it is not UTF-16."""
    if text.count(0) * 4 <= len(text) or b"\x00\x00" in text:
        return None
    return "utf-16-le" if text.index(0) % 2 else "utf-16-be"


def _encoding_error(path: Path, encoding: str, line: int, error: UnicodeDecodeError) -> DataError:
    around = bytes(error.object)
    name = "UTF-8" if is_utf8(encoding) else encoding
    what = f"{path}: not {name}: byte 0x{around[error.start]:02x} in line {line:,}"
    if is_utf8(encoding):
        other = guess_encoding(around)
        return DataError(f"{what}; likely {other}: set data.encoding={other}")
    return DataError(
        f"{what}: {error.reason}. Set data.encoding=utf-8, or the encoding it is written in."
    )


def guess_encoding(text: bytes) -> str:
    """The probable encoding of a text that is not UTF-8."""
    if (wide := guess_utf16(text)) is not None:
        return wide
    try:
        text.decode("cp1252")
    except UnicodeDecodeError:
        return "latin-1"
    return "cp1252"
