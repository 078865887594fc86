"""Texts whose pieces are coloured by a number: blue speaks for something, orange against it."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from bigmodel.reporting.html_text import LIGHT, html_text
from bigmodel.reporting.report.fonts import font_for
from bigmodel.runtime.escaping import escape_line

_STRONGEST = 0.7  # opacity of the largest number: letters stay legible on it
_FOR, _AGAINST = "c0", "c1"

_LONGEST = 40  # letters that are never broken over lines
_SCALE, _SIZE, _LINE, _WIDTH, _MARGIN = 2, 14, 23, 760, 12  # pixels of a PNG file


@dataclass(frozen=True)
class ColouredText:
    """A text with a number for each piece.

    Attributes:
        pieces: the text, in pieces.
        values: of each piece; NaN: it was not looked at.
        caption: what is said of the text, in one line.
    """

    pieces: Sequence[str]
    values: Sequence[float]
    caption: str = ""

    @property
    def shades(self) -> list[float]:
        """The numbers, as shares of the largest: -1 to 1."""
        known = [abs(value) for value in self.values if value == value]
        largest = max([*known, 1e-12])
        return [value / largest if value == value else 0.0 for value in self.values]


def html_of(text: ColouredText) -> str:
    """The text as HTML; each piece tells its number, if it has one, when it is pointed at."""
    spans = []
    for piece, value, shade in zip(text.pieces, text.values, text.shades, strict=True):
        colour, share = _FOR if shade > 0 else _AGAINST, round(100 * _STRONGEST * abs(shade))
        shown = "\n".join(html_text(line) for line in piece.replace("\t", "    ").split("\n"))
        mixed = f"color-mix(in srgb,var(--{colour}) {share}%,transparent)"
        said = f' title="{value:+.4g}"' if value == value else ""
        spans.append(f'<span style="background:{mixed}"{said}>{shown}</span>')
    return "".join(spans)


def png_of(texts: Sequence[ColouredText]) -> bytes:
    """Texts below each other, as a PNG file in light colours. Needs Pillow."""
    from PIL import Image, ImageDraw

    placed, lines = _placed(texts)
    height = _SCALE * (2 * _MARGIN + _LINE * max(1, lines))
    picture = Image.new("RGB", (_SCALE * _WIDTH, height), LIGHT["paper"])
    draw = ImageDraw.Draw(picture)
    for part in placed:
        left, top = part.x + _SCALE * _MARGIN, _SCALE * (_MARGIN + _LINE * part.line)
        if part.shade is not None:
            corners = (left, top + _SCALE, left + part.width, top + _SCALE * (_LINE - 1))
            draw.rectangle(corners, mixed_colour(part.shade))
        ink = LIGHT["faint" if part.shade is None else "ink"]
        draw.text((left, top + _SCALE * _LINE / 2), part.letters, ink, part.font, "lm")
    file = io.BytesIO()
    picture.save(file, "PNG")
    return file.getvalue()


class _Part(NamedTuple):
    """Letters at a place of a line; `shade` is None for captions."""

    x: float
    line: int
    width: float
    letters: str
    font: Any
    shade: float | None


def _placed(texts: Sequence[ColouredText]) -> tuple[list[_Part], int]:
    """Where everything stands, and how many lines there are."""
    placed: list[_Part] = []
    line, room = 0, _SCALE * (_WIDTH - 2 * _MARGIN)
    for text in texts:
        if text.caption:
            caption = escape_line(text.caption)
            font = font_for(caption, _SCALE * (_SIZE - 2))
            placed.append(_Part(0, line, 0, caption, font, None))
            line += 1
        x = 0.0
        for piece, shade in zip(text.pieces, text.shades, strict=True):
            for letters in _breakable(piece):
                font = font_for(letters, _SCALE * _SIZE)
                width = font.getlength(letters)
                if letters == "\n" or (x > 0 and x + width > room):
                    x, line = 0.0, line + 1
                if letters != "\n":
                    placed.append(_Part(x, line, width, letters, font, shade))
                    x += width
        line += 2
    return placed, line - 1


def mixed_colour(shade: float) -> tuple[int, int, int]:
    """The background of a piece, on white paper.

    Args:
        shade: -1 to 1.
    """
    over, under = LIGHT[_FOR if shade > 0 else _AGAINST], LIGHT["paper"]
    share = _STRONGEST * abs(shade)
    pairs = ((int(over[i : i + 2], 16), int(under[i : i + 2], 16)) for i in (1, 3, 5))
    red, green, blue = (round(a * share + b * (1 - share)) for a, b in pairs)
    return red, green, blue


def _breakable(piece: str) -> list[str]:
    """A piece in parts, none of which is broken over lines; line ends are parts of their own."""
    parts: list[str] = []
    for number, line in enumerate(piece.replace("\t", "    ").split("\n")):
        if number:
            parts.append("\n")
        words = line.split(" ")
        spaced = [*(f"{word} " for word in words[:-1]), words[-1]]
        parts += [
            escape_line(part[first : first + _LONGEST])
            for part in spaced
            for first in range(0, len(part), _LONGEST)
        ]
    return parts
