"""Curves and areas are those of scikit-learn."""

import numpy as np
import pytest
from sklearn import metrics
from sklearn.calibration import calibration_curve

from bigmodel.reporting.report.score_curves import (
    calibration_error,
    precision_recall_curve,
    reliability_bins,
    roc_curve,
)


def scored(samples: int, levels: int | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Scores that say something of the truth; `levels`: how many values they have, for ties."""
    draw = np.random.default_rng(samples)
    positive = draw.random(samples) < 0.3
    scores = np.clip(0.3 * positive + 0.7 * draw.random(samples), 0, 1)
    return (scores if levels is None else np.round(scores * levels) / levels), positive


@pytest.mark.parametrize("levels", [None, 8, 1], ids=str)
def test_roc_is_scikit_learns(levels: int | None) -> None:
    scores, positive = scored(1000, levels)
    curve = roc_curve(scores, positive)
    assert curve is not None
    x, y, _ = metrics.roc_curve(positive, scores, drop_intermediate=False)
    np.testing.assert_allclose(curve.x, x, atol=1e-12)
    np.testing.assert_allclose(curve.y, y, atol=1e-12)
    assert curve.area == pytest.approx(metrics.roc_auc_score(positive, scores), abs=1e-12)


@pytest.mark.parametrize("levels", [None, 8, 1], ids=str)
def test_precision_is_scikit_learns(levels: int | None) -> None:
    scores, positive = scored(1000, levels)
    curve = precision_recall_curve(scores, positive)
    assert curve is not None
    precision, recall, _ = metrics.precision_recall_curve(positive, scores)
    np.testing.assert_allclose(curve.x[1:], recall[-2::-1], atol=1e-12)
    np.testing.assert_allclose(curve.y[1:], precision[-2::-1], atol=1e-12)
    assert curve.area == pytest.approx(metrics.average_precision_score(positive, scores), abs=1e-12)


def test_curves_of_one_kind_are_undefined() -> None:
    scores = np.array([0.1, 0.7])
    assert roc_curve(scores, np.array([True, True])) is None
    assert roc_curve(scores, np.array([False, False])) is None
    assert roc_curve(scores[:0], np.array([], bool)) is None
    assert precision_recall_curve(scores, np.array([False, False])) is None
    every = precision_recall_curve(scores, np.array([True, True]))
    assert every is not None
    assert every.area == 1.0


def test_bins_are_scikit_learns() -> None:
    scores, positive = scored(2000)
    bins = reliability_bins(scores, positive)
    share, confidence = calibration_curve(positive, scores, n_bins=10)
    assert [each.share for each in bins] == pytest.approx(share)
    assert [each.confidence for each in bins] == pytest.approx(confidence)
    assert sum(each.count for each in bins) == 2000


def test_the_calibration_error_is_a_mean_over_samples() -> None:
    """Three samples of probability 0.85, one of them right, and one of 1.0, right."""
    bins = reliability_bins(np.array([0.85, 0.85, 0.85, 1.0]), np.array([True, False, False, True]))
    assert [(each.low, each.high, each.count) for each in bins] == [(0.8, 0.9, 3), (0.9, 1.0, 1)]
    assert calibration_error(bins) == pytest.approx(0.75 * (0.85 - 1 / 3))
