"""What a report tells of how a model reads texts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch

from bigmodel.cli.commands.eval import EvalData
from bigmodel.cli.commands.explain_texts import coloured_texts, legend, lens_chart
from bigmodel.cli.commands.loaded_run import LoadedRun
from bigmodel.errors import ConfigError, UndefinedError
from bigmodel.explain.logit_lens import logit_lens
from bigmodel.explain.subject import Options, Subject
from bigmodel.explain.token_gradients import token_gradients
from bigmodel.reporting.report.content import Charts, ColouredTexts, Note, Section
from bigmodel.reporting.report.held_out import Mistake
from bigmodel.spec import Tokens

_MOST_TEXTS = 8


def reasons_for_mistakes(
    loaded: LoadedRun, data: EvalData, mistakes: Sequence[Mistake]
) -> list[Section]:
    """What spoke for wrong predictions, token by token; nothing if the samples are no texts.

    Args:
        mistakes: with their places in the set.
    """
    if not isinstance(loaded.preprocessing.spec.input, Tokens) or not mistakes:
        return []
    chosen = mistakes[:_MOST_TEXTS]
    subject = _subject(loaded, data, [mistake.index for mistake in chosen])
    try:
        found = token_gradients(subject, Options())
    except ConfigError:  # a model of the user's own that looks no token up
        return []
    texts = [
        replace(text, caption=f"{mistake.prediction}; truth {mistake.truth}; sample {mistake.index}")
        for text, mistake in zip(coloured_texts(found, subject), chosen, strict=True)
    ]
    return [Section("What spoke for the worst mistakes", [Note(legend(found)), ColouredTexts(texts)])]


def lens_sections(loaded: LoadedRun, data: EvalData) -> list[Section]:
    """The logit lens of the first held-out text; nothing if the model has none."""
    try:
        (lens,) = logit_lens(_subject(loaded, data, [0]), Options())
    except (ConfigError, UndefinedError):
        return []
    words = (
        "Each row is a layer of the model, the last on top, and shows what it would write after each"
        " token of the first held-out text. What comes true is framed."
    )
    return [Section("What each layer would write next", [Note(words), Charts([lens_chart(lens, 0)])])]


def _subject(loaded: LoadedRun, data: EvalData, places: Sequence[int]) -> Subject:
    part = data.dataset.part(data.part)
    part = part.select(torch.tensor(places, device=part.device))
    return Subject(loaded.model, loaded.preprocessing, loaded.runtime, part)
