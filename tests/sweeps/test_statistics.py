import math

import numpy as np
import pytest
from scipy import stats

from bigmodel.sweeps.statistics import compare, estimate, selection_bias

FIRST = {1: 0.91, 2: 0.93, 3: 0.90, 4: 0.96}
SECOND = {1: 0.90, 2: 0.91, 3: 0.89, 4: 0.92}


@pytest.mark.parametrize("n", [2, 3, 10, 50])
def test_the_interval_is_that_of_scipy(n: int) -> None:
    values = np.random.default_rng(n).normal(3.0, 2.0, n)
    found = estimate(values.tolist())
    assert found.half_width is not None
    low, high = stats.t.interval(0.95, n - 1, values.mean(), stats.sem(values))
    assert found.mean == pytest.approx(values.mean())
    assert (found.mean - found.half_width, found.mean + found.half_width) == pytest.approx((low, high))
    assert found.n == n


def test_a_single_figure_has_no_interval() -> None:
    assert (estimate([0.5]).mean, estimate([0.5]).half_width) == (0.5, None)


def test_the_same_seeds_are_compared_in_pairs() -> None:
    found = compare(FIRST, dict(reversed(SECOND.items())))
    assert found is not None
    reference = stats.ttest_rel(list(FIRST.values()), list(SECOND.values()))
    interval = reference.confidence_interval(0.95)
    assert (found.kind, found.n) == ("paired", 4)
    assert found.p == pytest.approx(reference.pvalue)
    assert found.difference == pytest.approx(0.02)
    assert (found.difference - found.half_width, found.difference + found.half_width) == pytest.approx(
        tuple(interval)
    )
    assert found.significant is bool(reference.pvalue < 0.05)


@pytest.mark.parametrize("seeds", [(1, 2, 3), (11, 12, 13, 14), (1, 2, 3, 4, 5)])
def test_other_seeds_are_compared_by_welch(seeds: tuple[int, ...]) -> None:
    second = dict(zip(seeds, (0.80, 0.81, 0.85, 0.79, 0.83), strict=False))
    found = compare(FIRST, second)
    assert found is not None
    reference = stats.ttest_ind(list(FIRST.values()), list(second.values()), equal_var=False)
    interval = reference.confidence_interval(0.95)
    assert (found.kind, found.n) == ("welch", min(4, len(seeds)))
    assert found.p == pytest.approx(reference.pvalue)
    assert (found.difference - found.half_width, found.difference + found.half_width) == pytest.approx(
        tuple(interval)
    )
    assert found.significant


def test_a_single_run_says_nothing_about_luck() -> None:
    assert compare({1: 0.9}, {1: 0.8}) is None
    assert compare(FIRST, {1: 0.8}) is None


@pytest.mark.parametrize("seeds", [(1, 2, 3), (4, 5, 6)])
@pytest.mark.parametrize("other", [0.9, 0.7])
def test_figures_without_any_spread_have_no_p(seeds: tuple[int, ...], other: float) -> None:
    found = compare(dict.fromkeys((1, 2, 3), 0.9), dict.fromkeys(seeds, other))
    assert found is not None
    assert (found.p, found.half_width, found.significant) == (None, 0.0, False)
    assert found.difference == pytest.approx(0.9 - other)


def test_a_constant_difference_is_not_taken_for_spread() -> None:
    values = {n: n / 7 for n in range(6)}
    found = compare(values, {n: value - 0.1 for n, value in values.items()})
    assert found is not None
    assert found.p is None


def test_the_share_of_false_alarms_is_that_of_the_level() -> None:
    draw = np.random.default_rng(0)
    samples = draw.normal(0.0, 1.0, (2000, 2, 5))
    for seeds in (range(5), range(5, 10)):
        found = [
            compare(dict(enumerate(a.tolist())), dict(zip(seeds, b.tolist(), strict=True)))
            for a, b in samples
        ]
        share = sum(each is not None and each.significant for each in found) / len(found)
        assert math.isclose(share, 0.05, abs_tol=0.015)


def test_the_bias_of_the_lowest_error_as_by_hand() -> None:
    """Of the means 0.2, 0.22 and 0.2167 the first is the lowest. In the three folds it is worse than the
    best one there by 0, by 0.2 - 0.1 and by 0.3 - 0.25."""
    errors = [[0.10, 0.20, 0.30], [0.20, 0.10, 0.36], [0.15, 0.25, 0.25]]
    assert selection_bias(errors) == pytest.approx((0 + 0.1 + 0.05) / 3)
    assert selection_bias(errors[:1]) == 0
    assert selection_bias([[0.1, 0.2], [0.3, 0.4]]) == 0


def test_the_bias_is_about_what_was_gained_by_choosing() -> None:
    """Of 10 settings that are equally good, the lowest mean of 10 folds is lower than the true one."""
    draw = np.random.default_rng(0)
    gained, corrected = [], []
    for _ in range(300):
        errors = draw.normal(1.0, 0.1, (10, 10))
        gained.append(1.0 - errors.mean(1).min())
        corrected.append(errors.mean(1).min() + selection_bias(errors.tolist()) - 1.0)
    assert np.mean(gained) > 0.04
    assert np.mean(corrected) > 0  # in such a case it corrects by more than that, never by too little
