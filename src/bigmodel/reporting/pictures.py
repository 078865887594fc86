"""Pictures of an evaluation, drawn with Pillow: the confusion matrix, and samples with predictions.

TensorBoard shows them some 330 pixels wide and leaves out pixels instead of smoothing them. So they are
drawn about twice as large, with letters whose strokes outlast that.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence

import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from bigmodel.reporting.base import PredictedSample
from bigmodel.runtime.escaping import escape_line

INK, FAINT, PAPER = (32, 33, 36), (95, 99, 104), (255, 255, 255)
DEEP = (8, 69, 148)
RIGHT, WRONG, NEUTRAL = (19, 115, 51), (197, 34, 31), (200, 203, 208)
LABELLED = 30
"""Up to this many classes have names and counts in the matrix; more are shown by colour only."""

_SIDE = 480  # of the cells of a matrix, about
_NARROWEST, _WIDEST = 30, 120  # cell with a count
_LETTERS = 26  # points
_SAMPLE = 128  # pixels of the longer side of a sample's picture, at least
_FRAME, _CAPTION = 6, 28  # pixels around it, points of the words below

Font = ImageFont.FreeTypeFont | ImageFont.ImageFont


def confusion_matrix(counts: Tensor, names: Sequence[str]) -> Image.Image:
    """Draws a confusion matrix.

    Colours show the share of the row, that is of the samples of one true class, on a square-root scale
    that makes rare mistakes visible; the numbers are counts.

    Args:
        counts: (classes, classes), truth by prediction.
        names: of the classes.
    """
    size = counts.shape[0]
    labelled = size <= LABELLED
    cell = min(_WIDEST, max(_NARROWEST, _SIDE // size)) if labelled else max(2, _SIDE // size)
    axes = _font(_LETTERS)
    font = _font(min(_LETTERS, cell // 2))
    shown = [_shortened(name, font, 300) for name in names] if labelled else []
    longest = max((_width(name, font) for name in shown), default=0)
    flat = longest <= cell - 8  # names of columns fit above them; otherwise they are written upwards
    line = _height(font)
    left, top = _height(axes) + 24 + longest, _height(axes) + 20 + (line if flat else longest)
    side = cell * size
    key = 12 if labelled else 170  # room for the key to the colours, which counts make needless
    width = max(left + side + key, left + _width("prediction", axes) + 12)
    picture = Image.new("RGB", (width, top + max(side, _width("truth", axes)) + 12), PAPER)
    draw = ImageDraw.Draw(picture)
    counts = counts.to("cpu", torch.float64)
    shares = counts / counts.sum(dim=1, keepdim=True).clamp(min=1)
    picture.paste(_coloured(shares).resize((side, side), Image.Resampling.NEAREST), (left, top))
    if labelled:
        _write_counts(draw, counts, shares, left, top, cell)
        _write_names(picture, draw, shown, left, top, cell, font, flat)
    draw.rectangle((left - 3, top - 3, left + side + 2, top + side + 2), outline=FAINT, width=3)
    draw.text((left, 4), "prediction", fill=FAINT, font=axes)
    _write_upwards(picture, "truth", (4, top), axes, FAINT, anchor_top=True)
    if not labelled:
        _write_scale(picture, draw, left + side + 30, top, axes)
    return picture


def is_image(inputs: Tensor) -> bool:
    """Whether one sample's inputs have the shape (channels, height, width)."""
    return inputs.dim() == 3


def sample_grid(samples: Sequence[PredictedSample]) -> Image.Image:
    """Draws images in rows of four (eight if there are many), each with its prediction below it.

    A green frame means right; a red one wrong, with the truth in words.

    Args:
        samples: inputs of shape (channels, height, width), 0 to 1.
    """
    columns = min(4 if len(samples) <= 16 else 8, len(samples))
    pictures = [_sample_picture(torch.as_tensor(sample.inputs)) for sample in samples]
    width = max(_SAMPLE, *(picture.width for picture in pictures)) + 32
    height = max(picture.height for picture in pictures) + 2 * _height(_font(_CAPTION)) + 28
    rows = math.ceil(len(samples) / columns)
    grid = Image.new("RGB", (columns * width + 16, rows * height + 8), PAPER)
    draw = ImageDraw.Draw(grid)
    for index, (sample, picture) in enumerate(zip(samples, pictures, strict=True)):
        row, column = divmod(index, columns)
        x, y = 16 + column * width, 16 + row * height
        _place(grid, draw, sample, picture, (x, y), width - 10)
    return grid


def _place(
    grid: Image.Image,
    draw: ImageDraw.ImageDraw,
    sample: PredictedSample,
    picture: Image.Image,
    corner: tuple[int, int],
    room: int,
) -> None:
    x, y = corner
    colour = {True: RIGHT, False: WRONG, None: NEUTRAL}[sample.correct]
    draw.rectangle(
        (x, y, x + picture.width + 2 * _FRAME - 1, y + picture.height + 2 * _FRAME - 1), fill=colour
    )
    grid.paste(picture, (x + _FRAME, y + _FRAME))
    font, below = _font(_CAPTION), y + picture.height + 2 * _FRAME
    ink = INK if sample.correct is None else colour
    draw.text((x, below), _shortened(sample.prediction, font, room), fill=ink, font=font)
    if not sample.correct:
        text = _shortened(f"is {sample.truth}", font, room)
        draw.text((x, below + _height(font)), text, fill=INK, font=font)


