"""The charts of finders: losses over learning rates, and speed and memory over sizes of batches."""

from __future__ import annotations

from collections.abc import Sequence

from bigmodel.reporting.report.axes import Axes, Series
from bigmodel.reporting.report.drawing import Dots, Drawing, Path, Words

_HEADROOM = 0.1


def range_test_chart(
    rates: Sequence[float], losses: Sequence[float], smoothed: Sequence[float], chosen: float | None
) -> Drawing:
    """The losses of a range test over the learning rate, with the suggested one.

    Args:
        rates: increasing, at least one.
        losses, smoothed: of each.
        chosen: None: none is suggested.
    """
    low, high = min(smoothed), max(*smoothed[: max(1, len(smoothed) // 2)], smoothed[0])
    room = _HEADROOM * ((high - low) or 1.0)
    low, high = low - room, high + 3 * room
    title = "Learning rate range test"
    said = "none is suggested" if chosen is None else f"suggested: {chosen:g}"
    axes = Axes.framed(
        title,
        f"Losses at learning rates from {rates[0]:.1g} to {rates[-1]:.1g}; {said}",
        (rates[0], max(rates[-1], 10 * rates[0])),
        (low, high),
        ("learning rate", "loss of the next batch"),
        log_x=True,
    )
    dots = [axes.at(x, y) for x, y in zip(rates, losses, strict=True) if low <= y <= high]
    axes.drawing.add(Dots(dots, "c7", 3.0))
    shown = [(x, min(y, high)) for x, y in zip(rates, smoothed, strict=True)]
    axes.line(Series("smoothed", shown))
    if chosen is not None:
        (x, top), (_, bottom) = axes.at(chosen, high), axes.at(chosen, low)
        axes.drawing.add(Path([(x, top), (x, bottom)], "c1", 1.2, dashed=True))
        axes.drawing.add(Words(x - 5, top + 8, f"{chosen:g}", "end", "c1", bold=True))
    return axes.drawing


def batch_size_chart(points: Sequence[tuple[float, float]], unit: str) -> Drawing:
    """Speed over the size of a batch.

    Args:
        points: size and speed, at least one.
        unit: what both count, such as `samples`.
    """
    sizes, speeds = [x for x, _ in points], [y for _, y in points]
    described = "; ".join(f"{x:,.0f}: {y:,.0f}" for x, y in points)
    span, title = (min(sizes), max(sizes)), f"{unit.capitalize()} per second"
    axes = Axes.framed(
        title, described, span, (0, 1.1 * max(speeds)), (f"{unit} in a batch", ""), log_x=True
    )
    axes.line(Series(title, points))
    axes.drawing.add(Dots([axes.at(x, y) for x, y in points], "c0", 5.0, 1.0))
    return axes.drawing
