"""Texts with labels: out of tables and folders, split with care, refused in words."""

import gzip
import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from bigmodel.checkpointing.exact_json import dumps, loads
from bigmodel.data.checks import check
from bigmodel.data.reader import from_plain, to_plain
from bigmodel.data.texts.vocabulary import LengthLimit
from bigmodel.errors import ConfigError, DataError
from bigmodel.registry import data
from bigmodel.spec import Classes, Tokens, Values

WORDS = ["good and fine", "bad and long", "dull – señor", "great, 日本", "so so"]


def rows(count=50, labels=("1", "2", "5")):
    return [(f"{WORDS[row % 5]} {row}", labels[row % len(labels)]) for row in range(count)]


def written(path, lines, header="review,stars"):
    path.write_text("\n".join([header, *(",".join(f'"{cell}"' for cell in line) for line in lines)]))
    return path


def parsed(path, **values):
    named = {"text": "review", "target": "stars", **values}
    return data.parse({"name": "text_labels", "path": str(path), **named})


def built(path, **values):
    return data.build(parsed(path, **values))


def texts(dataset, part):
    stored = dataset.part(part)
    return [
        dataset.reader.decode(stored.tokens[start : start + size].tolist())
        for start, size in zip(stored.starts.tolist(), stored.sizes.tolist(), strict=True)
    ]


@pytest.mark.parametrize("unit", ["character", "byte", "bpe"])
def test_each_text_keeps_its_label(tmp_path, unit):
    dataset = built(written(tmp_path / "a.csv", rows()), unit=unit, vocab_size=300)
    check(dataset)
    known = dict(rows())
    names = dataset.spec.target.names
    assert names == ("1", "2", "5")
    assert dataset.spec.target.counts == tuple(torch.bincount(dataset.train.targets).tolist())
    seen = 0
    for part in ("train", "val"):
        for text, label in zip(texts(dataset, part), dataset.part(part).targets.tolist(), strict=True):
            if "\ufffd" not in text:
                assert known[text] == names[label]
                seen += 1
    assert seen >= 40
    assert dataset.spec.sizes == {"train": 40, "val": 10}
    assert dataset.spec.input == Tokens(64, dataset.reader.vocabulary.size, dataset.train.pad)


def test_a_batch_is_filled_up_with_pad(tmp_path):
    dataset = built(written(tmp_path / "a.csv", rows()), unit="byte")
    inputs, _ = dataset.train.take(slice(0, 9))
    sizes = dataset.train.sizes[:9]
    assert inputs.shape == (9, int(sizes.max()))
    assert ((inputs == dataset.spec.input.pad).sum(1) == sizes.max() - sizes).all()


def test_long_texts_are_cut_and_reported(tmp_path):
    lines = [*rows(), ("x" * 40, "1"), ("y" * 50, "2")]
    dataset = built(written(tmp_path / "a.csv", lines), unit="byte", length=30)
    check(dataset)
    assert int(torch.cat([dataset.train.sizes, dataset.val.sizes]).max()) == 30
    assert dict(dataset.header_rows)["Cut"] == "2 texts, to 30 tokens"
    assert "Cut" not in dict(built(written(tmp_path / "a.csv", rows())).header_rows)


def texts_of_sizes(sizes):
    """A text of each size to train on, and two for validation, one of them long."""
    training = [("x" * size, "12"[place % 2], "train") for place, size in enumerate(sizes)]
    return [*training, ("y" * 1300, "1", "val"), ("z" * 30, "2", "val")]


@pytest.mark.parametrize(
    ("sizes", "length", "cut"),
    [
        (range(101, 201), 199, 2),  # the longest of a hundred, and the one of validation
        (range(101, 151), 150, 1),  # 99 % of fifty are all of them
        (range(1, 21), 64, 1),
        (range(1001, 1101), 1024, 77),
    ],
)
def test_the_automatic_length_covers_nearly_all_training_texts(tmp_path, sizes, length, cut):
    written(tmp_path / "a.csv", texts_of_sizes(sizes), "review,stars,part")
    dataset = built(tmp_path / "a.csv", unit="byte", split="part")
    check(dataset)
    assert dataset.spec.input.length == dataset.reader.length == length
    unit = "text" if cut == 1 else "texts"
    assert dict(dataset.header_rows)["Cut"] == f"{cut} {unit}, to {length:,} tokens"