def _sample_picture(inputs: Tensor) -> Image.Image:
    """One image, enlarged without smoothing by a whole factor to 128 pixels or more."""
    channels, height, width = inputs.shape
    shown = inputs if channels == 3 else inputs[:1]
    bytes_ = (shown.to("cpu", torch.float32).nan_to_num().clamp(0, 1) * 255).round().to(torch.uint8)
    array = bytes_.permute(1, 2, 0).numpy()
    picture = Image.fromarray(array if channels == 3 else array[:, :, 0]).convert("RGB")
    factor = max(1, math.ceil(_SAMPLE / max(height, width)))
    if factor == 1 and max(height, width) > 256:
        picture.thumbnail((256, 256))
        return picture
    return picture.resize((width * factor, height * factor), Image.Resampling.NEAREST)


def _coloured(shares: Tensor) -> Image.Image:
    """Shares from 0 to 1, (rows, columns), as a picture with one pixel each, from white to deep blue."""
    depth = shares.clamp(0, 1).sqrt().unsqueeze(-1)
    pixels = torch.tensor(PAPER, dtype=depth.dtype) * (1 - depth) + torch.tensor(DEEP) * depth
    return Image.fromarray(pixels.round().to(torch.uint8).numpy())


def _write_counts(
    draw: ImageDraw.ImageDraw, counts: Tensor, shares: Tensor, left: int, top: int, cell: int
) -> None:
    texts = [[_compact(int(count)) for count in row] for row in counts.tolist()]
    widest = max((text for row in texts for text in row), key=len)
    font = _font(points := cell * 11 // 20)
    while points > 8 and _width(widest, font) > cell - 6:
        font = _font(points := points - 1)
    for row, line in enumerate(texts):
        for column, text in enumerate(line):
            if text == "0":
                continue
            ink = PAPER if shares[row, column] > 0.2 else INK
            middle = (left + cell * (column + 0.5), top + cell * (row + 0.5))
            draw.text(middle, text, fill=ink, font=font, anchor="mm")


def _write_names(
    picture: Image.Image,
    draw: ImageDraw.ImageDraw,
    names: Sequence[str],
    left: int,
    top: int,
    cell: int,
    font: Font,
    flat: bool,
) -> None:
    for index, name in enumerate(names):
        middle = cell * index + cell // 2
        draw.text((left - 12, top + middle), name, fill=INK, font=font, anchor="rm")
        if flat:
            draw.text((left + middle, top - 8), name, fill=INK, font=font, anchor="mb")
        else:
            _write_upwards(picture, name, (left + middle - _height(font) // 2, top - 10), font, INK)


def _write_upwards(
    picture: Image.Image,
    text: str,
    corner: tuple[int, int],
    font: Font,
    ink: tuple[int, int, int],
    *,
    anchor_top: bool = False,
) -> None:
    """Writes text from bottom to top; `corner` is its lower left, with `anchor_top` its upper left."""
    strip = Image.new("RGB", (_width(text, font) + 2, _height(font)), PAPER)
    ImageDraw.Draw(strip).text((1, 1), text, fill=ink, font=font)
    turned = strip.transpose(Image.Transpose.ROTATE_90)
    x, y = corner
    picture.paste(turned, (x, y if anchor_top else y - turned.height))


def _write_scale(picture: Image.Image, draw: ImageDraw.ImageDraw, x: int, y: int, font: Font) -> None:
    """The key to the colours: shares of a row."""
    height = 260
    ramp = torch.linspace(1, 0, height, dtype=torch.float64).square().unsqueeze(1)
    picture.paste(_coloured(ramp).resize((30, height)), (x, y))
    draw.rectangle((x - 2, y - 2, x + 31, y + height + 1), outline=FAINT, width=2)
    for share in (0.0, 0.05, 0.25, 1.0):
        level = y + round((1 - math.sqrt(share)) * (height - 1))
        draw.text((x + 42, level), f"{share:.0%}", fill=FAINT, font=font, anchor="lm")
    draw.text((x, y + height + 12), "of the row", fill=FAINT, font=font)


def _compact(count: int) -> str:
    """At most five characters: `1234`, `12.3k`, `1.2M`."""
    if count < 10_000:
        return str(count)
    return f"{count / 1000:.1f}k" if count < 1_000_000 else f"{count / 1e6:.1f}M"


def _shortened(name: str, font: Font, room: int) -> str:
    text = escape_line(str(name))
    if _width(text, font) <= room:
        return text
    while text and _width(text + "…", font) > room:
        text = text[:-1]
    return text + "…"


def _width(text: str, font: Font) -> int:
    return math.ceil(font.getlength(text))


def _height(font: Font) -> int:
    """From one line to the next."""
    return math.ceil(1.25 * font.getbbox("Åg")[3])


@functools.cache
def _font(points: int) -> Font:
    return ImageFont.load_default(points)
