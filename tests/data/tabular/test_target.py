"""Targets: classes or values, whatever program has written them."""

import pyarrow as pa
import pytest

from bigmodel.data.tabular.target import TargetColumn
from bigmodel.data.tabular.telling import target_told
from bigmodel.errors import DataError


def column(*values, kind=None):
    return pa.chunked_array([pa.array(values, kind)])


def learnt(*values, task="auto", kind=None):
    return TargetColumn.learn("y", column(*values, kind=kind), task, "a.csv")


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
    target = TargetColumn.learn("y", values, "auto", "a.csv")
    assert target.labels == ["no", "yes"]
    assert target_told(target) == "y, 2 classes: no, yes; ?, NA taken for missing"
    index, there = target.encode(values, "a.csv")
    assert there.tolist() == [True, False, True, False, False]
    assert index.tolist() == [0, 0, 1, 0, 0]
    assert target_told(learnt("1.5", "2.5", "-")) == "y, a real value; - taken for missing"
    assert target_told(learnt("1.5", "2.5")) == "y, a real value"


def test_words_that_may_be_classes_are():
    assert learnt("+", "-").labels == ["+", "-"]
    assert learnt("None", "Insomnia").labels == ["Insomnia", "None"]


def test_a_class_that_an_older_run_has_learnt_stays_one():
    index, there = TargetColumn(name="y", labels=["NA", "no"]).encode(column("no", "NA", "?"), "a.csv")
    assert index[:2].tolist() == [1, 0]
    assert there.tolist() == [True, True, False]


def test_numbers_written_in_another_way_are_no_words():
    with pytest.raises(DataError, match=r"target 'y' holds '1,5' in row 1 .* data.task=classes"):
        learnt("1", "1,5", "2,5")
    assert learnt("1,5", "2,5", task="classes").labels == ["1,5", "2,5"]
