"""Pairs of texts: line by line, in one vocabulary, references as they stand, refused in words."""

import gzip
import os
from pathlib import Path

import pytest

from bigmodel.checkpointing.exact_json import dumps, loads
from bigmodel.data.checks import check
from bigmodel.data.reader import from_plain, to_plain
from bigmodel.errors import ConfigError, DataError
from bigmodel.registry import data
from bigmodel.spec import IGNORED

MULTI30K = Path(os.environ.get("MULTI30K", "data/multi30k"))  # where somebody has put it
DE = ["eins", "zwei Hunde", "drei große Männer", "vier – 🙂"]
EN = ["one", "two dogs", "three tall men", "four – 🙂"]


def lines(words, count):
    return [f"{words[row % 4]} {row}" for row in range(count)]


def written(folder, name, count, **others):
    """Two files of `count` lines; those of the given numbers are other ones."""
    for language, words in (("de", DE), ("en", EN)):
        content = dict(enumerate(lines(words, count))) | others.get(language, {})
        (folder / f"{name}.{language}").write_text("".join(f"{line}\n" for line in content.values()))
    return {"source": str(folder / f"{name}.de"), "target": str(folder / f"{name}.en")}


def built(files, **values):
    return data.build(data.parse({"name": "pairs", "vocab_size": 300, **files, **values}))


def sides(dataset, part, side):
    """All texts of one side, without their end token."""
    stored, end = dataset.part(part), dataset.spec.input.end
    found = []
    for start, size in zip(stored.starts[:, side].tolist(), stored.sizes[:, side].tolist(), strict=True):
        tokens = stored.tokens[start : start + size].tolist()
        assert tokens[-1] == end
        assert end not in tokens[:-1]
        found.append(dataset.reader.decode(tokens[:-1]))
    return found


def test_pairs_stay_together_and_come_back_as_they_were(tmp_path):
    dataset = built(written(tmp_path, "train", 40), val_fraction=0.25)
    check(dataset)
    known = dict(zip(lines(DE, 40), lines(EN, 40), strict=True))
    for part, count in (("train", 30), ("val", 10)):
        found = list(zip(sides(dataset, part, 0), sides(dataset, part, 1), strict=True))
        assert len(found) == count
        assert all(known[source] == target for source, target in found)


def test_the_spec_and_a_batch(tmp_path):
    dataset = built(written(tmp_path, "train", 40))
    spec = dataset.spec.input
    last = spec.vocab_size - 1
    assert (spec.pad, spec.start, spec.end) == (last - 2, last - 1, last)
    assert dataset.spec.target.end == spec.end
    assert dataset.spec.target.characters is None
    inputs, targets = dataset.val.take(slice(0, 4))
    assert inputs.shape[:2] == (4, 2)
    asked = [[token for token in row if token != IGNORED] for row in targets.tolist()]
    assert [dataset.reader.decode(row) for row in asked] == sides(dataset, "val", 1)
    assert (inputs[:, 1, 0] == spec.start).all()


def test_both_sides_share_one_vocabulary_of_the_training_part(tmp_path):
    files = written(tmp_path, "train", 40)
    dataset = built(files)
    other = written(tmp_path, "val", 40, de={40: "xyxyxy " * 9}, en={40: "xyxyxy " * 9})
    named = {"val_source": other["source"], "val_target": other["target"]}
    with_val = built(files, **named)
    whole = built(files, **named, test_source=other["source"], test_target=other["target"])
    assert with_val.reader.vocabulary == whole.reader.vocabulary
    assert with_val.spec.sizes == {"train": 40, "val": 41}
    assert whole.spec.sizes == {"train": 40, "val": 41, "test": 41}
    assert dataset.spec.input.vocab_size <= 300


