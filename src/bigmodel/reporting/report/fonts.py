"""Fonts of pictures: Pillow's own for ASCII, and one of the machine's for letters that it lacks."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

_OF_MACHINES = (
    "DejaVuSans.ttf",
    "NotoSans-Regular.ttf",
    "LiberationSans-Regular.ttf",
    "Arial.ttf",
    "arial.ttf",
    "Arial Unicode.ttf",
    "NotoSansCJK-Regular.ttc",
    "PingFang.ttc",
    "msyh.ttc",
)
_NO_LETTER = "\uffff"  # never has a glyph: fonts draw a box for it


def font_for(text: str, size: float) -> Any:
    """A font that has all letters of a text, if there is one. Needs Pillow.

    Args:
        size: in pixels.
    """
    from PIL import ImageFont

    return next((font for font in _fonts(size) if not _lacks(font, text)), ImageFont.load_default(size))


@lru_cache(maxsize=32)
def _fonts(size: float) -> list[Any]:
    from PIL import ImageFont

    found: list[Any] = [ImageFont.load_default(size)]
    for name in _OF_MACHINES:
        try:
            found.append(ImageFont.truetype(name, size))
        except OSError:  # there is no such font
            continue
    return found


def _lacks(font: Any, text: str) -> bool:
    return any(not letter.isspace() and not _has(font, letter) for letter in set(text))


@lru_cache(maxsize=4096)
def _has(font: Any, letter: str) -> bool:
    if letter.isascii():
        return True
    return _drawn(font, letter) != _drawn(font, _NO_LETTER)


def _drawn(font: Any, letter: str) -> tuple[Any, bytes]:
    mask = font.getmask(letter)
    return mask.size, bytes(mask)
