"""Tables: columns are inferred and reported, and only the training set is learnt from."""

import csv
import json
import shlex

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from hydra.core.override_parser.overrides_parser import OverridesParser

from bigmodel.data.checks import check
from bigmodel.data.reader import from_plain, to_plain
from bigmodel.errors import ConfigError, DataError
from bigmodel.registry import data
from bigmodel.spec import Classes, Features, Multitask, Values

CITIES = ["Rome", "Bonn", "Oslo"]


def houses(count=200):
    """Rows whose columns are of every kind; the price identifies the row."""
    return [
        {
            "id": f"h{i:05d}",
            "size": "" if i % 10 == 0 else f"{20 + i % 37}.5",
            "rooms": str(1 + i % 7),
            "city": CITIES[i % 3],
            "garden": ["yes", "no", ""][i % 3 if i % 2 else 0],
            "sold": f"{2000 + i % 20}-{1 + i % 12:02d}-{1 + i % 28:02d}",
            "country": "EU",
            "price": f"{1000 + i}.5",
        }
        for i in range(count)
    ]


def written(path, rows, quoted=False):
    if path.suffix == ".jsonl":
        path.write_text("\n".join(json.dumps(row) for row in rows))
    elif path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
    elif quoted:
        with path.open("w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows([list(rows[0]), *(row.values() for row in rows)])
    else:
        lines = [list(rows[0]), *(row.values() for row in rows)]
        path.write_text("\n".join(",".join(str(value) for value in line) for line in lines))
    return path


@pytest.fixture
def path(tmp_path):
    return written(tmp_path / "houses.csv", houses())


def built(path, target="price", **values):
    dataset = data.build(
        data.parse(
            {"name": "table", "path": None if path is None else str(path), "target": target, **values}
        )
    )
    check(dataset)
    return dataset


def rows_of(dataset, part):
    """Which rows of `houses` a part holds, by the price."""
    target = dataset.spec.target
    own = dataset.part(part).targets.double() * target.std[0] + target.mean[0]
    return (own.flatten() - 1000.5).round().long()


def test_columns_are_inferred_and_reported(path):
    dataset = built(path)
    dates = [f"sold ({part})" for part in ("year", "month", "day", "weekday")]
    names = ("size", "size (missing)", "rooms", "city", "garden", *dates)
    assert dataset.spec.input == Features(9, names, (0, 0, 0, 4, 4, 0, 0, 0, 0))
    assert dataset.spec.sizes == {"train": 160, "val": 40}
    assert dataset.header_rows == [
        (
            "Columns",
            "2 numbers, 2 categories (city 3, garden 3), 1 date (sold);"
            " ignored: id (all different), country (constant)",
        ),
        ("Target", "price, a real value"),
        ("Warning", "left out: id (all different). To use it: data.columns.id=category"),
        ("Warning", "left out: country (constant). If that is intended: 'data.ignore=[country]'"),
    ]
    assert dataset.left_out == {}


@pytest.mark.parametrize(
    ("cell", "kind"),
    [
        ("photos/{}.jpg", "image model=fusion"),
        ("C:\\sounds\\{}.WAV", "audio model=fusion"),
        ("a text of several words, number {}", "text model=fusion"),
        ("two words{}", "category"),
        ("photo{}.txt", "category"),
    ],
)
def test_what_is_too_much_for_categories_may_be_a_text_or_a_path(tmp_path, cell, kind):
    rows = [row | {"extra": "" if n == 3 else cell.format(n)} for n, row in enumerate(houses())]
    dataset = built(written(tmp_path / "more.csv", rows, quoted=True), ignore=["id", "country"])
    [warning] = [text for label, text in dataset.header_rows if label == "Warning"]
    assert warning.endswith(f"To use it: data.columns.extra={kind}")


def test_inputs_are_what_the_rows_say(path):
    dataset = built(path, normalize=False)
    rows = houses()
    cities = dataset.reader.columns[2].values
    for part in ("train", "val"):
        for inputs, row in zip(dataset.part(part).inputs, rows_of(dataset, part).tolist(), strict=True):
            cells = rows[row]
            assert inputs[1] == (cells["size"] == "")
            if cells["size"]:
                assert inputs[0] == float(cells["size"])
            assert inputs[2] == float(cells["rooms"])
            assert cities[int(inputs[3]) - 1] == cells["city"]
            year, month, day = (int(number) for number in cells["sold"].split("-"))
            assert inputs[5:8].tolist() == [year, month, day]


def test_statistics_are_those_of_the_training_part_alone(path):
    dataset = built(path)
    size, rooms = dataset.reader.columns[:2]
    training = [houses()[row] for row in rows_of(dataset, "train").tolist()]
    sizes = np.array([float(row["size"]) for row in training if row["size"]])
    assert size.scale.fill == np.median(sizes)
    assert rooms.scale.mean == pytest.approx(np.mean([float(row["rooms"]) for row in training]))
    assert rooms.scale.std == pytest.approx(np.std([float(row["rooms"]) for row in training]))
    assert dataset.train.inputs[:, 2].mean().item() == pytest.approx(0, abs=1e-6)
    assert dataset.train.inputs[:, 2].std(correction=0).item() == pytest.approx(1, abs=1e-5)


def test_what_is_held_out_teaches_nothing(path, tmp_path):
    before = built(path)
    rows = houses()
    for row in rows_of(before, "val").tolist():
        rows[row] |= {"size": "9999", "rooms": "", "city": "Atlantis", "garden": "never"}
        rows[row] |= {"country": f"X{row}", "sold": "1999-01-01"}
    after = built(written(tmp_path / "other.csv", rows))
    assert after.reader == before.reader
    assert torch.equal(after.train.inputs, before.train.inputs)
    assert (after.val.inputs[:, 3] == 0).all()  # Atlantis


@pytest.mark.parametrize("kind", ["jsonl", "parquet"])
def test_the_same_rows_from_other_files(path, tmp_path, kind):
    typed = []
    for row in houses():
        size = float(row["size"]) if row["size"] else None
        typed.append(row | {"size": size, "rooms": int(row["rooms"]), "price": float(row["price"])})
    assert torch.equal(
        built(path).train.inputs, built(written(tmp_path / f"h.{kind}", typed)).train.inputs
    )


def test_kinds_can_be_said(path):
    kinds = {"rooms": "category", "id": "category", "city": "ignore"}
    dataset = built(path, columns=kinds, ignore=["sold"], min_count=1, max_categories=5)
    names = dict(zip(dataset.spec.input.names, dataset.spec.input.categories, strict=True))
    assert names == {"id": 6, "size": 0, "size (missing)": 0, "rooms": 6, "garden": 4}
    assert dataset.header_rows[0][1].endswith(
        "ignored: city (as asked), sold (as asked), country (constant)"
    )


def test_categories_count_from_the_most_frequent_and_rare_ones_become_0(tmp_path):
    words = ["b"] * 40 + ["a"] * 60 + [""] * 20 + ["rare"] + ["c"] * 9
    rows = [{"x": word, "y": f"{i}.5"} for i, word in enumerate(words)]
    dataset = built(written(tmp_path / "a.csv", rows), "y", val_fraction=0.01)
    assert dataset.reader.columns[0].values == ["a", "b", None, "c"]
    assert dataset.spec.input.categories == (5,)
    few = built(written(tmp_path / "a.csv", rows), "y", val_fraction=0.01, max_categories=2)
    assert few.reader.columns[0].values == ["a", "b"]


def test_identifiers_and_row_numbers_are_no_features(tmp_path):
    rows = [
        {"": str(i), "zip": f"0{i % 2}123", "code": f"0{i:04d}", "x": str(i % 5), "y": f"{i}.5"}
        for i in range(60)
    ]
    dataset = built(written(tmp_path / "a.csv", rows), "y")
    assert dataset.header_rows[0][1] == (
        "1 number, 1 category (zip 2); ignored: column 1 (counts the rows), code (all different)"
    )


@pytest.mark.parametrize(
    ("values", "task", "expected"),
    [
        (["1.5", "2.5"], "auto", None),
        (["1.0", "2.0"], "auto", None),
        ([str(n) for n in range(21)], "auto", None),
        ([str(n) for n in range(20)], "auto", tuple(str(n) for n in range(20))),
        (["10", "9", "-1"], "auto", ("-1", "9", "10")),
        (["10.0", "9.5"], "classes", ("9.5", "10")),
        (["3", "4"], "values", None),
        (["step 10", "step 9", "no"], "auto", ("no", "step 9", "step 10")),
        (["true", "false"], "auto", ("false", "true")),
    ],
)
def test_targets_are_classes_or_values(tmp_path, values, task, expected):
    rows = [{"x": str(i % 7), "y": values[i % len(values)]} for i in range(300)]
    dataset = built(written(tmp_path / "a.csv", rows), "y", task=task)
    target = dataset.spec.target
    if expected is None:
        assert isinstance(target, Values)
        assert target.names == ("y",)
        assert dataset.train.targets.mean().item() == pytest.approx(0, abs=1e-5)
    else:
        assert isinstance(target, Classes)
        assert target.names == expected
        assert sum(target.counts) == dataset.spec.sizes["train"]
        assert dataset.header_rows[1][1].startswith(f"y, {len(expected)} classes: {expected[0]}")


def test_rows_keep_their_label(tmp_path):
    rows = [{"x": str(i), "y": "yes" if i % 3 else "no"} for i in range(90)]
    dataset = built(written(tmp_path / "a.csv", rows), "y", normalize=False)
    for part in (dataset.train, dataset.val):
        assert torch.equal(part.inputs[:, 0] % 3 > 0, part.targets.bool())
    assert dataset.val.targets.double().mean().item() == pytest.approx(2 / 3, abs=0.05)  # stratified


def test_rows_without_a_target_are_left_out_and_counted(tmp_path):
    rows = [{"x": str(i % 7), "y": "" if i % 4 == 0 else f"{i}.5"} for i in range(100)]
    path = written(tmp_path / "a.csv", rows)
    dataset = built(path, "y")
    assert dataset.left_out == {"no target": 25}
    assert dataset.spec.sizes == {"train": 60, "val": 15}
    found = dataset.reader.read(path, with_targets=True)
    assert len(found.part) == 75
    assert found.left_out == {"no target": 25}
    assert found.columns["y"][:2].to_pylist() == ["1.5", "2.5"]


def test_a_group_never_lies_on_both_sides(tmp_path):
    rows = [{"who": f"p{i % 23}", "x": str(i), "y": f"{i}.5"} for i in range(230)]
    path = written(tmp_path / "a.csv", rows)
    dataset = built(path, "y", group="who", normalize=False, test_fraction=0.2)
    assert dataset.spec.input.names == ("x",)
    members = [{int(x) % 23 for x in part.inputs[:, 0]} for part in dataset.parts.values()]
    assert set.union(*members) == set(range(23))
    assert sum(len(group) for group in members) == 23  # none in two parts
    encoded = built(path, "y", group="who", columns={"who": "category"})
    assert encoded.spec.input.names == ("who", "x")


def test_a_column_may_say_what_goes_where(tmp_path):
    rows = [
        {"set": ["train", "Dev", "test", "train"][i % 4], "x": str(i), "y": f"{i}.5"} for i in range(80)
    ]
    dataset = built(written(tmp_path / "a.csv", rows), "y", split="set", normalize=False)
    assert dataset.spec.sizes == {"train": 40, "val": 20, "test": 20}
    assert set((dataset.val.inputs[:, 0] % 4).tolist()) == {1}
    assert dataset.spec.input.names == ("x",)


def test_parts_may_have_files_of_their_own(path, tmp_path):
    other = [row | {"city": "Atlantis"} for row in houses(30)]
    other[0]["price"] = ""
    files = {key: str(written(tmp_path / f"{key}.csv", other)) for key in ("val_path", "test_path")}
    dataset = built(path, **files)
    assert dataset.spec.sizes == {"train": 200, "val": 29, "test": 29}
    assert dataset.left_out == {"no target": 2}
    assert dataset.header_rows[-2:] == [
        ("Unseen in val", "city in 30 rows"),
        ("Unseen in test", "city in 30 rows"),
    ]


def test_a_reader_travels_as_plain_data_and_reads_alike(path):
    dataset = built(path)
    reader = from_plain(json.loads(json.dumps(to_plain(dataset.reader))))
    assert reader == dataset.reader
    found = reader.read(path, with_targets=True)
    rows = rows_of(dataset, "train")
    assert torch.equal(found.part.inputs[rows], dataset.train.inputs)
    assert torch.equal(found.part.targets[rows], dataset.train.targets)
    assert found.columns["id"][:2].to_pylist() == ["h00000", "h00001"]
    assert list(found.columns) == list(houses()[0])


def test_new_rows_need_no_answers_and_may_have_more_columns(path, tmp_path):
    reader = built(path).reader
    rows = [
        {"new": "1", "city": "Atlantis", **{k: v for k, v in row.items() if k not in ("price", "city")}}
        for row in houses(5)
    ]
    found = reader.read(written(tmp_path / "new.csv", rows), with_targets=False)
    assert found.part.targets.shape == (5, 1)
    assert (found.part.inputs[:, 3] == 0).all()
    assert found.columns["new"].to_pylist() == ["1"] * 5
    assert found.header_rows == [("Unseen categories", "city in 5 rows")]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"rooms": None}, "there is no column 'rooms', which the run was trained on. It reads size"),
        (
            {"rooms": "three"},
            r"column 'rooms' is one of numbers, but row 2 \(counted from 0\) holds 'three'",
        ),
        ({"rooms": "inf"}, r"column 'rooms' is one of numbers, but row 2 .* holds 'inf'"),
        ({"sold": "soon"}, r"column 'sold' is one of dates \(ISO\), but row 2 .* holds 'soon'"),
        ({"price": "dear"}, "target 'price' is a finite number, but row 2 .* holds 'dear'"),
        ({"price": None}, "new.csv: there is no column 'price', which holds the answers"),
        ({"price": "inf"}, "target 'price' is a finite number, but row 2 .* holds 'inf'"),
    ],
)
def test_new_rows_that_do_not_fit(path, tmp_path, monkeypatch, change, words):
    monkeypatch.setattr("bigmodel.data.tabular.reader._CHUNK_ROWS", 2)
    reader = built(path).reader
    rows = houses(5)
    (name, value), *_ = change.items()
    for row in rows if value is None else rows[2:3]:
        row[name] = value
        if value is None:
            del row[name]
    with pytest.raises(DataError, match=words) as caught:
        reader.read(written(tmp_path / "new.csv", rows), with_targets=True)
    assert "new.csv" in str(caught.value)