def test_the_automatic_length_is_at_most_what_a_pretrained_model_can_read(tmp_path):
    written(tmp_path / "a.csv", texts_of_sizes(range(101, 201)), "review,stars,part")
    config = parsed(tmp_path / "a.csv", unit="byte", split="part")
    assert data.build(config.starting_from(LengthLimit(20))).spec.input.length == 20
    assert data.build(config.starting_from(LengthLimit(2000))).spec.input.length == 199


def test_a_resumed_run_keeps_its_length(tmp_path):
    lines = texts_of_sizes(range(101, 201))
    path = written(tmp_path / "a.csv", lines, "review,stars,part")
    dataset = built(path, unit="byte", split="part")
    written(path, [*lines, *(("w" * 300, "1", "train"),) * 50], "review,stars,part")
    config = parsed(path, unit="byte", split="part")
    assert data.build(config).spec.input.length == 300
    assert data.build(config.resuming(dataset.preprocessing)).spec.input.length == 199


@pytest.mark.parametrize(
    ("labels", "task", "kind"),
    [
        (("1", "2", "5"), "auto", Classes),
        (("yes", "no"), "auto", Classes),
        (("1.5", "2", "-3e2"), "auto", Values),
        (("1.5", "2", "5"), "classes", Classes),
        (("1", "2", "5"), "values", Values),
        (tuple(map(str, range(25))), "auto", Values),
    ],
)
def test_labels_are_classes_or_values(tmp_path, labels, task, kind):
    dataset = built(written(tmp_path / "a.csv", rows(labels=labels)), task=task)
    assert isinstance(dataset.spec.target, kind)
    check(dataset)


def test_one_label_is_one_class_however_it_is_spelt(tmp_path):
    path = written(tmp_path / "a.csv", rows(60, ["True", "true", "FALSE"]))
    dataset = built(path, task="classes")
    assert dataset.spec.target.names == ("FALSE", "True")
    assert dict(dataset.header_rows)["Spellings"] == "true = True"
    new = pa.table({"review": ["soft words"] * 3, "stars": [True, False, None]}).slice(0, 2)
    pq.write_table(new, tmp_path / "new.parquet")
    found = dataset.reader.read(tmp_path / "new.parquet", with_targets=True)
    assert found.part.targets.tolist() == [1, 0]


def test_words_for_a_missing_label_are_those_of_the_option(tmp_path):
    path = written(tmp_path / "a.csv", rows(60, ["NA", "EU", "AS"]))
    assert built(path).spec.target.names == ("AS", "EU", "NA")
    with pytest.raises(DataError, match="no label"):
        built(path, missing=["NA"])
    dataset = built(path, missing=["NA"], max_bad=20)
    assert dataset.spec.target.names == ("AS", "EU")
    assert dataset.left_out == {"texts that cannot be read": 20}
    again = from_plain(to_plain(dataset.reader)).read(path, with_targets=True, max_bad=20)
    assert len(again.part) == 40


def test_values_are_standardised_by_the_training_part(tmp_path):
    dataset = built(written(tmp_path / "a.csv", rows(labels=("1.5", "2.5", "8"))))
    target = dataset.spec.target
    assert target.names == ("stars",)
    assert dataset.train.targets.mean().abs() < 1e-6
    own = dataset.val.targets * target.std[0] + target.mean[0]
    known = dict(rows(labels=(1.5, 2.5, 8.0)))
    assert own.flatten().tolist() == pytest.approx([known[text] for text in texts(dataset, "val")])


