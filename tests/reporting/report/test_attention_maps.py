"""Attention maps and the logit lens, drawn."""

import base64
import io
import re
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image

from bigmodel.reporting.html_text import LIGHT
from bigmodel.reporting.report.attention_maps import LensView, Panel, attention_maps, logit_lens
from bigmodel.reporting.report.drawing import Drawing, Picture
from bigmodel.reporting.report.raster import SCALE, png_of_drawing

EVIL = "</svg><script>"


def panel(queries: int, keys: int) -> Panel:
    weights = np.zeros((queries, keys))
    weights[:, 0] = 1.0
    labels = [EVIL, "\n", " ", *map(str, range(max(queries, keys)))]
    return Panel("blocks.0, head 0", weights, labels[:queries], labels[:keys])


LENS = LensView(
    ["embedding", "block 1"],
    ["a", EVIL, "c"],
    [EVIL, "c", ""],
    [["x", "c", " "], [EVIL, "c", "\n"]],
    np.array([[0.1, 0.9, 0.2], [0.5, 1.0, 0.0]]),
    np.array([[False, True, False], [True, True, False]]),
)
DRAWINGS = {
    "one": attention_maps("Attention", [[panel(3, 3)]]),
    "a translation": attention_maps("Attention", [[panel(3, 3)] * 2, [panel(5, 3)] * 2]),
    "long texts": attention_maps("Attention", [[panel(200, 200)] * 4]),
    "many heads": attention_maps("Attention", [[panel(30, 30)] * 12] * 12),
    "lens": logit_lens("What each layer would write next", LENS),
}


@pytest.mark.parametrize("name", DRAWINGS)
def test_drawings_are_svg_and_png_and_nothing_lies_outside(name: str) -> None:
    drawing = DRAWINGS[name]
    svg = drawing.svg()
    assert "<script>" not in svg
    ElementTree.fromstring(svg.replace("<svg", '<svg xmlns="http://www.w3.org/2000/svg"', 1))
    for shape in drawing.shapes:
        if isinstance(shape, Picture):
            assert shape.x >= 0
            assert shape.x + shape.width <= drawing.width
            assert shape.y + shape.height <= drawing.height
    with Image.open(io.BytesIO(png_of_drawing(drawing))) as picture:
        assert picture.size == (round(SCALE * drawing.width), round(SCALE * drawing.height))
        assert max(picture.size) < 8000


def pixel(drawing: Drawing, x: float, y: float) -> object:
    with Image.open(io.BytesIO(png_of_drawing(drawing))) as picture:
        return picture.getpixel((round(SCALE * x), round(SCALE * y)))


def test_a_weight_of_one_is_dark_and_of_none_is_paper() -> None:
    drawing = DRAWINGS["one"]
    (shape,) = (shape for shape in drawing.shapes if isinstance(shape, Picture))
    cell = shape.width / 3
    middle = shape.y + shape.height / 2
    full = tuple(int(LIGHT["c0"][i : i + 2], 16) for i in (1, 3, 5))
    assert pixel(drawing, shape.x + cell / 2, middle) == full
    assert pixel(drawing, shape.x + 1.5 * cell, middle) == (255, 255, 255)


def test_a_picture_in_svg_has_a_pixel_for_each_weight() -> None:
    (data,) = re.findall(r'href="data:image/png;base64,([^"]*)"', DRAWINGS["long texts"].svg())[:1]
    with Image.open(io.BytesIO(base64.b64decode(data))) as picture:
        assert picture.size == (200, 200)
        assert picture.mode == "RGBA"


def test_blanks_are_seen_and_what_comes_true_is_framed() -> None:
    words = re.findall(r"<text[^>]*>([^<]*)</text>", DRAWINGS["lens"].svg())
    assert {"_", "\\n"} <= set(words)
    assert DRAWINGS["lens"].svg().count('stroke="var(--good)"') == 3
    assert words.index("block 1") > words.index("embedding")
