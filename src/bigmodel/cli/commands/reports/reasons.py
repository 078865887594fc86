"""What a report tells of why a model says what it says of pictures, recordings, sequences and texts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch

from bigmodel import spec
from bigmodel.cli.commands.eval import EvalData
from bigmodel.cli.commands.explanations.drawings import sample_drawing
from bigmodel.cli.commands.explanations.texts import coloured_texts, legend, lens_chart
from bigmodel.cli.commands.loaded_run import LoadedRun
from bigmodel.errors import ConfigError, UndefinedError
from bigmodel.explain.integrated_gradients import integrated_gradients
from bigmodel.explain.logit_lens import logit_lens
from bigmodel.explain.subject import Options, Subject
from bigmodel.reporting.report.content import Block, Chart, Charts, ColouredTexts, Note, Section
from bigmodel.reporting.report.held_out import Mistake

_MOST = 8  # mistakes that are explained


def reasons_for_mistakes(
    loaded: LoadedRun, data: EvalData, mistakes: Sequence[Mistake], names: Sequence[str]
) -> list[Section]:
    """What spoke for wrong predictions; nothing of rows, whose columns are drawn together.

    Args:
        mistakes: with their places in the set.
        names: of all samples of the set, such as files; empty: they have none.
    """
    kind = loaded.preprocessing.spec.input
    if not isinstance(kind, spec.Image | spec.Sequence | spec.Tokens) or not mistakes:
        return []
    chosen = mistakes[:_MOST]
    subject = _subject(loaded, data, [mistake.index for mistake in chosen])
    try:
        found = integrated_gradients(subject, Options())
    except ConfigError:  # a model of the user's own that looks no token up
        return []
    named = [names[each.index] if names else f"sample {each.index}" for each in chosen]
    captions = [
        f"{each.prediction}; truth {each.truth}; {name}"
        for each, name in zip(chosen, named, strict=True)
    ]
    blocks: list[Block]
    if isinstance(kind, spec.Tokens):
        texts = zip(coloured_texts(found, subject), captions, strict=True)
        told = [replace(text, caption=caption) for text, caption in texts]
        blocks = [Note(legend(found)), ColouredTexts(told)]
    else:
        words = (
            "Blue spoke for what was predicted, orange against it: integrated gradients, compared with"
            f" {found.baseline}."
        )
        drawn = [sample_drawing(found, subject, n, caption) for n, caption in enumerate(captions)]
        charts = [Chart(f"mistake-{n}", drawing) for n, drawing in enumerate(drawn)]
        blocks = [Note(words), Charts(charts)]
    return [Section("What spoke for the worst mistakes", blocks)]


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