@pytest.mark.parametrize(
    ("labels", "new", "words"),
    [
        (
            ["yes", "no"],
            "yess",
            r"one of the classes no, yes, but row 4 .* holds 'yess'. Did you mean 'yes'",
        ),
        (["1", "2"], "3", r"one of the classes 1, 2, but row 4 \(counted from 0\) holds '3'"),
        (["1", "2"], "no", r"one of the classes 1, 2, but row 4 \(counted from 0\) holds 'no'"),
    ],
)
def test_a_class_that_training_did_not_know(tmp_path, labels, new, words):
    rows = [{"x": str(i), "y": labels[i % 2]} for i in range(40)]
    reader = built(written(tmp_path / "a.csv", rows), "y").reader
    rows[4]["y"] = new
    other = written(tmp_path / "b.csv", rows)
    with pytest.raises(DataError, match=words):
        reader.read(other, with_targets=True)
    assert reader.read(other, with_targets=False).part.targets.shape == (40,)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"target": None}, "data.target: name the column to predict, .* has id, size, rooms"),
        ({"target": "prize"}, "data.target=prize: .* Did you mean 'price'"),
        ({"ignore": ["rom"]}, "data.ignore=rom: .* has no such column"),
        ({"columns": {"sise": "number"}}, "data.columns=sise: .* Did you mean 'size'"),
        ({"ignore": ["price"]}, "data.target=price: the target is also in data.ignore"),
        (
            {"columns": {"price": "date"}},
            "data.columns.price=date: a target is a number or a category",
        ),
        (
            {"columns": {"price": "category"}, "task": "values"},
            "data.columns.price=category: data.task=values says otherwise",
        ),
        (
            {"columns": {"city": "number"}, "target": "city"},
            "holds 'Rome' in row 0 .* are numbers. Set data.columns.city=category",
        ),
        *(
            ({key: value}, f"data.{key}={value}: no column is of kind {kind}. .* leave data.{key} out")
            for key, value, kind in [
                ("image_size", 8, "image"),
                ("text_length", 9, "text"),
                ("vocab_size", 300, "text"),
                ("sample_rate", 8000, "audio"),
                ("seconds", 0.5, "audio"),
            ]
        ),
        ({"group": "citi"}, "data.group=citi: .* Did you mean 'city'"),
        ({"split": "city"}, "data.split: 'Rome' in row 0 .* names no set"),
        ({"group": "country"}, "data.group: all 200 samples belong to one group, 'EU'"),
        ({"target": "country"}, "all samples have the same label, 'EU'"),
        ({"target": "id"}, "target 'id' has 200 different values in 200 rows, such as 'h00000'"),
        (
            {"target": "city", "task": "values"},
            "holds 'Rome' in row 0 .* values are numbers. Set data.task=classes",
        ),
        ({"columns": {"city": "number"}}, "column 'city' is one of numbers, but row 0 .* holds 'Rome'"),
        ({"columns": {"city": "date"}}, r"column 'city' is one of dates \(ISO\), but row 0 .* 'Rome'"),
        (
            {"ignore": ["size", "rooms", "city", "garden", "sold"]},
            r"no column is left .*id \(all differ",
        ),
        ({"path": None}, "data.path: is required. Set data.path"),
        ({"path": "hub:owner/name"}, "hf download --repo-type dataset owner/name"),
        ({"columns": {"size": "numbers"}}, "data.columns.size='numbers'"),
    ],
)
def test_what_a_user_can_get_wrong(path, values, words):
    with pytest.raises((ConfigError, DataError), match=words):
        built(**{"path": path, "target": "price", **values})