def test_a_folder_for_each_class(tmp_path):
    for label in ("ham", "spam"):
        (tmp_path / label).mkdir()
        for number in range(10):
            content = f"{label} señor {number}".encode()
            (tmp_path / label / f"{number}.txt").write_bytes(content)
        (tmp_path / label / "z.txt.gz").write_bytes(gzip.compress(content))
    dataset = built(tmp_path)
    check(dataset)
    assert dataset.spec.target.names == ("ham", "spam")
    assert len(dataset.train) + len(dataset.val) == 22
    for text, label in zip(texts(dataset, "val"), dataset.val.targets.tolist(), strict=True):
        assert text.startswith(dataset.spec.target.names[label])
    found = dataset.reader.read(tmp_path / "ham", with_targets=False)
    assert list(found.columns["file"])[:2] == ["0.txt", "1.txt"]
    assert len(dataset.reader.read(tmp_path / "ham" / "3.txt", with_targets=False).part) == 1
    judged = dataset.reader.read(tmp_path, with_targets=True)
    assert judged.part.targets.tolist() == [0] * 11 + [1] * 11


def test_what_systems_leave_behind_is_no_class_and_empty_folders_are_reported(tmp_path):
    for label in ("bad", "good"):
        for number in range(6):
            (tmp_path / label).mkdir(exist_ok=True)
            (tmp_path / label / f"{number}.txt").write_text(f"text {number}")
    (tmp_path / "__MACOSX").mkdir()
    (tmp_path / "__MACOSX" / "0.txt").write_text("x")
    (tmp_path / "fair").mkdir()
    (tmp_path / "Thumbs.db").write_bytes(b"\x00")
    dataset = built(tmp_path, unit="character")
    assert dataset.spec.target.names == ("bad", "good")
    header = dict(dataset.header_rows)
    assert header["Skipped"] == "system files: Thumbs.db, __MACOSX"
    assert header["Empty folders"] == "fair"


def test_folders_of_parts_and_a_file_that_is_no_text(tmp_path):
    for part, count in (("train", 6), ("test", 3)):
        for label in ("ham", "spam"):
            (tmp_path / part / label).mkdir(parents=True)
            for number in range(count):
                (tmp_path / part / label / f"{number}.txt").write_text(f"{part} {label} {number}")
    dataset = built(tmp_path)
    assert dataset.spec.sizes["test"] == 6
    assert all(text.startswith("test") for text in texts(dataset, "test"))
    (tmp_path / "train" / "ham" / "9.txt").write_bytes(b"\xff")
    with pytest.raises(DataError, match=r"1 of 19 texts cannot be read: train/ham/9.txt .*not utf-8"):
        built(tmp_path)
    assert built(tmp_path, max_bad=1).left_out == {"texts that cannot be read": 1}


def test_rows_without_text_or_label(tmp_path):
    lines = [*rows(), ("", "1"), ("fine", ""), (" ", "2"), ("fine", "nan")]
    path = written(tmp_path / "a.csv", lines)
    words = r"4 of 54 texts cannot be read: row 50 \(no text\), row 51 \(no label\), .*data.max_bad=4"
    with pytest.raises(DataError, match=words):
        built(path, max_bad=3)
    dataset = built(path, max_bad=4)
    assert dataset.left_out == {"texts that cannot be read": 4}
    assert sum(dataset.spec.sizes.values()) == 50


