"""From text to tokens and back: characters, bytes, or pieces of words by byte-pair encoding.

Pieces are learnt from the training part (byte-pair encoding: Sennrich, Haddow and Birch, 2016), on the
bytes of the text and not its characters, as GPT-2 does: so every text has tokens, one that training has
never seen too, and decoding gives back each text as it was.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from itertools import islice
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bigmodel.data.libraries import tokenizers
from bigmodel.data.reader import TextReader
from bigmodel.errors import DataError, counted, first_line
from bigmodel.registry import Config
from bigmodel.runtime import activity, nested_json, streams

Ids = NDArray[Any]

CHUNK = 1 << 16  # characters that are encoded at once: a long text must not need many times its memory
_PIECES, _TEXTS = 16, 4096  # of a long text, and short ones, that the library encodes at once
_UNKNOWN = "\ufffd"


class Encoded(NamedTuple):
    """Many texts as tokens.

    Attributes:
        tokens: (all tokens,) of the smallest type that holds them; one text after another.
        sizes: (texts,) int64: how many tokens each text has.
    """

    tokens: Tensor
    sizes: Tensor

    @property
    def starts(self) -> Tensor:
        """(texts,) int64: where each text begins."""
        return self.sizes.cumsum(0) - self.sizes


class Vocabulary(Config):
    """All tokens there are, and what each stands for.

    Attributes:
        unit: what a token stands for: a character, a byte, a piece of a word that was learnt, or
            whatever a tokenizer that was given makes of the text.
        letters: of `character`: all that have a token, in the order of their tokens.
        tokenizer: of `bpe` and `tokenizer`: the tokenizer as the JSON text that its library writes.
        exact: whether decoding gives back each text as it was.
        pad, start, end, unknown: tokens that stand for no text, beyond all others; None: there is none.
    """

    unit: Literal["character", "byte", "bpe", "tokenizer"]
    letters: str = ""
    tokenizer: str = ""
    exact: bool = True
    pad: int | None = None
    start: int | None = None
    end: int | None = None
    unknown: int | None = None

    @cached_property
    def own(self) -> int:
        """How many tokens stand for text; special ones come after them."""
        match self.unit:
            case "character":
                return len(self.letters)
            case "byte":
                return 256
            case _:
                return 1 + max(map(int, self._engine.get_vocab(with_added_tokens=True).values()))

    @cached_property
    def has_tokens(self) -> bool:
        """Whether there is any token that stands for text."""
        if self.unit in ("character", "byte"):
            return self.own > 0
        return bool(self._engine.get_vocab(with_added_tokens=True))

    @cached_property
    def size(self) -> int:
        """How many tokens there are in all."""
        return self.own + sum(s is not None for s in (self.pad, self.start, self.end, self.unknown))

    @cached_property
    def characters(self) -> tuple[int, ...] | None:
        """How many characters each token stands for: of a character of several bytes, the first counts.

        None where a given tokenizer does not tell.
        """
        special = (0,) * (self.size - self.own)
        match self.unit:
            case "character":
                shown = (int(token == self.unknown) for token in range(self.own, self.size))
                return (*((1,) * self.own), *shown)
            case "byte":
                return (*(_count_characters(bytes([byte])) for byte in range(256)), *special)
            case _:
                counts = self._counts
                return None if counts is None else (*counts, *special)

    def encode(self, text: str, where: str = "The text", first: int = 0) -> Ids:
        """The tokens of a text, (tokens,), of the smallest integer type that holds all.

        Args:
            text: of any length.
            where: what a message calls the text.
            first: the position of its first character in what `where` names.

        Raises:
            DataError: a character has no token.
        """
        try:
            if self.unit == "character":
                return self._by_letter(text, where, first)
            if self.unit == "byte":
                return np.frombuffer(text.encode(), np.uint8).astype(self._type)
            text.encode()  # the library's own complaint would say nothing of the place
            return self._joined(self._batches(split_long_text(text), _PIECES))
        except UnicodeEncodeError as error:
            raise DataError(
                f"{where}: at position {first + error.start:,} (counted from 0) is half of a surrogate "
                f"pair ({text[error.start]!r}), which is not valid text. Was it read in another "
                "encoding?"
            ) from error

    def encode_all(self, texts: Sequence[str]) -> Encoded:
        """The tokens of many texts; faster than one by one.

        Raises:
            DataError: a character has no token.
        """
        if self.unit == "character":
            sizes = [len(text) for text in texts]
            tokens = self.encode("".join(texts), "The texts")
        elif self.unit == "byte":
            sizes = [len(text.encode()) for text in texts]
            tokens = self.encode("".join(texts))
        else:
            found: list[Ids] = []
            work, count = "Tokenizing texts", f"{len(texts):,}"
            with activity.report_progress(lambda: f"{work}: {len(found):,} of {count}"):
                for ids in self._batches(texts, _TEXTS):
                    found.append(ids)  # noqa: PERF402  counted while it grows
            sizes, tokens = [len(ids) for ids in found], self._joined(found)
        return Encoded(torch.from_numpy(tokens), torch.tensor(sizes, dtype=torch.int64))

    def decode(self, tokens: Iterable[int]) -> str:
        """The text of tokens; special ones are left out, but a character that is unknown is shown."""
        if self.unit == "character":
            letters = self.letters
            return "".join(
                letters[token] if token < self.own else _UNKNOWN
                for token in tokens
                if token < self.own or token == self.unknown
            )
        plain = [token for token in tokens if token < self.own]
        if self.unit == "byte":  # a model may have put bytes together that are no text
            return bytes(plain).decode(errors="replace")
        with self._faults_told():
            return str(self._engine.decode(plain, skip_special_tokens=False))

    def __str__(self) -> str:
        match self.unit:
            case "character":
                return counted(self.own, "character")
            case "byte":
                return "256 bytes"
            case "bpe":
                return f"{self.own:,} subwords learnt from the training part"
        changed = "" if self.exact else "; decoding does not restore every text"
        return f"{self.own:,} subwords of the given tokenizer{changed}"

    @cached_property
    def _engine(self) -> Any:

        engine = tokenizers.Tokenizer.from_str(self.tokenizer)
        engine.no_truncation()
        engine.no_padding()
        return engine

    @cached_property
    def _type(self) -> type[np.generic]:
        """The smallest type of tokens that torch can look up by index: uint16 is none of them."""
        return np.uint8 if self.size <= 1 << 8 else np.int16 if self.size <= 1 << 15 else np.int32

    @cached_property
    def _table(self) -> Ids:
        """The token of each code point, -1 for none."""
        table = np.full(0x110000, -1 if self.unknown is None else self.unknown, np.int32)
        table[code_points(self.letters)] = np.arange(self.own)
        return table

    def _by_letter(self, text: str, where: str, first: int) -> Ids:
        tokens = np.empty(len(text), self._type)
        for begin in range(0, len(text), CHUNK):
            found = self._table[code_points(text[begin : begin + CHUNK])]
            if (missing := np.flatnonzero(found < 0)).size:
                place = begin + int(missing[0])
                raise DataError(
                    f"{where}: the character {text[place]!r} (U+{ord(text[place]):04X}) at position"
                    f" {first + place:,} (counted from 0) has no token, as it is not in the training"
                    " part. Use data.unit=byte or data.unit=bpe, which know every character."
                )
            tokens[begin : begin + len(found)] = found
        return tokens

    def _batches(self, texts: Iterable[str], count: int) -> Iterator[Ids]:
        """The tokens of each text, by the tokenizers library."""
        texts = iter(texts)
        while batch := list(islice(texts, count)):
            with self._faults_told():
                encoded = self._engine.encode_batch_fast(batch, add_special_tokens=False)
            for found in encoded:
                yield np.array(found.ids, self._type)

    def _joined(self, found: Iterable[Ids]) -> Ids:
        return np.concatenate([np.empty(0, self._type), *found])

    @contextmanager
    def _faults_told(self) -> Iterator[None]:
        """Makes an error in words of whatever the library raises, a panic too, which is no `Exception`.
        What a panic itself prints is held back; one of our own tokenizers has never been seen.

        Raises:
            DataError: the tokenizer fails on a text.
        """
        if self.unit != "tokenizer":
            yield
            return
        try:
            with streams.errors_held_back():
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
            raise DataError(
                f"data.tokenizer: the tokenizer fails on a text: {fault}. {why} Use another "
                "tokenizer.json."
            ) from error

    @cached_property
    def _counts(self) -> list[int] | None:
        """Characters in each token that stands for text; None where they are not those of the text."""
        decoder = nested_json.loads(self.tokenizer).get("decoder")
        if not self.exact or "ByteLevel" not in _component_types(decoder):
            return None
        counts, byte_of = [0] * self.own, _bytes_of_letters()
        for token, number in self._engine.get_vocab(with_added_tokens=True).items():
            spelt = all(letter in byte_of for letter in token)
            counts[number] = _count_characters(bytes(byte_of[c] for c in token)) if spelt else len(token)
        return counts


class VocabularyReader(TextReader):
    """What readers of texts have in common: a vocabulary, and the encoding of files."""

    vocabulary: Vocabulary
    encoding: str = "utf-8"

    def encode(self, text: str) -> list[int]:
        """See `TextReader.encode`."""
        tokens: list[int] = self.vocabulary.encode(text).tolist()
        return tokens

    def decode(self, tokens: Sequence[int]) -> str:
        """See `TextReader.decode`."""
        return self.vocabulary.decode(tokens)


def split_long_text(text: str) -> Iterator[str]:
    """A long text in pieces that end with a line, or with a word, where there is an end to be found."""
    begin = 0
    while len(text) - begin > CHUNK:
        last = begin + CHUNK
        end = next((found for mark in "\n " if (found := text.rfind(mark, begin + 1, last)) > 0), last)
        end = end + 1 if text[end] == "\n" else end  # a piece of a word begins with its space
        yield text[begin:end]
        begin = end
    yield text[begin:]


def code_points(text: str) -> NDArray[np.uint32]:
    """The code point of each character."""
    return np.frombuffer(text.encode("utf-32-le"), np.dtype("<u4"))


def _count_characters(piece: bytes) -> int:
    """How many characters begin in a piece of UTF-8: bytes 10xxxxxx go on with one."""
    return sum(byte & 0xC0 != 0x80 for byte in piece)


def _bytes_of_letters() -> dict[str, int]:
    """Which byte each letter stands for in byte-level pieces: printable ones for themselves, others for
    letters from 256 on (GPT-2's `bytes_to_unicode`)."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in printable]
    letters = {chr(256 + place): byte for place, byte in enumerate(others)}
    return {chr(byte): byte for byte in printable} | letters


def _component_types(part: Any) -> set[str]:
    """The types of a tokenizer's part, and of the parts that it is made of."""
    if not isinstance(part, dict):
        return set()
    inner = [kind for value in part.values() if isinstance(value, list) for kind in value]
    return {str(part.get("type")), *(kind for one in inner for kind in _component_types(one))}