def test_a_part_comes_from_one_place(path, tmp_path):
    marked = [row | {"set": ["train", "val"][i % 5 == 0]} for i, row in enumerate(houses())]
    own = written(tmp_path / "marked.csv", marked)
    with pytest.raises(
        ConfigError, match=r"data\.val_path=.*: data\.path has a validation set of its own"
    ):
        built(own, split="set", val_path=str(path))
    with pytest.raises(DataError, match=r"data\.test_path=.*: it is data\.path as well"):
        built(path, test_path=str(path))


def test_rows_are_counted_as_they_stand_in_the_file(tmp_path):
    rows = [
        {"set": ["train", "tset"][i == 9], "x": str(i % 7), "y": "" if i < 5 else f"{i}.5"}
        for i in range(60)
    ]
    with pytest.raises(DataError, match=r"data\.split: 'tset' in row 9 \(counted from 0\)"):
        built(written(tmp_path / "a.csv", rows), "y", split="set")
    rows[9]["set"] = ""
    with pytest.raises(DataError, match=r"data\.split: is empty in row 9 \(counted from 0\)"):
        built(written(tmp_path / "a.csv", rows), "y", split="set")
    with pytest.raises(
        DataError, match=r"data\.group: is empty for 1 of 55 samples, the first in row 9"
    ):
        built(written(tmp_path / "a.csv", rows), "y", group="set")


