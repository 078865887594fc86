"""Targets: classes or values, whatever program has written them."""

import pyarrow as pa
import pytest

from bigmodel.data.tabular.report import target_summary
from bigmodel.data.tabular.target import TargetColumn
from bigmodel.errors import DataError


def column(*values, kind=None):
    return pa.chunked_array([pa.array(values, kind)])


def learnt(*values, task="auto", kind=None):
    return TargetColumn.fit("y", column(*values, kind=kind), task, "a.csv")


@pytest.mark.parametrize(
    ("values", "labels"),
    [
        (["0.0", "", "1.0"], ["0", "1"]),  # as pandas writes whole numbers where one is missing
        (["0.0", "NA", "1.0"], ["0", "1"]),
        ([0.0, None, 1.0], ["0", "1"]),
        ([0.0, float("nan"), 1.0], ["0", "1"]),
        (["0.0", "1.0"], None),
        (["0.5", "", "1.0"], None),
        ([0.5, None, 1.0], None),
        ([float(n) for n in range(21)] + [None], None),
        (["inf", None, "1.0"], None),
    ],
)
def test_whole_numbers_with_gaps_are_classes(values, labels):
    kind = pa.string() if isinstance(values[0], str) else None
    found = learnt(*(value if value != "" else None for value in values), kind=kind)
    assert found.labels == labels


def test_words_for_a_missing_value_are_no_classes():
    values = column("no", "NA", "yes", "?", None)
    target = TargetColumn.fit("y", values, "auto", "a.csv")
    assert target.labels == ["no", "yes"]
    assert target_summary(target) == "y, 2 classes: no, yes"
    assert target.missing == ["?", "NA"]
    index, there, _ = target.encode(values, "a.csv")
    assert there.tolist() == [True, False, True, False, False]
    assert index.tolist() == [0, 0, 1, 0, 0]
    assert target_summary(learnt("1.5", "2.5", "-")) == "y, a real value"
    assert learnt("1.5", "2.5", "-").missing == ["-"]
    assert target_summary(learnt("1.5", "2.5")) == "y, a real value"


def test_words_that_may_be_classes_are():
    assert learnt("+", "-").labels == ["+", "-"]
    assert learnt("None", "Insomnia").labels == ["Insomnia", "None"]


def test_a_class_that_an_older_run_has_learnt_stays_one():
    index, there, _ = TargetColumn(name="y", labels=["NA", "no"]).encode(
        column("no", "NA", "?"), "a.csv"
    )
    assert index[:2].tolist() == [1, 0]
    assert there.tolist() == [True, True, False]


def test_numbers_written_in_another_way_are_numbers():
    target = learnt("1", "1,5", "2,5")
    assert target_summary(target) == "y, a real value; decimal comma"
    assert target.encode(column("0,5", " 1 "), "b.csv").values.tolist() == [[0.5], [1.0]]
    assert learnt("1,5", "2,5", task="classes").labels == ["1,5", "2,5"]


def test_an_odd_cell_among_whole_numbers_is_no_class():
    values = column(*[str(i % 13) for i in range(130)], "unknown")
    target = TargetColumn.fit("y", values, "auto", "a.csv")
    assert target.labels == [str(number) for number in range(13)]
    encoded = target.encode(values, "a.csv")
    assert encoded.filled.tolist() == [True] * 130 + [False]
    assert (encoded.invalid.count, encoded.invalid.row, encoded.invalid.value) == (1, 130, "unknown")
    assert target.encode(column("3", "unknown"), "b.csv").filled.tolist() == [True, False]
    with pytest.raises(DataError, match=r"one of the classes 0, 1.* row 1 .* holds 'n.a.'"):
        target.encode(column("3", "n.a."), "b.csv")
    encoded = TargetColumn.fit("y", values, "classes", "a.csv")
    assert encoded.labels == [*(str(number) for number in range(13)), "unknown"]


@pytest.mark.parametrize("kind", [pa.string(), pa.int64(), pa.uint64(), pa.decimal128(38, 0)], ids=str)
def test_large_whole_numbers_are_classes_of_their_own(kind):
    large = [2**53, 2**53 + 1, 2**53 + 2]
    if kind in (pa.uint64(), pa.decimal128(38, 0)):
        large = [number + 2**63 for number in (0, 1, 2)]
    cells = [str(number) for number in large]
    values = pa.chunked_array([pa.array(cells * 20 + [None]).cast(kind)])
    target = TargetColumn.fit("y", values, "auto", "a.csv")
    assert target.labels == cells
    assert target.encode(values, "a.csv").values.tolist() == [0, 1, 2] * 20 + [0]
    if kind == pa.string():
        invalid = column(*cells * 20, "unknown", "-")
        target = TargetColumn.fit("y", invalid, "auto", "a.csv")
        assert target.labels == cells
        encoded = target.encode(invalid, "a.csv")
        assert encoded.filled.tolist() == [True] * 60 + [False] * 2
        assert (encoded.invalid.count, encoded.invalid.row, encoded.invalid.filled) == (1, 60, 61)


def test_an_odd_cell_among_real_values_leaves_its_row_out():
    values = column(*[f"{i}.5" for i in range(40)], "inf", "n.a.")
    target = TargetColumn.fit("y", values, "auto", "a.csv")
    assert target.labels is None
    encoded = target.encode(values, "a.csv")
    assert encoded.filled.sum() == 40
    assert (encoded.invalid.count, encoded.invalid.row, encoded.invalid.value) == (2, 40, "inf")
    with pytest.raises(DataError, match=r"'y' is a finite number, but row 0 .* holds 'inf'"):
        target.encode(column("inf", "3"), "b.csv")


def test_a_target_of_identifiers_is_not_gone_through_word_by_word(monkeypatch):
    monkeypatch.setattr("bigmodel.data.tabular.target.canonical_names", None)
    told = "'y' has 5,000 different values in 5,000 rows, such as 'user 0' and 'user 1', too many"
    with pytest.raises(DataError, match=told):
        TargetColumn.fit("y", column(*(f"user {i}" for i in range(5000))), "auto", "a.csv")
