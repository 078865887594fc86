"""Vocabularies that are learnt, and tokenizers that are given."""

import pytest
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

from bigmodel.data.texts.tokenizing import LEAST_PIECES, learn
from bigmodel.errors import DataError

TEXT = "the cat sat on the mat, the cat sat on the hat. " * 5


def byte_level(path, normalizer=None):
    engine = Tokenizer(models.BPE())
    engine.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    engine.decoder = decoders.ByteLevel()
    if normalizer is not None:
        engine.normalizer = normalizer
    trainer = trainers.BpeTrainer(
        vocab_size=300,
        show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        special_tokens=["<|end|>"],
    )
    engine.train_from_iterator([TEXT], trainer)
    engine.post_processor = processors.TemplateProcessing(
        single="$A <|end|>", special_tokens=[("<|end|>", 0)]
    )
    engine.enable_truncation(3)
    engine.enable_padding(length=50)
    engine.save(str(path))
    return path


def test_pieces_are_learnt_up_to_the_size_that_is_asked_for():
    known = learn([TEXT * 3, "other"], "bpe", 270, special=["pad", "end"])
    assert known.size == 270
    assert len(known.encode(TEXT)) < len(TEXT) / 2
    assert "268 pieces of words, learnt" in str(known)


def test_a_small_text_gives_fewer_pieces():
    assert learn(["ab ab"], "bpe", 8000).size < 262
    assert learn([], "bpe", LEAST_PIECES).own == 256


def test_what_occurs_once_is_no_piece():
    assert learn(["unrepeatable"], "bpe", 8000).size == 256


@pytest.mark.parametrize(("unit", "told"), [("character", "12 characters"), ("byte", "256 bytes")])
def test_it_says_what_it_is(unit, told):
    assert str(learn([TEXT], unit, 300)) == told


def test_a_given_tokenizer_is_used_as_it_is_but_for_what_it_adds(tmp_path):
    path = byte_level(tmp_path / "tokenizer.json")
    known = learn([TEXT], "character", 300, path, ["pad"])
    assert known.exact
    assert known.own == Tokenizer.from_file(str(path)).get_vocab_size()
    assert known.pad == known.own
    assert known.size == len(known.characters) == known.own + 1
    text = "the cat sees 日本 🙂 <|end|>"
    tokens = known.encode(text).tolist()
    assert len(tokens) > 10
    assert tokens[-1] == 0
    assert known.decode(tokens) == text
    assert sum(known.characters[token] for token in tokens) == len(text)
    assert "pieces of the tokenizer that was given" in str(known)


def test_a_given_tokenizer_that_changes_texts_counts_no_characters(tmp_path):
    path = byte_level(tmp_path / "tokenizer.json", normalizers.Lowercase())
    known = learn(["The Cat"], "character", 300, path)
    assert not known.exact
    assert known.characters is None
    assert "do not give back each text as it was" in str(known)


def test_a_tokenizer_of_words_counts_no_characters(tmp_path):
    engine = Tokenizer(models.WordLevel({"the": 0, "cat": 1, "[UNK]": 2}, unk_token="[UNK]"))
    engine.pre_tokenizer = pre_tokenizers.Whitespace()
    engine.save(str(tmp_path / "words.json"))
    known = learn(["the cat"], "character", 300, tmp_path / "words.json")
    assert known.characters is None
    assert known.encode("the dog").tolist() == [0, 2]


@pytest.mark.parametrize("content", ["", "{}", "not json", '{"model": {"type": "BPE"}}'])
def test_another_file_is_refused_in_words(tmp_path, content):
    path = tmp_path / "tokenizer.json"
    path.write_text(content)
    with pytest.raises(DataError, match=r"data.tokenizer=.*: cannot be read as a tokenizer.json"):
        learn([TEXT], "bpe", 300, path)