def test_a_class_that_only_held_out_rows_have_is_refused(tmp_path):
    rows = [
        {"set": ["train", "val"][i % 4 == 0], "x": str(i % 7), "y": ["a", "b", "c"][i % 2 if i else 2]}
        for i in range(60)
    ]
    with pytest.raises(DataError, match=r"no rows of label 'c' are in the training set"):
        built(written(tmp_path / "a.csv", rows), "y", split="set")


def test_parts_are_told_in_their_order(path):
    assert list(built(path, test_fraction=0.2).spec.sizes) == ["train", "val", "test"]


@pytest.mark.parametrize("suffix", ["jsonl", "csv"])
def test_identifiers_that_differ_in_their_last_digits_are_told_and_kept(tmp_path, suffix):
    rows = [{"id": 2**64 + i % 3, "x": i % 7, "y": i + 0.5} for i in range(60)]
    path = written(tmp_path / f"a.{suffix}", rows)
    assert built(path, "y").header_rows[-1] == (
        "Warning",
        "left out: id (equal in the digits that a number keeps). To use it: data.columns.id=category",
    )
    reader = built(path, "y", columns={"id": "category"}).reader
    assert sorted(reader.columns[0].values) == [str(2**64 + i) for i in range(3)]
    found = reader.read(path, with_targets=False)
    assert list(map(str, found.columns["id"][:2])) == ["18446744073709551616", "18446744073709551617"]


def test_large_whole_numbers_are_numbers(tmp_path):
    rows = [{"x": 2**60 + 2**30 * (i * i) + 1, "y": i + 0.5} for i in range(60)]
    for name in ("a.parquet", "a.jsonl"):
        assert built(written(tmp_path / name, rows), "y").spec.input == Features(1, ("x",))


ODD = ["n.a.", "unknown", "120 m2", "$26,088"]


@pytest.mark.parametrize("cell", ODD)
def test_one_odd_cell_does_not_cost_a_column(tmp_path, cell):
    rows = [{"x": cell if i == 7 else f"{i * 37 % 449}.5", "y": f"{i}.5"} for i in range(450)]
    path = written(tmp_path / "a.csv", rows, quoted=True)
    dataset = built(path, "y", val_fraction=0.01, normalize=False)
    assert dataset.spec.input.names == ("x", "x (missing)")
    assert dataset.header_rows[-1] == (
        "Warning",
        "column 'x': 1 of 450 cells is not a number and taken for missing, the first in row 7 "
        f"(counted from 0): {cell!r}. If they are words: data.columns.x=category",
    )
    found = dataset.reader.read(path, with_targets=False)
    assert found.part.inputs[7].tolist() == [dataset.reader.columns[0].scale.fill, 1]
    assert found.header_rows[0][1].endswith(f"the first in row 7 (counted from 0): {cell!r}.")
    assert found.columns["x"][7].as_py() == cell


@pytest.mark.parametrize("cell", ["inf", "-Infinity"])
def test_infinite_numbers_are_reported_as_such_and_not_as_words(tmp_path, cell):
    rows = [{"x": cell if i == 7 else f"{i % 50}.5", "y": f"{i}.5"} for i in range(100)]
    path = written(tmp_path / "a.csv", rows)
    dataset = built(path, "y", val_fraction=0.01)
    warning = (
        "column 'x': 1 of 100 cells is not a finite number that a model can hold and taken for missing,"
        f" the first in row 7 (counted from 0): {cell!r}."
    )
    assert dataset.header_rows[-1] == ("Warning", warning)
    target = built(path, "x")
    assert "1 of 100 cells is not a finite number that a model can hold" in target.header_rows[-1][1]
    assert target.header_rows[-1][1].endswith(f"{cell!r}.")
    with pytest.raises(DataError, match=f"holds '{cell}'; .* where the value is missing$"):
        dataset.reader.read(written(tmp_path / "b.csv", rows[7:9]), with_targets=True)


def test_numbers_too_large_for_a_model_are_told_and_missing(tmp_path):
    rows = [{"x": "1e39" if i == 7 else f"{i % 50}.5", "y": f"{i}.5"} for i in range(450)]
    path = written(tmp_path / "a.csv", rows)
    for normalize in (True, False):
        dataset = built(path, "y", normalize=normalize, val_fraction=0.01)
        assert dataset.header_rows[-1] == (
            "Warning",
            "column 'x': 1 of 450 cells is not a finite number that a model can hold and taken for "
            "missing, the first in row 7 (counted from 0): '1e39'.",
        )
        assert dataset.reader.columns[0].scale.mean < 50
        found = dataset.reader.read(written(tmp_path / "b.csv", rows[7:9]), with_targets=True)
        assert found.part.inputs.isfinite().all()
        assert found.part.inputs[0, 1] == 1
        assert "the first in row 0 (counted from 0): '1e39'." in found.header_rows[0][1]


@pytest.mark.parametrize(
    ("cell", "normalize", "words"),
    [
        ("{}e39", False, "column 'x' holds numbers as large as 5..5e.40; .* data.normalize=true"),
        (
            "{}e200",
            True,
            "column 'x' holds numbers as large as 5..5e.201; the largest that a model accepts is"
            " 3.4e.38",
        ),
    ],
)
def test_columns_that_are_too_large_for_a_model_are_refused(tmp_path, cell, normalize, words):
    rows = [{"x": cell.format(f"{i}.5"), "y": f"{i}.5"} for i in range(60)]
    with pytest.raises(DataError, match=words):
        built(written(tmp_path / "a.csv", rows), "y", normalize=normalize)


