"""From text to tokens and back: characters, bytes, or subwords by byte-pair encoding.

Subwords are learnt from the training set (byte-pair encoding: Sennrich, Haddow and Birch, 2016), on the
bytes of the text rather than its characters, as in GPT-2: so any text has tokens, even one with new
characters, and decoding restores it exactly.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from itertools import islice
from typing import Any, Literal, NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bigmodel.data.libraries import tokenizers
from bigmodel.data.reader import TextReader
from bigmodel.errors import DataError, counted, first_line
from bigmodel.registry import Config
from bigmodel.runtime import nested_json, progress_messages, standard_streams

Ids = NDArray[Any]


class LongText(Protocol):
    """A text in pieces, which are read each time it is iterated over. A `str` is one, too."""

    def __len__(self) -> int:
        """Number of its characters."""

    def __iter__(self) -> Iterator[str]: ...


CHUNK = 1 << 16  # characters encoded at once, so that a long text does not take many times its memory
_PIECES, _TEXTS = 16, 4096  # chunks of a long text, or short texts, that the library encodes at once
_UNKNOWN = "\ufffd"


class LengthLimit(NamedTuple):
    """How many tokens of a text a pretrained model can read."""

    tokens: int


class Encoded(NamedTuple):
    """Many texts as tokens.

    Attributes:
        tokens: (all tokens,) of the smallest type that holds them, text after text.
        sizes: (texts,) int64: number of tokens of each text.
    """

    tokens: Tensor
    sizes: Tensor

    @property
    def starts(self) -> Tensor:
        """(texts,) int64: start of each text in `tokens`."""
        return self.sizes.cumsum(0) - self.sizes


class Vocabulary(Config):
    """All tokens, and the text of each.

    Attributes:
        unit: what a token is: a character, a byte, a learnt subword, a token of the user's own
            tokenizer, or one of a pretrained model's.
        letters: of `character`: all characters with a token, in the order of their tokens.
        tokenizer: of `bpe`, `tokenizer` and `pretrained`: the library's JSON text.
        exact: decoding restores each text exactly.
        rows: of `pretrained`: how many tokens the model has vectors for, which may be more than the
            tokenizer has.
        pad, start, end, unknown: special tokens, after all others, or for `pretrained` among them; None:
            there is none.
    """

    unit: Literal["character", "byte", "bpe", "tokenizer", "pretrained"]
    letters: str = ""
    tokenizer: str = ""
    exact: bool = True
    rows: int = 0
    pad: int | None = None
    start: int | None = None
    end: int | None = None
    unknown: int | None = None

    @cached_property
    def base_size(self) -> int:
        """Number of tokens of text; special ones come after them."""
        match self.unit:
            case "character":
                return len(self.letters)
            case "byte":
                return 256
            case _:
                ids = self._engine.get_vocab(with_added_tokens=True).values()
                return 1 + max(map(int, ids), default=-1)

    @cached_property
    def size(self) -> int:
        """Number of all tokens."""
        if self.unit == "pretrained":
            return max(self.rows, self.base_size)
        special = (self.pad, self.start, self.end, self.unknown)
        return self.base_size + sum(token is not None for token in special)

    @cached_property
    def characters(self) -> tuple[int, ...] | None:
        """Number of characters of each token: of a character of several bytes, the first counts.

        None: the user's own tokenizer does not tell.
        """
        special = (0,) * (self.size - self.base_size)
        match self.unit:
            case "character":
                special = tuple(int(token == self.unknown) for token in range(self.base_size, self.size))
                return (*((1,) * self.base_size), *special)
            case "byte":
                return (*(_count_characters(bytes([byte])) for byte in range(256)), *special)
            case _:
                counts = self._counts
                return None if counts is None else (*counts, *special)

    def encode(self, text: LongText, where: str = "The text", first: int = 0) -> Ids:
        """The tokens of a text, (tokens,), of the smallest integer type that holds them.

        Args:
            text: of any length.
            where: the text's name in messages.
            first: position of its first character in `where`.

        Raises:
            DataError: a character has no token.
        """
        return self._concatenate(self.encode_pieces(text, where, first))

    def encode_pieces(
        self, text: Iterable[str], where: str = "The text", first: int = 0
    ) -> Iterator[Ids]:
        """The tokens of a text, which may come in pieces, as `encode` has them; piece by piece.

        Raises:
            DataError: see `encode`.
        """
        if self.unit == "character":
            for piece, position in _positioned(chunks(text), first):
                yield self._encode_characters(piece, where, position)
        elif self.unit == "byte":
            for piece, position in _positioned(chunks(text), first):
                yield np.frombuffer(_utf8(piece, where, position), np.uint8).astype(self._dtype)
        else:
            yield from self._encode_batches(_valid(split_long_text(text), where, first), _PIECES)

    def number_of(self, token: str) -> int | None:
        """The number of a token of a tokenizer, as it is spelt there; None: there is none."""
        number: int | None = self._engine.token_to_id(token)
        return number

    @cached_property
    def special_names(self) -> dict[int, str]:
        """What a pretrained model's tokenizer calls its special tokens, such as [CLS], by number."""
        known = self._engine.get_added_tokens_decoder().items()
        return {number: token.content for number, token in known if token.special}

    @cached_property
    def template(self) -> tuple[int, int]:
        """How many special tokens a pretrained model has before and after each text, such as [CLS] and
        [SEP]."""
        if self.unit != "pretrained":
            return 0, 0
        with self._translated_errors():
            added = self._engine.encode("a").special_tokens_mask
        own = [place for place, special in enumerate(added) if not special]
        return (own[0], len(added) - 1 - own[-1]) if own else (0, 0)

    @cached_property
    def opening(self) -> list[int]:
        """The tokens that a pretrained model expects at the beginning of a text."""
        before, after = self.template
        added = self._engine.encode("").ids if before else []
        return list(map(int, added[: len(added) - after]))

    def encode_all(self, texts: Sequence[str], *, special: bool = True) -> Encoded:
        """The tokens of many texts, faster than one by one.

        Args:
            texts: all of them.
            special: with the special tokens of a pretrained model's `template`.

        Raises:
            DataError: a character has no token.
        """
        if self.unit in ("character", "byte"):
            tokens = self.encode("".join(texts), "The texts")
            sizes = [len(text if self.unit == "character" else text.encode()) for text in texts]
        else:
            encoded: list[Ids] = []
            work, count = "Tokenizing texts", f"{len(texts):,}"
            with progress_messages.report_progress(lambda: f"{work}: {len(encoded):,} of {count}"):
                for ids in self._encode_batches(texts, _TEXTS, special):
                    encoded.append(ids)  # noqa: PERF402  counted while it grows
            sizes, tokens = [len(ids) for ids in encoded], self._concatenate(encoded)
        return Encoded(torch.from_numpy(tokens), torch.tensor(sizes, dtype=torch.int64))

    def encode_with_places(self, texts: Sequence[str]) -> list[tuple[Ids, Ids]]:
        """The tokens of each text, of a tokenizer, without a template; and which characters of the text
        each stands for, (tokens, 2) int64: the first, and the one after the last."""
        encoded: list[tuple[Ids, Ids]] = []
        work, count = "Tokenizing texts", f"{len(texts):,}"
        with progress_messages.report_progress(lambda: f"{work}: {len(encoded):,} of {count}"):
            for first in range(0, len(texts), _TEXTS):
                with self._translated_errors():
                    batch = self._engine.encode_batch(
                        list(texts[first : first + _TEXTS]), add_special_tokens=False
                    )
                for one in batch:
                    places = np.array(one.offsets, np.int64).reshape(-1, 2)
                    encoded.append((np.array(one.ids, self._dtype), places))
        return encoded

    def decode(self, tokens: Iterable[int]) -> str:
        """The text of tokens, without special ones; an unknown character is shown as U+FFFD."""
        if self.unit == "character":
            letters = self.letters
            return "".join(
                letters[token] if token < self.base_size else _UNKNOWN
                for token in tokens
                if token < self.base_size or token == self.unknown
            )
        plain = [token for token in tokens if token < self.base_size]
        if self.unit == "byte":  # a model may generate invalid UTF-8
            return bytes(plain).decode(errors="replace")
        with self._translated_errors():
            return str(self._engine.decode(plain, skip_special_tokens=self.unit == "pretrained"))

    def __str__(self) -> str:
        match self.unit:
            case "character":
                return counted(self.base_size, "character")
            case "byte":
                return "256 bytes"
            case "bpe":
                return f"{self.base_size:,} subwords learnt from the training set"
        changed = "" if self.exact else "; decoding does not restore every text"
        whose = "pretrained model's" if self.unit == "pretrained" else "given"
        return f"{self.base_size:,} subwords of the {whose} tokenizer{changed}"

    @cached_property
    def _engine(self) -> Any:
        engine = tokenizers.Tokenizer.from_str(self.tokenizer)
        engine.no_truncation()
        engine.no_padding()
        return engine

    @cached_property
    def _dtype(self) -> type[np.generic]:
        """The smallest type of tokens that torch can index with: uint16 is not supported."""
        return np.uint8 if self.size <= 1 << 8 else np.int16 if self.size <= 1 << 15 else np.int32

    @cached_property
    def _token_table(self) -> Ids:
        """The token of each code point; -1: none."""
        table = np.full(0x110000, -1 if self.unknown is None else self.unknown, np.int32)
        table[code_points(self.letters)] = np.arange(self.base_size)
        return table

    def _encode_characters(self, text: str, where: str, first: int) -> Ids:
        try:
            tokens = self._token_table[code_points(text)]
        except UnicodeEncodeError as error:
            raise _surrogate_error(error, where, first) from error
        if (missing := np.flatnonzero(tokens < 0)).size:
            place = int(missing[0])
            raise DataError(
                f"{where}: the character {text[place]!r} (U+{ord(text[place]):04X}) at position"
                f" {first + place:,} (counted from 0) has no token, as it is not in the training"
                " set. Use data.unit=byte or data.unit=bpe, which know every character."
            )
        return tokens.astype(self._dtype)

    def _encode_batches(self, texts: Iterable[str], count: int, special: bool = False) -> Iterator[Ids]:
        """The tokens of each text, from the tokenizers library.

        Args:
            special: with the special tokens of a pretrained model's template.
        """
        texts, added = iter(texts), special and self.unit == "pretrained"
        while batch := list(islice(texts, count)):
            with self._translated_errors():
                encoded = self._engine.encode_batch_fast(batch, add_special_tokens=added)
            for one in encoded:
                yield np.array(one.ids, self._dtype)

    def _concatenate(self, encoded: Iterable[Ids]) -> Ids:
        return np.concatenate([np.empty(0, self._dtype), *encoded])

    @contextmanager
    def _translated_errors(self) -> Iterator[None]:
        """Raises a DataError for whatever the library raises with the user's own tokenizer: also for a
        panic, which is not an `Exception`. What a panic prints is suppressed."""
        if self.unit not in ("tokenizer", "pretrained"):
            yield
            return
        try:
            with standard_streams.errors_held_back():
                yield
        except BaseException as error:
            panicked = type(error).__name__ == "PanicException"
            if not (panicked or isinstance(error, Exception)):
                raise
            why = "The file is incomplete or inconsistent."
            if panicked:
                why = "An expression in it may be matched in countless ways."
            elif "unk" in str(error).lower():
                why = "It has no token for unknown text."
            fault = first_line(error, type(error).__name__)
            key = "data.tokenizer" if self.unit == "tokenizer" else "model.pretrained"
            raise DataError(
                f"{key}: the tokenizer fails on a text: {fault}. {why} Use another tokenizer.json."
            ) from error

    @cached_property
    def _counts(self) -> list[int] | None:
        """Characters of each token of text; None: they are not the text's own."""
        decoder = nested_json.loads(self.tokenizer).get("decoder")
        if not self.exact or "ByteLevel" not in _component_types(decoder):
            return None
        counts, byte_of = [0] * self.base_size, bytes_of_letters()
        for token, number in self._engine.get_vocab(with_added_tokens=True).items():
            spelt = all(letter in byte_of for letter in token)
            counts[number] = _count_characters(bytes(byte_of[c] for c in token)) if spelt else len(token)
        if self.unit == "pretrained":
            for number in self.special_names:  # they stand for no text
                counts[number] = 0
        return counts


