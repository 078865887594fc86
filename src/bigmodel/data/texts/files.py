"""Reads text files, gzip or not: one, all of a folder, or those that match a pattern."""

from __future__ import annotations

import codecs
import glob
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, NamedTuple

from pydantic import Field

from bigmodel.data import text_encoding
from bigmodel.data.custom_data import CustomDataConfig, resolve_path
from bigmodel.data.ignored_files import first_system_name, is_ignored
from bigmodel.data.memory_check import read_all
from bigmodel.data.paths import check_inside
from bigmodel.data.text_encoding import Encoding
from bigmodel.data.texts.tokenizer_training import MIN_VOCAB_SIZE, Special, Unit, build_vocabulary
from bigmodel.data.texts.vocabulary import Vocabulary, VocabularyReader
from bigmodel.errors import DataError, shell_quoted

SUFFIXES = (".txt", ".txt.gz")
"""Endings of the files that are read from a folder."""

_LISTED = 5  # endings that a message lists


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
    texts: Sequence[str],
    unit: Unit,
    special: Sequence[Special],
) -> Vocabulary:
    """The vocabulary of a resumed run, or else a new one.

    Args:
        before: the resumed run's reader; None: a new run.
        texts: the training set.
        unit, special: see `build_vocabulary`.

    Raises:
        DataError: the tokenizer that `config` names cannot be read.
    """
    if before is not None:
        return before.vocabulary
    tokenizer = None if config.tokenizer is None else resolve_path(config, "tokenizer")
    return build_vocabulary(texts, unit, config.vocab_size, tokenizer, special)


class Passage(NamedTuple):
    """A text from a file.

    Attributes:
        file: its path.
        first: position in the file of the text's first character.
        text: the characters.
    """

    file: Path
    first: int
    text: str


def read_texts(config: TextFilesConfig, key: str = "path") -> tuple[list[Passage], int]:
    """All texts at the path of an option, and how many files were left out.

    Raises:
        ConfigError: the option is not set.
        DataError: there are no texts, or more than `data.max_bad` files cannot be read.
    """
    value = getattr(config, key)
    named = None if value is None else Path(value).expanduser()
    if named is not None and not named.exists() and glob.has_magic(str(named)):
        files = [Path(file) for file in sorted(glob.glob(str(named), recursive=True))]  # noqa: PTH207
        files = [file for file in files if file.is_file() and first_system_name(file) is None]
        if not files:
            raise DataError(f"data.{key}={value}: no file matches this pattern.")
    else:
        files = text_files_in(resolve_path(config, key), f"data.{key}")
    return read_files(files, config.encoding, config.max_bad)


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


def read_files(files: list[Path], encoding: str, max_bad: int = 0) -> tuple[list[Passage], int]:
    """Whole files, and how many of them were left out.

    Raises:
        DataError: more than `max_bad` cannot be read, or all of them.
    """
    passages, bad = [], []
    for file in files:
        try:
            passages.append(Passage(file, 0, read_text(file, encoding)))
        except DataError as error:
            bad.append(error)
    if len(bad) > max_bad or not passages:
        more = ""
        if len(bad) > max_bad and len(files) > 1:
            more = f" Of {len(files):,} files, {len(bad):,} cannot be read:"
            more += f" data.max_bad={len(bad)} leaves them out."
        raise DataError(f"{bad[0]}{more}") from bad[0]
    return passages, len(bad)


def read_text(file: Path, encoding: str) -> str:
    """A file's text, with its own line ends, without a byte order mark.

    Raises:
        DataError: it cannot be read, or is not in this encoding; the message says at which byte.
    """
    with text_encoding.open_decompressed(file) as source:
        raw = read_all(source, str(file))
    encoding = text_encoding.detect_encoding(file, raw[:4096], encoding)
    body = raw.removeprefix(codecs.BOM_UTF8)
    try:
        return body.decode(encoding)
    except UnicodeDecodeError as error:
        position = error.start + len(raw) - len(body)
        line = body[: error.start].decode(encoding, "ignore").count("\n") + 1
        raise DataError(
            f"{file}: not {encoding}: byte 0x{raw[position]:02x} in line {line:,}, at position"
            f" {position:,} (counted from 0, of {len(raw):,}): {error.reason}."
            f" {_encoding_advice(raw, encoding)}"
        ) from error


def read_lines(file: Path, encoding: str) -> list[str]:
    """A file's lines, without their ends. The last line may have no end.

    Raises:
        DataError: see `read_text`.
    """
    lines = read_text(file, encoding).split("\n")  # `splitlines` would also split within sentences
    if not lines[-1]:
        del lines[-1]
    return [line.removesuffix("\r") for line in lines]


def _encoding_advice(raw: bytes, encoding: str) -> str:
    """What to do about bytes that are not text in this encoding."""
    if b"\0" in raw[:4096] and text_encoding.guess_utf16(raw[:4096]) is None:
        return "It does not look like a text file. Convert it to .txt."
    if encoding.lower().replace("_", "-") in {"utf-8", "utf8", "ascii"}:
        other = "utf-8" if encoding.lower() == "ascii" else text_encoding.guess_encoding(raw)
        return f"It is likely {other}: set data.encoding={other}"
    return "Set data.encoding=utf-8, or the encoding it is written in, or fix the file."