def test_a_column_of_large_numbers_is_learnt_where_it_is_standardised(tmp_path):
    rows = [{"x": f"{i}.5e39", "y": f"{i}.5"} for i in range(60)]
    dataset = built(written(tmp_path / "a.csv", rows), "y")
    assert dataset.train.inputs.abs().max() < 3


def test_targets_too_large_for_a_model(tmp_path):
    rows = [{"x": str(i % 7), "y": "1e39" if i == 7 else f"{i}.5"} for i in range(60)]
    dataset = built(written(tmp_path / "a.csv", rows), "y")
    assert dataset.left_out == {"no target": 1}
    assert "is not a finite number that a model can hold and its row is" in dataset.header_rows[-1][1]
    for row in rows:
        row["y"] = "1e39"
    with pytest.raises(
        DataError, match=r"'y' is a finite number, but row 0 .* '1e39'. A model can hold 3.4e"
    ):
        built(written(tmp_path / "a.csv", rows), "y", task="values")


def test_what_was_odd_in_training_is_missing_in_any_new_row(tmp_path):
    rows = [{"x": "unknown" if i % 30 == 7 else f"{i}.5", "y": f"{i}.5"} for i in range(450)]
    reader = built(written(tmp_path / "a.csv", rows), "y").reader
    reader = from_plain(json.loads(json.dumps(to_plain(reader))))
    found = reader.read(written(tmp_path / "b.csv", rows[7:8]), with_targets=True)
    assert found.part.inputs[0, 1] == 1
    assert found.header_rows[0][0] == "Warning"
    rows[7]["x"] = "other"
    with pytest.raises(DataError, match=r"column 'x' is one of numbers, but row 0 .* holds 'other'"):
        reader.read(written(tmp_path / "b.csv", rows[7:8]), with_targets=True)


def test_more_than_a_few_odd_cells_are_missing_by_the_users_word_alone(tmp_path):
    rows = [
        {"x": "unknown" if i % 9 == 7 else f"{i}.5", "z": str(i % 7), "y": f"{i}.5"} for i in range(90)
    ]
    path = written(tmp_path / "a.csv", rows)
    assert built(path, "y").spec.input.names == ("z",)
    dataset = built(path, "y", columns={"x": "number"})
    assert dataset.spec.input.names == ("x", "x (missing)", "z")
    assert "10 of 90 cells are not numbers and taken for missing" in dataset.header_rows[-1][1]
    assert len(dataset.reader.read(path, with_targets=True).part) == 90


def test_a_few_rows_have_an_odd_target(tmp_path):
    rows = [{"x": str(i % 7), "y": "unknown" if i in (30, 31) else str(i % 13)} for i in range(130)]
    path = written(tmp_path / "a.csv", rows)
    dataset = built(path, "y")
    assert isinstance(dataset.spec.target, Classes)
    assert dataset.spec.target.names == tuple(str(number) for number in range(13))
    assert dataset.left_out == {"no target": 2}
    assert dataset.header_rows[-1] == (
        "Warning",
        "target 'y': 2 of 130 cells are not numbers and their rows are left out, the first in row 30"
        " (counted from 0): 'unknown'. If they are classes: data.task=classes",
    )
    assert "unknown" in built(path, "y", task="classes").spec.target.names


@pytest.mark.parametrize(
    ("cells", "read", "notation"),
    [
        (["1\u00a0200,5", "3,5", "1 000"], [1200.5, 3.5, 1000],
         "decimal comma, thousands set apart by a blank"),
        (["1.200.000", "950", "1.200"], [1.2e6, 950, 1200],
         "decimal comma, thousands set apart by a point"),
        (["0,5", "1.200,25", "-3"], [0.5, 1200.25, -3], "decimal comma, thousands set apart by a point"),
        (["5,5", "7", "1,5E+03"], [5.5, 7, 1500], "decimal comma"),
        (["$26,088", "$3.5", "($4)"], [26088, 3.5, -4],
         "thousands set apart by a comma, in $, brackets for minus"),
        (["12.5 kg", "3 kg", "\u22124kg"], [12.5, 3, -4], "in kg"),
        (["EUR 5.5", "EUR 6", "EUR -7"], [5.5, 6, -7], "in EUR"),
        (["5 %", "6.5%", "7%"], [5, 6.5, 7], "in %"),
    ],
)  # fmt: skip
def test_numbers_are_read_as_all_of_a_column_is_written(tmp_path, cells, read, notation):
    rows = [{"x": cells[i % 3], "y": f"{i}.5"} for i in range(60)] + [{"x": "k.A.", "y": "0.5"}]
    path = written(tmp_path / "a.csv", rows, quoted=True)
    dataset = built(path, "y", normalize=False)
    assert dataset.header_rows[1] == ("Numbers", f"x ({notation})")
    assert "1 of 61 cells is not a number" in dataset.header_rows[3][1]
    reader = from_plain(json.loads(json.dumps(to_plain(dataset.reader))))
    found = reader.read(written(tmp_path / "b.csv", rows[:3], quoted=True), with_targets=False)
    assert found.part.inputs[:, 0].tolist() == read


def test_numbers_that_may_be_read_in_two_ways_are_listed_with_both(tmp_path):
    rows = [{"x": f"{1 + i % 9}.{100 + i}", "y": f"{i}.5"} for i in range(60)]
    path = written(tmp_path / "a.csv", rows)
    dataset = built(path, "y", normalize=False)
    assert dataset.header_rows[-1] == (
        "Warning",
        "column 'x': its numbers are read as decimal point, and would do as decimal comma, thousands set"
        " apart by a point: then set 'data.columns.x={number: \"1.200,5\"}' (currently:"
        " 'data.columns.x={number: \"1200.5\"}')",
    )
    assert dataset.train.inputs.max() < 10
    explicit = built(path, "y", normalize=False, columns={"x": {"number": "1.200,5"}})
    assert explicit.header_rows[-1] == ("Target", "y, a real value")
    assert explicit.train.inputs.min() > 1000
    assert len(built(path, "y", columns={"x": "number"}).header_rows) == 2
    target = built(path, "x", normalize=False, columns={"x": {"number": "1.200,5"}})
    assert target.spec.target.mean[0] > 1000
    with pytest.raises(ConfigError, match=r"'1.200' may be two numbers; write one with decimals"):
        built(path, "y", columns={"x": {"number": "1.200"}})


