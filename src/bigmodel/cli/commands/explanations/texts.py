"""What `bigmodel explain` found about texts and attention: tables, pictures, a page, the terminal."""

from __future__ import annotations

import io
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bigmodel.cli.commands.explanations.subject import ExplainedPart
from bigmodel.cli.commands.output_files import (
    TABLES,
    check_kind,
    check_place,
    data_stream,
    write_bytes,
    write_columns,
)
from bigmodel.errors import ConfigError, counted, require
from bigmodel.explain.names import METHODS
from bigmodel.explain.results import AttentionMap, AttentionMaps, Attributions, LogitLens, TextResult
from bigmodel.explain.subject import Subject, score_words
from bigmodel.explain.words import word_sums, words_of
from bigmodel.reporting.formatting import figure
from bigmodel.reporting.report.attention_maps import (
    LensView,
    Panel,
    attention_maps,
    logit_lens,
    visible,
)
from bigmodel.reporting.report.coloured_text import ColouredText, png_of
from bigmodel.reporting.report.content import (
    Block,
    Chart,
    Charts,
    ColouredTexts,
    Note,
    RunReport,
    Section,
    Table,
)
from bigmodel.reporting.report.page import page
from bigmodel.reporting.report.raster import png_of_drawing
from bigmodel.reporting.terminal import is_terminal
from bigmodel.reporting.text_colours import print_table, print_texts
from bigmodel.spec import Input, NextTokens, TokenPair, Tokens

_MOST_PICTURED = 40  # texts in one picture, or on a page
_MOST_WORDS = 10


def is_of_texts(method: str, kind: Input) -> bool:
    """Whether what a method finds of data of a kind is written here."""
    return isinstance(kind, Tokens | TokenPair) or method in ("attention", "logit_lens")


def check_text_output(path: Path, method: str, *, force: bool) -> None:
    """Checks that a file can hold what a method finds of texts, or of attention.

    Raises:
        ConfigError: it cannot, or is there already.
        MissingPackageError: Pillow is needed for a picture.
    """
    check_kind(path, (*TABLES, ".png", ".html", *([".npz"] if method == "attention" else [])))
    if path.suffix.lower() == ".png":
        require("PIL", "bigmodel explain --output NAME.png")
    check_place(path, force=force)


def write_text_result(
    result: TextResult, subject: Subject, part: ExplainedPart, path: Path | None, name: str
) -> None:
    """Writes a result to a file; to a terminal as it is read best, and elsewhere as CSV.

    Args:
        name: of the run.
    """
    if path is None and is_terminal(sys.stdout):
        _show(result, subject)
    elif path is None or path.suffix.lower() in TABLES:
        write_columns(_columns(result, subject), path)
    elif path.suffix.lower() == ".npz":
        assert isinstance(result, AttentionMaps)
        write_bytes(_npz(result), path)
    elif path.suffix.lower() == ".png":
        write_bytes(_png(result, subject), path)
    else:
        report = RunReport(part.source, name, [_section(result, subject)])
        write_bytes(page([report]).encode(errors="replace"), path)


def coloured_texts(result: Attributions, subject: Subject) -> list[ColouredText]:
    """The texts of attributions, with what is said of each."""
    texts = []
    for place, pieces in enumerate(result.tokens):
        named = subject.output_name(int(result.explained[place]))
        if result.complete:
            words = score_words(subject.target)
            score, base = (figure(float(x[place])) for x in (result.scores, result.baseline_scores))
            what = repr(named) + " next" if isinstance(subject.target, NextTokens) else named
            caption = f"{place}: {what}, {words} {score}, baseline {base}"
        else:
            caption = f"{place}: shares of what the head reads, less an equal share"
        values = result.values[place, : len(pieces)]
        values = values if result.complete else values - values.mean()
        texts.append(ColouredText(pieces, values.tolist(), caption))
    return texts


def _columns(result: TextResult, subject: Subject) -> dict[str, Any]:
    match result:
        case Attributions():
            return _attribution_columns(result, subject)
        case AttentionMaps():
            return _attention_columns(result)
        case _:
            return _lens_columns(result)


def _attribution_columns(result: Attributions, subject: Subject) -> dict[str, Any]:
    """A row for each piece of each text."""
    rows = []
    for place, pieces in enumerate(result.tokens):
        words, indices = words_of(pieces)
        named = subject.output_name(int(result.explained[place]))
        values = result.values[place].tolist()
        for position, (piece, index) in enumerate(zip(pieces, indices, strict=True)):
            word = words[index] if index >= 0 else ""
            rows.append((place, named, position, piece, word, values[position]))
    return _named(("text", "explained", "position", "token", "word", "attribution"), rows)


