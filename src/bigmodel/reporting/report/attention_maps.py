"""Attention maps, a row for each layer and a panel for each head; and what a logit lens shows."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bigmodel.reporting.html_text import LIGHT
from bigmodel.reporting.report.drawing import Box, Drawing, Path, Picture, Words, shortened, text_width
from bigmodel.reporting.report.raster import png_of_pixels

Floats = NDArray[np.floating]

_SIDE = 200.0  # of a panel, about
_SMALL, _MANY = 96.0, 40  # of each of many panels
_LARGEST = 18.0  # of a cell
_LINE = 11.0  # room for a label
_MOST_LABEL = 84.0
_GAP, _TITLE, _MARGIN = 14.0, 18.0, 8.0
LENS_POSITIONS = 32
"""Positions of a logit lens that are drawn: the last ones."""
_CELL = (62.0, 20.0)


@dataclass(frozen=True)
class Panel:
    """The weights of one head.

    Attributes:
        title: above it.
        weights: (queries, keys), each row adding up to 1.
        queries, keys: the labels of rows and columns.
    """

    title: str
    weights: Floats
    queries: Sequence[str]
    keys: Sequence[str]


def attention_maps(title: str, rows: Sequence[Sequence[Panel]]) -> Drawing:
    """Maps of heads: what attends is on the left, what it attends to is above; darker is more.

    Args:
        title: above everything.
        rows: the heads of each layer.
    """
    side = _SIDE if sum(map(len, rows)) <= _MANY else _SMALL
    sizes = [[_Size.of(panel, side) for panel in row] for row in rows]
    width = 2 * _MARGIN + max(sum(size.width + _GAP for size in row) for row in sizes)
    height = 24 + 2 * _MARGIN + sum(max(size.height for size in row) + _GAP for row in sizes)
    wide = max(width, 2 * _MARGIN + text_width(title, 12))
    drawing = Drawing(wide, height, title, "Rows look at columns; darker is more.")
    drawing.add(Words(_MARGIN, _MARGIN + 8, title, size=12.0, bold=True))
    y = _MARGIN + 24
    for row, row_sizes in zip(rows, sizes, strict=True):
        x = _MARGIN
        for panel, size in zip(row, row_sizes, strict=True):
            _draw_panel(drawing, panel, size, x, y)
            x += size.width + _GAP
        y += max(size.height for size in row_sizes) + _GAP
    return drawing


@dataclass(frozen=True)
class _Size:
    """How large a panel is: of a cell, of the labels on the left and above, and of everything."""

    cell: float
    left: float
    top: float
    width: float
    height: float

    @classmethod
    def of(cls, panel: Panel, side: float) -> _Size:
        queries, keys = panel.weights.shape
        cell = min(_LARGEST, side / max(queries, keys))
        if side == _SIDE and max(queries, keys) <= 48:
            cell = max(cell, _LINE)  # every label is legible
        left, above = (0.0, 0.0) if side == _SMALL else map(_label_room, (panel.queries, panel.keys))
        top = _TITLE + above
        wide = max(left + cell * keys, text_width(panel.title))
        return cls(cell, left, top, wide, top + cell * queries)


def _label_room(labels: Sequence[str]) -> float:
    return min(_MOST_LABEL, max(text_width(visible(label), 9) for label in labels)) + 4


def _draw_panel(drawing: Drawing, panel: Panel, size: _Size, x: float, y: float) -> None:
    queries, keys = panel.weights.shape
    left, top, wide, high = x + size.left, y + size.top, size.cell * keys, size.cell * queries
    drawing.add(Words(x, y + 6, panel.title, colour="faint"))
    drawing.add(Picture(left, top, wide, high, _shades(panel.weights)))
    corners = [(left, top), (left + wide, top), (left + wide, top + high), (left, top + high)]
    drawing.add(Path([*corners, corners[0]], "rule"))
    if not size.left:
        return
    stride = math.ceil(_LINE / size.cell)  # of more labels, only some have room
    for place in range(0, queries, stride):
        label = shortened(visible(panel.queries[place]), _MOST_LABEL, 9)
        drawing.add(Words(left - 3, top + size.cell * (place + 0.5), label, "end", size=9))
    for place in range(0, keys, stride):
        label = shortened(visible(panel.keys[place]), _MOST_LABEL, 9)
        drawing.add(Words(left + size.cell * (place + 0.5), top - 3, label, size=9, upwards=True))


def visible(text: str) -> str:
    """A label whose blanks are seen."""
    blank = text.strip(" ") == ""
    return "_" * len(text) if blank else text.replace("\n", "\\n").replace("\t", "\\t")


def _shades(weights: Floats) -> bytes:
    """Weights as a picture in one colour: the largest is opaque, 0 is transparent."""
    red, green, blue = (int(LIGHT["c0"][i : i + 2], 16) for i in (1, 3, 5))
    pixels = np.full((*weights.shape, 4), (red, green, blue, 0), np.uint8)
    pixels[:, :, 3] = np.round(255 * weights / max(float(weights.max()), 1e-12))
    return png_of_pixels(pixels)


@dataclass(frozen=True)
class LensView:
    """What each layer says after each token.

    Attributes:
        layers: their names, first to last.
        inputs: the token at each position.
        truths: the one that follows; empty: unknown.
        best: the likeliest next token, [layer][position].
        probabilities: theirs, (layers, positions).
        right: whether it is the one that follows, (layers, positions).
    """

    layers: Sequence[str]
    inputs: Sequence[str]
    truths: Sequence[str]
    best: Sequence[Sequence[str]]
    probabilities: Floats
    right: NDArray[np.bool_]


def logit_lens(title: str, view: LensView) -> Drawing:
    """A row for each layer, the last on top, and a column for each position; darker is more probable,
    and what comes true is framed."""
    count = len(view.inputs)
    first = max(0, count - LENS_POSITIONS)
    left = _MARGIN + max(text_width(name) for name in (*view.layers, "what follows")) + 8
    wide, high = _CELL
    size = (left + wide * (count - first) + _MARGIN, 38 + high * (len(view.layers) + 2) + _MARGIN)
    drawing = Drawing(*size, title, "The likeliest next token by layer and position.")
    drawing.add(Words(_MARGIN, 16, shortened(title, size[0] - 2 * _MARGIN, 12), size=12.0, bold=True))
    top = 32.0
    drawing.add(Words(_MARGIN, top + high / 2, "what follows", colour="faint"))
    drawing.add(Words(_MARGIN, top + high * (len(view.layers) + 1.5) + 4, "read", colour="faint"))
    for layer, name in enumerate(view.layers):
        y = top + high * (len(view.layers) - layer) + 2
        drawing.add(Words(_MARGIN, y + high / 2, name, colour="faint"))
        for position in range(first, count):
            x, share = left + wide * (position - first), float(view.probabilities[layer, position])
            word = visible(view.best[layer][position])
            drawing.add(Box(x, y, wide - 1, high - 1, "c0", 0.75 * share, f"{word}: {share:.3f}"))
            cut = shortened(word, wide - 6)
            drawing.add(Words(x + wide / 2, y + high / 2, cut, "middle"))
            if view.right[layer, position]:
                edge = [
                    (x, y),
                    (x + wide - 1, y),
                    (x + wide - 1, y + high - 1),
                    (x, y + high - 1),
                    (x, y),
                ]
                drawing.add(Path(edge, "good", 1.5))
    for position in range(first, count):
        x = left + wide * (position - first + 0.5)
        below = top + high * (len(view.layers) + 1.5) + 4
        drawing.add(Words(x, below, shortened(visible(view.inputs[position]), wide - 6), "middle"))
        follows = shortened(visible(view.truths[position]), wide - 6)
        drawing.add(Words(x, top + high / 2, follows, "middle", "good"))
    return drawing