def test_many_columns_that_may_be_read_in_two_ways_share_a_line(tmp_path):
    rows = [
        {"x": f"{1 + i % 9}.{100 + i}", "z": f"{2 + i % 7}.{200 + i}", "y": f"{i}.5"} for i in range(60)
    ]
    path = written(tmp_path / "a.csv", rows)
    (warning,) = (text for label, text in built(path, "y").header_rows if label == "Warning")
    assert warning.startswith("columns x, z: their numbers are read as decimal point, and would do as")
    both = {"x": {"number": "1.200,5"}, "z": {"number": "1.200,5"}}
    typed = shlex.split(warning.split("then set ")[1].partition(" (currently")[0])[0]
    text = OverridesParser.create().parse_override(typed).value()
    assert built(path, "y", columns=text).reader == built(path, "y", columns=both).reader


def test_what_to_type_for_many_columns_names_them_all(tmp_path):
    rows = [{**{f"n{k}": f"{1 + i % 9}.{100 + i}" for k in range(21)}, "y": f"{i}.5"} for i in range(60)]
    path = written(tmp_path / "a.csv", rows)
    (warning,) = (text for label, text in built(path, "y").header_rows if label == "Warning")
    typed = shlex.split(warning.split("then set ")[1].partition(" (currently")[0])[0]
    text = OverridesParser.create().parse_override(typed).value()
    explicit = built(path, "y", columns=text)
    assert [label for label, _ in explicit.header_rows] == ["Columns", "Numbers", "Target"]
    rows = [
        {**{f"n{k}": f"w{i % 35} {k}" for k in range(21)}, "x": str(i % 7), "y": i} for i in range(60)
    ]
    (warning,) = (
        text for label, text in built(written(path, rows), "y").header_rows if label == "Warning"
    )
    typed = shlex.split(warning.split("use them: ")[1])[0]
    text = OverridesParser.create().parse_override(typed).value()
    assert len(built(path, "y", columns=text).spec.input.names) == 22


def test_what_to_type_names_no_column_that_cannot_be_typed(tmp_path):
    names = ["n", "tab\there", "b:number, c", "m", "two\nlines", 'say "x"']
    rows = [{**dict.fromkeys(names, f"{1 + i % 9}.{100 + i}"), "y": f"{i}.5"} for i in range(60)]
    path = written(tmp_path / "a.csv", rows, quoted=True)
    (warning,) = (text for label, text in built(path, "y").header_rows if label == "Warning")
    assert "(the 3 of 6 that can be typed)" in warning
    typed = shlex.split(warning.split("then set ")[1].partition(" (the")[0])[0]
    text = OverridesParser.create().parse_override(typed).value()
    assert built(path, "y", columns=text).header_rows[1][1].startswith("n (decimal comma")


def test_what_to_type_for_very_many_columns_says_how_many_it_names(tmp_path):
    rows = [{**{f"n{k}": f"{1 + i % 9}.{100 + i}" for k in range(60)}, "y": f"{i}.5"} for i in range(60)]
    (warning,) = (text for label, text in built(written(tmp_path / "a.csv", rows), "y").header_rows[-1:])
    assert "(the first 50 of 60)" in warning


def test_a_cell_that_decides_how_all_others_are_read_is_reported(tmp_path):
    rows = [{"x": "12,5" if i == 7 else f"{1 + i % 9},{100 + i}", "y": f"{i}.5"} for i in range(60)]
    dataset = built(written(tmp_path / "a.csv", rows, quoted=True), "y")
    assert dataset.header_rows[-1][1].startswith(
        "column 'x': its numbers are read as decimal comma, which a few such as '12,5' decide, and the"
        " others would do as thousands set apart by a comma: then set"
    )


def test_a_target_that_may_be_read_in_two_ways_is_reported(tmp_path):
    rows = [{"x": str(i % 7), "y": f"{1 + i % 9},{100 + i}"} for i in range(60)]
    dataset = built(written(tmp_path / "a.csv", rows, quoted=True), "y")
    assert dataset.spec.target.mean[0] > 1000
    assert (
        "target 'y': its numbers are read as thousands set apart by a comma"
        in dataset.header_rows[-1][1]
    )


@pytest.mark.parametrize("every", [4, 9])
def test_words_that_are_mostly_numbers_are_reported(tmp_path, every):
    rows = [{"x": "a" if i % every == 1 else str(i % 40), "y": f"{i}.5"} for i in range(360)]
    path = written(tmp_path / "a.csv", rows)
    assert built(path, "y").header_rows[-1] == (
        "Warning",
        f"column 'x' is read as words: {360 // every} of 360 cells are not numbers, the first in row 1"
        " (counted from 0): 'a'. To read it as numbers, these missing: data.columns.x=number (currently:"
        " data.columns.x=category)",
    )
    assert len(built(path, "y", columns={"x": "category"}).header_rows) == 2


def test_a_sole_column_that_is_refused_names_the_culprit(tmp_path):
    rows = [{"x": "a" if i % 9 == 1 else f"{i}.25", "y": f"{i}.5"} for i in range(60)]
    with pytest.raises(
        DataError, match=r"7 of 60 cells are not numbers, the first in row 1 .*: 'a'"
    ) as caught:
        built(written(tmp_path / "a.csv", rows), "y")
    assert "data.columns.x=number" in str(caught.value)


def test_classes_that_are_mostly_numbers_are_reported(tmp_path):
    rows = [{"x": str(i % 7), "y": "unknown" if i % 14 == 13 else str(i % 14)} for i in range(140)]
    path = written(tmp_path / "a.csv", rows)
    dataset = built(path, "y")
    assert len(dataset.spec.target.names) == 14
    assert dataset.header_rows[-1] == (
        "Warning",
        "target 'y' is read as words: 10 of 140 cells are not numbers, the first in row 13 (counted from"
        " 0): 'unknown'. To leave these rows out: data.task=values (currently: data.task=classes)",
    )
    assert len(built(path, "y", task="classes").header_rows) == 2


