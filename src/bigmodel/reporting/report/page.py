"""The report as one HTML file: it needs no network, runs no script, and is light or dark as the reader
has it."""

from __future__ import annotations

import base64
from collections.abc import Sequence

from bigmodel.reporting.html_text import DARK, LIGHT, STYLE, html_text, variables
from bigmodel.reporting.report.coloured_text import html_of
from bigmodel.reporting.report.content import (
    Block,
    Chart,
    Charts,
    Code,
    ColouredTexts,
    Exhibit,
    Exhibits,
    Facts,
    Folded,
    Note,
    RunReport,
    Section,
    Table,
)
from bigmodel.runtime.escaping import escape

_BROAD = 400  # pixels; a broader chart has a row of its own


def page(runs: Sequence[RunReport], together: Sequence[Section] = ()) -> str:
    """The page, as HTML.

    Args:
        runs: what is told of each.
        together: sections about all of them, in front.
    """
    title = runs[0].title if len(runs) == 1 else f"{len(runs)} runs"
    names = ", ".join(run.name for run in runs)
    parts = [f"<h1>{html_text(title)}</h1>"]
    parts += [f"<small>{html_text(names)}</small>"] if len(runs) == 1 else []
    if len(runs) > 1:
        links = (f'<a href="#run-{n}">{html_text(run.name)}</a>' for n, run in enumerate(runs, start=1))
        parts.append(f"<nav>{' · '.join(links)}</nav>")
    parts += map(_section, together)
    for number, run in enumerate(runs, start=1):
        if len(runs) > 1:
            heading = f"{html_text(run.title)} <small>{html_text(run.name)}</small>"
            parts.append(f'<h1 class=run id="run-{number}">{heading}</h1>')
        parts += map(_section, run.sections)
    style = f":root{{color-scheme:light dark;{variables(LIGHT)}}}{STYLE}{_STYLE}" + _THEMES.format(
        light=variables(LIGHT), dark=variables(DARK)
    )
    return _PAGE.format(title=html_text(f"{title}: {names}"), style=style, body="\n".join(parts))


def _section(section: Section) -> str:
    inner = "".join(map(_block, section.blocks))
    return f"<section><h2>{html_text(section.heading)}</h2>{inner}</section>"


def _block(block: Block) -> str:
    match block:
        case Note(text, warning):
            kind = "verdict warning" if warning else "note"
            return f'<p class="{kind}">{html_text(text)}</p>'
        case Facts(rows):
            items = "".join(f"<dt>{html_text(a)}</dt><dd>{html_text(b)}</dd>" for a, b in rows)
            return f"<dl>{items}</dl>"
        case Code(text):
            return f"<pre tabindex=0>{_lines(text)}</pre>"
        case Table():
            return _table(block)
        case Charts(charts):
            drawn = "".join(f"<figure{_kind(chart)}>{chart.drawing.svg()}</figure>" for chart in charts)
            return f"<div class=charts>{drawn}</div>"
        case Exhibits(exhibits):
            texts = " texts" if any(each.text is not None for each in exhibits) else ""
            return f'<div class="exhibits{texts}">{"".join(map(_exhibit, exhibits))}</div>'
        case ColouredTexts(texts):
            return "".join(
                f"<p class=note>{html_text(text.caption)}</p><blockquote>{html_of(text)}</blockquote>"
                for text in texts
            )
        case Folded(label, blocks):
            inner = "".join(map(_block, blocks))
            return f"<details><summary>{html_text(label)}</summary>{inner}</details>"


def _kind(chart: Chart) -> str:
    return " class=broad" if chart.drawing.width > _BROAD else ""


def _table(table: Table) -> str:
    def cell(tag: str, column: int, text: str) -> str:
        return f"<{tag}{' class=n' if column in table.numbers else ''}>{html_text(text)}</{tag}>"

    head = "".join(cell("th", column, text) for column, text in enumerate(table.heads))
    rows = [
        f"<tr>{''.join(cell('td', column, text) for column, text in enumerate(row))}</tr>"
        for row in table.rows
    ]
    body = f"<thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody>"
    return f"<div class=wide tabindex=0><table>{body}</table></div>"


