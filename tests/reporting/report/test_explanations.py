"""Drawings of explanations: what is seen is what was computed."""

import io

import numpy as np
import pytest
from PIL import Image

from bigmodel.reporting.html_text import LIGHT
from bigmodel.reporting.report.drawing import Box, Picture, Words
from bigmodel.reporting.report.explanations import MOST_BARS, bars, dependence, over_picture, over_steps
from bigmodel.reporting.report.raster import SCALE, png_of_drawing


def pixels(png: bytes) -> np.ndarray:
    with Image.open(io.BytesIO(png)) as image:
        return np.asarray(image.convert("RGB")).astype(int)


def colour(name: str) -> list[int]:
    return [int(LIGHT[name][at : at + 2], 16) for at in (1, 3, 5)]


def test_bars_are_as_long_as_their_numbers_on_either_side_of_zero() -> None:
    drawing = bars(
        "t", ["a", "<b>"], np.array([2.0, -1.0]), "x", np.array([1.0, -2.0]), np.array([3.0, 0.0])
    )
    first, second = (shape for shape in drawing.shapes if isinstance(shape, Box))
    assert first.width == pytest.approx(2 * second.width)
    assert second.x + second.width == pytest.approx(first.x)  # zero
    assert (first.colour, second.colour) == ("c0", "c1")
    assert first.title == "a: 2, from 1 to 3"
    assert "&lt;b&gt;" in drawing.svg()
    assert "<b>" not in drawing.svg()


def test_few_of_many_bars_are_drawn_and_all_zero_is_no_fault() -> None:
    drawing = bars("t", [f"n{n}" for n in range(99)], np.zeros(99), "x", np.full(99, np.nan))
    assert sum(isinstance(shape, Box) for shape in drawing.shapes) == MOST_BARS


def test_a_bar_that_is_not_defined_says_so() -> None:
    undefined = np.array([np.nan, 2.0])
    drawing = bars("t", ["a", "b"], undefined, "x", np.full(2, np.nan), np.full(2, np.nan))
    first, second = (shape for shape in drawing.shapes if isinstance(shape, Box))
    assert (first.title, first.width, second.title) == ("a: not defined", 0.0, "b: 2")
    assert "nan" not in drawing.svg().lower()
    assert "nan" not in bars("t", ["a"], undefined[:1], "x").svg().lower()


def test_pixels_have_the_colour_of_what_they_speak_for() -> None:
    values = np.zeros((2, 2))
    values[0, 0], values[1, 1] = 1.0, -1.0
    drawing = over_picture("t", np.full((2, 2), 255, np.uint8), values)
    _, heat, _ = (shape for shape in drawing.shapes if isinstance(shape, Picture))
    small = pixels(heat.png)
    assert small[0, 0].tolist() == colour("c0")
    assert small[1, 1].tolist() == colour("c1")
    assert small[0, 1].tolist() == [255, 255, 255]
    painted = pixels(png_of_drawing(drawing))
    at = [round(SCALE * each) for each in (heat.y + 5, heat.x + 5)]
    assert painted[at[0], at[1]].tolist() == colour("c0")
    assert 'image-rendering:pixelated" href="data:image/png;base64,' in drawing.svg()


def test_steps_finer_than_pixels_are_added_up() -> None:
    series, values = np.zeros((9200, 1)), np.zeros((9200, 1))
    values[:40] = 1.0
    drawing = over_steps("t", series, values)
    strip = next(shape for shape in drawing.shapes if isinstance(shape, Picture))
    assert pixels(strip.png)[0, 0].tolist() == colour("c0")
    assert pixels(strip.png).shape == (1, 230, 3)


def test_categories_are_named_below_their_dots() -> None:
    means = np.array([1.0, 2.0])
    drawing = dependence("city", "price", ["Rome", "Oslo"], (), means, means - 0.5, means + 0.5)
    assert {"Rome", "Oslo"} <= {shape.text for shape in drawing.shapes if isinstance(shape, Words)}
    assert drawing.description == "Rome: 1; Oslo: 2"


@pytest.mark.parametrize("count", [8, 20])
def test_dates_below_their_dots_are_told_apart(count: int) -> None:
    dates = [f"20{10 + n}-0{1 + n % 9}-15" for n in range(count)]
    means = np.linspace(0, 1, count)
    drawing = dependence("when", "price", dates, (), means, means, means)
    shown = [s.text for s in drawing.shapes if isinstance(s, Words) and s.text.startswith("20")]
    assert len(shown) >= 2
    assert len(set(shown)) == len(shown)
    assert all(text.removesuffix("…") != "201" for text in shown)