def test_classes_of_words_and_numbers_are_told_without_the_advice_to_leave_half_out(tmp_path):
    rows = [{"x": str(i % 7), "y": ["Yes", "No", "1", "0"][i % 4]} for i in range(140)]
    assert built(written(tmp_path / "a.csv", rows), "y").header_rows[-1] == (
        "Warning",
        "target 'y' holds words and numbers, which are distinguished: 70 of 140 cells are not "
        "numbers, the first in row 0 (counted from 0): 'Yes'. If some of both mean the same, spell "
        "them the same way.",
    )


def test_numbers_that_look_like_identifiers_are_reported(tmp_path):
    rows = [
        {
            "phone": f"{735 + i} 586 {100 + i}",
            "version": f"{2 + i % 7}.705.{100 + i}",
            "ip": f"1{i:02}.210.{200 + i % 50}.225",
            "people": f"{1 + i % 7} 705 {100 + i}" if i % 3 else f"{100 + i}",
            "sum": f"{1 + i % 7},705,{100 + i}",
            "y": f"{i}.5",
        }
        for i in range(60)
    ]
    path = written(tmp_path / "a.csv", rows, quoted=True)
    dataset = built(path, "y")
    warnings = [text for label, text in dataset.header_rows if label == "Warning"]
    assert warnings[0] == (
        "column 'phone': all of its numbers have as many groups of digits as '735 586 100'. If they"
        " are identifiers: data.columns.phone=category"
    )
    assert warnings[1].startswith("column 'version': all of its numbers have as many")
    assert warnings[2] == "left out: ip (all different). To use it: data.columns.ip=category"
    assert len(warnings) == 3
    assert dataset.spec.input.names == ("phone", "version", "people", "sum")
    explicit = built(path, "y", columns={"phone": "number", "version": "category"}, ignore=["ip"])
    assert not any("groups of digits" in text for _, text in explicit.header_rows)


def test_one_leading_zero_costs_no_column_and_is_reported(tmp_path):
    rows = [{"x": "05" if i == 7 else f"{i % 50}.5", "y": f"{i}.5"} for i in range(100)]
    path = written(tmp_path / "a.csv", rows)
    dataset = built(path, "y")
    assert dataset.spec.input == Features(1, ("x",))
    assert dataset.header_rows[-1] == (
        "Warning",
        "column 'x': 1 of 100 cells has a leading zero and is read as a number, the first in row 7"
        " (counted from 0): '05'. If they are words: data.columns.x=category",
    )
    assert len(built(path, "y", columns={"x": "number"}).header_rows) == 2
    target = built(path, "x")
    assert isinstance(target.spec.target, Values)
    assert target.header_rows[-1][1].endswith(
        "(counted from 0): '05'. If they are classes: data.task=classes"
    )


def test_many_leading_zeros_make_words_and_the_first_is_reported(tmp_path):
    rows = [{"x": f"0{i}" if i % 5 == 0 else str(i), "z": i % 7, "y": f"{i}.5"} for i in range(30)]
    (left,) = (
        text
        for label, text in built(written(tmp_path / "a.csv", rows), "y").header_rows
        if label == "Warning"
    )
    assert "x (words, all different: 6 of 30 cells have a leading zero, the first in row 0" in left
    assert left.endswith("To use it: data.columns.x=category")


def test_an_odd_cell_of_another_unit_is_reported_as_such(tmp_path):
    rows = [
        {
            "x": "1.5 kg" if i == 7 else f"{i % 50} g",
            "z": "2.0M" if i % 3 == 1 else f"{i % 9}k",
            "y": f"{i}.5",
        }
        for i in range(100)
    ]
    texts = [text for label, text in built(written(tmp_path / "a.csv", rows), "y").header_rows]
    assert any(
        "the first in row 7 (counted from 0): '1.5 kg' (in kg, not in g)." in text for text in texts
    )
    assert any("the first in row 1 (counted from 0): '2.0M' (in M, not in k)." in text for text in texts)


def test_a_run_of_before_goes_on_with_the_columns_that_it_read(tmp_path):
    rows = [
        {"": str(i), "x": "unknown" if i == 7 else f"{i}.25", "z": str(i % 5), "y": f"{i}.5"}
        for i in range(60)
    ]
    path = written(tmp_path / "a.csv", rows)
    old = built(path, "y", columns={"column 1": "number"}, ignore=["x"])
    config = data.parse({"name": "table", "path": str(path), "target": "y"})
    again = data.build(config.resuming(old.preprocessing))
    assert again.reader == old.reader
    assert torch.equal(again.train.inputs, old.train.inputs)
    assert again.header_rows[:2] == [
        ("Columns", "2 numbers; ignored: x (as before in this run)"),
        ("Target", "y, a real value"),
    ]
    assert len(again.header_rows) == 2


def test_an_index_that_pandas_has_written_is_told_and_no_feature(tmp_path):
    rows = [
        {"": str(3 * i), "x": str(i % 5), "Unnamed: 0": str(7 * i), "y": f"{i}.5"} for i in range(60)
    ]
    dataset = built(written(tmp_path / "a.csv", rows), "y")
    assert dataset.spec.input.names == ("x",)
    assert dataset.header_rows[-1] == (
        "Warning",
        "left out: column 1 (counts the rows), Unnamed: 0 (counts the rows). To use them:"
        " 'data.columns=\"{column 1: number, Unnamed: 0: number}\"'",
    )
    table = pa.Table.from_pylist(
        [{"x": i % 5, "__index_level_0__": 2 * i, "y": i + 0.5} for i in range(60)]
    )
    pq.write_table(table, tmp_path / "b.parquet")
    dataset = built(tmp_path / "b.parquet", "y")
    assert dataset.spec.input.names == ("x",)
    assert dataset.header_rows[-1][1].endswith("To use it: data.columns.__index_level_0__=number")


