"""What is told of predictions."""

import numpy as np
import pytest
import torch
from sklearn import metrics

from bigmodel.reporting.report.content import Note, RunReport, Section, Table, charts_of
from bigmodel.reporting.report.held_out import Mistake, sections, worst
from bigmodel.reporting.report.page import page
from bigmodel.reporting.report.samples import Shown
from bigmodel.spec import Classes, Features, Flags, Values

CLASSES = Classes(("a", "b", "c"), (1, 1, 1))


def table(found: list[Section], heading: str) -> Table:
    section = next(section for section in found if section.heading == heading)
    return next(block for block in section.blocks if isinstance(block, Table))


def test_each_class_has_scikit_learns_figures() -> None:
    draw = torch.Generator().manual_seed(0)
    truth = torch.randint(3, (200,), generator=draw)
    outputs = torch.randn(200, 3, generator=draw) + torch.nn.functional.one_hot(truth, 3)
    found = sections(outputs, truth, CLASSES)
    rows = table(found, "Each class").rows
    predicted, marks = outputs.argmax(1).numpy(), np.eye(3)[truth.numpy()]
    scores = torch.softmax(outputs.double(), 1).numpy()
    expected = [
        metrics.precision_score(truth, predicted, average=None),
        metrics.recall_score(truth, predicted, average=None),
        metrics.f1_score(truth, predicted, average=None),
        metrics.roc_auc_score(marks, scores, average=None),
        metrics.average_precision_score(marks, scores, average=None),
    ]
    for index, row in enumerate(rows):
        assert row == [
            "abc"[index],
            str(int(marks[:, index].sum())),
            *(f"{figures[index]:.4f}" for figures in expected),
        ]
    names = [chart.name for chart in charts_of(found)]
    assert names == ["confusion", "roc", "precision-recall", "calibration"]


def test_a_class_that_does_not_occur_has_no_figures() -> None:
    outputs, truth = torch.tensor([[2.0, 0, 0], [0, 2, 0]]), torch.tensor([0, 1])
    rows = table(sections(outputs, truth, CLASSES), "Each class").rows
    assert rows[2] == ["c", "0", "–", "–", "–", "–", "–"]


def test_pairs_are_ordered_by_how_often_they_are_confused() -> None:
    outputs = torch.eye(3)[torch.tensor([0, 1, 1, 2, 2, 0, 0])]
    truth = torch.tensor([0, 0, 0, 2, 1, 0, 0])
    rows = table(sections(outputs, truth, CLASSES), "Which class is taken for which").rows
    assert rows == [["a", "b", "2", "40.0%"], ["b", "c", "1", "100.0%"]]


def test_two_classes_have_one_curve_and_many_the_worst_five() -> None:
    draw = torch.Generator().manual_seed(0)
    for count, curves in ((2, 1), (8, 5)):
        names = tuple(str(index) for index in range(count))
        truth = torch.arange(80) % count
        outputs = torch.randn(80, count, generator=draw)
        found = sections(outputs, truth, Classes(names, (1,) * count))
        roc = next(chart.drawing for chart in charts_of(found) if chart.name == "roc")
        assert roc.description.count(": 0.") == curves


def test_more_classes_than_a_matrix_shows() -> None:
    names = tuple(str(index) for index in range(300))
    found = sections(torch.eye(300), torch.arange(300), Classes(names, (1,) * 300))
    assert [section.heading for section in found] == ["Calibration"]


def test_labels_are_counted() -> None:
    outputs = torch.tensor([[1.0, -1], [1, -1], [-1, -1]])
    truth = torch.tensor([[1.0, 0], [0, 0], [1, 0]])
    rows = table(sections(outputs, truth, Flags(("x", "y"))), "Each label").rows
    assert rows[0][:5] == ["x", "2", "0.5000", "0.5000", "0.5000"]
    assert rows[1] == ["y", "0", "–", "–", "–", "–", "–"]


def test_values_are_in_their_own_unit() -> None:
    target = Values(("price",), (100.0,), (10.0,))
    outputs, truth = torch.tensor([[0.0], [1], [2]]), torch.tensor([[0.0], [0], [0]])
    found = sections(outputs, truth, target)
    assert table(found, "Residuals").rows == [
        ["price", "10.0000", "10.0000", "10.0000", "18.0000", "20.0000"]
    ]
    assert [c.name for c in charts_of(found)] == ["truth", "residuals", "residual-histogram"]
    assert worst(outputs, truth, target, 2) == [Mistake(2, "120", "100"), Mistake(1, "110", "100")]


def test_of_many_values_the_worst_have_charts() -> None:
    names = tuple("abcdef")
    target = Values(names, (0.0,) * 6, (1.0,) * 6)
    outputs = torch.arange(6.0).repeat(3, 1)
    found = sections(outputs, torch.zeros(3, 6), target)
    assert {chart.name[-1] for chart in charts_of(found)} == {"3", "4", "5", "6"}
    assert any(isinstance(block, Note) for block in found[0].blocks)


def test_mistakes_are_only_wrong_predictions_worst_first() -> None:
    outputs = torch.tensor([[3.0, 0, 0], [0, 5, 0], [0, 2, 0], [0.1, 0, 0]])
    truth = torch.tensor([0, 0, 0, 1])
    found = worst(outputs, truth, CLASSES, 3)
    assert [mistake.index for mistake in found] == [1, 2, 3]
    assert found[0].prediction == "b (98.7%)"
    assert found[0].truth == "a (0.7%)"
    assert worst(outputs[:1], truth[:1], CLASSES, 3) == []


def test_mistakes_of_labels_name_all() -> None:
    outputs = torch.tensor([[2.0, -2], [2, 2]])
    found = worst(outputs, torch.tensor([[1.0, 0], [0, 1]]), Flags(("x", "y")), 5)
    assert found == [Mistake(1, "x (88%), y (88%)", "y (88%)")]


def test_the_calibration_is_told() -> None:
    outputs = torch.log(torch.tensor([[0.8, 0.1, 0.1]] * 4))
    found = sections(outputs, torch.tensor([0, 0, 1, 2]), CLASSES)
    note = next(block for block in found[-1].blocks if isinstance(block, Note))
    assert "Expected calibration error: 0.3000." in note.text


@pytest.mark.parametrize("target", [CLASSES, Flags(("x", "y")), Values(("v",), (0.0,), (1.0,))], ids=str)
def test_one_sample_is_enough(target: Classes | Flags | Values) -> None:
    outputs = torch.zeros(1, target.output_size)
    truth = torch.tensor([1]) if isinstance(target, Classes) else torch.zeros(1, target.output_size)
    assert sections(outputs, truth, target)


def test_long_names_do_not_make_a_page_large() -> None:
    names = tuple(f"{n}" * 5000 for n in range(30))
    draw = torch.Generator().manual_seed(0)
    outputs, truth = torch.randn(2000, 30, generator=draw), torch.arange(2000) % 30
    target = Classes(names, (1,) * 30)
    report = RunReport("r", "r", sections(outputs, truth, target))
    mistakes = worst(outputs, truth, target, 24)
    report.add("Mistakes", Shown(Features(1), None).mistakes([torch.zeros(1)] * 24, mistakes))
    assert len(page([report])) < 400_000
