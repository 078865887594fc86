"""Texts in Markdown for TensorBoard's Text page; names and texts from data have no effect on it."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import yaml  # type: ignore[import-untyped]
from torch import Tensor

from bigmodel.models.summary import Layer
from bigmodel.reporting.base import GeneratedText, PredictedSample, RunInfo
from bigmodel.runtime.escaping import escape_line


def config_block(config: Mapping[str, Any]) -> str:
    """The configuration as a Markdown block of YAML."""
    dumped = yaml.safe_dump(dict(config), sort_keys=False, allow_unicode=True, default_flow_style=None)
    return _block(dumped, "yaml")


def run_table(info: RunInfo) -> str:
    """The header of the run as a Markdown table."""
    return _markdown(("", _literal(info.title)), [(label, _literal(text)) for label, text in info.rows])


def model_table(layers: Sequence[Layer]) -> str:
    """The model's summary as a Markdown table; frozen parameters have a column if there are any."""
    total, frozen = (sum(_counts(layer)[kind] for layer in layers) for kind in (0, 1))
    width = 5 if frozen else 4
    rows = [
        (*map(_literal, (layer.name, layer.kind, layer.shape)), *(f"{n:,}" for n in _counts(layer)))
        for layer in layers
    ]
    rows.append(("**total**", "", "", f"**{total:,}**", f"**{frozen:,}**"))
    columns = ("layer", "kind", "output shape", "parameters", "frozen")
    return _markdown(columns[:width], [row[:width] for row in rows])


def _counts(layer: Layer) -> tuple[int, int]:
    return layer.parameters, layer.frozen


def sample_table(samples: Sequence[PredictedSample]) -> str:
    """Samples that are no images, as a Markdown table: first inputs, prediction, truth."""
    rows = []
    for sample in samples:
        shown = sample.inputs if isinstance(sample.inputs, str) else _numbers(sample.inputs.flatten())
        mark = {True: "✓", False: "**✗**", None: ""}[sample.correct]
        rows.append((*map(_literal, (shown, sample.prediction, sample.truth)), mark))
    return _markdown(("inputs", "prediction", "truth", ""), rows)


def generated_table(texts: Sequence[GeneratedText]) -> str:
    """Generated texts in Markdown, with prompt and reference: a table, or a block for each if a text has
    several lines."""
    if any("\n" in text for written in texts for text in (written.prompt, written.text)):
        return "\n".join(_block(f"{w.prompt}⟫{w.text}\n") for w in texts)
    known = any(written.truth for written in texts)
    rows = [tuple(map(_literal, (w.prompt, w.text, *([w.truth] if known else [])))) for w in texts]
    return _markdown(("given", "written", *(["truth"] if known else [])), rows)


def _numbers(values: Tensor) -> str:
    more = ", …" if len(values) > 8 else ""
    return ", ".join(f"{value:.4g}" for value in values[:8].tolist()) + more


def _literal(text: str) -> str:
    """Text for a cell, with Markdown and HTML escaped: no text may load a picture from elsewhere."""
    marked = re.sub(r"[\\`*_\[\]|]", r"\\\g<0>", escape_line(text.replace("\n", " ")))
    return marked.replace("&", "&amp;").replace("<", "&lt;")


def _block(text: str, language: str = "") -> str:
    """A block of verbatim text, which may contain backquotes."""
    fence = "`" * max(3, 1 + max(map(len, re.findall("`+", text)), default=0))
    return f"{fence}{language}\n{text}{fence}\n"


def _markdown(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    def line(cells: Sequence[str]) -> str:
        return f"| {' | '.join(cells)} |"

    return "\n".join([line(head), line(["---"] * len(head)), *map(line, rows)])
