"""A curve in a few lines of text, for a terminal."""

from __future__ import annotations

from collections.abc import Sequence

_EIGHTHS = " ▁▂▃▄▅▆▇█"


def is_drawable(encoding: str | None) -> bool:
    """Whether a stream of that encoding has the characters."""
    try:
        f"{_EIGHTHS}│└─▲".encode(encoding or "ascii")
    except (UnicodeEncodeError, LookupError):
        return False
    return True


def text_curve(values: Sequence[float], left: str, right: str, marked: int, rows: int = 5) -> list[str]:
    """Draws values as columns of blocks, with a scale and a mark below.

    Args:
        values: not empty; a column each.
        left, right: what the first and last column stand for.
        marked: the column above the mark.
        rows: lines of the curve itself.
    """
    low, high = min(values), max(values)
    span = (high - low) or 1.0
    eighths = [1 + round((8 * rows - 1) * (value - low) / span) for value in values]
    lines = []
    for row in reversed(range(rows)):
        filled = (max(0, min(8, count - 8 * row)) for count in eighths)
        scale = f"{high:.3g}" if row == rows - 1 else f"{low:.3g}" if row == 0 else ""
        lines.append(f"{scale:>8} │{''.join(_EIGHTHS[count] for count in filled)}".rstrip())
    lines.append(f"{'':8} └{'─' * marked}▲{'─' * (len(values) - marked - 1)}")
    lines.append(f"{'':10}{left} {right:>{max(1, len(values) - len(left) - 1)}}")
    return lines
