"""Conformal prediction: exact ranks, and the coverage that they promise."""

import math
from fractions import Fraction

import pytest
import torch
from torch import Tensor

from bigmodel.metrics import conformal
from bigmodel.metrics.conformal import (
    bound,
    class_scores,
    class_sets,
    highest_level,
    intervals,
    least_samples,
    value_scores,
)

LEVELS = [0.5, 0.8, 0.9, 0.95, 0.99]


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("count", [99, 100, 359, 1000])
def test_the_bound_is_the_exact_order_statistic(count: int, level: float) -> None:
    scores = torch.rand(count, generator=torch.Generator().manual_seed(count)).double()
    exact = math.ceil((count + 1) * Fraction(str(level)))
    assert bound(scores, level) == sorted(scores.tolist())[exact - 1]


@pytest.mark.parametrize(("level", "least"), [(0.5, 1), (0.8, 4), (0.9, 9), (0.95, 19), (0.99, 99)])
def test_the_least_number_of_samples(level: float, least: int) -> None:
    assert least_samples(level) == least
    assert math.ceil((least + 1) * Fraction(str(level))) <= least
    assert math.ceil(least * Fraction(str(level))) > least - 1
    assert highest_level(least) == pytest.approx(level)
    assert bound(torch.arange(least), level) == least - 1


@pytest.mark.parametrize("level", [0.8, 0.9])
def test_a_new_sample_is_within_as_often_as_promised(level: float) -> None:
    """Over many draws of 24 scores: ⌈25 · level⌉ / 25, neither more nor less."""
    draws = torch.randn(40_000, 25, generator=torch.Generator().manual_seed(1)).abs()
    bounds = draws[:, :24].sort(1).values[:, math.ceil(25 * level - 1e-9) - 1]
    assert bounds[:5].tolist() == pytest.approx([bound(row[:24], level) for row in draws[:5]])
    covered = float((draws[:, 24] <= bounds).double().mean())
    assert covered == pytest.approx(math.ceil(25 * level - 1e-9) / 25, abs=0.006)


def spreading(size: int, seed: int) -> tuple[Tensor, Tensor]:
    """Predictions of 0 to 1, and truths whose error grows with them."""
    draw = torch.Generator().manual_seed(seed)
    predicted = torch.rand(size, 1, generator=draw)
    return predicted, predicted + predicted * torch.randn(size, 1, generator=draw)


def covered(predicted: Tensor, true: Tensor, known: Tensor, scores: Tensor, level: float) -> Tensor:
    lower, upper = intervals(predicted, known, scores, level)
    return ((lower <= true) & (true <= upper))[:, 0]


@pytest.mark.parametrize("level", [0.8, 0.9, 0.99])
def test_intervals_hold_where_errors_are_small_and_where_they_are_large(level: float) -> None:
    known, known_true = spreading(4000, 1)
    predicted, true = spreading(40_000, 2)
    within = covered(predicted, true, known, value_scores(known, known_true), level)
    assert float(within.double().mean()) == pytest.approx(level, abs=0.012)
    large = predicted[:, 0] > 0.8
    for part in (large, predicted[:, 0] < 0.2):
        assert float(within[part].double().mean()) == pytest.approx(level, abs=0.05)
    lower, upper = intervals(predicted, known, value_scores(known, known_true), level)
    width = (upper - lower)[:, 0]
    assert width[large].mean() > 4 * width[predicted[:, 0] < 0.2].mean()


def test_few_samples_have_one_width() -> None:
    known, true = spreading(150, 1)
    scores = value_scores(known, true)
    lower, upper = intervals(torch.tensor([[-9.0], [0.1], [0.9]]), known, scores, 0.9)
    half = sorted(scores[:, 0].tolist())[math.ceil(151 * Fraction("0.9")) - 1]
    assert ((upper - lower) / 2)[:, 0].tolist() == pytest.approx([half] * 3, abs=2e-5)
    assert ((upper + lower) / 2)[:, 0].tolist() == pytest.approx([-9.0, 0.1, 0.9])


def test_each_column_is_for_itself() -> None:
    known, true = spreading(300, 1)
    twice = torch.cat([known, known], dim=1)
    errors = torch.cat([true, known + 10 * (true - known)], dim=1)
    new = torch.rand(5, 1)
    lower, upper = intervals(new.repeat(1, 2), twice, value_scores(twice, errors), 0.9)
    alone = intervals(new, known, value_scores(known, true), 0.9)
    assert torch.equal(torch.stack([lower[:, :1], upper[:, :1]]), torch.stack(alone))
    widths = upper - lower
    assert widths[:, 1].tolist() == pytest.approx((10 * widths[:, 0]).tolist(), rel=1e-3)


def test_equal_predictions_leave_no_group_empty() -> None:
    known = torch.cat([torch.zeros(990, 1), torch.ones(10, 1)])
    scores = torch.rand(1000, 1, generator=torch.Generator().manual_seed(0)).double()
    lower, upper = intervals(torch.tensor([[0.0], [1.0], [torch.nan]]), known, scores, 0.95)
    assert bool((upper - lower)[:2].isfinite().all())
    assert bool((upper - lower)[:2].min() > 0)


def uncertain(size: int, seed: int) -> tuple[Tensor, Tensor]:
    draw = torch.Generator().manual_seed(seed)
    logits = 1.5 * torch.randn(size, 5, generator=draw)
    return logits, torch.multinomial(logits.softmax(1), 1, generator=draw)[:, 0]


@pytest.mark.parametrize("level", [0.8, 0.9, 0.95])
def test_sets_hold_the_truth_as_often_as_asked(level: float) -> None:
    known, known_true = uncertain(4000, 1)
    outputs, true = uncertain(40_000, 2)
    members = class_sets(outputs, outputs.argmax(1), class_scores(known, known_true), level)
    held = members.gather(1, true[:, None])
    assert float(held.double().mean()) == pytest.approx(level, abs=0.012)
    assert 1 < float(members.sum(1).double().mean()) < 5
    # The least probability is the same for all samples.
    probabilities = outputs.double().softmax(1)
    others = members.scatter(1, outputs.argmax(1, keepdim=True), False)
    inside = probabilities[others]
    assert float(inside.min()) >= float(probabilities[~members].max())


def test_no_set_is_empty_and_the_prediction_is_in_it() -> None:
    known = torch.tensor([[9.0, 0.0]] * 100)  # always right, and very sure
    scores = class_scores(known, torch.zeros(100, dtype=torch.long))
    outputs = torch.tensor([[1.0, 0.9], [9.0, 0.0], [0.1, 0.0]])
    members = class_sets(outputs, torch.tensor([0, 0, 1]), scores, 0.9)
    assert members.tolist() == [[True, False], [True, False], [False, True]]


def test_equal_scores_are_covered_in_whatever_batch() -> None:
    """Rows that are alike have scores that differ in a last bit at most."""
    known, true = torch.full((200, 1), 0.5), torch.full((200, 1), 0.75)
    scores = value_scores(known, true).float()
    nearly = torch.full((3, 1), 0.5) * (1 - 1e-7)
    assert covered(nearly, true[:3], known, scores, 0.9).all()


def test_groups_are_as_documented() -> None:
    assert (conformal.GROUPS, conformal.GROUP_SIZE) == (10, 100)
