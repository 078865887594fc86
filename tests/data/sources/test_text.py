"""Long texts: split in their order, in windows that ask for every token, refused in words."""

import gzip

import pytest
import torch

from bigmodel.checkpointing.exact_json import dumps, loads
from bigmodel.data.checks import check
from bigmodel.data.reader import from_plain, to_plain
from bigmodel.errors import ConfigError, DataError
from bigmodel.registry import data
from bigmodel.spec import IGNORED, Tokens

QUOTE = "To be, or not to be: that is the question.\n" * 20


@pytest.fixture
def quote(tmp_path):
    (tmp_path / "quote.txt").write_text(QUOTE)
    return tmp_path / "quote.txt"


def built(path, **values):
    return data.build(data.parse({"name": "text", "path": str(path), "context": 16, **values}))


def asked(dataset, name):
    """All that a part asks for, in order."""
    part = dataset.part(name)
    _, targets = part.take(slice(0, len(part)))
    return [token for token in targets.flatten().tolist() if token != IGNORED]


@pytest.mark.parametrize("unit", ["character", "byte", "bpe"])
def test_the_last_part_is_held_out_and_all_of_it_is_asked_for(quote, unit):
    dataset = built(quote, unit=unit, val_fraction=0.25)
    check(dataset)
    reader, cut = dataset.reader, round(len(QUOTE) * 0.75)
    assert reader.decode(dataset.train.stream.tolist()) == QUOTE[:cut]
    assert reader.decode(dataset.val.stream.tolist()) == QUOTE[cut:]
    assert asked(dataset, "val") == dataset.val.stream[1:].tolist()
    seen = asked(dataset, "train")
    assert seen == dataset.train.stream[1 : len(seen) + 1].tolist()
    assert len(dataset.train.stream) - 1 - len(seen) < 16
    assert dataset.spec.sizes == {"train": len(dataset.train), "val": len(dataset.val)}


def test_the_spec_counts_tokens_and_their_characters(quote):
    dataset = built(quote)
    different = len(set(QUOTE))
    assert dataset.spec.input == Tokens(16, different)
    assert dataset.spec.target.characters == (1,) * different
    assert dataset.spec.target.end is None
    assert dataset.train.stream.dtype == torch.uint8


def test_the_test_part_is_the_very_last(quote):
    dataset = built(quote, val_fraction=0.25, test_fraction=0.2)
    texts = {n: dataset.reader.decode(p.stream.tolist()) for n, p in dataset.parts.items()}
    assert texts["train"] + texts["val"] + texts["test"] == QUOTE
    assert [len(texts[name]) for name in ("train", "val", "test")] == [516, 172, 172]
    assert dataset.test.ragged


def test_parts_of_their_own(quote, tmp_path):
    for name in ("val", "test"):
        (tmp_path / f"{name}.txt").write_text(f"to be {name[0]}" * 5)
    dataset = built(quote, val_path=str(tmp_path / "val.txt"), unit="byte")
    assert dataset.reader.decode(dataset.train.stream.tolist()) == QUOTE
    assert dataset.reader.decode(dataset.val.stream.tolist()) == "to be v" * 5
    assert dataset.test is None
    dataset = built(quote, test_path=str(tmp_path / "test.txt"))
    assert dataset.reader.decode(dataset.test.stream.tolist()) == "to be t" * 5
    assert len(dataset.val.stream) == 86


def test_an_end_stands_between_several_files(tmp_path):
    for name in "ab":
        (tmp_path / f"{name}.txt").write_text(f"file {name} " * 10)
    dataset = built(tmp_path, val_fraction=0.25)
    end = dataset.spec.target.end
    assert end == dataset.spec.input.vocab_size - 1
    assert dataset.train.stream.tolist().count(end) == 1
    assert dataset.train.stream[70] == end
    assert dataset.reader.decode(dataset.train.stream.tolist()) == "file a " * 10 + ("file b " * 10)[:35]
    assert dataset.spec.target.characters[end] == 0
    check(dataset)


def test_the_vocabulary_is_that_of_the_training_part(tmp_path):
    (tmp_path / "a.txt").write_text(QUOTE + "z" * 9)
    with pytest.raises(
        DataError, match=r"a.txt: the character 'z' .* at position 860 .*data.unit=byte or"
    ):
        built(tmp_path / "a.txt")
    dataset = built(tmp_path / "a.txt", unit="bpe", vocab_size=300)
    check(dataset)
    assert dataset.spec.input.vocab_size < 300
    assert "z" in dataset.reader.decode(dataset.val.stream.tolist())