def test_a_table_of_two_columns(tmp_path):
    rows = zip(lines(DE, 20), lines(EN, 20), strict=True)
    (tmp_path / "a.csv").write_text("\n".join(["en,de", *(f"{en},{de}" for de, en in rows), 'x,""']))
    files = {"path": str(tmp_path / "a.csv"), "source": "de", "target": "en"}
    dataset = built(files, val_path=str(tmp_path / "a.csv"), test_fraction=0.25)
    check(dataset)
    assert dataset.spec.sizes == {"train": 15, "val": 20, "test": 5}
    assert sides(dataset, "val", 0) == lines(DE, 20)
    assert sides(dataset, "val", 1) == lines(EN, 20)
    assert dataset.left_out == {"pairs with an empty side": 2}
    found = dataset.reader.read(tmp_path / "a.csv", with_targets=True)
    assert found.columns == {"source": lines(DE, 20), "target": lines(EN, 20)}
    assert found.left_out == {"pairs with an empty side": 1}
    asked = dataset.reader.read(tmp_path / "a.csv", with_targets=False)
    assert asked.columns == {"source": [*lines(DE, 20), ""]}


def test_gzip_and_line_ends_of_windows(tmp_path):
    for name, words in (("a.de", DE), ("a.en", EN)):
        content = "".join(f"{line}\r\n" for line in lines(words, 20))
        (tmp_path / name).write_bytes(gzip.compress(content.encode()))
    dataset = built({"source": str(tmp_path / "a.de"), "target": str(tmp_path / "a.en")})
    assert not any("\r" in text for text in sides(dataset, "train", 1))


def test_the_same_source_is_never_learnt_and_judged_by(tmp_path):
    repeated = {row: DE[row % 4] for row in range(30)}
    dataset = built(written(tmp_path, "train", 60, de=repeated), val_fraction=0.3)
    assert not set(sides(dataset, "train", 0)) & set(sides(dataset, "val", 0))


def test_empty_lines_are_left_out_and_counted(tmp_path):
    dataset = built(written(tmp_path, "train", 40, de={3: "", 7: ""}, en={5: "  ", 7: ""}))
    assert dataset.left_out == {"pairs with an empty side": 3}
    assert sum(dataset.spec.sizes.values()) == 37


def test_long_pairs_are_not_learnt_from_but_judged_by(tmp_path):
    files = written(tmp_path, "train", 40, de={0: "u" + "z" * 50}, en={1: "v" + "w" * 60})
    named = {"val_source": files["source"], "val_target": files["target"]}
    dataset = built(files, **named, length=20, vocab_size=260)
    check(dataset)
    assert dataset.left_out["training pairs longer than 20 tokens"] == 40 - len(dataset.train)
    assert int(dataset.train.sizes.max()) <= 20
    assert dataset.spec.sizes["val"] == 40
    assert sides(dataset, "val", 0)[0] == "u" + "z" * 18
    references = sides(dataset, "val", 1)
    assert references[1] == "v" + "w" * 60
    assert dataset.spec.input.length == int(dataset.val.sizes.max())
    cut = sum(len(text.encode()) > 19 for text in (tmp_path / "train.de").read_text().splitlines())
    assert dict(dataset.header_rows)["Cut"].endswith("sources for evaluation, to 20 tokens")
    assert int(dict(dataset.header_rows)["Cut"].split()[0]) <= cut
    with pytest.raises(DataError, match=r"data.length=2: all .* training pairs are longer; the short"):
        built(files, length=2)


def test_lines_that_do_not_match(tmp_path):
    files = written(tmp_path, "train", 40, de={40: "one more"})
    with pytest.raises(
        DataError,
        match=r"train.de has 41 lines, but .*train.en has 40: each line must be the translation",
    ):
        built(files)


def places(**given):
    return {"source": "a.de", "target": "a.en", **given}


WRONG = {
    "nothing": ({}, r"data.source: is not set. Set data.source=train.de .* data.path=pairs.csv"),
    "one side": ({"source": "a"}, r"data.target: is not set. Set"),
    "one side of a part": (
        places(val_source="b"),
        "data.val_target: is not set, but data.val_s",
    ),
    "a table beside files": (
        places(test_path="b"),
        "data.test_path=b: without data.path, the test",
    ),
    "files beside a table": (
        places(path="a.csv", val_target="b"),
        "data.val_target=b: with data.path, the validation set is a table .* Set data.val_path=<file>",
    ),
}


@pytest.mark.parametrize(("files", "words"), WRONG.values(), ids=WRONG)
def test_places_that_do_not_fit(files, words):
    with pytest.raises(ConfigError, match=words):
        built(files)


