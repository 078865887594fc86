"""The charts of finders: where things lie, and curves that are short, flat or explode."""

import re
from itertools import pairwise

import pytest

from bigmodel.reporting.report.drawing import Dots, Drawing, Path, Words
from bigmodel.reporting.report.finder_charts import batch_size_chart, range_test_chart

RATES = [10.0**k for k in range(-6, 2)]


def line(drawing: Drawing) -> Path:
    (found,) = [s for s in drawing.shapes if isinstance(s, Path) and s.colour == "c0"]
    return found


def words(drawing: Drawing) -> list[str]:
    return [shape.text for shape in drawing.shapes if isinstance(shape, Words)]


def test_rates_are_evenly_spaced_and_the_suggestion_stands_at_its_place() -> None:
    losses = [2.0, 2.0, 1.9, 1.0, 0.3, 0.6, 1.8, 1.9]
    drawing = range_test_chart(RATES, losses, losses, 1e-2)
    across = [x for x, _ in line(drawing).points]
    gaps = [b - a for a, b in pairwise(across)]
    assert gaps == pytest.approx([gaps[0]] * len(gaps))
    (mark,) = [s for s in drawing.shapes if isinstance(s, Path) and s.colour == "c1"]
    assert mark.points[0][0] == pytest.approx(across[4])
    assert "0.01" in words(drawing)
    assert "1e-06" in words(drawing)
    assert "suggested: 0.01" in drawing.description


def test_a_loss_that_explodes_does_not_flatten_the_rest() -> None:
    smoothed = [2.0, 2.0, 1.9, 1.0, 0.3, 0.6, 1e6, 1e9]
    heights = [y for _, y in line(range_test_chart(RATES, smoothed, smoothed, None)).points]
    assert max(heights[:5]) - min(heights[:5]) > 100
    assert all(0 <= height <= 230 for height in heights)


@pytest.mark.parametrize("losses", [[1.0], [1.0, 1.0], [float(k) for k in range(8)]])
def test_short_flat_and_rising_curves_are_drawn(losses: list[float]) -> None:
    drawing = range_test_chart(RATES[: len(losses)], losses, losses, None)
    assert re.match("<svg ", drawing.svg())
    assert "none is suggested" in drawing.description


def test_speeds_are_drawn_over_sizes() -> None:
    drawing = batch_size_chart([(1, 10.0), (2, 19.0), (4, 30.0)], "samples")
    (dots,) = [shape for shape in drawing.shapes if isinstance(shape, Dots)]
    (one, _), (two, _), (four, _) = dots.points
    assert two - one == pytest.approx(four - two)
    assert drawing.title == "Samples per second"
    assert batch_size_chart([(1, 10.0)], "tokens").svg()
