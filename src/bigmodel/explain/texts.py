"""The texts of a subject: the tokens that a model reads, and what a person reads."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from bigmodel.data.packing import Documents, PackedDocuments
from bigmodel.data.parts import Windows
from bigmodel.data.reader import TextReader
from bigmodel.data.texts.vocabulary import VocabularyReader
from bigmodel.errors import ConfigError, DataError
from bigmodel.explain.pieces import Piece, pieces_of, special_tokens
from bigmodel.explain.subject import Subject
from bigmodel.spec import IGNORED, NextTokens, PackedTokens, TokenPair, Tokens


@dataclass(frozen=True)
class Text:
    """One text, or a pair of them.

    Attributes:
        inputs: what the model reads, without padding, on its device: (1, length), or (1, 2, length).
        tokens: the text; of a pair, what is known of its second.
        following: the token that follows each of them, if that is known and asked for.
        source: of a pair, the first text.
        reader: turns tokens into words; None: there is none.
    """

    inputs: Tensor
    tokens: list[int]
    following: list[int | None]
    source: list[int]
    reader: TextReader | None

    @cached_property
    def pieces(self) -> list[Piece]:
        """The text in pieces."""
        return _pieces(self.reader, self.tokens)

    def word(self, token: int) -> str:
        """A single token as text."""
        return _pieces(self.reader, [token])[0].text

    @property
    def labels(self) -> tuple[str, ...]:
        """A label for each token."""
        return _labels(self.pieces)

    @property
    def written_labels(self) -> tuple[str, ...]:
        """A label for the token that each position writes; empty: unknown."""
        return tuple("" if token is None else self.word(token) for token in self.following)

    @property
    def source_labels(self) -> tuple[str, ...]:
        """A label for each token of the source."""
        return _labels(_pieces(self.reader, self.source))


def read_text(subject: Subject, place: int) -> Text:
    """The text of a sample, or the pair."""
    spec, reader = subject.preprocessing.spec, subject.preprocessing.reader
    reader = reader if isinstance(reader, TextReader) else None
    stored, targets = subject.part.take(torch.tensor([place]))
    inputs = stored.to(subject.runtime.device)
    if isinstance(spec.input, TokenPair):
        source = _trimmed(stored[0, 0].tolist(), spec.input.pad)
        known = int((targets[0] != IGNORED).sum())
        following = [*targets[0, :known].tolist()]
        return Text(inputs, stored[0, 1, :known].tolist(), following, source, reader)
    assert isinstance(spec.input, Tokens)
    if isinstance(spec.input, PackedTokens) and stored.ndim == 3:  # the text that the row begins with
        begins = (stored[0, 1] == 0).nonzero().flatten().tolist()
        size = begins[1] if len(begins) > 1 else stored.shape[-1]
        stored, inputs, targets = stored[:, 0, :size], inputs[:, 0, :size], targets[:, :size]
    tokens: list[int] = stored[0].tolist()
    if spec.input.pad is not None and not isinstance(subject.part, Documents | PackedDocuments):
        tokens = _trimmed(tokens, spec.input.pad)
    following = [None] * len(tokens)
    if isinstance(spec.target, NextTokens):
        after = [None if token == IGNORED else token for token in targets[0].tolist()]
        if isinstance(subject.part, Windows):  # the last may extend beyond the text
            tokens = tokens[: sum(token is not None for token in after)]
        following = after[: len(tokens)]
    return Text(inputs[:, : len(tokens)], tokens, following, [], reader)


def token_named(reader: object, text: str) -> int:
    """The token that is written as `text`.

    Raises:
        ConfigError: there is none, or it takes several.
    """
    if not isinstance(reader, TextReader):
        raise ConfigError(f"--class {text}: the run's tokens have no text. Leave it out.")
    special = {name: token for token, name in special_tokens(reader).items()}
    if text in special:
        return special[text]
    try:
        if isinstance(reader, VocabularyReader):  # without what a model expects around a text
            tokens = list(map(int, reader.vocabulary.encode(text)))
        else:
            tokens = reader.encode(text)
    except DataError as error:
        raise ConfigError(f"--class {text}: {error}") from error
    if len(tokens) != 1:
        parts = ", ".join(repr(piece.text) for piece in pieces_of(reader, tokens)) or "nothing"
        raise ConfigError(
            f"--class {text}: is not one token of this run, but {parts}. Name the token that might come"
            " next; a word within a text often begins with its space, as in ' the'."
        )
    return tokens[0]


def _trimmed(tokens: Sequence[int], pad: int) -> list[int]:
    """Without padding; of nothing but padding, one token, as models read it."""
    last = max((place for place, token in enumerate(tokens) if token != pad), default=0)
    return list(tokens[: last + 1])


def _pieces(reader: TextReader | None, tokens: Sequence[int]) -> list[Piece]:
    if reader is None:
        return [Piece(str(token), place) for place, token in enumerate(tokens)]
    return pieces_of(reader, tokens)


def _labels(pieces: Sequence[Piece]) -> tuple[str, ...]:
    return tuple(label for piece in pieces for label in (piece.text, *["·"] * (piece.count - 1)))