def test_files_that_are_not_there(tmp_path):
    files = written(tmp_path, "train", 4)
    with pytest.raises(DataError, match=r"data.source=.*train.fr: there is no such file"):
        built({**files, "source": str(tmp_path / "train.fr")})
    empty = written(tmp_path, "empty", 0)
    with pytest.raises(DataError, match="data: the training set has no pairs with a text on both sides"):
        built(empty)


def test_a_tokenizer_that_changes_texts_is_refused(tmp_path):
    from tokenizers import Tokenizer, models, pre_tokenizers

    engine = Tokenizer(models.WordLevel({"one": 0, "[UNK]": 1}, unk_token="[UNK]"))
    engine.pre_tokenizer = pre_tokenizers.Whitespace()
    engine.save(str(tmp_path / "words.json"))
    with pytest.raises(DataError, match=r"data.tokenizer=.*words.json: its encoding is not reversible"):
        built(written(tmp_path, "train", 40), tokenizer=str(tmp_path / "words.json"))


@pytest.fixture
def reader(tmp_path):
    dataset = built(written(tmp_path, "train", 40), length=30)
    reader = from_plain(loads(dumps(to_plain(dataset.reader))))
    assert reader == dataset.reader
    return reader


def test_a_reader_judges_by_two_files(reader, tmp_path):
    written(tmp_path, "test", 9, de={4: ""})
    found = reader.read(Path(f"{tmp_path}/test.de,{tmp_path}/test.en"), with_targets=True)
    assert len(found.part) == 8
    assert found.left_out == {"pairs with an empty side": 1}
    assert found.columns["target"][4] == lines(EN, 9)[5]
    with pytest.raises(DataError, match=r"test.de: evaluation needs a file of sources and one of"):
        reader.read(tmp_path / "test.de", with_targets=True)


def test_a_reader_gives_a_source_for_each_line(reader, tmp_path):
    written(tmp_path, "test", 9, de={4: "", 5: "z" * 80})
    found = reader.read(tmp_path / "test.de", with_targets=False)
    end = reader.vocabulary.end
    assert len(found.part) == 9
    assert found.columns["source"][4] == ""
    assert found.part.sizes[4].tolist() == [1, 1]
    assert int(found.part.tokens[found.part.starts[4, 0]]) == end
    assert found.part.sizes[5].tolist() == [30, 1]
    both = reader.read(Path(f"{tmp_path}/test.de,{tmp_path}/test.en"), with_targets=False)
    assert both.columns == found.columns


def test_references_longer_than_any_that_the_run_was_made_for(reader, tmp_path):
    written(tmp_path, "test", 9, en={4: "v" * 80})
    path = Path(f"{tmp_path}/test.de,{tmp_path}/test.en")
    with pytest.raises(DataError, match=r"1 of 9 references are longer than the 30 .* line 5 with 81"):
        reader.read(path, with_targets=True)
    found = reader.read(path, with_targets=True, max_bad=1)
    assert len(found.part) == 8
    assert found.left_out == {"references longer than 30 tokens": 1}


def test_nothing_to_read(reader, tmp_path):
    (tmp_path / "none.de").write_text("")
    with pytest.raises(DataError, match=r"none.de: there are no texts in it"):
        reader.read(tmp_path / "none.de", with_targets=False)
    with pytest.raises(DataError, match=r"missing.de"):
        reader.read(tmp_path / "missing.de", with_targets=False)


@pytest.mark.skipif(not MULTI30K.is_dir(), reason="Multi30k is not here")
def test_multi30k_comes_back_as_it_is():
    named = {
        f"{part}{side}": str(MULTI30K / f"{file}.{language}.gz")
        for part, file in (("", "val"), ("val_", "test_2016_flickr"))
        for side, language in (("source", "de"), ("target", "en"))
    }
    dataset = built(named, vocab_size=2000)
    check(dataset)
    with gzip.open(MULTI30K / "test_2016_flickr.en.gz", "rt", encoding="utf-8") as file:
        assert sides(dataset, "val", 1) == file.read().removesuffix("\n").split("\n")