def _attention_columns(result: AttentionMaps) -> dict[str, Any]:
    """A row for each weight."""
    parts = []
    for sample, maps in enumerate(result.samples):
        for each in maps:
            weights = each.weights.numpy()
            head, query, key = (axis.ravel() for axis in np.indices(weights.shape))
            parts.append(
                {
                    "sample": np.full(weights.size, sample),
                    "layer": np.full(weights.size, each.name),
                    "of": np.full(weights.size, each.of),
                    "head": head,
                    "query": query,
                    "query_label": np.array(each.queries, dtype=object)[query],
                    "key": key,
                    "key_label": np.array(each.keys, dtype=object)[key],
                    "weight": weights.ravel(),
                }
            )
    return {name: np.concatenate([part[name] for part in parts]).tolist() for name in parts[0]}


def _lens_columns(lenses: Sequence[LogitLens]) -> dict[str, Any]:
    """A row for each layer at each position: what it would write, and how it sees what follows."""
    top = lenses[0].probabilities.shape[-1]
    heads = ("text", "position", "token", "follows", "layer", "rank", "probability", "entropy")
    guesses = [f"{kind}_{n}" for n in range(1, top + 1) for kind in ("guess", "probability")]
    rows = []
    for text, lens in enumerate(lenses):
        for position, (token, follows) in enumerate(zip(lens.inputs, lens.truths, strict=True)):
            for layer, name in enumerate(lens.layers):
                best = lens.best[layer][position]
                shares = lens.probabilities[layer, position].tolist()
                rank, known = int(lens.ranks[layer, position]), bool(follows)
                truth = float(lens.truth_probabilities[layer, position]) if known else None
                own = (rank if known else None, truth, float(lens.entropy[layer, position]))
                pairs = zip(best, shares, strict=True)
                guesses_of = (cell for pair in pairs for cell in pair)
                rows.append((text, position, token, follows or None, name, *own, *guesses_of))
    return _named((*heads, *guesses), rows)


def _named(heads: Sequence[str], rows: Sequence[Sequence[Any]]) -> dict[str, Any]:
    return dict(zip(heads, map(list, zip(*rows, strict=True)), strict=True))


def _npz(result: AttentionMaps) -> bytes:
    """The maps as arrays, (heads, queries, keys), by sample and layer, with their labels."""
    arrays: dict[str, Any] = {}
    for sample, maps in enumerate(result.samples):
        for each in maps:
            key = f"{sample}/{each.name}"
            arrays[key] = each.weights.numpy()
            arrays[f"{key}/queries"], arrays[f"{key}/keys"] = map(np.array, (each.queries, each.keys))
    file = io.BytesIO()
    np.savez_compressed(file, **arrays)
    return file.getvalue()


def _png(result: TextResult, subject: Subject) -> bytes:
    pictures = text_pictures(result, subject)
    if len(pictures) > 1:
        raise ConfigError(
            f"A picture shows one sample, and there are {len(pictures)}. Add --samples 1, or write a"
            " page: --output why.html."
        )
    (picture,) = pictures.values()
    return picture


def text_pictures(result: TextResult, subject: Subject) -> dict[str, bytes]:
    """PNG files of a result, by name: of texts one together, of maps one for each sample."""
    if isinstance(result, Attributions):
        return {"texts": png_of(coloured_texts(result, subject)[:_MOST_PICTURED])}
    return {chart.name: png_of_drawing(chart.drawing) for chart in _charts(result)}


def _charts(result: AttentionMaps | tuple[LogitLens, ...]) -> list[Chart]:
    if isinstance(result, AttentionMaps):
        return [
            Chart(f"attention-{n}", attention_maps("Attention", list(map(_panels, maps))))
            for n, maps in enumerate(result.samples)
        ]
    return [lens_chart(lens, n) for n, lens in enumerate(result)]


def lens_chart(lens: LogitLens, place: int) -> Chart:
    """A logit lens, drawn; `place` is the text's, for the name of its file."""
    return Chart(f"logit-lens-{place}", logit_lens("What each layer would write next", _view(lens)))


def _panels(each: AttentionMap) -> list[Panel]:
    of = "" if each.of == "input" else f" ({each.of})"
    layer = each.name.removesuffix(".attention").removesuffix(".cross_attention")
    return [
        Panel(f"{layer}, head {head}{of}", weights.numpy(), each.queries, each.keys)
        for head, weights in enumerate(each.weights)
    ]


