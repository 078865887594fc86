"""A tokenizer.json gives the tokens that the vocabulary gives, whatever the text."""

from __future__ import annotations

from pathlib import Path

import pytest
from tokenizers import AddedToken, Tokenizer, models, pre_tokenizers, processors

from bigmodel.data.texts.tokenizer_file import tokenizer_file
from bigmodel.data.texts.tokenizer_training import Special, Unit, build_vocabulary
from bigmodel.data.texts.vocabulary import Vocabulary
from bigmodel.errors import DataError

LEARNT = "To be, or not to be:\r\n\tthat is the question. e\u0301é ☃ 🎉 <pad>\u2028\n" * 9
NEW = "A new text, with <pad> and </s> 東京 \x00\u0301\n\n"
SPECIAL: dict[str, list[Special]] = {
    "none": [],
    "two": ["pad", "unknown"],
    "all": ["pad", "start", "end"],
}


def written(vocabulary: Vocabulary) -> tuple[Tokenizer, dict[str, str]]:
    file = tokenizer_file(vocabulary)
    engine = Tokenizer.from_str(file.text)
    engine.encode_special_tokens = not file.finds_special  # transformers' `split_special_tokens`
    return engine, file.names


@pytest.mark.parametrize("special", SPECIAL)
@pytest.mark.parametrize("unit", ["character", "byte", "bpe"])
def test_tokens_are_those_of_the_vocabulary(unit: Unit, special: str) -> None:
    vocabulary = build_vocabulary([LEARNT], unit, 300, special=SPECIAL[special])
    engine, names = written(vocabulary)
    for text in [LEARNT, *([NEW] if unit != "character" or special == "two" else [])]:
        ids = engine.encode(text).ids
        assert ids == vocabulary.encode(text).tolist()
        if vocabulary.unknown not in ids:
            assert engine.decode(ids) == text
    assert {role: engine.token_to_id(name) for role, name in names.items()} == {
        role: getattr(vocabulary, role) for role in SPECIAL[special]
    }
    assert engine.get_vocab_size(with_added_tokens=True) == vocabulary.size


def test_a_character_that_is_not_known_is_refused_as_in_training() -> None:
    engine, _ = written(build_vocabulary([LEARNT], "character", 300))
    with pytest.raises(Exception, match=r"Missing \[UNK\] token"):
        engine.encode(NEW)


def own_tokenizer(path: Path, words: dict[str, int]) -> Path:
    engine = Tokenizer(models.WordLevel(words, unk_token="what"))
    engine.pre_tokenizer = pre_tokenizers.Whitespace()
    engine.add_special_tokens([AddedToken("<pad>", special=True)])
    engine.post_processor = processors.TemplateProcessing(
        single="<pad> $A", special_tokens=[("<pad>", engine.token_to_id("<pad>"))]
    )
    engine.enable_truncation(2)
    engine.save(str(path))
    return path


def test_a_tokenizer_of_the_user_adds_nothing_and_cuts_nothing(tmp_path: Path) -> None:
    path = own_tokenizer(tmp_path / "tokenizer.json", {"what": 0, "a": 1, "rose": 2})
    vocabulary = build_vocabulary(["a rose"], "bpe", 300, path, ["pad", "unknown"])
    engine, names = written(vocabulary)
    text = "a rose is a rose <pad>"
    assert engine.encode(text).ids == vocabulary.encode(text).tolist() == [1, 2, 0, 1, 2, 3]
    assert names["pad"] == "<|pad|>"  # the other name is a word of its own
    assert engine.token_to_id("<|pad|>") == vocabulary.pad == 4


def test_a_tokenizer_with_gaps_has_no_place_for_special_tokens(tmp_path: Path) -> None:
    path = own_tokenizer(tmp_path / "tokenizer.json", {"what": 0, "a": 1, "rose": 20})
    vocabulary = build_vocabulary(["a rose"], "bpe", 300, path, ["pad", "unknown"])
    with pytest.raises(DataError, match="leaves out numbers below 21, so that the special token 'pad'"):
        tokenizer_file(vocabulary)


def test_a_pretrained_model_s_own_is_kept_with_its_template(tmp_path: Path) -> None:
    path = own_tokenizer(tmp_path / "tokenizer.json", {"what": 0, "a": 1, "rose": 2})
    vocabulary = Vocabulary(
        unit="pretrained", tokenizer=path.read_text(), rows=9, pad=3, end=3, unknown=0
    )
    engine, names = written(vocabulary)
    text = "a rose is a rose <pad>"
    assert engine.encode(text).ids == vocabulary.encode_all([text]).tokens.tolist()
    assert engine.encode(text).ids == [3, 1, 2, 0, 1, 2, 3]
    assert names == {"end": "<pad>", "pad": "<pad>"}  # the unknown one is a word of the text


def test_what_comes_before_a_text_is_added() -> None:
    vocabulary = build_vocabulary([LEARNT], "byte", 300, special=["end"])
    assert vocabulary.end is not None
    engine = Tokenizer.from_str(tokenizer_file(vocabulary, [vocabulary.end]).text)
    assert engine.encode("ab").ids == [vocabulary.end, *b"ab"]
    assert engine.encode("ab", add_special_tokens=False).ids == [*b"ab"]
    assert engine.decode(engine.encode("ab").ids) == "ab"
