"""Drawings of why a model says what it says: bars of columns, curves, colours over samples."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from bigmodel.reporting.html_text import LIGHT
from bigmodel.reporting.report.axes import Axes, tick_text, ticks
from bigmodel.reporting.report.charts import thinned
from bigmodel.reporting.report.drawing import (
    Box,
    Dots,
    Drawing,
    Path,
    Picture,
    Words,
    shortened,
    text_width,
)
from bigmodel.reporting.report.raster import png_of_pixels

Floats = NDArray[np.float64]

MOST_BARS = 30
"""The most bars of a drawing; the others are not shown."""

_FOR, _AGAINST = (
    np.array([int(LIGHT[name][at : at + 2], 16) for at in (1, 3, 5)], np.float64)
    for name in ("c0", "c1")
)
_ROW = 20.0
_NAMES = 150.0  # at most, in pixels
_BARS = 300.0
_SIDE = 220.0  # of a picture's longer side
_MOST_STRIPES = 230  # below a feature
_LOUDEST = 99.5  # percentile that has the full colour: single pixels do not pale all others


def bars(
    title: str,
    names: Sequence[str],
    values: Floats,
    label: str,
    low: Floats | None = None,
    high: Floats | None = None,
) -> Drawing:
    """A number for each name, from 0 to the right or to the left, the first on top.

    Args:
        label: of the axis.
        values: of each name; NaN if it has none.
        low, high: ends of intervals; NaN if there is none.
    """
    names, known = names[:MOST_BARS], np.isfinite(values[:MOST_BARS])
    told = [f"{value:.4g}" if value == value else "not defined" for value in values[:MOST_BARS]]
    values = np.where(known, values[:MOST_BARS], 0.0)
    low = values if low is None else np.where(np.isfinite(low[:MOST_BARS]), low[:MOST_BARS], values)
    high = values if high is None else np.where(np.isfinite(high[:MOST_BARS]), high[:MOST_BARS], values)
    left = min(_NAMES, max(map(text_width, names), default=0.0)) + 10
    span = float(low.min(initial=0.0)), float(high.max(initial=0.0))
    span = span if span[0] < span[1] else (0.0, 1.0)
    across = (_BARS - 12) / (span[1] - span[0])
    bottom = 30 + _ROW * len(names)
    described = [f"{name}: {value}" for name, value in zip(names, told, strict=True)]
    drawing = Drawing(left + _BARS, bottom + 38, title, "; ".join(described))
    drawing.add(Words(0, 10, shortened(title, drawing.width, 12), size=12.0, bold=True))

    def at(value: float) -> float:
        return left + (value - span[0]) * across

    for tick in ticks(*span):
        drawing.add(Path([(at(tick), 24), (at(tick), bottom)], "rule"))
        drawing.add(Words(at(tick), bottom + 10, tick_text(tick), "middle", "faint"))
    drawing.add(Path([(at(0.0), 24), (at(0.0), bottom)], "faint"))
    drawing.add(Words(left + _BARS / 2, bottom + 28, shortened(label, _BARS), "middle", "faint"))
    for row, (name, value, least, most) in enumerate(zip(names, values, low, high, strict=True)):
        y = 30 + _ROW * row
        ends = sorted((at(0.0), at(float(value))))
        colour = "c0" if value >= 0 else "c1"
        said = described[row]
        said += f", from {least:.4g} to {most:.4g}" if least < most else ""
        drawing.add(Words(left - 6, y + 8, shortened(name, _NAMES), "end"))
        drawing.add(Box(ends[0], y + 1, ends[1] - ends[0], _ROW - 6, colour, 0.75, said))
        if least < most:
            x, end, middle = at(float(least)), at(float(most)), y + 8
            drawing.add(Path([(x, middle), (end, middle)], "ink", 1.2))
            drawing.add(*(Path([(s, middle - 3), (s, middle + 3)], "ink", 1.2) for s in (x, end)))
    return drawing


def dependence(
    name: str,
    label: str,
    values: Sequence[str],
    numbers: Sequence[float],
    mean: Floats,
    low: Floats,
    high: Floats,
) -> Drawing:
    """What a model says on average over the values of a column, in a band of what most rows lie between.

    Args:
        label: what is said.
        numbers: the values as numbers; empty: they are categories or dates, side by side.
    """
    places = list(numbers) if numbers else [float(place) for place in range(len(values))]
    up = float(low.min()), float(high.max())
    room = 0.05 * (up[1] - up[0])
    described = "; ".join(f"{value}: {said:.4g}" for value, said in zip(values, mean, strict=True))
    axes = Axes.framed(
        name,
        described,
        (min(places), max(places)) if numbers else (-0.5, len(places) - 0.5),
        (up[0] - room, up[1] + room),
        (name, label),
        x_names=None if numbers else values,
    )
    points = [axes.at(*point) for point in zip(places, mean.tolist(), strict=True)]
    ends = [
        [axes.at(*point) for point in zip(places, bound.tolist(), strict=True)] for bound in (low, high)
    ]
    if numbers and len(points) > 1:
        axes.drawing.add(Path([*ends[0], *reversed(ends[1])], "c0", filled=True, opacity=0.18))
        axes.drawing.add(Path(points, "c0", 1.8))
    else:
        axes.drawing.add(*(Path([*pair], "c0", 3) for pair in zip(*ends, strict=True)))
    axes.drawing.add(Dots(points, "c0", 4.0 if numbers else 7.0, 1.0))
    return axes.drawing


def over_picture(
    title: str, picture: NDArray[np.uint8], values: Floats, *, smooth: bool = False
) -> Drawing:
    """A picture, and beside it how each pixel speaks for (blue) or against (orange) what is explained.

    Args:
        picture: (height, width) grey or (height, width, 3).
        values: (height, width).
        smooth: whether pixels may be blurred.
    """
    height, width = values.shape
    factor = _SIDE / max(height, width)
    tall, wide = height * factor, width * factor
    grey = picture.astype(np.float64) if picture.ndim == 2 else picture.astype(np.float64).mean(2)
    drawing = Drawing(2 * wide + 16, tall + 66, title, "Blue speaks for it, orange against it.")
    drawing.add(Words(0, 10, shortened(title, drawing.width, 12), size=12.0, bold=True))
    heat, most = _heat(values, grey)
    for x, pixels in ((0.0, picture), (wide + 16, heat)):
        drawing.add(Picture(x, 26, wide, tall, png_of_pixels(pixels), smooth))
    _draw_legend(drawing, wide + 16, tall + 36, wide, most)
    return drawing


def over_steps(title: str, series: Floats, values: Floats, names: Sequence[str] = ()) -> Drawing:
    """Features over time, and below each how its steps speak for (blue) or against (orange) what is
    explained.

    Args:
        series, values: (steps, features); at most 8 features are shown.
        names: of the features.
    """
    steps, features = series.shape
    shown = min(features, 8)
    tall, wide, left = (90.0 if shown < 4 else 44.0), 460.0, 70.0 if names else 0.0
    drawing = Drawing(
        wide + left, 26 + shown * (tall + 24) + 40, title, "Blue speaks for it, orange against it."
    )
    drawing.add(Words(0, 10, shortened(title, drawing.width, 12), size=12.0, bold=True))
    if steps > _MOST_STRIPES:  # finer than pixels: what lies in one is added up
        values = np.stack([each.sum(0) for each in np.array_split(values, _MOST_STRIPES)])
    most = _loudest(values)
    for feature in range(shown):
        top = 26 + feature * (tall + 24)
        column = series[:, feature]
        low, high = float(column.min()), float(column.max())
        scale = (tall - 4) / (high - low) if high > low else 0.0
        across = (np.arange(steps) + 0.5) * wide / steps + left
        heights = top + tall - 2 - (column - low) * scale
        points = thinned(list(zip(across.tolist(), heights.tolist(), strict=True)), round(wide))
        heat, _ = _heat(values[None, :, feature], np.full((1, len(values)), 255.0), most)
        drawing.add(Picture(left, top + tall, wide, 14, png_of_pixels(heat)))
        drawing.add(Path(points, "c7", 1.2))
        if names:
            drawing.add(Words(left - 6, top + tall / 2, shortened(names[feature], left - 8), "end"))
    _draw_legend(drawing, left, drawing.height - 30, min(wide, 220.0), most)
    return drawing


def _loudest(values: Floats) -> float:
    most = float(np.percentile(np.abs(values), _LOUDEST)) if values.size else 0.0
    return most or float(np.abs(values).max(initial=0.0)) or 1.0


def _heat(values: Floats, grey: Floats, most: float | None = None) -> tuple[NDArray[np.uint8], float]:
    """Colours over a pale picture: (height, width, 3); and the value that has the full colour."""
    most = _loudest(values) if most is None else most
    strength = np.clip(np.abs(values) / most, 0, 1)[..., None]
    colour = np.where((values >= 0)[..., None], _FOR, _AGAINST)
    pale = np.repeat((255 - (255 - grey) * 0.2)[..., None], 3, axis=2)
    mixed = pale * (1 - strength) + colour * strength
    return mixed.round().clip(0, 255).astype(np.uint8), most


def _draw_legend(drawing: Drawing, x: float, y: float, width: float, most: float) -> None:
    """From orange over white to blue, with what the ends stand for."""
    scale = np.linspace(-1, 1, 101)[None]
    heat, _ = _heat(scale, np.full(scale.shape, 255.0), 1.0)
    drawing.add(Picture(x, y, width, 8, png_of_pixels(heat), smooth=True))
    end = f"{most:.3g}"
    for place, text, anchor in ((x, f"-{end}", "start"), (x + width / 2, "0", "middle")):
        drawing.add(Words(place, y + 18, text, anchor, "faint"))  # type: ignore[arg-type]
    drawing.add(Words(x + width, y + 18, f"+{end}", "end", "faint"))
