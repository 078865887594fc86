"""Generated text: after a prompt, printed as it is generated, or for each line of a file."""

from __future__ import annotations

import re
import time
from argparse import Namespace
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from bigmodel.cli.commands.loaded_run import LoadedRun, Notify
from bigmodel.cli.commands.new_data import read_new_data
from bigmodel.cli.commands.output_files import TABLES, data_stream, write_columns, write_lines
from bigmodel.cli.commands.predictions.rows import check_defined
from bigmodel.cli.messages import note
from bigmodel.data.parts import TextPairs
from bigmodel.data.reader import TextReader
from bigmodel.data.texts.decoding import Decoder
from bigmodel.data.texts.files import read_lines
from bigmodel.errors import ConfigError, DataError, counted
from bigmodel.models.generation import Sampling, UndefinedTextsError, generate, translate, window_start
from bigmodel.reporting.predictions import merge_columns
from bigmodel.runtime import progress_messages, standard_streams
from bigmodel.runtime.escaping import escape
from bigmodel.spec import NextTokens, TokenPair

_AT_ONCE = 128  # texts that are generated together
TOKENS, TEMPERATURE, BEAMS = 200, 0.8, 4  # defaults


def write_prompt(loaded: LoadedRun, arguments: Namespace) -> None:
    """Continues or translates a prompt, and prints the text as it is generated."""
    reader, sampling = text_reader(loaded), sampling_from(loaded, arguments)
    prompt: str = arguments.prompt
    tokens = encoded_prompt(reader, prompt, loaded)
    out = data_stream()
    shown = escape if out.isatty() else str
    if isinstance(loaded.preprocessing.spec.input, TokenPair):
        prompt, before = "", list[int]()  # a translation is printed without its source
    else:
        before = tokens
        prompt = prompt if reader.continues else ""
        note_cut(loaded, [tokens])
    if arguments.samples > 1:
        written = written_tokens(loaded, [tokens] * arguments.samples, sampling)
        for number, new in enumerate(written, start=1):
            text = "" if new is None else _after(reader, before, new)
            out.write(shown(f"--- {number} ---\n{prompt}{text}\n"))
        out.flush()
        check_defined(written.count(None), len(written), "texts")
        return

    def show(piece: str | None) -> None:
        if not piece:
            return
        out.write(shown(piece))
        progress_messages.note_output()
        standard_streams.check_result()

    show(prompt)
    decoder = Decoder(reader.decode, before)
    try:
        _ask(loaded, [tokens], sampling, lambda new: show(decoder.add(new[0])) if new[0] >= 0 else None)
        show(decoder.finish())
    finally:
        out.write("\n")


def predict_lines(loaded: LoadedRun, arguments: Namespace, output: Path | None) -> None:
    """Writes the translation or continuation of each line of a file; a blank line gives a blank one."""
    reader, sampling = text_reader(loaded), sampling_from(loaded, arguments)
    began, path = time.perf_counter(), Path(arguments.input).expanduser()
    columns: dict[str, Any]
    if isinstance(loaded.preprocessing.spec.input, TokenPair):
        new_samples = read_new_data(loaded, "--input", arguments, targets=False)
        assert isinstance(new_samples.part, TextPairs)
        name, columns = "translation", dict(new_samples.columns)
        sources = zip(sources_of(new_samples.part), columns["source"], strict=True)
        rows = [tokens if text.strip() else [] for tokens, text in sources]
    else:
        if not path.is_file():
            raise DataError(
                f"--input {path}: there is no such file. Provide a text file of prompts, one per line."
            )
        lines = read_lines(path, arguments.encoding or getattr(reader, "encoding", "utf-8"))
        if not lines:
            raise DataError(f"--input {path}: it is empty. Provide prompts, one per line.")
        rows = [
            encoded_prompt(reader, line, loaded, f"--input {path}, line {n}") if line.strip() else []
            for n, line in enumerate(lines, 1)
        ]
        name, columns = "text", {"prompt": lines}
        note_cut(loaded, rows)
    before = [[] for _ in rows] if name == "translation" else rows
    written = written_tokens(loaded, rows, sampling)
    texts = [
        None if new is None else _after(reader, known, new)
        for known, new in zip(before, written, strict=True)
    ]
    if output is None or output.suffix.lower() not in TABLES:
        write_lines([text or "" for text in texts], output)
    else:
        write_columns(merge_columns(columns, {name: texts}), output)
    if output is not None:
        seconds = time.perf_counter() - began
        rate = len(texts) / seconds
        note(f"{counted(len(texts), 'text')} in {seconds:.2f} s ({rate:,.1f} texts/s): {output}")
    if blank := rows.count([]):
        note(f"Blank: {blank:,} of {counted(len(rows), 'line')}; their outputs are blank too")
    check_defined(texts.count(None), len(texts), "texts")


def write_texts(loaded: LoadedRun, prompts: Sequence[str], sampling: Sampling) -> list[str | None]:
    """The translation or the continuation of each prompt; None if the model gives NaN or infinity.

    Raises:
        DataError: a prompt is empty, or has a character that is not in the vocabulary.
    """
    reader = text_reader(loaded)
    rows = [encoded_prompt(reader, prompt, loaded, "the prompt") for prompt in prompts]
    before = rows
    if isinstance(loaded.preprocessing.spec.input, TokenPair):
        part = reader.read_values(prompts).part
        assert isinstance(part, TextPairs)
        rows, before = sources_of(part), [[] for _ in prompts]
    written = written_tokens(loaded, rows, sampling)
    return [
        None if new is None else _after(reader, known, new)
        for known, new in zip(before, written, strict=True)
    ]


