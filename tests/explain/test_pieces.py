"""Tokens as text: together the pieces are the text, whatever a token is."""

import pytest
import torch

from bigmodel.data.texts.tokenizer_training import build_vocabulary
from bigmodel.data.texts.vocabulary import VocabularyReader
from bigmodel.explain.pieces import pieces_of, sums

TEXT = "Größe 日本 – naïve  words,\nand lines 🙂!"


def reader(unit: str) -> VocabularyReader:
    vocabulary = build_vocabulary([TEXT * 3], unit, 300, special=["pad", "unknown"])  # type: ignore[arg-type]
    return VocabularyReader(vocabulary=vocabulary)


@pytest.mark.parametrize("unit", ["character", "byte", "bpe"])
def test_pieces_are_the_text_and_cover_every_token(unit: str) -> None:
    known = reader(unit)
    tokens = known.encode(TEXT)
    pieces = pieces_of(known, tokens)
    assert "".join(piece.text for piece in pieces) == TEXT
    covered = [n for piece in pieces for n in range(piece.first, piece.first + piece.count)]
    assert covered == list(range(len(tokens)))
    assert "\ufffd" not in "".join(piece.text for piece in pieces)
    if unit == "byte":
        sizes = {piece.text: piece.count for piece in pieces}
        assert (sizes["ö"], sizes["日"], sizes["🙂"], sizes["w"]) == (2, 3, 4, 1)


def test_special_tokens_have_names_and_characters_without_a_token_too() -> None:
    known = reader("character")
    tokens = [*known.encode("aX"), known.vocabulary.pad or 0]
    assert [piece.text for piece in pieces_of(known, tokens)] == ["a", "<unknown>", "<pad>"]


def test_half_a_character_is_a_piece() -> None:
    known = reader("byte")
    tokens = [*known.encode("a日")[:2], known.vocabulary.pad or 0]
    assert [(piece.text, piece.first, piece.count) for piece in pieces_of(known, tokens)] == [
        ("a", 0, 1),
        ("\ufffd", 1, 1),
        ("<pad>", 2, 1),
    ]


def test_numbers_of_a_piece_are_added_up() -> None:
    known = reader("byte")
    pieces = pieces_of(known, known.encode("a日b"))
    values = torch.tensor([1.0, 10.0, 20.0, 30.0, 4.0])
    assert sums(values, pieces).tolist() == [1.0, 60.0, 4.0]
