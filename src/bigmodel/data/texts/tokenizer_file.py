"""A vocabulary as a tokenizer.json, which encodes every text as the vocabulary does."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, NamedTuple

from bigmodel.data.libraries import tokenizers
from bigmodel.data.texts.vocabulary import Vocabulary, VocabularyReader, bytes_of_letters
from bigmodel.errors import DataError
from bigmodel.runtime import nested_json

ROLES = {"pad": "<pad>", "start": "<s>", "end": "</s>", "unknown": "<unk>"}
"""Special tokens of a vocabulary, and the names that they get."""


class TokenizerFile(NamedTuple):
    """A tokenizer.json.

    Attributes:
        text: of the file.
        names: of special tokens, by the attribute of `Vocabulary`.
        finds_special: special tokens that are written out in a text are found there.
    """

    text: str
    names: dict[str, str]
    finds_special: bool


def tokenizer_file(vocabulary: Vocabulary, opening: Sequence[int] = ()) -> TokenizerFile:
    """The tokenizer.json of a vocabulary: a WordLevel model of characters, a byte-level BPE without
    merges of bytes, or else the one that the vocabulary has.

    Args:
        opening: special tokens to add before a text, which the vocabulary does not add itself.

    Raises:
        DataError: the user's own tokenizer leaves out numbers that special tokens would get.
    """
    file = _tokenizer_file(vocabulary)
    if not opening:
        return file
    engine = tokenizers.Tokenizer.from_str(file.text)
    added = {engine.id_to_token(number): number for number in opening}
    engine.post_processor = tokenizers.processors.TemplateProcessing(
        single=[*(engine.id_to_token(number) for number in opening), "$A"],
        special_tokens=list(added.items()),
    )
    return file._replace(text=engine.to_str(pretty=True))


def opening_of(reader: VocabularyReader) -> list[int]:
    """The tokens before a text to continue that its vocabulary does not add itself."""
    return reader.prompt("") if reader.continues and not reader.vocabulary.opening else []


def _tokenizer_file(vocabulary: Vocabulary) -> TokenizerFile:
    numbers = {role: number for role in ROLES if (number := getattr(vocabulary, role)) is not None}
    numbers = dict(sorted(numbers.items(), key=lambda one: one[1]))
    if vocabulary.unit == "character":
        return _of_characters(vocabulary.letters, numbers)
    if vocabulary.unit == "pretrained":
        return _of_pretrained(vocabulary.tokenizer, numbers)
    engine = _of_bytes() if vocabulary.unit == "byte" else _without_additions(vocabulary.tokenizer)
    finds_special = bool(engine.get_added_tokens_decoder())
    known = engine.get_vocab(with_added_tokens=True)
    names = {role: _unused(ROLES[role], known) for role in numbers}
    _add_special(engine, names)
    for role, name in names.items():
        if engine.token_to_id(name) != numbers[role]:
            raise DataError(
                f"data.tokenizer: it leaves out numbers below {numbers[role]:,}, so that the special"
                f" token '{role}' cannot be added under its own. Train with a tokenizer without gaps."
            )
    return TokenizerFile(engine.to_str(pretty=True), names, finds_special)


def _of_pretrained(tokenizer: str, numbers: dict[str, int]) -> TokenizerFile:
    engine = tokenizers.Tokenizer.from_str(tokenizer)
    engine.no_truncation()
    engine.no_padding()
    # What has no special token of its own, such as the padding of GPT-2, may stand for one of text.
    special = {
        n: token.content for n, token in engine.get_added_tokens_decoder().items() if token.special
    }
    names = {role: special[number] for role, number in numbers.items() if number in special}
    return TokenizerFile(engine.to_str(pretty=True), names, True)


def _of_characters(letters: str, numbers: dict[str, int]) -> TokenizerFile:
    names = {role: ROLES[role] for role in numbers}
    tokens = {letter: number for number, letter in enumerate(letters)}
    tokens |= {names[role]: number for role, number in numbers.items()}
    # Without a token for unknown characters, the library refuses them, as training does.
    engine = tokenizers.Tokenizer(tokenizers.models.WordLevel(tokens, unk_token=ROLES["unknown"]))
    one = tokenizers.Regex(r"[\s\S]")
    engine.pre_tokenizer = tokenizers.pre_tokenizers.Split(one, "isolated")
    engine.decoder = tokenizers.decoders.Fuse()
    _add_special(engine, names)
    return TokenizerFile(engine.to_str(pretty=True), names, False)


def _of_bytes() -> Any:
    engine = tokenizers.Tokenizer(tokenizers.models.BPE(bytes_of_letters(), []))
    level = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    engine.pre_tokenizer, engine.decoder = level, tokenizers.decoders.ByteLevel()
    return engine


def _without_additions(tokenizer: str) -> Any:
    """A tokenizer that adds nothing to a text and cuts none, as here: the user's own might."""
    parts = nested_json.loads(tokenizer) | {"post_processor": None, "truncation": None, "padding": None}
    return tokenizers.Tokenizer.from_str(json.dumps(parts))


def _add_special(engine: Any, names: dict[str, str]) -> None:
    engine.add_special_tokens(
        [tokenizers.AddedToken(name, special=True, normalized=False) for name in names.values()]
    )


def _unused(name: str, known: dict[str, int]) -> str:
    """The name, or a longer one that is no token yet."""
    while name in known:
        name = f"{name[:1]}|{name[1:-1]}|{name[-1:]}"
    return name
