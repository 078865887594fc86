"""The frame of a chart: axes with round numbers, a legend, and the way from values to pixels."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from bigmodel.reporting.html_text import LINES
from bigmodel.reporting.report.drawing import Drawing, Path, Point, Words, shortened, text_width

WIDTH, HEIGHT = 360.0, 230.0  # of a chart without its legend
_LEFT, _RIGHT, _TOP, _BOTTOM = 52.0, 12.0, 26.0, 38.0
_LEGEND_LINE = 16.0

Range = tuple[float, float]


@dataclass(frozen=True)
class Series:
    """A line with its name.

    Attributes:
        points: x and y; without NaN.
        colour: an index of the lines' colours, which repeat.
    """

    name: str
    points: Sequence[Point]
    colour: int = 0
    dashed: bool = False
    markers: bool = False

    @property
    def line_colour(self) -> str:
        return f"c{self.colour % LINES}"


@dataclass
class Axes:
    """A drawing with axes.

    Attributes:
        drawing: what is drawn on.
        x, y: least and largest value of each axis.
        log_y, log_x: whether that axis is logarithmic.
    """

    drawing: Drawing
    x: Range
    y: Range
    log_y: bool = False
    top: float = _TOP
    log_x: bool = False

    @classmethod
    def framed(
        cls,
        title: str,
        description: str,
        x: Range,
        y: Range,
        labels: tuple[str, str],
        *,
        legend: Sequence[Series] = (),
        log_y: bool = False,
        whole_x: bool = False,
        log_x: bool = False,
        x_names: Sequence[str] | None = None,
    ) -> Axes:
        """Axes with grid, numbers, labels, title and legend.

        Args:
            title: above it.
            description: see `Drawing`.
            x, y: the ranges to show; an empty one is widened.
            labels: of the axes.
            legend: the lines to name.
            log_y, log_x: whether that axis is logarithmic.
            whole_x: the values of x are whole numbers, such as epochs.
            x_names: words at 0, 1, … of the x axis instead of numbers.
        """
        rows = _legend_rows(legend)
        top = _TOP + _LEGEND_LINE * len(rows)
        drawing = Drawing(WIDTH, HEIGHT + _LEGEND_LINE * len(rows), title, description)
        axes = cls(drawing, _widened(x, log_x), _widened(y, log_y), log_y, top, log_x)
        axes._draw_grid(labels, whole_x, x_names)
        drawing.add(Words(0, 10, shortened(title, WIDTH, 12), size=12.0, bold=True))
        for number, row in enumerate(rows):
            _draw_legend_row(drawing, row, _TOP + _LEGEND_LINE * number)
        return axes

    @property
    def bottom(self) -> float:
        """Where the x axis lies, in pixels."""
        return self.drawing.height - _BOTTOM

    def at(self, x: float, y: float) -> Point:
        """Where a value lies, in pixels."""
        return self._across(x), self._up(y)

    def line(self, series: Series) -> None:
        """Draws a line; a single point as a short one."""
        points = [self.at(x, y) for x, y in series.points]
        if len(points) == 1:
            (x, y) = points[0]
            points = [(x - 3, y), (x + 3, y)]
        self.drawing.add(Path(points, series.line_colour, 1.8, series.dashed))

    def _across(self, x: float) -> float:
        low, high = self.x
        if self.log_x:
            low, high, x = math.log10(low), math.log10(high), math.log10(x)
        return _LEFT + (WIDTH - _LEFT - _RIGHT) * (x - low) / (high - low)

    def _up(self, y: float) -> float:
        low, high = self.y
        if self.log_y:
            low, high, y = math.log10(low), math.log10(high), math.log10(y)
        return self.bottom - (self.bottom - self.top) * (y - low) / (high - low)

    def _x_ticks(self, whole: bool, names: Sequence[str] | None) -> list[tuple[float, str]]:
        if names is None:
            all_ticks = _log_ticks(self.x) if self.log_x else ticks(*self.x)
            values = [value for value in all_ticks if not whole or value == int(value)]
            return [(value, tick_text(value)) for value in values]
        each = (WIDTH - _LEFT - _RIGHT) / max(1, len(names))
        least = max(1, math.ceil(24 / each))  # every other one, if all would overlap

        def shown(stride: int) -> dict[int, str]:
            places = range(0, len(names), stride)
            return {place: shortened(names[place], each * stride - 2) for place in places}

        # Fewer, if their beginnings alone are the same, as those of dates.
        chosen = [shown(stride) for stride in range(least, max(least, len(names) // 3) + 1)]
        texts = next((c for c in chosen if len(set(c.values())) == len(c)), chosen[0])
        return [(float(place), text) for place, text in texts.items()]

    def _draw_grid(self, labels: tuple[str, str], whole_x: bool, x_names: Sequence[str] | None) -> None:
        down = self.bottom
        for value in _log_ticks(self.y) if self.log_y else ticks(*self.y):
            y = self._up(value)
            self.drawing.add(Path([(_LEFT, y), (WIDTH - _RIGHT, y)], "rule"))
            self.drawing.add(Words(_LEFT - 5, y, tick_text(value), "end", "faint"))
        for value, text in self._x_ticks(whole_x, x_names):
            x = self._across(value)
            self.drawing.add(Path([(x, down), (x, down + 4)], "faint"))
            self.drawing.add(Words(x, down + 12, text, "middle", "faint"))
        self.drawing.add(Path([(_LEFT, down), (WIDTH - _RIGHT, down)], "faint"))
        middle = (WIDTH + _LEFT - _RIGHT) / 2
        across, up = labels
        room = WIDTH - _LEFT - _RIGHT
        self.drawing.add(Words(middle, down + 29, shortened(across, room), "middle", "faint"))
        half = (down + self.top) / 2
        up = shortened(up, down - self.top)
        self.drawing.add(Words(7, half, up, "middle", "faint", upwards=True))


def _widened(span: Range, log: bool = False) -> Range:
    low, high = span
    if low < high:
        return low, high
    if log:
        return low / 2, high * 2
    half = abs(low) / 10 or 0.5
    return low - half, high + half


def ticks(low: float, high: float, count: int = 5) -> list[float]:
    """Some `count` round numbers from `low` to `high`: multiples of 1, 2 or 5 times a power of ten."""
    rough = (high - low) / count
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * unit for unit in (1, 2, 5, 10) if power * unit >= rough * 0.7)
    first, last = math.ceil(low / step - 1e-6), math.floor(high / step + 1e-6)
    return [number * step for number in range(first, last + 1)]


def _log_ticks(span: Range) -> list[float]:
    """Powers of ten; with twice and five times each if they are few."""
    low, high = span
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    few = len(powers) <= 4
    stride = 1 if len(powers) <= 8 else math.ceil(len(powers) / 6)
    values = [10.0**p * unit for p in powers[::stride] for unit in ((1, 2, 5) if few else (1,))]
    inside = [value for value in values if low <= value <= high]
    return inside if len(inside) > 1 else [low, high]


def tick_text(value: float) -> str:
    """A number for an axis: `0.2`, `1,500`, `2e+06`."""
    if abs(value) >= 1e6:
        return f"{value:.3g}"
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    return "0" if abs(value) < 1e-12 else f"{value:.4g}"


def _legend_rows(legend: Sequence[Series]) -> list[list[tuple[Series, float]]]:
    """The lines that are named, and how far from the left, row by row."""
    rows: list[list[tuple[Series, float]]] = []
    x = WIDTH
    for series in legend:
        width = 26 + min(text_width(series.name), WIDTH - 30)
        if x + width > WIDTH:
            rows.append([])
            x = 0.0
        rows[-1].append((series, x))
        x += width + 10
    return rows


def _draw_legend_row(drawing: Drawing, row: Sequence[tuple[Series, float]], y: float) -> None:
    for series, x in row:
        drawing.add(Path([(x, y), (x + 20, y)], series.line_colour, 2.2, series.dashed))
        drawing.add(Words(x + 25, y, shortened(series.name, WIDTH - 30)))
