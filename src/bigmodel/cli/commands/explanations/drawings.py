"""What `bigmodel explain` found, as drawings."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from bigmodel.cli.commands.explanations.subject import ExplainedPart
from bigmodel.cli.commands.output_files import file_stems
from bigmodel.data.media.audio import AudioSettings
from bigmodel.explain.results import Attributions, Dependence, Importances, Result
from bigmodel.explain.subject import Subject, score_words
from bigmodel.reporting.report.drawing import Drawing
from bigmodel.reporting.report.explanations import bars, dependence, over_picture, over_steps
from bigmodel.reporting.report.samples import pixels_of, stretched, upright
from bigmodel.spec import Classes, Flags, Image

_MOST_LINES = 8  # features of a sequence that are drawn as lines


def drawings_of(
    result: Result, subject: Subject, part: ExplainedPart, *, most: int | None = None
) -> list[tuple[str, Drawing]]:
    """Drawings with names for their files.

    Args:
        most: samples that are drawn, the first ones; None: all.
    """
    if isinstance(result, Importances):
        return [("importances", importance_bars(result))]
    if not isinstance(result, Attributions):
        names = file_stems([each.name for each in result])
        return [(n, dependence_chart(each, subject)) for n, each in zip(names, result, strict=True)]
    if result.names:
        return [("attributions", attribution_bars(result, subject))]
    count = len(result.scores) if most is None else min(most, len(result.scores))
    names = part.file_names(count)
    return [(name, sample_drawing(result, subject, index)) for index, name in enumerate(names)]


def importance_bars(result: Importances) -> Drawing:
    """Permutation importances with their intervals."""
    title = f"What {result.figure} depends on"
    label = f"how much worse {result.figure} is when shuffled"
    low, high = _floats(result.low), _floats(result.high)
    return bars(title, result.names, _floats(result.drops), label, low, high)


def attribution_bars(result: Attributions, subject: Subject) -> Drawing:
    """Of one row what each column added; of several, how much on average, whichever way."""
    if len(result.scores) == 1:
        values, title = result.values[0], f"What speaks for {_explained(result, subject, 0)}"
        label = f"added to the {score_words(subject.target)}"
    else:
        values = result.values.abs().mean(0)
        title, label = (
            "What predictions depend on",
            f"mean size of what it adds ({len(result.scores):,} rows)",
        )
    order = values.abs().argsort(descending=True, stable=True)
    names = [result.names[index] for index in order.tolist()]
    return bars(title, names, _floats(values[order]), label)


def dependence_chart(each: Dependence, subject: Subject) -> Drawing:
    """Partial dependence on one column."""
    probability = isinstance(subject.target, Classes | Flags)
    label = f"probability of {each.output}" if probability else each.output
    numbers: Sequence[float] = each.numbers
    curves = (_floats(x) for x in (each.mean, each.low, each.high))
    return dependence(each.name, label, each.values, numbers, *curves)


def sample_drawing(result: Attributions, subject: Subject, index: int, title: str = "") -> Drawing:
    """A picture, a recording or a sequence with what speaks for and against what is explained.

    Args:
        index: of the sample.
        title: of the drawing; empty: what is explained, and its score.
    """
    stored, values = subject.part.take(torch.tensor([index]))[0][0].cpu(), result.values[index]
    if not result.baseline:
        values, title = values - values.mean(), title or "shares, less an equal share"
    if not title:
        score, before = (float(each[index]) for each in (result.scores, result.baseline_scores))
        title = f"{_explained(result, subject, index)}: {score:.4g}, baseline {before:.4g}"
    if isinstance(subject.preprocessing.spec.input, Image):
        if _spectrogram(subject):
            return _over_spectrogram(title, stored[0], values[0])
        pixels, smooth = pixels_of(stored)
        return over_picture(title, pixels, _floats(values.sum(0)), smooth=smooth)
    if stored.shape[1] > _MOST_LINES and not _waveform(subject):
        return _over_spectrogram(title, stored, values)
    series = stored.float()
    if _waveform(subject):
        series, values = series.reshape(-1, 1), values.reshape(-1, 1)
    return over_steps(title, _floats(series), _floats(values))


def _over_spectrogram(title: str, stored: Tensor, values: Tensor) -> Drawing:
    picture = upright(stretched(stored.float().nan_to_num())) * 255
    pixels = picture.round().clamp(0, 255).to(torch.uint8).numpy()
    return over_picture(title, pixels, _floats(upright(values)), smooth=True)


def _audio(subject: Subject) -> AudioSettings | None:
    settings = getattr(subject.preprocessing.reader, "settings", None)
    return settings if isinstance(settings, AudioSettings) else None


def _waveform(subject: Subject) -> bool:
    audio = _audio(subject)
    return audio is not None and audio.form == "raw"


def _spectrogram(subject: Subject) -> bool:
    return _audio(subject) is not None and not _waveform(subject)


def _explained(result: Attributions, subject: Subject, index: int) -> str:
    return subject.output_name(int(result.explained[index]))


def _floats(values: Tensor) -> np.ndarray:
    array: np.ndarray = values.double().numpy()
    return array
