"""Pictures of growth: a panel for each series, both axes logarithmic, as SVG."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any
from xml.sax.saxutils import escape

from costs.series import SERIES, Series

_WIDTH, _HEIGHT, _LEFT, _TOP, _ACROSS = 250, 190, 52, 26, 4
_INSIDE, _UP = _WIDTH - _LEFT - 14, _HEIGHT - _TOP - 30
_COLOURS = {"eager": "#2563eb", "auto": "#ea580c", "compiled": "#16a34a"}

Kept = Mapping[str, Mapping[str, Sequence[dict[str, Any]]]]
"""Points by series and engine."""


def picture(kept: Kept, what: str) -> str:
    """One file of all series that have figures.

    Args:
        what: `seconds` or `bytes`.
    """
    panels = [_panel(series, kept[series.key], what) for series in SERIES if series.key in kept]
    engines = [name for name in _COLOURS if any(name in found for found in kept.values())]
    rows = -(-len(panels) // _ACROSS)
    width, height = min(len(panels), _ACROSS) * _WIDTH, rows * _HEIGHT + 24
    places = [(number % _ACROSS * _WIDTH, number // _ACROSS * _HEIGHT) for number in range(len(panels))]
    placed = [
        f'<g transform="translate({x} {y})">{panel}</g>'
        for (x, y), panel in zip(places, panels, strict=True)
    ]
    legend = "".join(
        f'<circle cx="{_LEFT + 90 * number}" cy="{height - 12}" r="4" fill="{_COLOURS[name]}"/>'
        f'<text x="{_LEFT + 8 + 90 * number}" y="{height - 8}">{name}</text>'
        for number, name in enumerate(engines)
    )
    dashed = (
        f'<text x="{_LEFT + 8 + 90 * len(engines)}" y="{height - 8}">dashed: as the work grows</text>'
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" font-size="11"'
        f' font-family="system-ui, sans-serif"><rect width="{width}" height="{height}" fill="white"/>'
        f"{''.join(placed)}{legend}{dashed}</svg>\n"
    )


def _panel(series: Series, found: Mapping[str, Sequence[dict[str, Any]]], what: str) -> str:
    scale = 1e-6 if what == "bytes" else 1.0
    lines = {
        name: [(point["size"], scale * point[what]) for point in points if point[what]]
        for name, points in found.items()
    }
    known = [point for line in lines.values() for point in line]
    unit = "MB" if what == "bytes" else "seconds a run" if series.batch is None else "seconds a step"
    head = f'<text x="{_LEFT}" y="16" font-weight="600">{escape(series.key)}: {unit}</text>'
    if not known:
        return f'{head}<text x="{_LEFT}" y="{_TOP + 40}" fill="#666">no more than a start</text>'
    demand = series.memory if what == "bytes" else series.work
    sizes = sorted({size for size, _ in known})
    last = max(known)
    asked = [(size, last[1] * demand(size) / demand(last[0])) for size in sizes]
    across = _axis([size for size, _ in known], _LEFT, _INSIDE)
    up = _axis([value for _, value in known], _TOP + _UP, -_UP)
    marks = "".join(
        f'<text x="{across(size):.1f}" y="{_TOP + _UP + 16}" text-anchor="middle">{_short(size)}</text>'
        for size in (sizes[0], sizes[-1])
    ) + "".join(
        f'<text x="{_LEFT - 6}" y="{up(value) + 4:.1f}" text-anchor="end">{_short(value)}</text>'
        for value in {min(v for _, v in known), max(v for _, v in known)}
    )
    frame = f'<rect x="{_LEFT}" y="{_TOP}" width="{_INSIDE}" height="{_UP}" fill="none" stroke="#ccc"/>'
    box = f"{_LEFT} {_TOP} {_INSIDE} {_UP}"
    size = f'x="{_LEFT}" y="{_TOP}" width="{_INSIDE}" height="{_UP}"'
    clip = f'<svg {size} viewBox="{box}">'
    work = _line(asked, across, up, "#999", 'stroke-dasharray="4 3"')
    drawn = "".join(
        _line(line, across, up, _COLOURS[name])
        + "".join(
            f'<circle cx="{across(size):.1f}" cy="{up(value):.1f}" r="3" fill="{_COLOURS[name]}"/>'
            for size, value in line
        )
        for name, line in lines.items()
    )
    return f"{head}{frame}{clip}{work}{drawn}</svg>{marks}"


def _axis(values: Sequence[float], begin: float, length: float) -> Callable[[float], float]:
    """Places of values, by their logarithms, with room at both ends."""
    low, high = math.log(min(values)), math.log(max(values))
    spread = max(high - low, math.log(2))
    return lambda value: begin + length * (0.06 + 0.88 * (math.log(value) - low) / spread)


def _line(
    points: Sequence[tuple[float, float]],
    across: Callable[[float], float],
    up: Callable[[float], float],
    colour: str,
    more: str = "",
) -> str:
    places = " ".join(f"{across(size):.1f},{up(value):.1f}" for size, value in points)
    return f'<polyline points="{places}" fill="none" stroke="{colour}" stroke-width="1.5" {more}/>'


def _short(value: float) -> str:
    """A number for an axis: 64, 2,048, 1e6, 0.0031."""
    if value >= 10_000:
        return f"{value:.0e}".replace("e+0", "e").replace("e+", "e")
    return f"{value:,.0f}" if value >= 20 else f"{value:.2g}"
