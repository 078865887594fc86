"""Texts and colours of pages."""

import pytest

from bigmodel.reporting.html_text import DARK, LIGHT, html_text, variables


def luminance(colour: str) -> float:
    """Relative luminance as WCAG 2.2 defines it."""
    shares = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
    red, green, blue = (s / 12.92 if s <= 0.04045 else ((s + 0.055) / 1.055) ** 2.4 for s in shares)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(one: str, other: str) -> float:
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("theme", [LIGHT, DARK], ids=["light", "dark"])
def test_letters_and_lines_are_seen(theme: dict[str, str]) -> None:
    """At least 4.5 for letters and 3 for lines, as WCAG 2.2 asks for (AA)."""
    pairs = [(ink, paper) for ink in ("ink", "faint") for paper in ("paper", "shade")]
    pairs += [("ink", "said"), ("on-cell", "cell")]
    assert {pair: contrast(theme[pair[0]], theme[pair[1]]) >= 4.5 for pair in pairs} == dict.fromkeys(
        pairs, True
    )
    assert all(contrast(theme[f"c{number}"], theme["paper"]) >= 3 for number in range(8))


def test_text_loses_its_tags_and_control_characters() -> None:
    assert html_text("<b>&\"'\x1b\n\u202e") == "&lt;b&gt;&amp;&quot;&#x27;\\x1b\\n\\u202e"


def test_colours_are_variables() -> None:
    assert variables({"ink": "#000", "on-cell": "#fff"}) == "--ink:#000;--on-cell:#fff;"
