"""Vocabularies that are learnt, and tokenizers that are given."""

import random
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

from bigmodel.data.texts.tokenizer_training import (
    MAX_WORD,
    MIN_VOCAB_SIZE,
    _split_long_words,
    build_vocabulary,
)
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
    known = build_vocabulary([TEXT * 3, "other"], "bpe", 270, special=["pad", "end"])
    assert known.size == 270
    assert len(known.encode(TEXT)) < len(TEXT) / 2
    assert "268 subwords learnt" in str(known)


def test_a_small_text_gives_fewer_pieces():
    assert build_vocabulary(["ab ab"], "bpe", 8000).size < 262
    assert build_vocabulary([], "bpe", MIN_VOCAB_SIZE).base_size == 256


def test_what_occurs_once_is_no_piece():
    assert build_vocabulary(["unrepeatable"], "bpe", 8000).size == 256


@pytest.mark.parametrize(
    ("unit", "description"), [("character", "12 characters"), ("byte", "256 bytes")]
)
def test_it_describes_itself(unit, description):
    assert str(build_vocabulary([TEXT], unit, 300)) == description


def test_a_given_tokenizer_is_used_as_it_is_but_for_what_it_adds(tmp_path):
    path = byte_level(tmp_path / "tokenizer.json")
    known = build_vocabulary([TEXT], "character", 300, path, ["pad"])
    assert known.exact
    assert known.base_size == Tokenizer.from_file(str(path)).get_vocab_size()
    assert known.pad == known.base_size
    assert known.size == len(known.characters) == known.base_size + 1
    text = "the cat sees 日本 🙂 <|end|>"
    tokens = known.encode(text).tolist()
    assert len(tokens) > 10
    assert tokens[-1] == 0
    assert known.decode(tokens) == text
    assert sum(known.characters[token] for token in tokens) == len(text)
    assert "subwords of the given tokenizer" in str(known)


def test_a_given_tokenizer_that_changes_texts_counts_no_characters(tmp_path):
    path = byte_level(tmp_path / "tokenizer.json", normalizers.Lowercase())
    known = build_vocabulary(["The Cat"], "character", 300, path)
    assert not known.exact
    assert known.characters is None
    assert "decoding does not restore every text" in str(known)


def test_a_tokenizer_of_words_counts_no_characters(tmp_path):
    engine = Tokenizer(models.WordLevel({"the": 0, "cat": 1, "[UNK]": 2}, unk_token="[UNK]"))
    engine.pre_tokenizer = pre_tokenizers.Whitespace()
    engine.save(str(tmp_path / "words.json"))
    known = build_vocabulary(["the cat"], "character", 300, tmp_path / "words.json")
    assert known.characters is None
    assert known.encode("the dog").tolist() == [0, 2]


@pytest.mark.parametrize("content", ["", "{}", "not json", '{"model": {"type": "BPE"}}'])
def test_another_file_is_refused_in_words(tmp_path, content):
    path = tmp_path / "tokenizer.json"
    path.write_text(content)
    with pytest.raises(DataError, match=r"data.tokenizer=.*: cannot be read as a tokenizer.json"):
        build_vocabulary([TEXT], "bpe", 300, path)


WORDS = Path(__file__).parents[3].joinpath("README.md").read_text(encoding="utf-8")


def learnt_plainly(texts, size):
    """Pieces as the library itself learns them, without anything of ours."""
    engine = Tokenizer(models.BPE())
    engine.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        min_frequency=2,
        show_progress=False,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
    )
    engine.train_from_iterator(texts, trainer)
    return engine.get_vocab()


def test_pieces_of_ordinary_texts_are_those_of_the_library():
    known = build_vocabulary([WORDS], "bpe", 1000)
    assert Tokenizer.from_str(known.tokenizer).get_vocab() == learnt_plainly([WORDS], 1000)


@pytest.mark.parametrize("letters", ["ACGT", " \n", "0123456789", "語日本文"])
def test_a_long_run_is_learnt_from_in_parts(letters):
    """However long a run is, no word that is learnt from is longer than `LONGEST`."""
    draw = random.Random(0)
    run = "".join(draw.choices(letters, k=5 * MAX_WORD))
    if letters == " \n":
        run = run[0] * len(run)
    cut = [run[begin : begin + MAX_WORD] for begin in range(0, len(run), MAX_WORD)]
    known = build_vocabulary([f"before {run} after"[7:-6]], "bpe", 300)
    assert Tokenizer.from_str(known.tokenizer).get_vocab() == learnt_plainly(cut, 300)
    assert known.decode(known.encode(run).tolist()) == run