def _view(lens: LogitLens) -> LensView:
    best = [[guesses[0] for guesses in row] for row in lens.best]
    return LensView(
        lens.layers,
        lens.inputs,
        lens.truths,
        best,
        lens.probabilities[..., 0].numpy(),
        (lens.ranks == 1).numpy(),
    )


def _section(result: TextResult, subject: Subject) -> Section:
    """What a page tells."""
    if isinstance(result, AttentionMaps):
        return Section(
            "Attention", [Note("Rows look at columns; darker is more."), Charts(_charts(result))]
        )
    if not isinstance(result, Attributions):
        words = Note("Each row is a layer, the last on top. What comes true is framed.")
        return Section("Logit lens", [words, Charts(_charts(result)), *map(_last_guesses, result)])
    texts, table = coloured_texts(result, subject), _word_table(result, subject)
    blocks: list[Block] = [Note(legend(result))]
    blocks += [] if table is None else [table]
    if len(texts) > _MOST_PICTURED:
        blocks.append(Note(f"The first {_MOST_PICTURED} of {counted(len(texts), 'text')}:"))
    heading = METHODS[result.method].partition(",")[0]
    return Section(heading.capitalize(), [*blocks, ColouredTexts(texts[:_MOST_PICTURED])])


def legend(result: Attributions) -> str:
    """What the colours of texts say."""
    if not result.complete:
        return (
            "Blue tokens have more than an equal share in what the head reads, orange ones less. Shares"
            " speak neither for nor against anything."
        )
    return (
        "Blue speaks for what is named above a text, orange against it. The numbers of a text add up to"
        f" the difference of the two scores; the baseline is {result.baseline}."
    )


def _word_table(result: Attributions, subject: Subject) -> Table | None:
    """The words that speak most for each output, over all texts; None if there are too few."""
    if len(result.tokens) < 5 or not result.complete:
        return None
    found: dict[str, dict[str, list[float]]] = {}
    for place, pieces in enumerate(result.tokens):
        own = found.setdefault(subject.output_name(int(result.explained[place])), {})
        for word, value in word_sums(pieces, result.values[place, : len(pieces)].tolist()):
            own.setdefault(word.lower(), []).append(value)
    rows = []
    for named, words in found.items():
        sums = sorted(((sum(values), word, len(values)) for word, values in words.items()), reverse=True)
        for total, word, count in sums[:_MOST_WORDS]:
            if total > 0:
                rows.append([named, word, figure(total), str(count)])
    heads = ["speaks for", "word", "sum of attributions", "times"]
    return Table(heads, rows, frozenset({2, 3}))


def _last_guesses(lens: LogitLens) -> Table:
    """What each layer would write after the whole text, the last layer first."""
    rows = []
    for layer in reversed(range(len(lens.layers))):
        pairs = zip(lens.best[layer][-1], lens.probabilities[layer, -1].tolist(), strict=True)
        rows.append([lens.layers[layer], *(f"{visible(word)} {share:.3f}" for word, share in pairs)])
    return Table(["layer", *(f"guess {n}" for n in range(1, len(rows[0])))], rows)


def _show(result: TextResult, subject: Subject) -> None:
    """Prints a result to a terminal."""
    stream = data_stream()
    if isinstance(result, Attributions):
        print_texts(stream, coloured_texts(result, subject))
        if (table := _word_table(result, subject)) is not None:
            print_table(stream, table.heads, table.rows, table.heads[2:])
        return
    if isinstance(result, AttentionMaps):
        print_table(stream, ["layer", "head", "looks most at"], _strongest(result))
        return
    for lens in result:
        guesses = _last_guesses(lens)
        print_table(stream, guesses.heads, guesses.rows)


def _strongest(result: AttentionMaps) -> list[list[str]]:
    """For each head the pairs of positions with the largest weights."""
    rows = []
    for each in (each for maps in result.samples for each in maps):
        for head, weights in enumerate(each.weights):
            best = weights.flatten().topk(min(3, weights.numel()))
            places = [divmod(index, weights.shape[1]) for index in best.indices.tolist()]
            pairs = [
                f"{each.queries[query]} → {each.keys[key]} {share:.2f}"
                for (query, key), share in zip(places, best.values.tolist(), strict=True)
            ]
            rows.append([each.name, str(head), "; ".join(pairs)])
    return rows
