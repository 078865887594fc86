"""What all pages share: text that is safe in HTML, colours and the style of tables, light and dark."""

from __future__ import annotations

from html import escape

from bigmodel.runtime.escaping import escape_line

LIGHT = {
    "ink": "#1c1f23",
    "faint": "#68707a",
    "paper": "#ffffff",
    "shade": "#f4f6f8",
    "rule": "#d8dce1",
    "bad": "#b3261e",
    "good": "#137333",
    "said": "#eef4fb",
    "cell": "#2f6fb3",
    "on-cell": "#ffffff",
    "c0": "#2464a8",
    "c1": "#c2571a",
    "c2": "#2b8a4b",
    "c3": "#8d3fa8",
    "c4": "#a8821c",
    "c5": "#c02f6b",
    "c6": "#1f8a94",
    "c7": "#6b6f76",
}
"""Colours by what they are for; `c0` to `c7` tell lines apart."""

DARK = {
    "ink": "#e4e7eb",
    "faint": "#9aa3ad",
    "paper": "#16191d",
    "shade": "#21262c",
    "rule": "#3a414a",
    "bad": "#ff8a80",
    "good": "#7bd88f",
    "said": "#1d2a3a",
    "cell": "#3573b8",
    "on-cell": "#ffffff",
    "c0": "#6fb1f5",
    "c1": "#f39a5d",
    "c2": "#6fd08f",
    "c3": "#d28bea",
    "c4": "#e0bd58",
    "c5": "#f47fae",
    "c6": "#5fd0da",
    "c7": "#aab0b8",
}

LINES = 8
"""Colours for lines; the ninth has that of the first."""


def html_text(text: str) -> str:
    """A text for a page, or for plotly, which takes HTML in most of its labels: no tag and no control
    character of its own is left."""
    return escape(escape_line(text))


def variables(colours: dict[str, str]) -> str:
    """Colours as variables of CSS: `var(--ink)`."""
    return "".join(f"--{name}:{colour};" for name, colour in colours.items())


STYLE = """
body { font: 15px/1.45 system-ui, sans-serif; color: var(--ink); background: var(--paper);
       margin: 2rem auto; max-width: 1180px; padding: 0 1.2rem; }
h1 { font-size: 1.5rem; margin-bottom: 0; overflow-wrap: anywhere; }
h2 { font-size: 1.3rem; margin-top: 2.2rem; border-bottom: 1px solid var(--rule);
     padding-bottom: .3rem; overflow-wrap: anywhere; }
h3 { font-size: 1.05rem; margin: 1.8rem 0 .5rem; overflow-wrap: anywhere; }
small { color: var(--faint); font-weight: normal; font-size: .85rem; }
.wide { overflow: auto; max-height: 36rem; border: 1px solid var(--rule); border-radius: 6px; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: .88rem; width: 100%; }
th { position: sticky; top: 0; background: var(--shade); text-align: left; white-space: nowrap; }
th, td { padding: .32rem .7rem; border-bottom: 1px solid var(--rule); vertical-align: top; }
td { white-space: nowrap; }
.verdict { background: var(--said); border-left: 4px solid var(--c0); padding: .6rem .9rem;
           margin: .8rem 0; overflow-wrap: anywhere; }
"""
"""The style of what all pages have."""
