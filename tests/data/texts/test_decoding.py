"""Tokens as text, one by one."""

from bigmodel.data.texts.decoding import Decoder
from bigmodel.data.texts.vocabulary import Vocabulary


def streamed(vocabulary: Vocabulary, tokens: list[int]) -> list[str]:
    decoder = Decoder(vocabulary.decode)
    given = [*(decoder.add(token) for token in tokens), decoder.finish()]
    return [piece for piece in given if piece]


def test_a_character_is_shown_when_it_is_whole() -> None:
    pieces = streamed(Vocabulary(unit="byte"), list("a☃é".encode()))
    assert pieces == ["a", "☃", "é"]


def test_bytes_that_are_no_text_are_shown_in_the_end() -> None:
    tokens = [0xE2, 0x98, *b"ab", *[0x80] * 20, 0xE2]
    pieces = streamed(Vocabulary(unit="byte"), tokens)
    assert "".join(pieces) == bytes(tokens).decode(errors="replace")
    assert len(pieces) > 2


def test_a_space_after_the_prompt_is_not_lost() -> None:
    """As with tokenizers that make nothing of a text's first space."""

    def decode(tokens: list[int]) -> str:
        return "".join(" " + "ab"[token] for token in tokens).removeprefix(" ")

    assert Decoder(decode, before=[0]).add(1) == " b"
