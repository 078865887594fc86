"""Letters of pictures that Pillow's own font lacks."""

import pytest
from PIL import ImageFont

from bigmodel.reporting.report import fonts


def test_ascii_is_drawn_with_pillows_own_font_on_every_machine() -> None:
    assert fonts.font_for("plain words, 1.5", 20).getname() == ImageFont.load_default(20).getname()


def test_letters_that_it_lacks_are_looked_for_in_the_machines_fonts(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(fonts, "_fonts", lambda _: ["own", "of the machine", "another"])
    monkeypatch.setattr(fonts, "_lacks", lambda font, text: font == "own" and "ä" in text)
    assert fonts.font_for("a", 20) == "own"
    assert fonts.font_for("ä", 20) == "of the machine"


def test_without_such_a_font_there_are_boxes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fonts, "_OF_MACHINES", ())
    fonts._fonts.cache_clear()
    own = ImageFont.load_default(21)
    assert fonts._lacks(own, "fährt")
    assert not fonts._lacks(own, "a b\tc")
    assert fonts.font_for("fährt", 21).getname() == own.getname()
    fonts._fonts.cache_clear()