@given(st.lists(st.sampled_from(["a", "語", "7", " ", "\n", "a" * MAX_WORD, " " * (MAX_WORD + 1)])))
def test_no_word_that_is_learnt_from_is_long(parts):
    """Nothing is lost, and no run is longer; a text without such is left whole."""
    text = "".join(parts)
    cut = list(_split_long_words(text))
    assert "".join(cut) == text
    runs = [run for piece in cut for run in re.findall(r"\S+|\s+", piece)]
    assert max(map(len, runs), default=0) <= MAX_WORD
    if max(map(len, re.findall(r"\S+|\s+", text)), default=0) < MAX_WORD:
        assert len(cut) == bool(text)


def saved(path, model, **parts):
    engine = Tokenizer(model)
    for name, part in parts.items():
        setattr(engine, name, part)
    engine.save(str(path))
    return path


BLANKS = pre_tokenizers.Whitespace()
FAULTY = {
    "words without an unknown one": (models.WordLevel({"the": 0}, unk_token="[UNK]"), "fails on a text"),
    "parts without an unknown one": (
        models.WordPiece({"the": 0}, unk_token="[UNK]"),
        "fails on a text",
    ),
    "a lottery without an unknown one": (models.Unigram([("zzz", -1.0)]), "fails on a text"),
    "nothing": (models.BPE(), "its vocabulary is empty"),
    "no words": (models.WordLevel({}, unk_token="[UNK]"), "its vocabulary is empty"),
    "another script": (models.BPE({"ж": 0, "ш": 1}, []), "produces no tokens for"),
}


@pytest.mark.parametrize("case", FAULTY)
def test_a_tokenizer_that_knows_too_little_is_refused(tmp_path, case):
    model, message = FAULTY[case]
    path = saved(tmp_path / "tokenizer.json", model, pre_tokenizer=BLANKS)
    with pytest.raises(DataError, match=message) as caught:
        build_vocabulary([TEXT], "character", 300, path)
    assert str(caught.value).startswith(f"data.tokenizer={path}: ")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", ["", "{}", "[]", '{"model": {"type": "BPE"}}', "\0"])
def test_what_is_no_tokenizer_is_refused(tmp_path, content):
    path = tmp_path / "tokenizer.json"
    path.write_text(content)
    with pytest.raises(DataError) as caught:
        build_vocabulary([TEXT], "character", 300, path)
    assert str(caught.value).startswith(f"data.tokenizer={path}: ")
    assert "\n" not in str(caught.value)


KNOWN = {"the": 0, "cat": 1, "[UNK]": 2}
OTHERS = {
    "WordPiece": (models.WordPiece(KNOWN, unk_token="[UNK]"), decoders.WordPiece()),
    "WordLevel": (models.WordLevel(KNOWN, unk_token="[UNK]"), None),
    "Unigram": (models.Unigram([("<unk>", 0.0), ("the", -1.0), ("cat", -2.0)], unk_id=0), None),
    "BPE": (models.BPE({c: i for i, c in enumerate(sorted(set(TEXT)))}, []), None),
}


@pytest.mark.parametrize("case", OTHERS)
@pytest.mark.parametrize("texts", [[TEXT], ["x"], [""], []], ids=["words", "a letter", "empty", "none"])
def test_tokenizers_of_every_kind_are_taken(tmp_path, case, texts):
    model, decoder = OTHERS[case]
    parts = {"pre_tokenizer": BLANKS} | ({} if decoder is None else {"decoder": decoder})
    path = saved(tmp_path / "tokenizer.json", model, **parts)
    if case == "BPE" and texts == ["x"]:
        with pytest.raises(DataError, match="produces no tokens for"):
            build_vocabulary(texts, "character", 300, path)
        return
    known = build_vocabulary(texts, "character", 300, path, ["pad"])
    assert known.pad == known.base_size
    assert known.encode_all(["the cat", ""]).sizes.tolist()[1] == 0


def test_a_panic_prints_nothing_of_its_own(tmp_path, capfd):
    """The library's own lines on standard error would come before our message, and say less."""
    from tokenizers import Regex

    engine = Tokenizer(models.BPE({"a": 0, "b": 1}, []))
    engine.pre_tokenizer = pre_tokenizers.Split(Regex("(?:a|a?)+$"), "isolated")
    engine.save(str(tmp_path / "tokenizer.json"))
    with pytest.raises(DataError, match="countless ways"):
        build_vocabulary(["a" * 60 + "b"], "character", 300, tmp_path / "tokenizer.json")
    assert capfd.readouterr().err == ""
