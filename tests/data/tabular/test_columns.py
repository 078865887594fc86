"""One value is one value, whatever file it stands in and however it is spelt there."""

import csv
import json
import unicodedata
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from bigmodel.data.reader import from_plain, to_plain
from bigmodel.data.sources.table import table
from bigmodel.data.tabular.columns import CategoryColumn
from bigmodel.errors import DataError
from bigmodel.registry import data

WAYS = {
    "csv words": ("csv", {True: "True", False: "False"}),
    "csv small": ("csv", {True: "true", False: "false"}),
    "csv large": ("csv", {True: "TRUE", False: "FALSE"}),
    "csv digits": ("csv", {True: "1", False: "0"}),
    "csv fractions": ("csv", {True: "1.0", False: "0.0"}),
    "parquet": ("parquet", {True: True, False: False}),
    "parquet digits": ("parquet", {True: 1, False: 0}),
    "json": ("jsonl", {True: True, False: False}),
    "json words": ("jsonl", {True: "True", False: "False"}),
}
ways = pytest.mark.parametrize("time_format", WAYS)


def written(path, rows):
    """Rows as a file whose columns are of the types that the values have."""
    if path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
    elif path.suffix == ".jsonl":
        path.write_text("\n".join(map(json.dumps, rows)))
    else:
        with path.open("w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows([list(rows[0]), *(row.values() for row in rows)])
    return path


def truths(folder, time_format, count=60):
    """A table with a column of truth, `on`, and a target that is the opposite."""
    ending, spelt = WAYS[time_format]
    rows = [{"x": i / 4, "on": spelt[i % 3 == 0], "y": spelt[i % 3 != 0]} for i in range(count)]
    return written(folder / f"{time_format.replace(' ', '_')}.{ending}", rows)


def built(path, target="y", **values):
    plain = {"name": "table", "path": str(path), "target": target, **values}
    return data.build(data.parse(plain))


def reading(dataset, path, with_targets=True):
    """What a run that went through a checkpoint reads of a file."""
    return from_plain(to_plain(dataset.reader)).read(path, with_targets=with_targets)


@ways
@pytest.mark.parametrize("learnt", ["csv words", "csv large", "csv digits", "parquet", "json"])
@pytest.mark.parametrize("task", ["classes", "values"])
def test_truth_is_one_thing_in_training_and_in_prediction(tmp_path, learnt, time_format, task):
    dataset = built(truths(tmp_path, learnt), task=task)
    own = reading(dataset, truths(tmp_path, learnt))
    found = reading(dataset, truths(tmp_path, time_format))
    assert found.part.inputs.tolist() == own.part.inputs.tolist()
    assert found.part.targets.tolist() == own.part.targets.tolist()
    assert "Unseen categories" not in dict(found.header_rows)


@ways
def test_truth_is_read_as_numbers_where_that_is_asked_for(tmp_path, time_format):
    dataset = built(truths(tmp_path, time_format), columns={"on": "number"}, normalize=False)
    place = dataset.spec.input.names.index("on")
    assert reading(dataset, truths(tmp_path, time_format)).part.inputs[:, place].tolist() == [
        float(i % 3 == 0) for i in range(60)
    ]


def test_a_column_may_spell_it_in_all_ways_at_once(tmp_path):
    spelt = ["True", "true", "TRUE", "1", "False", "false", "FALSE", "0"]
    rows = [{"x": i, "on": spelt[i % 8], "y": spelt[(i + 4) % 8]} for i in range(160)]
    dataset = built(written(tmp_path / "a.csv", rows))
    assert dataset.spec.target.names == ("FALSE", "TRUE")
    assert dict(zip(dataset.spec.input.names, dataset.spec.input.categories, strict=True))["on"] == 3
    told = dict(dataset.header_rows)["Spellings"]
    assert told.endswith("; y: 0, False, false = FALSE; 1, True, true = TRUE")
    on = told.removeprefix("on: ").split("; y: ")[0]
    assert sorted(
        word for each in on.split("; ") for word in each.replace(" =", ",").split(", ")
    ) == sorted(spelt)


def test_a_few_words_among_digits_are_truth_and_not_missing(tmp_path):
    rows = [{"x": i, "on": i % 2, "y": i / 8} for i in range(200)]
    rows[7]["on"] = "True"
    dataset = built(written(tmp_path / "a.csv", rows))
    assert "Warning" not in dict(dataset.header_rows)
    assert dict(dataset.header_rows)["Spellings"] == "on: 1 = True; 0 = false"
    assert (
        reading(dataset, tmp_path / "a.csv").part.inputs[7].tolist()[1:]
        == (reading(dataset, tmp_path / "a.csv").part.inputs[9].tolist()[1:])
    )


CITY, DECOMPOSED = (unicodedata.normalize(form, "Köln") for form in ("NFC", "NFD"))


@pytest.mark.parametrize(
    ("learnt", "new"),
    [
        ([1, 2, None], ["1.0", "2.00", ""]),  # a category by the user's word in Parquet
        (["Yes", "No", "Perhaps"], ["yes", "NO", "perhaps"]),
        ([CITY, "Bonn", "Rome"], [DECOMPOSED, "bonn", "ROME"]),
        ([DECOMPOSED, "Bonn", "Rome"], [CITY, "Bonn", "Rome"]),
        (["007", "7", "x"], ["007", "7.0", "X"]),
    ],
)
@pytest.mark.parametrize("ending", ["parquet", "csv"])
def test_a_category_of_training_is_found_in_any_spelling(tmp_path, learnt, new, ending):
    def rows(values):
        return [{"x": i / 4, "c": values[i % 3], "y": i / 8} for i in range(90)]

    dataset = built(written(tmp_path / "a.parquet", rows(learnt)), columns={"c": "category"})
    own = reading(dataset, tmp_path / "a.parquet")
    texts = new if ending == "csv" else [value or None for value in new]
    found = reading(dataset, written(tmp_path / f"new.{ending}", rows(texts)))
    assert found.part.inputs.tolist() == own.part.inputs.tolist()
    assert "Unseen categories" not in dict(found.header_rows)


def test_what_may_be_told_apart_is(tmp_path):
    spelt = ["a", "A", "007", "7", "1.10", "1.1"]
    rows = [{"x": i, "c": spelt[i % 6], "y": spelt[i % 6]} for i in range(240)]
    dataset = built(written(tmp_path / "a.csv", rows), task="classes")
    assert set(dataset.spec.target.names) == set(spelt)
    assert dict(zip(dataset.spec.input.names, dataset.spec.input.categories, strict=True))["c"] == 7
    assert "Spellings" not in dict(dataset.header_rows)


def test_a_rare_spelling_counts_for_the_category_it_differs_from_in_case_alone(tmp_path):
    rows = [{"x": i, "c": ["Köln", "Bonn"][i % 2], "y": i / 4} for i in range(100)]
    rows[3]["c"] = "bonn"
    dataset = built(written(tmp_path / "a.csv", rows), val_path=str(written(tmp_path / "b.csv", rows)))
    assert dict(dataset.header_rows)["Spellings"] == "c: bonn = Bonn"
    found = reading(dataset, tmp_path / "a.csv")
    assert found.part.inputs[3, 1:].tolist() == found.part.inputs[5, 1:].tolist()
    assert "Unseen in val" not in dict(dataset.header_rows)


def test_a_class_that_training_has_not_is_refused_all_the_same(tmp_path):
    rows = [{"x": i, "y": ["Aa", "AA", "b"][i % 3]} for i in range(90)]
    dataset = built(written(tmp_path / "a.csv", rows))
    assert dataset.spec.target.names == ("AA", "Aa", "b")
    assert reading(dataset, written(tmp_path / "b.csv", [{"x": 1, "y": "B"}])).part.targets.tolist() == [
        2
    ]
    for unknown in ("aa", "c"):
        with pytest.raises(DataError, match=f"holds '{unknown}'"):
            reading(dataset, written(tmp_path / "b.csv", [{"x": 1, "y": unknown}]))


def test_what_new_files_spell_otherwise_is_told(tmp_path):
    def rows(city):
        return [{"x": i, "c": [city, "Rome"][i % 2], "y": i / 4} for i in range(60)]

    test = written(tmp_path / "test.csv", rows("BONN"))
    dataset = built(written(tmp_path / "a.csv", rows("Bonn")), test_path=str(test))
    assert dict(dataset.header_rows)["Spellings in test"] == "c: BONN = Bonn"
    found = reading(dataset, written(tmp_path / "new.csv", rows("bonn")), with_targets=False)
    assert found.header_rows == [("Spellings", "c: bonn = Bonn")]
    assert found.columns["c"][:2].to_pylist() == ["bonn", "Rome"]  # as they stand there


def test_a_run_of_before_goes_on_with_the_categories_that_it_told_apart(tmp_path):
    """Its checkpoint holds yes and Yes as two categories, which would be one now."""
    rows = [{"x": i, "c": ["yes", "Yes", "no"][i % 3], "y": ["1.0", "a"][i % 2]} for i in range(90)]
    dataset = built(written(tmp_path / "a.csv", rows))
    plain = to_plain(dataset.reader)
    column = next(one for one in plain["learnt"]["columns"] if one["name"] == "c")
    column["values"] = ["Yes", "no", "yes"]
    del column["aliases"], plain["learnt"]["target"]["aliases"]
    old = from_plain(plain)
    found = old.read(tmp_path / "a.csv", with_targets=True).part.inputs[:, 1]
    assert found.tolist() == [[3.0, 1.0, 2.0][i % 3] for i in range(90)]
    known = replace(dataset.preprocessing, reader=old, spec=replace(dataset.spec, input=old.spec))
    again = table(
        data.parse({"name": "table", "path": str(tmp_path / "a.csv"), "target": "y"}).resuming(known)
    )
    assert again.reader.columns == old.columns
    assert again.spec.input == old.spec


def test_classes_are_told_with_their_counts_and_those_of_a_single_row(tmp_path):
    rows = [{"x": i, "y": ["a", "A", "b"][i % 3]} for i in range(90)] + [{"x": 0, "y": "c"}]
    dataset = built(written(tmp_path / "a.csv", rows))
    assert dict(dataset.header_rows)["Target"] == "y, 4 classes: A 30, a 30, b 30, c 1"
    warnings = [line for label, line in dataset.header_rows if label == "Warning"]
    assert any("single sample, which is too few to evaluate: c" in line for line in warnings)
    assert any("differ only in case are distinguished: A, a" in line for line in warnings)
    path = str(written(tmp_path / "val.csv", [{"x": 0, "y": "c"}]))
    judged = built(tmp_path / "a.csv", val_path=path)
    assert dict(judged.header_rows)["Target"] == "y, 4 classes: A 30, a 30, b 30, c 2"
    assert not any("single sample" in line for _, line in judged.header_rows)


def test_a_column_of_identifiers_is_not_gone_through_word_by_word(monkeypatch):
    """Each of a million would take microseconds in Python, to be told apart all the same."""
    ids = pa.chunked_array([pa.array([f"user-{i}.0" for i in range(5000)] + ["Yes", "yes"])])
    rows = np.arange(len(ids))
    monkeypatch.setattr("bigmodel.data.spelling_variants.canonical_names", None)
    assert CategoryColumn.fit("id", ids, rows, 1000, 2, False).reason == "all different"
    twice = pa.chunked_array([*ids.chunks, *ids.chunks[:1], ids.chunks[0].slice(0, 9)])
    rows = np.arange(len(ids) + 9)
    assert CategoryColumn.fit("id", twice.slice(len(ids)), rows, 1000, 2, False).reason == (
        "5,002 different values"
    )


def test_a_column_that_seems_to_hold_many_words_may_hold_few():
    spelt = [f"{i // 2}{'.0' * (i % 2)}" for i in range(40)]
    ids = pa.chunked_array([pa.array([*spelt, *spelt[:8], "x"])])
    found = CategoryColumn.fit("c", ids, np.arange(49), 1000, 2, False)
    assert len(found.values) == 20


def test_a_sample_is_shown_in_the_terms_of_its_table(tmp_path):
    """Also by a reader that went through a checkpoint; numbers as far as float32 holds them."""
    rows = [
        {
            "area": "" if i % 5 == 4 else i / 4,
            "city": ("Rome", "", "Oslo")[i % 3],
            "on": f"2024-0{1 + i % 9}-11",
            "y": i % 7,
        }
        for i in range(40)
    ]
    dataset = built(written(tmp_path / "t.csv", rows))
    reader = from_plain(to_plain(dataset.reader))
    read = reader.read(tmp_path / "t.csv", with_targets=False).part
    for index in (0, 4, 5):
        cells = reader.cells(read.inputs[index])
        assert cells["area"] == ("(missing)" if index == 4 else f"{index / 4:g}")
        assert cells["city"] == (("Rome", "(missing)", "Oslo")[index % 3])
        assert cells["on (month)"] == str(1 + index % 9)
    other = written(tmp_path / "new.csv", [rows[0] | {"city": "Paris"}])
    (inputs,) = reader.read(other, with_targets=False).part.inputs
    assert reader.cells(inputs)["city"] == "(not in training)"
