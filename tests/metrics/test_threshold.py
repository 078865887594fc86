"""Decision thresholds: none is better, by trying all of them."""

import math

import pytest
import torch
from sklearn import metrics as sk
from torch import Tensor

from bigmodel.metrics.threshold import Maximised, best_cuts, is_yes_no, move, thresholds
from bigmodel.spec import Classes, Flags, Values

TWO, FLAGS = Classes(("no", "yes"), (1, 1)), Flags(("x", "y"))
SCORES = {
    "accuracy": sk.accuracy_score,
    "f1": sk.f1_score,
    "balanced_accuracy": sk.balanced_accuracy_score,
}
every_figure = pytest.mark.parametrize("maximised", SCORES)


def rare(size: int = 300) -> tuple[Tensor, Tensor]:
    draw = torch.Generator().manual_seed(size)
    targets = (torch.rand(size, generator=draw) < 0.1).long()
    score = torch.randn(size, generator=draw) + 2.0 * targets - 3.0
    return torch.stack([torch.zeros(size), (score * 8).round() / 8], dim=1), targets


@every_figure
def test_no_threshold_of_two_classes_is_better(maximised: Maximised) -> None:
    outputs, targets = rare()
    (cut,) = best_cuts(outputs, targets, TWO, maximised)
    score = SCORES[maximised]
    found = score(targets, move(outputs, [cut], TWO).argmax(1))
    difference = outputs[:, 1].double()
    tried = [*difference.unique().tolist(), -100.0]
    assert found == pytest.approx(max(score(targets, difference > at) for at in tried))
    assert found >= score(targets, outputs.argmax(1))
    if maximised != "accuracy":
        assert cut < -0.5, "a rare class needs a low one"


@every_figure
def test_each_label_has_its_own(maximised: Maximised) -> None:
    outputs, targets = rare()
    both = torch.stack([outputs[:, 1], -outputs[:, 1]], dim=1)
    true = torch.stack([targets, 1 - targets], dim=1).float()
    cuts = best_cuts(both, true, FLAGS, maximised)
    alone = best_cuts(outputs, targets, TWO, maximised)
    assert cuts[0] == alone[0]
    said = move(both, cuts, FLAGS) > 0
    for column in range(2):
        score = SCORES[maximised]
        tried = [*both[:, column].unique().tolist(), -100.0]
        best = max(score(true[:, column], both[:, column] > at) for at in tried)
        assert score(true[:, column], said[:, column]) == pytest.approx(best)


@every_figure
def test_one_half_stays_where_nothing_is_better_or_known(maximised: Maximised) -> None:
    right = torch.tensor([[0.0, -3.0], [0.0, -2.0], [0.0, 5.0]])
    assert best_cuts(right, torch.tensor([0, 0, 1]), TWO, maximised) == [0.0]
    assert best_cuts(right, torch.tensor([0, 0, 0]), TWO, maximised) == [0.0]


def test_impossible_outputs_give_a_finite_threshold() -> None:
    outputs = torch.tensor([[0.0, -math.inf], [0.0, 1.0], [0.0, 2.0]])
    for targets in ([1, 1, 1], [0, 0, 1], [1, 0, 0]):
        cuts = best_cuts(outputs, torch.tensor(targets), TWO, "f1")
        assert all(map(math.isfinite, cuts))
        assert all(0 <= value <= 1 for value in thresholds(cuts, TWO).values())


def test_without_one_outputs_stay() -> None:
    outputs, _ = rare(5)
    assert move(outputs, None, TWO) is outputs
    assert thresholds(None, TWO) == {}
    before = outputs.clone()
    move(outputs, [1.0], TWO)
    assert torch.equal(outputs, before)


def test_a_threshold_is_told_as_a_probability_by_name() -> None:
    assert thresholds([0.0], TWO) == {"yes": 0.5}
    assert thresholds([math.log(3), -math.log(3)], FLAGS) == pytest.approx({"x": 0.75, "y": 0.25})


def test_yes_no_targets() -> None:
    assert is_yes_no(TWO)
    assert is_yes_no(FLAGS)
    assert not is_yes_no(Classes(("a", "b", "c"), (1, 1, 1)))
    assert not is_yes_no(Values(("v",), (0.0,), (1.0,)))