class VocabularyReader(TextReader):
    """Base of the readers with a vocabulary."""

    vocabulary: Vocabulary
    encoding: str = "utf-8"

    def encode(self, text: str) -> list[int]:
        """See `TextReader.encode`; with the special tokens that a pretrained model has around a text."""
        if any(self.vocabulary.template):
            return [int(token) for token in self.vocabulary.encode_all([text]).tokens]
        tokens: list[int] = self.vocabulary.encode(text).tolist()
        return tokens

    def decode(self, tokens: Sequence[int]) -> str:
        """See `TextReader.decode`."""
        return self.vocabulary.decode(tokens)


def _pieces_of(text: Iterable[str]) -> Iterable[str]:
    """The pieces of a text, as they are."""
    return (text,) if isinstance(text, str) else text


def chunks(text: Iterable[str]) -> Iterator[str]:
    """A text in pieces of at most `CHUNK` characters."""
    for piece in _pieces_of(text):
        for begin in range(0, len(piece), CHUNK):
            yield piece[begin : begin + CHUNK]


def split_long_text(text: Iterable[str]) -> Iterator[str]:
    """A long text in chunks that end with a line, or else with a word, if possible. They do not depend
    on the pieces that the text comes in."""
    rest = ""
    for piece in _pieces_of(text):
        rest, begin = rest + piece, 0
        while len(rest) - begin > CHUNK:
            last = begin + CHUNK
            end = next((end for mark in "\n " if (end := rest.rfind(mark, begin + 1, last)) > 0), last)
            end = end + 1 if rest[end] == "\n" else end  # a subword begins with its space
            yield rest[begin:end]
            begin = end
        rest = rest[begin:]
    yield rest


