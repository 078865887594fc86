"""A text that was typed, as a sample to explain."""

from __future__ import annotations

import torch

from bigmodel.cli.commands.explanations.subject import ExplainedPart
from bigmodel.cli.commands.loaded_run import LoadedRun, Notify
from bigmodel.cli.commands.predictions.texts import (
    encoded_prompt,
    note_cut,
    sampling_of,
    sources_of,
    text_reader,
    written_tokens,
)
from bigmodel.data.parts import Part, TextPairs
from bigmodel.errors import ConfigError, DataError, UndefinedError
from bigmodel.models.generation import window_start
from bigmodel.spec import IGNORED, NextTokens, TokenPair, Tokens


def prompt_part(loaded: LoadedRun, prompt: str, notify: Notify) -> ExplainedPart:
    """A text: to be judged, to be continued, or to be translated, with its translation by the run.

    Args:
        notify: is told if the model does not see all of it.

    Raises:
        ConfigError: the run does not read texts.
        DataError: the text is empty, or has characters that are not in the vocabulary.
        UndefinedError: the model gives NaN or infinity for its translation.
    """
    spec = loaded.preprocessing.spec
    if not isinstance(spec.input, Tokens | TokenPair):
        raise ConfigError(
            f"--prompt: {loaded.name} reads {spec.input}. Name a file of such with --data."
        )
    reader = text_reader(loaded)
    if isinstance(spec.input, TokenPair):
        encoded_prompt(reader, prompt, loaded)
        return ExplainedPart(_translated(loaded, prompt), "the prompt", False)
    if not isinstance(spec.target, NextTokens):
        if not prompt.strip():
            raise DataError("--prompt: is empty. Type the text to explain.")
        return ExplainedPart(loaded.reader.read_values([prompt]).part, "the prompt", False)
    tokens = encoded_prompt(reader, prompt, loaded)
    note_cut(loaded, [tokens], notify)
    seen = torch.tensor([tokens[window_start(len(tokens), spec.input.length) :]])
    unknown = torch.full((1, 1), IGNORED)  # what follows the prompt
    return ExplainedPart(Part(seen, torch.cat([seen[:, 1:], unknown], dim=1)), "the prompt", False)


def _translated(loaded: LoadedRun, prompt: str) -> TextPairs:
    """The prompt with its translation."""
    pair = loaded.preprocessing.spec.input
    assert isinstance(pair, TokenPair)
    part = loaded.reader.read_values([prompt]).part
    assert isinstance(part, TextPairs)
    (source,) = sources_of(part)
    (target,) = written_tokens(loaded, [source], sampling_of(loaded))
    if target is None:
        raise UndefinedError("--prompt: the model gives NaN or infinity for it.")
    # As in training, a translation ends with its end, unless there was no room for it.
    ended = [*target, pair.end][: pair.length]
    sizes = torch.tensor([[len(source), len(ended)]])
    starts = torch.tensor([[0, len(source)]])
    return TextPairs(torch.tensor([*source, *ended]), starts, sizes, part.pad, part.start)
