"""Reads text files, gzip or not: one, all of a folder, or those that match a pattern."""

from __future__ import annotations

import codecs
import glob
import io
from collections import Counter
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, BinaryIO, TypeVar

from pydantic import Field

from bigmodel.data import text_encoding
from bigmodel.data.custom_data import CustomDataConfig, resolve_path
from bigmodel.data.ignored_files import first_system_name, is_ignored
from bigmodel.data.memory_check import read_all
from bigmodel.data.paths import check_inside
from bigmodel.data.text_encoding import Encoding
from bigmodel.data.texts.tokenizer_training import MIN_VOCAB_SIZE, Special, Unit, build_vocabulary
from bigmodel.data.texts.vocabulary import LongText, Vocabulary, VocabularyReader
from bigmodel.errors import DataError, shell_quoted

SUFFIXES = (".txt", ".txt.gz")
"""Endings of the files that are read from a folder."""

_PIECE = 1 << 20  # bytes decoded at once
_HEAD = 4096  # bytes that an encoding is detected from
_LISTED = 5  # endings that a message lists

ReadT = TypeVar("ReadT")


UnitOption = Annotated[
    Unit, Field(description="what a token is: a character, a byte, or bpe: a subword, learnt")
]


class TextFilesConfig(CustomDataConfig):
    """The encoding of text files, and their vocabulary."""

    encoding: Encoding = Field(
        "utf-8",
        description="encoding of text files: utf-8, cp1252, utf-16, …; a byte-order mark is recognised",
    )
    vocab_size: int = Field(
        8000,
        ge=MIN_VOCAB_SIZE,
        description="size of the learnt vocabulary (bpe), special tokens included",
    )
    tokenizer: str | None = Field(None, description="a tokenizer.json to use instead; null: none")


def vocabulary_of(
    config: TextFilesConfig,
    before: VocabularyReader | None,
    texts: Sequence[LongText],
    unit: Unit,
    special: Sequence[Special],
) -> Vocabulary:
    """The vocabulary of a resumed run or of a pretrained model, or else a new one.

    Args:
        before: the resumed run's reader; None: a new run.
        texts: the training set.
        unit, special: see `build_vocabulary`.

    Raises:
        DataError: the tokenizer that `config` names cannot be read.
    """
    if before is not None:
        return before.vocabulary
    if (pretrained := config.pretrained(Vocabulary)) is not None:
        return pretrained
    tokenizer = None if config.tokenizer is None else resolve_path(config, "tokenizer")
    return build_vocabulary(texts, unit, config.vocab_size, tokenizer, special)


@dataclass(frozen=True)
class Passage:
    """A text from a file, as a `LongText`: it is read anew each time.

    Attributes:
        file, encoding: its path, and what it is written in.
        first, last: positions in the file of its first character, and of the one after its last.
    """

    file: Path
    encoding: str
    first: int
    last: int

    def __len__(self) -> int:
        return self.last - self.first

    def __iter__(self) -> Iterator[str]:
        begin = 0
        with closing(text_pieces(self.file, self.encoding)) as pieces:
            for piece in pieces:
                if begin >= self.last:
                    return
                low, high = max(self.first - begin, 0), min(self.last - begin, len(piece))
                if low < high:
                    yield piece[low:high]
                begin += len(piece)


def text_files(config: TextFilesConfig, key: str = "path") -> list[Path]:
    """The text files at the path of an option.

    Raises:
        ConfigError: the option is not set.
        DataError: there are none.
    """
    value = getattr(config, key)
    named = None if value is None else Path(value).expanduser()
    if named is not None and not named.exists() and glob.has_magic(str(named)):
        files = [Path(file) for file in sorted(glob.glob(str(named), recursive=True))]  # noqa: PTH207
        files = [file for file in files if file.is_file() and first_system_name(file) is None]
        if not files:
            raise DataError(f"data.{key}={value}: no file matches this pattern.")
        return files
    return text_files_in(resolve_path(config, key), f"data.{key}")


def text_files_in(path: Path, key: str) -> list[Path]:
    """The text files of a folder and its subfolders, sorted by path; or the single file.

    Raises:
        DataError: there are none, or a link points out of the folder.
    """
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise DataError(f"{key}={path}: there is no such file or folder.")
    inside = [file for file in sorted(path.rglob("*")) if file.is_file()]
    inside = [file for file in inside if not any(map(is_ignored, file.relative_to(path).parts))]
    files = [file for file in inside if file.name.lower().endswith(SUFFIXES)]
    if not files:
        kinds = Counter(file.suffix.lower() or "no ending" for file in inside).most_common(_LISTED)
        others = ", ".join(f"{count:,} × {kind}" for kind, count in kinds) or "nothing"
        raise DataError(
            f"{key}={path}: the folder holds no files that end in {' or '.join(SUFFIXES)}. Found:"
            f" {others}. For texts with another ending use a pattern, such as"
            f" {shell_quoted(f'{key}={path}/**/*.md')}."
        )
    for file in files:
        check_inside(file, path, key)
    return files


