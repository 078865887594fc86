"""Tokens as the text that a person reads."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from torch import Tensor

from bigmodel.data.reader import TextReader
from bigmodel.data.texts.decoding import Decoder
from bigmodel.data.texts.vocabulary import VocabularyReader


@dataclass(frozen=True)
class Piece:
    """Tokens that make up a piece of text: one, or those of one character.

    Attributes:
        text: as it is written; of a special token its name, such as `<end>`.
        first: the index of the first token.
        count: of tokens.
    """

    text: str
    first: int
    count: int = 1


def pieces_of(reader: TextReader, tokens: Sequence[int]) -> list[Piece]:
    """The pieces of a text; together they are what `reader` decodes, but for special tokens."""
    special = special_tokens(reader)
    if isinstance(reader, VocabularyReader) and reader.vocabulary.unit == "character":
        return [Piece(special.get(t) or reader.decode([t]), n) for n, t in enumerate(tokens)]
    return list(_pieces(reader.decode, tokens, special))


def _pieces(
    decode: Callable[[list[int]], str], tokens: Sequence[int], special: dict[int, str]
) -> list[Piece]:
    found: list[Piece] = []
    decoder, waiting = Decoder(decode), 0
    for index, token in enumerate(tokens):
        if token in special:
            if waiting:
                found.append(Piece(decoder.finish(), index - waiting, waiting))
            found.append(Piece(special[token], index))
            decoder, waiting = Decoder(decode), 0
            continue
        waiting += 1
        text = decoder.add(token)
        if text is None and index + 1 == len(tokens):
            text = decoder.finish()
        if text is not None:
            found.append(Piece(text, index - waiting + 1, waiting))
            waiting = 0
    return found


def special_tokens(reader: TextReader) -> dict[int, str]:
    """The names of tokens that stand for no text."""
    if not isinstance(reader, VocabularyReader):
        return {}
    if reader.vocabulary.unit == "pretrained":
        return reader.vocabulary.special_names
    named = {name: getattr(reader.vocabulary, name) for name in ("pad", "start", "end", "unknown")}
    return {token: f"<{name}>" for name, token in named.items() if token is not None}


def sums(values: Tensor, pieces: Sequence[Piece]) -> Tensor:
    """The numbers of tokens, (…, tokens), added up for each piece: (…, pieces)."""
    found = values.new_zeros(*values.shape[:-1], len(pieces))
    for index, piece in enumerate(pieces):
        found[..., index] = values[..., piece.first : piece.first + piece.count].sum(-1)
    return found
