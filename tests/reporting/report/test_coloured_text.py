"""Texts coloured by numbers: as HTML, as a picture, and in a terminal."""

import io
import math
import re
from html import unescape

import pytest
from PIL import Image

from bigmodel.reporting.html_text import LIGHT
from bigmodel.reporting.report.coloured_text import ColouredText, html_of, mixed_colour, png_of
from bigmodel.reporting.report.content import ColouredTexts, RunReport, Section
from bigmodel.reporting.report.page import page
from bigmodel.reporting.text_colours import print_table, print_texts

EVIL = '"><script>alert(1)</script>'
TEXT = ColouredText(["good", " ", "b&d\n", EVIL], [2.0, math.nan, -1.0, 0.0], f"caption {EVIL}")


def test_html_shows_the_text_with_a_colour_and_a_number_for_each_piece() -> None:
    html = html_of(TEXT)
    assert unescape(re.sub("<[^>]*>", "", html)) == "".join(TEXT.pieces)
    shares = re.findall(r"var\(--(c\d)\) (\d+)%", html)
    assert shares == [("c0", "70"), ("c1", "0"), ("c1", "35"), ("c1", "0")]
    assert re.findall('title="([^"]*)"', html) == ["+2", "-1", "+0"]  # none of what was not looked at
    whole = page([RunReport("run", "title", [Section("Why", [ColouredTexts([TEXT])])])])
    assert "<script>" not in html + whole
    assert html in whole


def test_the_largest_number_has_the_strongest_colour_whatever_its_sign() -> None:
    assert TEXT.shades == [1.0, 0.0, -0.5, 0.0]
    assert ColouredText(["a"], [0.0]).shades == [0.0]
    assert mixed_colour(0.0) == (255, 255, 255)
    assert mixed_colour(1.0)[2] > mixed_colour(1.0)[0]
    assert mixed_colour(-1.0)[0] > mixed_colour(-1.0)[2]
    blue = int(LIGHT["c0"][5:], 16)
    assert blue < mixed_colour(1.0)[2] < mixed_colour(0.5)[2] < 255


def test_a_picture_has_the_colours_and_breaks_lines() -> None:
    with Image.open(io.BytesIO(png_of([TEXT]))) as picture:
        short = picture.height
        colours = {colour for _, colour in picture.convert("RGB").getcolors(1 << 20) or []}
    assert {mixed_colour(1.0), mixed_colour(-0.5)} <= colours
    long = ColouredText([*("word " for _ in range(200)), "x" * 300], [1.0] * 201)
    with Image.open(io.BytesIO(png_of([TEXT, long]))) as picture:
        assert picture.height > 3 * short
        assert picture.getpixel((picture.width - 1, picture.height // 2)) == (255, 255, 255)


@pytest.mark.parametrize("pieces", [[], [""], ["\n\n"]])
def test_texts_of_nothing_are_drawn(pieces: list[str]) -> None:
    text = ColouredText(pieces, [0.0] * len(pieces))
    assert png_of([text])
    assert html_of(text).count("<span") == len(pieces)


class Terminal(io.StringIO):
    encoding = "utf-8"

    def isatty(self) -> bool:
        return True


def test_a_terminal_gets_the_text_in_colours_and_no_control_characters_of_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLORTERM", "truecolor")
    monkeypatch.delenv("NO_COLOR", raising=False)
    stream = Terminal()
    print_texts(stream, [ColouredText(["fine", "\x1b[31m"], [1.0, -1.0], "what")])
    plain = re.sub(r"\x1b\[[\d;]*m", "", stream.getvalue())
    assert plain == "what\nfine\\x1b[31m\n\n"
    red, green, blue = mixed_colour(1.0)
    assert f"48;2;{red};{green};{blue}m" in stream.getvalue()


def test_a_table_below_shows_names_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "60")
    stream = Terminal()
    print_table(stream, ["word", "times"], [["a\nb[red]", "3"]], ["times"])
    assert "a\\nb[red]" in stream.getvalue()
