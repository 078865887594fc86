"""What charts show, as SVG and as PNG."""

import io
import re
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image

from bigmodel.reporting.html_text import DARK, LIGHT
from bigmodel.reporting.report import charts
from bigmodel.reporting.report.axes import Series, tick_text, ticks
from bigmodel.reporting.report.drawing import Box, Drawing, Path, Words, shortened, text_width
from bigmodel.reporting.report.raster import SCALE, png_of_drawing, png_of_pixels
from bigmodel.reporting.report.score_curves import Bin, Curve

EVIL = '</svg><script>alert("1")</script>'
DRAW = np.random.default_rng(0)
DRAWINGS = {
    "curves": charts.learning_curves(
        f"loss {EVIL}",
        [Series(f"train {EVIL}", [(1, 2.0), (2, 1.0)], 1, True), Series("val", [(1, 2.5), (2, 0.01)])],
        log=True,
    ),
    "one record": charts.learning_curves("loss", [Series("val", [(1, 2.0)])]),
    "roc": charts.score_curves("ROC", [(EVIL, Curve([0, 0.2, 1], [0, 0.9, 1], 0.85))], roc=True),
    "precision": charts.score_curves("PR", [("a", Curve([0, 1], [1, 0.5], 0.8))], roc=False),
    "reliability": charts.reliability("Calibration", [Bin(0.5, 0.6, 0.55, 0.4, 7)], ("said", "so")),
    "scatter": charts.scatter(
        EVIL, DRAW.normal(size=50), DRAW.normal(size=50), ("x", "y"), diagonal=True
    ),
    "equal values": charts.scatter("s", np.ones(3), np.ones(3), ("x", "y"), diagonal=False),
    "histogram": charts.histogram("h", DRAW.normal(size=500), "residual"),
    "one value": charts.histogram("h", np.zeros(3), "residual"),
    "confusion": charts.confusion_matrix("c", np.array([[3, 1], [0, 12_345]]), ["a", EVIL]),
    "long names": charts.confusion_matrix("c", np.eye(3, dtype=np.int64), ["x" * 90, "漢字" * 30, "é"]),
    "many classes": charts.confusion_matrix(
        "c", np.eye(90, dtype=np.int64), [str(number) for number in range(90)]
    ),
    "sparkline": charts.sparkline(EVIL, DRAW.normal(size=(500, 2))),
}


@pytest.mark.parametrize("name", DRAWINGS)
def test_a_drawing_is_well_formed_and_says_what_it_is(name: str) -> None:
    drawing = DRAWINGS[name]
    root = ElementTree.fromstring(drawing.svg())
    assert root.attrib["role"] == "img"
    assert root[0].tag == "title"
    assert root[0].text == drawing.title
    assert "script" not in {element.tag for element in root.iter()}
    assert "nan" not in drawing.svg()
    assert "inf" not in re.sub(r">[^<]*<", "", drawing.svg())


@pytest.mark.parametrize("name", DRAWINGS)
def test_a_drawing_stays_inside_itself(name: str) -> None:
    drawing = DRAWINGS[name]
    for shape in drawing.shapes:
        if isinstance(shape, Path):
            assert all(-0.1 <= x <= drawing.width + 0.1 for x, _ in shape.points)
            assert all(-0.1 <= y <= drawing.height + 0.1 for _, y in shape.points)
        if isinstance(shape, Words) and not shape.upwards:
            width = text_width(shape.text, shape.size)
            left = shape.x - {"start": 0, "middle": width / 2, "end": width}[shape.anchor]
            assert left >= -2
            assert left + width <= drawing.width + 4


@pytest.mark.parametrize("name", DRAWINGS)
def test_a_drawing_is_painted(name: str) -> None:
    drawing = DRAWINGS[name]
    png = png_of_drawing(drawing)
    assert png == png_of_drawing(drawing)
    picture = Image.open(io.BytesIO(png))
    assert picture.size == (round(drawing.width * SCALE), round(drawing.height * SCALE))
    colours = picture.getcolors(1 << 16)
    assert colours is not None
    assert len(colours) > 2


def test_colours_are_there_in_light_and_dark() -> None:
    assert LIGHT.keys() == DARK.keys()
    used = {
        name for drawing in DRAWINGS.values() for name in re.findall(r"var\(--([\w-]+)\)", drawing.svg())
    }
    assert used <= LIGHT.keys()
    assert len(used) > 5


def test_a_box_has_its_colour_where_it_lies() -> None:
    drawing = Drawing(20, 10, "t")
    drawing.add(Box(10, 0, 10, 10, "cell"))
    picture = Image.open(io.BytesIO(png_of_drawing(drawing)))
    assert [picture.getpixel((SCALE * x, SCALE * 5)) for x in (5, 15)] == [
        (255, 255, 255),
        (47, 111, 179),
    ]


@pytest.mark.parametrize("shape", [(5, 7), (5, 7, 3)], ids=str)
def test_pixels_are_what_a_reader_finds(shape: tuple[int, ...]) -> None:
    pixels = DRAW.integers(0, 256, shape).astype(np.uint8)
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(png_of_pixels(pixels)))), pixels)


def test_the_counts_are_where_truth_and_prediction_meet() -> None:
    titles = [s.title for s in DRAWINGS["confusion"].shapes if isinstance(s, Box)]
    assert titles == [
        "truth a, prediction a: 3",
        f"truth a, prediction {EVIL}: 1",
        f"truth {EVIL}, prediction {EVIL}: 12,345",
    ]
    assert "12.3k" in DRAWINGS["confusion"].svg()


def test_ticks_are_round() -> None:
    assert ticks(0, 1) == pytest.approx([0, 0.2, 0.4, 0.6, 0.8, 1.0])
    assert [tick_text(value) for value in ticks(1000, 4900)] == ["1,000", "2,000", "3,000", "4,000"]
    assert [tick_text(value) for value in ticks(-0.02, 0.01, 3)] == ["-0.02", "-0.01", "0", "0.01"]
    assert tick_text(2_000_000) == "2e+06"


def test_thinning_keeps_extremes_and_ends() -> None:
    points = [(float(x), float(x % 7)) for x in range(5000)]
    points[1234] = (1234.0, 99.0)
    points[4321] = (4321.0, -99.0)
    thin = charts.thinned(points)
    assert len(thin) <= 320
    assert thin[0] == points[0]
    assert thin[-1] == points[-1]
    assert (1234.0, 99.0) in thin
    assert (4321.0, -99.0) in thin


def test_long_words_are_cut() -> None:
    assert shortened("short", 100) == "short"
    cut = shortened("a very long name of a class", 60)
    assert cut.endswith("…")
    assert text_width(cut) <= 60