def test_the_header_describes_text_and_vocabulary(quote):
    header = dict(built(quote).header_rows)
    assert header["Text"] == "860 characters in 1 file, 18 different; first 90 % for training"
    assert header["Vocabulary"] == "18 characters; 774 tokens for training"


def test_files_left_out_are_counted(quote):
    (quote.parent / "wrong.txt").write_bytes(b"\xff")
    assert built(quote.parent, max_bad=1).left_out == {"files that cannot be read": 1}


SHORT = {
    "empty": ("", {}, r"data.path=.*a.txt: there is no text in it"),
    "shorter than a window": (
        QUOTE[:18],
        {},
        r"data.context=16: the training set has 16 tokens, but .* Lower it to at most 15, or provide",
    ),
    "one character": ("a", {}, "Provide more text"),
    "little to judge by": (
        QUOTE[:60],
        {},
        r"data.val_fraction=0.1: the validation set has 6 tokens, too few to evaluate on: at least 8",
    ),
    "little to test": (
        QUOTE,
        {"test_fraction": 0.001},
        r"data.test_fraction=0.001: the test set has",
    ),
}


@pytest.mark.parametrize(("content", "values", "words"), SHORT.values(), ids=SHORT)
def test_too_short(tmp_path, content, values, words):
    (tmp_path / "a.txt").write_text(content)
    with pytest.raises(DataError, match=words):
        built(tmp_path / "a.txt", **values)


def test_a_short_part_of_its_own(quote, tmp_path):
    (tmp_path / "val.txt").write_text("to be")
    with pytest.raises(DataError, match=r"data.val_path=.*val.txt: the validation set has 5 tokens"):
        built(quote, val_path=str(tmp_path / "val.txt"))


def test_options_that_do_not_fit(quote):
    with pytest.raises(ConfigError, match="vocab_size=100"):
        built(quote, unit="bpe", vocab_size=100)
    with pytest.raises(ConfigError, match="unit='word'"):
        built(quote, unit="word")
    with pytest.raises(DataError, match=r"data.tokenizer=none.json: there is no such file"):
        built(quote, tokenizer="none.json")


def test_a_reader_reads_another_text_from_a_checkpoint(quote, tmp_path):
    dataset = built(quote)
    reader = from_plain(loads(dumps(to_plain(dataset.reader))))
    assert reader == dataset.reader
    (tmp_path / "other.txt.gz").write_bytes(gzip.compress(b"not to be: the question"))
    found = reader.read(tmp_path / "other.txt.gz", with_targets=True)
    assert reader.decode(found.part.stream.tolist()) == "not to be: the question"
    inputs, targets = found.part.take(slice(0, len(found.part)))
    assert inputs.shape == (2, 16)
    assert int((targets != IGNORED).sum()) == 22
    assert found.columns == {"first_token": [0, 16]}
    assert reader.read(tmp_path / "other.txt.gz", with_targets=False).columns == found.columns


def test_what_a_reader_refuses(quote, tmp_path):
    reader = built(quote).reader
    (tmp_path / "short.txt").write_text("t")
    with pytest.raises(DataError, match=r"short.txt: 1 token: at least 2 are needed"):
        reader.read(tmp_path / "short.txt", with_targets=True)
    (tmp_path / "other.txt").write_text("to X")
    with pytest.raises(DataError, match=r"other.txt: the character 'X' .* position 3"):
        reader.read(tmp_path / "other.txt", with_targets=True)
    with pytest.raises(DataError, match="3 texts, but the run was trained on a single one"):
        reader.read(tmp_path, with_targets=True)


def test_a_run_on_several_texts_reads_several(tmp_path):
    for name in "ab":
        (tmp_path / f"{name}.txt").write_text(f"file {name} " * 10)
    reader = built(tmp_path).reader
    found = reader.read(tmp_path, with_targets=True)
    assert found.part.stream.tolist().count(reader.vocabulary.end) == 1
    assert len(reader.read(tmp_path / "a.txt", with_targets=True).part.stream) == 70


def test_folds_of_a_text_are_contiguous_blocks_before_the_test_part(quote):
    held_out, cut = "", round(len(QUOTE) * 0.8)
    for fold in range(4):
        dataset = built(quote, folds=4, val_fold=fold, test_fraction=0.2)
        texts = {n: dataset.reader.decode(p.stream.tolist()) for n, p in dataset.parts.items()}
        assert texts["test"] == QUOTE[cut:]
        assert len(texts["val"]) == cut // 4
        held_out += texts["val"]
        first, last = QUOTE[: cut // 4 * fold], QUOTE[cut // 4 * (fold + 1) : cut]
        assert texts["train"].startswith(first)
        assert texts["train"].endswith(last)
    assert held_out == QUOTE[:cut]