def test_groups_stay_together_and_marks_say_where(tmp_path):
    lines = [(*row, str(number // 10)) for number, row in enumerate(rows())]
    dataset = built(written(tmp_path / "a.csv", lines, "review,stars,who"), group="who")
    group = {text: who for text, _, who in lines}
    held, learnt = ({group[text] for text in texts(dataset, part)} for part in ("val", "train"))
    assert not held & learnt
    marks = ["train"] * 30 + ["val"] * 10 + ["test"] * 10
    lines = [(*row, mark) for row, mark in zip(rows(), marks, strict=True)]
    dataset = built(written(tmp_path / "a.csv", lines, "review,stars,part"), split="part")
    assert dataset.spec.sizes == {"train": 30, "val": 10, "test": 10}
    assert texts(dataset, "test") == [text for text, _ in rows()[40:]]
    with pytest.raises(ConfigError, match=r"data.test_path=.*a.csv: data.path has a test set of"):
        built(tmp_path / "a.csv", split="part", test_path=str(tmp_path / "a.csv"))


def test_parts_of_their_own(tmp_path):
    path = written(tmp_path / "a.csv", rows())
    other = written(tmp_path / "b.csv", rows(12))
    third = written(tmp_path / "d.csv", rows(12))
    dataset = built(path, val_path=str(other), test_path=str(third))
    assert dataset.spec.sizes == {"train": 50, "val": 12, "test": 12}
    assert texts(dataset, "val") == [text for text, _ in rows(12)]
    wrong = written(tmp_path / "c.csv", rows(12, ("1", "7")))
    with pytest.raises(DataError, match=r"data.val_path=.*c.csv: the training data has no label '7'"):
        built(path, val_path=str(wrong))


def test_what_training_has_not_seen_is_unknown(tmp_path):
    path = written(tmp_path / "a.csv", rows())
    other = written(tmp_path / "b.csv", [("ключ", "1"), ("good", "2")])
    dataset = built(path, val_path=str(other), unit="character")
    check(dataset)
    unknown = dataset.reader.vocabulary.unknown
    assert dataset.val.tokens[:4].tolist() == [unknown] * 4
    assert texts(dataset, "val") == ["\ufffd" * 4, "good"]


WRONG = {
    "no column": (
        rows(),
        {"target": "star"},
        r"data.target=star: .*no such column. Did you mean 's",
    ),
    "one label": (rows(labels=("1",)), {}, "all samples have the same label, '1'"),
    "words for values": (
        rows(),
        {"task": "values", "target": "review"},
        "50 of 50 labels are not num",
    ),
    "as many labels as texts": (rows(), {"target": "review"}, "50 different labels for 50 texts"),
}


@pytest.mark.parametrize(("lines", "values", "words"), WRONG.values(), ids=WRONG)
def test_what_is_refused(tmp_path, lines, values, words):
    with pytest.raises(DataError, match=words):
        built(written(tmp_path / "a.csv", lines), **values)


def test_a_class_that_is_not_learnt(tmp_path):
    marks = ["train"] * 49 + ["val"]
    lines = [(*row, mark) for row, mark in zip([*rows(49), ("odd", "9")], marks, strict=True)]
    path = written(tmp_path / "a.csv", lines, "review,stars,part")
    with pytest.raises(DataError, match="no texts of label '9' are in the training set"):
        built(path, split="part")


def test_no_path():
    with pytest.raises(ConfigError, match=r"data.path: is required. Set data.path"):
        data.build(data.parse({"name": "text_labels"}))


@pytest.mark.parametrize("labels", [("1", "2"), ("1.5", "2")])
def test_a_reader_reads_further_tables_from_a_checkpoint(tmp_path, labels):
    dataset = built(written(tmp_path / "a.csv", rows(labels=labels)), length=8)
    reader = from_plain(loads(dumps(to_plain(dataset.reader))))
    assert reader == dataset.reader
    lines = [{"who": "me", "review": "good and fine 3"}, {"who": "you", "review": "a" * 99}]
    (tmp_path / "new.jsonl").write_text("\n".join(map(json.dumps, lines)))
    found = reader.read(tmp_path / "new.jsonl", with_targets=False)
    columns = {name: values.to_pylist() for name, values in found.columns.items()}
    assert columns == {"who": ["me", "you"], "review": [line["review"] for line in lines]}
    assert found.part.sizes.tolist()[1] == 8
    again = reader.read(tmp_path / "a.csv", with_targets=True)
    known = dict(zip(texts(dataset, "val"), dataset.val.targets.tolist(), strict=True))
    stored = {
        text: target for (text, _), target in zip(rows(), again.part.targets.tolist(), strict=True)
    }
    assert {text: stored[text] for text in known if text in stored} == {
        text: target for text, target in known.items() if text in stored
    }
    with pytest.raises(DataError, match=r"new.jsonl has no such column"):
        reader.read(tmp_path / "new.jsonl", with_targets=True)


def test_a_tokenizer_that_makes_nothing_of_a_text(tmp_path):
    from tokenizers import Tokenizer, models, pre_tokenizers

    engine = Tokenizer(models.WordLevel({"good": 0, "bad": 1}, unk_token="good"))
    engine.pre_tokenizer = pre_tokenizers.CharDelimiterSplit("x")
    engine.save(str(tmp_path / "tokenizer.json"))
    lines = [("good", "1"), ("bad", "2"), ("xx", "1")] * 5
    path = written(tmp_path / "a.csv", lines)
    dataset = built(path, tokenizer=str(tmp_path / "tokenizer.json"))
    check(dataset)
    assert int(dataset.train.sizes.min()) == 1


def test_new_texts_need_not_lie_as_those_of_training_did(tmp_path):
    for text, label in rows():
        (tmp_path / "in" / label).mkdir(parents=True, exist_ok=True)
        number = len(list((tmp_path / "in" / label).iterdir()))
        (tmp_path / "in" / label / f"{number}.txt").write_text(text)
    reader = built(tmp_path / "in").reader
    found = reader.read(written(tmp_path / "new.csv", rows(6)), with_targets=True)
    assert len(found.part) == 6
    single = reader.read(tmp_path / "in" / "1" / "0.txt", with_targets=False)
    assert len(single.part) == 1
    assert len(reader.read(tmp_path / "in", with_targets=True).part) == len(rows())


def test_lines_of_a_text_file_are_new_texts_for_a_run_that_learnt_from_a_table(tmp_path):
    reader = built(written(tmp_path / "a.csv", rows())).reader
    new = tmp_path / "new.txt"
    new.write_text("good, and fine; a review\nbad and long\n")
    found = reader.read(new, with_targets=False)
    assert found.columns == {"review": ["good, and fine; a review", "bad and long"]}
    assert len(found.part) == 2
    assert found.header_rows == [
        ("Texts", "new.txt has no column 'review': each of its lines is a text")
    ]
    new.write_text("good\n\nbad\n")
    with pytest.raises(DataError, match=r"1 of 3 texts cannot be read: line 2 \(no text\)"):
        reader.read(new, with_targets=False)
    left = reader.read(new, with_targets=False, max_bad=1)
    assert (len(left.part), sum(left.left_out.values())) == (2, 1)
    new.write_text("")
    with pytest.raises(DataError, match=r"new.txt: the file is empty"):
        reader.read(new, with_targets=False)
    with pytest.raises(DataError, match=r"new.txt has no such column"):
        reader.read(written(new, rows(6), "words,stars"), with_targets=True)


def test_a_table_in_a_text_file_stays_a_table(tmp_path):
    reader = built(written(tmp_path / "a.csv", rows())).reader
    found = reader.read(
        written(tmp_path / "new.txt", rows(6), "# of May\nreview,stars"), with_targets=False
    )
    assert len(found.part) == 6
    assert list(found.columns) == ["review", "stars"]


def test_a_row_is_named_as_it_stands_in_the_file(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("review,stars,part\n,1,train\ngood,1,train\nbad,2,tset\n")
    with pytest.raises(DataError, match=r"'tset' in row 2 \(counted from 0\) names no set"):
        built(path, split="part", max_bad=1)
    path.write_text("review,stars,who\n,1,a\ngood,1,b\nbad,2,\n")
    with pytest.raises(DataError, match=r"data.group: is empty for 1 of 2 samples, the first in row 2"):
        built(path, group="who", max_bad=1)