def note_cut(loaded: LoadedRun, prompts: list[list[int]], notify: Notify = note) -> None:
    """Notes how many prompts are longer than the model's context."""
    context = loaded.preprocessing.spec.input.shape[-1]
    if cut := sum(window_start(len(prompt), context) > 0 for prompt in prompts):
        notify(
            f"Cut: {counted(cut, 'prompt')}; the model sees only their end: at most {context:,} tokens"
        )


def sources_of(part: TextPairs) -> list[list[int]]:
    """The tokens of each source, including its end token."""
    places = zip(part.starts[:, 0].tolist(), part.sizes[:, 0].tolist(), strict=True)
    return [part.tokens[start : start + size].tolist() for start, size in places]


def _after(reader: TextReader, before: list[int], new: list[int]) -> str:
    """The text of new tokens; their first characters may depend on the tokens before."""
    return reader.decode(before + new)[len(reader.decode(before)) :]


def text_reader(loaded: LoadedRun) -> TextReader:
    """The run's reader of texts.

    Raises:
        DataError: it has none.
    """
    reader = loaded.reader
    if not isinstance(reader, TextReader):
        raise DataError(
            f"{loaded.name}: its data has no text for its tokens, so it cannot read or write."
        )
    return reader


def encoded_prompt(
    reader: TextReader, text: str, loaded: LoadedRun, where: str = "--prompt"
) -> list[int]:
    """The tokens of a text to continue or to translate.

    Raises:
        DataError: it is empty, or has characters that are not in the vocabulary.
    """
    try:
        tokens = reader.prompt(text)
    except DataError as error:
        raise DataError(f"{where}: {error}") from error
    target = loaded.preprocessing.spec.target
    assert isinstance(target, NextTokens)
    pair = isinstance(loaded.preprocessing.spec.input, TokenPair)
    if not tokens and target.end is not None and not pair:
        return [target.end]  # the end of a text starts the next one
    if not tokens or (pair and not text.strip()):
        raise DataError(f"{where}: is empty. The model needs at least one character to start from.")
    return tokens


def sampling_from(loaded: LoadedRun, arguments: Namespace) -> Sampling:
    """How the next token is chosen, by the options of a command line.

    Raises:
        ConfigError: one is out of range.
    """
    names = ("tokens", "temperature", "top_k", "top_p", "beams", "seed")
    try:
        return sampling_of(
            loaded, **{name: getattr(arguments, name) for name in names if name in arguments}
        )
    except ConfigError as error:  # with this command line's options
        text = re.sub(r"^(\w+)=", lambda m: f"--{m[1].replace('_', '-')} ", str(error))
        raise ConfigError(text.replace(", or null", "")) from None


def sampling_of(
    loaded: LoadedRun,
    *,
    tokens: int | None = None,
    temperature: float | None = None,
    top_k: int | None = None,
    top_p: float | None = None,
    beams: int | None = None,
    seed: int = 0,
) -> Sampling:
    """How the next token is chosen; translations use beam search by default.

    Raises:
        ConfigError: a value is out of range.
    """
    pair = loaded.preprocessing.spec.input
    drawn = any(value is not None for value in (temperature, top_k, top_p))
    if isinstance(pair, TokenPair):
        usual_beams = 1 if drawn else loaded.data_setting("beams", BEAMS)
        usual, most = 1.0 if drawn else 0.0, pair.length
    else:
        usual_beams, usual, most = 1, TEMPERATURE if beams in (None, 1) else 1.0, TOKENS
    return Sampling(
        max_tokens=most if tokens is None else tokens,
        temperature=usual if temperature is None else temperature,
        top_k=top_k,
        top_p=top_p,
        beams=usual_beams if beams is None else beams,
        seed=seed,
    )


def written_tokens(
    loaded: LoadedRun, rows: list[list[int]], sampling: Sampling
) -> list[list[int] | None]:
    """The generated tokens of each row: none for an empty row, None if the model gives NaN or infinity.

    Rows of similar lengths are generated together."""
    size = max(1, _AT_ONCE // sampling.beams)
    order = sorted((row for row, tokens in enumerate(rows) if tokens), key=lambda row: len(rows[row]))
    written: list[list[int] | None] = [[] for _ in rows]
    first = 0
    with progress_messages.report_progress(lambda: f"Writing: {first:,} of {len(order):,} texts"):
        for first in range(0, len(order), size):
            chosen = order[first : first + size]
            draws = replace(sampling, seed=sampling.seed + first)  # or each batch would draw the same
            asked = [rows[row] for row in chosen]
            generated: list[list[int] | None]
            try:
                generated = [*_ask(loaded, asked, draws, None)]
            except UndefinedTextsError as error:
                generated = error.texts
            for row, tokens in zip(chosen, generated, strict=True):
                written[row] = tokens
    return written


def _ask(
    loaded: LoadedRun,
    rows: list[list[int]],
    sampling: Sampling,
    on_tokens: Callable[[list[int]], None] | None,
) -> list[list[int]]:
    spec, device = loaded.preprocessing.spec, loaded.runtime.device
    ask = translate if isinstance(spec.input, TokenPair) else generate
    return ask(loaded.model, rows, sampling, spec, device, on_tokens=on_tokens)