def measure_files(files: list[Path], encoding: str, max_bad: int = 0) -> tuple[list[Passage], int]:
    """Whole files, each read once to count its characters; and how many were left out.

    Raises:
        DataError: more than `max_bad` cannot be read, or all of them.
    """

    def measured(file: Path) -> Passage:
        return Passage(file, encoding, 0, sum(map(len, text_pieces(file, encoding))))

    return read_each(files, measured, max_bad)


def read_each(
    files: Sequence[Path], read: Callable[[Path], ReadT], max_bad: int
) -> tuple[list[ReadT], int]:
    """What `read` gives for each file, and how many files were left out.

    Raises:
        DataError: more than `max_bad` cannot be read, or all of them.
    """
    each, bad = list[ReadT](), list[DataError]()
    for file in files:
        try:
            each.append(read(file))
        except DataError as error:
            bad.append(error)
    if len(bad) > max_bad or not each:
        more = ""
        if len(bad) > max_bad and len(files) > 1:
            more = f" Of {len(files):,} files, {len(bad):,} cannot be read:"
            more += f" data.max_bad={len(bad)} leaves them out."
        raise DataError(f"{bad[0]}{more}") from bad[0]
    return each, len(bad)


def read_text(file: Path, encoding: str) -> str:
    """A file's text, with its own line ends, without a byte order mark.

    Raises:
        DataError: it cannot be read, or is not in this encoding; the message says at which byte.
    """
    with text_encoding.open_decompressed(file) as source:
        raw = read_all(source, str(file))
    marked = text_encoding.detect_encoding(file, raw[:_HEAD], encoding)
    try:
        return raw.removeprefix(codecs.BOM_UTF8).decode(marked)
    except UnicodeDecodeError:
        return "".join(_decoded(file, io.BytesIO(raw), encoding))  # whose error says where


def text_pieces(file: Path, encoding: str) -> Generator[str, None, None]:
    """A file's text as `read_text` gives it, a piece at a time.

    Raises:
        DataError: see `read_text`.
    """
    with text_encoding.open_decompressed(file) as source:
        yield from _decoded(file, source, encoding)


def _decoded(file: Path, source: BinaryIO, encoding: str) -> Iterator[str]:
    head = piece = source.read(max(_PIECE, _HEAD))
    encoding = text_encoding.detect_encoding(file, head[:_HEAD], encoding)
    piece = piece.removeprefix(codecs.BOM_UTF8)
    decoder, read, lines = codecs.getincrementaldecoder(encoding)(), len(head), 1
    while True:
        try:
            text = decoder.decode(piece, final=not piece)
        except UnicodeDecodeError as error:
            at = read - len(error.object) + error.start
            lines += bytes(error.object[: error.start]).decode(encoding, "ignore").count("\n")
            size = read + sum(map(len, iter(partial(source.read, _PIECE), b"")))
            raw = head if at < len(head) else head + error.object
            raise DataError(
                f"{file}: not {encoding}: byte 0x{error.object[error.start]:02x} in line {lines:,}, at"
                f" position {at:,} (counted from 0, of {size:,}): {error.reason}."
                f" {_encoding_advice(raw, encoding)}"
            ) from error
        if text:
            yield text
        elif not piece:
            return
        lines += text.count("\n")
        piece = source.read(_PIECE)
        read += len(piece)


def read_lines(file: Path, encoding: str) -> list[str]:
    """A file's lines, without their ends. The last line may have no end.

    Raises:
        DataError: see `read_text`.
    """
    lines = read_text(file, encoding).split("\n")  # `splitlines` would also split within sentences
    if not lines[-1]:
        del lines[-1]
    return [line.removesuffix("\r") for line in lines]


def check_texts(values: Sequence[object]) -> list[str]:
    """Texts in memory.

    Raises:
        DataError: there are none, or one is empty or no text.
    """
    texts = [value for value in values if isinstance(value, str)]
    if len(texts) != len(values) or not texts:
        first = next((value for value in values if not isinstance(value, str)), None)
        found = f"such as {type(first).__name__}" if first is not None else "none"
        raise DataError(f"the texts: expected a list of strings, got others, {found}.")
    empty = [row for row, text in enumerate(texts) if not text.strip()]
    if empty:
        raise DataError(f"the texts: number {empty[0]} (counted from 0) is empty. Leave it out.")
    return texts


def _encoding_advice(raw: bytes, encoding: str) -> str:
    """What to do about bytes that are not text in this encoding."""
    if b"\0" in raw[:4096] and text_encoding.guess_utf16(raw[:4096]) is None:
        return "It does not look like a text file. Convert it to .txt."
    if encoding.lower().replace("_", "-") in {"utf-8", "utf8", "ascii"}:
        other = "utf-8" if encoding.lower() == "ascii" else text_encoding.guess_encoding(raw)
        return f"It is likely {other}: set data.encoding={other}"
    return "Set data.encoding=utf-8, or the encoding it is written in, or fix the file."