def code_points(text: str) -> NDArray[np.uint32]:
    """The code point of each character."""
    return np.frombuffer(text.encode("utf-32-le"), np.dtype("<u4"))


def _positioned(pieces: Iterable[str], first: int) -> Iterator[tuple[str, int]]:
    """Each piece, and the position of its first character."""
    for piece in pieces:
        yield piece, first
        first += len(piece)


def _valid(pieces: Iterable[str], where: str, first: int) -> Iterator[str]:
    """The same pieces, checked: the library's own error would not give the position."""
    for piece, position in _positioned(pieces, first):
        _utf8(piece, where, position)
        yield piece


def _utf8(piece: str, where: str, first: int) -> bytes:
    try:
        return piece.encode()
    except UnicodeEncodeError as error:
        raise _surrogate_error(error, where, first) from error


def _surrogate_error(error: UnicodeEncodeError, where: str, first: int) -> DataError:
    return DataError(
        f"{where}: at position {first + error.start:,} (counted from 0) is half of a surrogate pair"
        f" ({error.object[error.start]!r}), which is not valid text. Was it read in another encoding?"
    )


def _count_characters(piece: bytes) -> int:
    """Number of characters that begin in a piece of UTF-8: bytes 10xxxxxx continue one."""
    return sum(byte & 0xC0 != 0x80 for byte in piece)


def bytes_of_letters() -> dict[str, int]:
    """The byte of each letter in byte-level subwords: printable bytes are themselves, the others are
    letters from 256 on (GPT-2's `bytes_to_unicode`)."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in printable]
    letters = {chr(256 + place): byte for place, byte in enumerate(others)}
    return {chr(byte): byte for byte in printable} | letters


def _component_types(part: Any) -> set[str]:
    """The types of a tokenizer's component and of the components within it."""
    if not isinstance(part, dict):
        return set()
    inner = [kind for value in part.values() if isinstance(value, list) for kind in value]
    return {str(part.get("type")), *(kind for one in inner for kind in _component_types(one))}