def _exhibit(exhibit: Exhibit) -> str:
    shown = ""
    if exhibit.png is not None:
        kind = " class=smooth" if exhibit.smooth else ""
        data = base64.b64encode(exhibit.png).decode()
        shown = f'<img{kind} src="data:image/png;base64,{data}" alt="{html_text(exhibit.description)}">'
    elif exhibit.drawing is not None:
        shown = exhibit.drawing.svg()
    elif exhibit.text is not None:
        before = f"<span>{_lines(exhibit.before)}</span>" if exhibit.before else ""
        shown = f"<blockquote>{before}{_lines(exhibit.text)}</blockquote>"
    words = "".join(
        f"<div><span>{html_text(label)}</span> {html_text(text)}</div>" for label, text in exhibit.lines
    )
    return f"<figure>{shown}<figcaption>{words}</figcaption></figure>"


def _lines(text: str) -> str:
    """A text of several lines."""
    return "\n".join(map(html_text, escape(text).replace("\t", "    ").split("\n")))


_THEMES = """
@media (prefers-color-scheme: dark) {{ :root {{ {dark} }} }}
@media print {{ :root {{ color-scheme: light; {light} }} }}
"""

_STYLE = """
a { color: var(--c0); }
nav { margin: 1rem 0; overflow-wrap: anywhere; }
h1.run { margin-top: 3rem; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .25rem 1rem; margin: .6rem 0; }
dt { color: var(--faint); }
dd { margin: 0; overflow-wrap: anywhere; }
pre, blockquote { background: var(--shade); border-radius: 6px; padding: .6rem .9rem; margin: .5rem 0;
    white-space: pre-wrap; overflow-wrap: anywhere; max-height: 32rem; overflow: auto; }
pre { font: 13px/1.45 ui-monospace, monospace; }
.wide { width: max-content; max-width: 100%; box-sizing: border-box; }
.n { text-align: right; }
.note { color: var(--faint); margin: .5rem 0; }
.verdict.warning { border-color: var(--bad); }
figure { margin: 0; min-width: 0; }
.charts { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 350px), 1fr));
    gap: 1.4rem 1rem; margin: 1rem 0; }
.charts figure { overflow: auto; }
.charts figure.broad { grid-column: 1 / -1; }
svg { display: block; height: auto; font: 11px system-ui, sans-serif; fill: var(--ink); }
.exhibits { display: grid; grid-template-columns: repeat(auto-fill, minmax(132px, 1fr)); gap: 1rem;
    margin: 1rem 0; }
.exhibits.texts { grid-template-columns: repeat(auto-fill, minmax(min(100%, 340px), 1fr)); }
.exhibits img { display: block; width: 128px; image-rendering: pixelated;
    border: 1px solid var(--rule); }
.exhibits img.smooth { image-rendering: auto; }
.exhibits svg { border: 1px solid var(--rule); max-width: 100%; }
figcaption { font-size: .82rem; overflow-wrap: anywhere; margin-top: .3rem; }
figcaption span, figure blockquote span { color: var(--faint); }
summary { cursor: pointer; margin: .6rem 0; color: var(--faint); }
@media (max-width: 600px) { body { margin: 1rem auto; padding: 0 .8rem; }
    dl { grid-template-columns: 1fr; gap: 0; } dd { margin-bottom: .4rem; } }
@media print { body { margin: 0; max-width: none; font-size: 11px; } h2, h3 { break-after: avoid; }
    figure, tr { break-inside: avoid; } .wide, pre, blockquote, .charts figure { max-height: none;
    overflow: visible; } td { white-space: normal; } th { position: static; }
    body * { print-color-adjust: exact; -webkit-print-color-adjust: exact; } }
"""

_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:; \
style-src 'unsafe-inline'">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>{style}</style>
</head>
<body>
{body}
</body>
</html>
"""
