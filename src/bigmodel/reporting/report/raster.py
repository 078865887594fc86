"""PNG files: drawings painted with Pillow, and arrays of pixels without it."""

from __future__ import annotations

import io
import itertools
import struct
import zlib
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bigmodel.reporting.html_text import LIGHT
from bigmodel.reporting.report.drawing import Box, Dots, Drawing, Path, Picture, Words
from bigmodel.reporting.report.fonts import font_for
from bigmodel.runtime.escaping import escape_line

SCALE = 3
"""Pixels of a file for one of a drawing."""

Colour = tuple[int, int, int]


def png_of_pixels(pixels: NDArray[np.uint8]) -> bytes:
    """A PNG file: (height, width) grey, or (height, width, 3) red, green and blue, or 4 with opacity.

    Source: PNG specification, third edition, https://www.w3.org/TR/png-3/.
    """
    height, width = pixels.shape[:2]
    rows = np.ascontiguousarray(pixels).reshape(height, -1)
    unfiltered = np.concatenate([np.zeros((height, 1), np.uint8), rows], axis=1)
    kind = {3: 2, 4: 6}[pixels.shape[2]] if pixels.ndim == 3 else 0
    head = struct.pack(">IIBBBBB", width, height, 8, kind, 0, 0, 0)
    data = zlib.compress(unfiltered.tobytes(), 9)
    return b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", head) + _chunk(b"IDAT", data) + _chunk(b"IEND", b"")


def _chunk(kind: bytes, content: bytes) -> bytes:
    return (
        struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
    )


def png_of_drawing(drawing: Drawing) -> bytes:
    """A drawing in the light colours, as a PNG file. Needs Pillow."""
    from PIL import Image, ImageDraw

    size = (round(drawing.width * SCALE), round(drawing.height * SCALE))
    picture = Image.new("RGB", size, LIGHT["paper"])
    for shape in drawing.shapes:
        draw = ImageDraw.Draw(picture)
        match shape:
            case Path():
                _paint_path(draw, shape)
            case Dots(points=points, diameter=diameter):
                radius, colour = diameter / 2, _mixed(shape.colour, min(1.0, shape.opacity + 0.2))
                for x, y in points:
                    corners = (x - radius, y - radius, x + radius, y + radius)
                    draw.ellipse([SCALE * corner for corner in corners], fill=colour)
            case Box(x=x, y=y, width=width, height=height):
                corners = (x, y, max(x, x + width - 1 / SCALE), max(y, y + height - 1 / SCALE))
                colour = _mixed(shape.colour, shape.opacity)
                draw.rectangle([SCALE * corner for corner in corners], fill=colour)
            case Picture():
                _paint_picture(picture, shape)
            case Words():
                _paint_words(picture, draw, shape)
    file = io.BytesIO()
    picture.save(file, "PNG")
    return file.getvalue()


def _paint_path(draw: Any, path: Path) -> None:
    points = [(SCALE * x, SCALE * y) for x, y in path.points]
    if path.filled:
        draw.polygon(points, fill=_mixed(path.colour, path.opacity))
        return
    pieces = _dashes(points) if path.dashed else [points]
    for piece in pieces:
        draw.line(piece, fill=LIGHT[path.colour], width=max(1, round(path.width * SCALE)), joint="curve")


def _paint_picture(canvas: Any, picture: Picture) -> None:
    from PIL import Image

    place = [round(SCALE * each) for each in (picture.x, picture.y, picture.width, picture.height)]
    how = Image.Resampling.BICUBIC if picture.smooth else Image.Resampling.NEAREST
    with Image.open(io.BytesIO(picture.png)) as image:
        own = image.convert("RGBA").resize((max(1, place[2]), max(1, place[3])), how)
    canvas.paste(own, place[:2], own)


def _dashes(points: list[tuple[float, float]], on: float = 5, off: float = 3) -> list[Any]:
    """The pieces of a line that a dashed one shows."""
    found, travelled, period = [], 0.0, SCALE * (on + off)
    for (x, y), (to_x, to_y) in itertools.pairwise(points):
        length = float(np.hypot(to_x - x, to_y - y))
        at = 0.0
        while at < length:
            phase = (travelled + at) % period
            drawn = phase < SCALE * on
            # at least a step, or rounding could keep it where it is
            end = min(length, at + max(1e-3, (SCALE * on if drawn else period) - phase))
            if drawn:
                found.append(
                    [
                        (x + (to_x - x) * part / length, y + (to_y - y) * part / length)
                        for part in (at, end)
                    ]
                )
            at = end
        travelled += length
    return found


def _paint_words(picture: Any, draw: Any, words: Words) -> None:
    from PIL import Image, ImageDraw

    text, ink = escape_line(words.text), LIGHT[words.colour]
    font = font_for(text, words.size * SCALE)
    bold = {"stroke_width": 1, "stroke_fill": ink} if words.bold else {}
    anchor = {"start": "lm", "middle": "mm", "end": "rm"}[words.anchor]
    if not words.upwards:
        draw.text((SCALE * words.x, SCALE * words.y), text, fill=ink, font=font, anchor=anchor, **bold)
        return
    width, height = round(font.getlength(text)) + 2, round(1.5 * words.size * SCALE)
    strip = Image.new("L", (width, height), 0)
    ImageDraw.Draw(strip).text((1, height // 2), text, fill=255, font=font, anchor="lm")
    mask = strip.transpose(Image.Transpose.ROTATE_90)
    before = {"start": width, "middle": width // 2, "end": 0}[words.anchor]
    corner = (round(SCALE * words.x) - height // 2, round(SCALE * words.y) - before)
    picture.paste(Image.new("RGB", mask.size, ink), corner, mask)


def _mixed(name: str, opacity: float) -> Colour:
    """A colour over the paper's."""
    over, under = ([int(LIGHT[n][i : i + 2], 16) for i in (1, 3, 5)] for n in (name, "paper"))
    red, green, blue = (round(a * opacity + b * (1 - opacity)) for a, b in zip(over, under, strict=True))
    return red, green, blue
