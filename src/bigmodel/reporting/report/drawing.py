"""Drawings of lines, areas and words, written as SVG text, with colours that follow the page's theme.

A drawing is a list of shapes in pixels, from the upper left corner. `raster` paints the same shapes with
Pillow.
"""

from __future__ import annotations

import base64
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from bigmodel.reporting.html_text import html_text

Point = tuple[float, float]
Anchor = Literal["start", "middle", "end"]

FONT_SIZE = 11.0
_DASH = "5 3"


@dataclass(frozen=True)
class Path:
    """A line through points, or an area; `colour` is one of `html_text.LIGHT`."""

    points: Sequence[Point]
    colour: str
    width: float = 1.0
    dashed: bool = False
    filled: bool = False
    opacity: float = 1.0


@dataclass(frozen=True)
class Box:
    """A filled rectangle; `title` says what it stands for."""

    x: float
    y: float
    width: float
    height: float
    colour: str
    opacity: float = 1.0
    title: str = ""


@dataclass(frozen=True)
class Dots:
    """Many equal dots."""

    points: Sequence[Point]
    colour: str
    diameter: float = 4.0
    opacity: float = 0.5


@dataclass(frozen=True)
class Words:
    """A line of text; `y` is the middle of its height. `upwards`: turned by 90 degrees around (x, y)."""

    x: float
    y: float
    text: str
    anchor: Anchor = "start"
    colour: str = "ink"
    size: float = FONT_SIZE
    upwards: bool = False
    bold: bool = False


@dataclass(frozen=True)
class Picture:
    """A PNG file, stretched over an area; `smooth`: its pixels may be blurred."""

    x: float
    y: float
    width: float
    height: float
    png: bytes
    smooth: bool = False


Shape = Path | Box | Dots | Words | Picture


@dataclass
class Drawing:
    """Shapes on an area of `width` × `height` pixels.

    Attributes:
        title: what it shows, in one line.
        description: what is to be seen, in words, for those who do not see it.
    """

    width: float
    height: float
    title: str
    description: str = ""
    shapes: list[Shape] = field(default_factory=list)

    def add(self, *shapes: Shape) -> None:
        """Puts shapes over those that are there."""
        self.shapes.extend(shapes)

    def svg(self) -> str:
        """The drawing as an `svg` element."""
        described = f"<desc>{html_text(self.description)}</desc>" if self.description else ""
        size = f"{_number(self.width)} {_number(self.height)}"
        # As wide as itself, and scrolled in a small window: letters stay legible.
        return (
            f'<svg viewBox="0 0 {size}" style="width:{_number(self.width)}px" role="img">'
            f"<title>{html_text(self.title)}</title>{described}{''.join(map(_svg, self.shapes))}</svg>"
        )


def text_width(text: str, size: float = FONT_SIZE) -> float:
    """About how many pixels a text takes."""
    wide = sum(unicodedata.east_asian_width(letter) in "WF" for letter in text)
    return size * (0.55 * (len(text) - wide) + wide)


def shortened(text: str, room: float, size: float = FONT_SIZE) -> str:
    """The text, cut to `room` pixels."""
    if text_width(text, size) <= room:
        return text
    while text and text_width(text + "…", size) > room:
        text = text[:-1]
    return text + "…"


def _number(value: float) -> str:
    """To a tenth of a pixel, in as few characters as possible."""
    text = f"{value:.1f}".removesuffix(".0")
    return "0" if text == "-0" else text


def _svg(shape: Shape) -> str:
    match shape:
        case Path():
            return _svg_path(shape)
        case Dots(points=points):
            # One path whose lines have no length, but round ends: a tenth of the bytes of circles.
            drawn = "".join(f"M{_number(x)} {_number(y)}h0" for x, y in points)
            return (
                f'<path d="{drawn}" stroke="var(--{shape.colour})" stroke-linecap="round"'
                f' stroke-width="{_number(shape.diameter)}" stroke-opacity="{shape.opacity:g}"/>'
            )
        case Box():
            opacity = "" if shape.opacity == 1 else f' fill-opacity="{shape.opacity:.3g}"'
            x, y, width, height = map(_number, (shape.x, shape.y, shape.width, shape.height))
            head = (
                f'<rect x="{x}" y="{y}" width="{width}" height="{height}" fill="var(--{shape.colour})"'
            )
            end = f"><title>{html_text(shape.title)}</title></rect>" if shape.title else "/>"
            return f"{head}{opacity}{end}"
        case Picture(png=png):
            corners = (shape.x, shape.y, shape.width, shape.height)
            x, y, width, height = map(_number, corners)
            look = "" if shape.smooth else ' style="image-rendering:pixelated"'
            return (
                f'<image x="{x}" y="{y}" width="{width}" height="{height}" preserveAspectRatio="none"'
                f'{look} href="data:image/png;base64,{base64.b64encode(png).decode()}"/>'
            )
        case Words():
            x, y = _number(shape.x), _number(shape.y)
            more = f' text-anchor="{shape.anchor}"' if shape.anchor != "start" else ""
            more += f' transform="rotate(-90 {x} {y})"' if shape.upwards else ""
            more += ' font-weight="600"' if shape.bold else ""
            more += f' font-size="{_number(shape.size)}"' if shape.size != FONT_SIZE else ""
            fill = f' fill="var(--{shape.colour})"' if shape.colour != "ink" else ""
            return f'<text x="{x}" y="{y}" dy=".35em"{more}{fill}>{html_text(shape.text)}</text>'


def _svg_path(path: Path) -> str:
    drawn = "M" + "L".join(f"{_number(x)} {_number(y)}" for x, y in path.points)
    colour = f"var(--{path.colour})"
    if path.filled:
        return f'<path d="{drawn}Z" fill="{colour}" fill-opacity="{path.opacity:.3g}"/>'
    dash = f' stroke-dasharray="{_DASH}"' if path.dashed else ""
    return (
        f'<path d="{drawn}" fill="none" stroke="{colour}" stroke-width="{path.width:g}"'
        f' stroke-linejoin="round"{dash}/>'
    )