@pytest.mark.parametrize(
    ("name", "typed"),
    [("x", "data.columns.x=category"), ("my x", "'data.columns={my x: category}'"),
     ("größe", "'data.columns=\"{größe: category}\"'")],
)  # fmt: skip
def test_what_to_type_for_a_column(tmp_path, name, typed):
    rows = [{name: "no" if i == 3 else str(i), "z": str(i % 7), "y": f"{i}.5"} for i in range(60)]
    path = written(tmp_path / "a.csv", rows)
    assert built(path, "y").header_rows[-1][1].endswith(f"words: {typed}")
    assert built(path, "y", columns={name: "ignore"}).spec.input.names == ("z",)
    assert built(path, "y", columns=f"{{{name}: ignore}}").spec.input.names == ("z",)
    with pytest.raises(ConfigError, match=r"data\.columns=.*is not a name with its kind"):
        built(path, "y", columns=name)


@pytest.mark.parametrize(
    ("cells", "words"),
    [
        (["", ""], "target 'y' holds no value at all"),
        (["NA", "NA"], "target 'y' holds no value at all|the same label"),
        (["inf", "1.5"], "target 'y' is a finite number, but row 0 .* holds 'inf'"),
    ],
)
def test_targets_that_cannot_be_learnt(tmp_path, cells, words):
    rows = [{"x": str(i % 7), "y": cells[i % 2]} for i in range(60)]
    with pytest.raises(DataError, match=words):
        built(written(tmp_path / "a.csv", rows), "y")


def test_columns_of_lists_are_told_and_left_alone(tmp_path):
    rows = [{"x": i, "tags": [i], "y": i + 0.5} for i in range(60)]
    dataset = built(written(tmp_path / "a.jsonl", rows), "y", columns={"tags": "number"})
    assert dataset.header_rows[0][1] == "1 number; ignored: tags (list<item: int64>)"


def test_many_infinite_numbers_are_refused(tmp_path):
    rows = [{"x": "inf" if i % 9 == 7 else str(i), "y": f"{i}.5"} for i in range(60)]
    with pytest.raises(
        DataError, match=r"'x' is one of numbers, but row 7 .* 'inf'; 6 of 60 cells are no"
    ):
        built(written(tmp_path / "a.csv", rows), "y")


def test_some_unreadable_rows_may_be_left_out(path):
    path.write_text(path.read_text() + "\nonly,three,fields\n")
    with pytest.raises(DataError, match=r"row 200 .* has 3 fields, but there are 8 columns"):
        built(path)
    assert built(path, max_bad=1).left_out == {"unreadable row": 1}


def test_several_targets_of_different_kinds(path):
    dataset = built(path, ["price", "city"], ignore=["id", "country"])
    target = dataset.spec.target
    assert isinstance(target, Multitask)
    assert target.names == ("price", "city")
    assert [type(part) for part in target.parts] == [Values, Classes]
    assert sum(target.parts[1].counts) == len(dataset.train)
    assert "city" not in dataset.spec.input.names
    assert [text for label, text in dataset.header_rows if label == "Target"] == [
        "price, a real value",
        "city, 3 classes: Bonn 67, Oslo 66, Rome 67",
    ]
    price = target.parts[0]
    own = dataset.val.targets[:, 0].double() * price.std[0] + price.mean[0]
    for value, label in zip(own.tolist(), dataset.val.targets[:, 1].tolist(), strict=True):
        assert CITIES[round(value - 1000.5) % 3] == target.parts[1].names[int(label)]
    assert dataset.train.targets[:, 0].mean().item() == pytest.approx(0, abs=1e-5)
    again = from_plain(to_plain(dataset.reader))
    samples = again.read(path, with_targets=True)
    rows = dataset.val_rows
    assert torch.equal(samples.part.targets[rows], dataset.val.targets)
    assert again.read(path, with_targets=False).part.targets.shape == (200, 2)


def test_several_targets_of_real_values_are_one_kind(path):
    target = built(path, ["price", "size"]).spec.target
    assert isinstance(target, Values)
    assert target.names == ("price", "size")


def test_rows_without_one_of_the_targets_are_left_out(tmp_path):
    rows = houses()
    rows[3]["price"] = rows[5]["city"] = ""
    dataset = built(written(tmp_path / "holes.csv", rows), ["price", "city"])
    assert dataset.left_out == {"no target": 2}
    assert sum(dataset.spec.sizes.values()) == 198
    samples = dataset.reader.read(tmp_path / "holes.csv", with_targets=True)
    assert samples.left_out == {"no target": 2}
    for row in rows:
        row["price" if row["id"] < "h00100" else "city"] = ""
    with pytest.raises(DataError, match="no row has values of all of price, city"):
        built(written(tmp_path / "never.csv", rows), ["price", "city"])


def test_targets_that_are_named_twice_or_are_not_there(path):
    with pytest.raises(ConfigError, match=r"data\.target: names price twice"):
        built(path, ["price", "price"])
    with pytest.raises(DataError, match=r"data\.target=prize: .*Did you mean 'price'"):
        built(path, ["city", "prize"])
    with pytest.raises(ConfigError, match=r"data\.target: name the column to predict"):
        built(path, [])
    reader = built(path, ["price", "city"]).reader
    answers = pa.table({"price": [1.0]})
    with pytest.raises(DataError, match="no column 'city', which holds the answers"):
        reader.read_table(answers, with_targets=True)


def test_each_of_several_targets_is_of_its_own_kind(tmp_path):
    rows = [{"x": f"{i / 7:.3f}", "price": str(i % 9), "rooms": str(i % 3)} for i in range(90)]
    path, targets = written(tmp_path / "a.csv", rows), ["price", "rooms"]

    def kinds(**values):
        return [type(part) for part in built(path, targets, **values).spec.target.parts]

    assert kinds() == [Classes, Classes]
    assert kinds(columns={"price": "number"}) == [Values, Classes]
    assert kinds(columns={"rooms": "category"}, task="values") == [Values, Classes]
    assert kinds(columns={"price": {"number": "1.200,5"}}) == [Values, Classes]
    assert isinstance(built(path, "price", columns={"price": "number"}).spec.target, Values)


def test_advice_on_one_of_several_targets_is_for_that_one(tmp_path):
    rows = [{"x": f"{i / 7:.3f}", "y": f"name {i}", "kind": "ab"[i % 2]} for i in range(50)]
    with pytest.raises(DataError, match=r"For real values, set data\.columns.y=number"):
        built(written(tmp_path / "a.csv", rows), ["kind", "y"])
