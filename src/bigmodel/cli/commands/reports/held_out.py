"""What a report tells of a model's predictions of held-out data."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from bigmodel.build.header import describe_loss
from bigmodel.cli.commands.eval import EvalData, chosen_metrics
from bigmodel.cli.commands.loaded_run import LoadedRun
from bigmodel.cli.commands.reports.columns import column_blocks
from bigmodel.cli.commands.reports.reasons import lens_sections, reasons_for_mistakes
from bigmodel.cli.commands.reports.sureness import sureness_blocks
from bigmodel.data.base import SET_NAMES
from bigmodel.data.media.audio import AudioSettings
from bigmodel.data.packing import PackedDocuments
from bigmodel.data.parts import SplitData
from bigmodel.data.reader import TextReader
from bigmodel.errors import DIVERGED, UndefinedError, counted
from bigmodel.metrics import defined, metrics_for, undefined_reasons
from bigmodel.models.base import Writer
from bigmodel.reporting.formatting import figure
from bigmodel.reporting.report import charts, held_out, samples
from bigmodel.reporting.report.axes import Series
from bigmodel.reporting.report.content import (
    Block,
    Chart,
    Charts,
    Exhibit,
    Exhibits,
    Facts,
    Note,
    RunReport,
    Table,
    cut,
)
from bigmodel.spec import IGNORED, Multitask, NextTokens, Values
from bigmodel.training.outputs import model_outputs, token_losses
from bigmodel.training.text_samples import TextSampler

_CHUNK = 1 << 16  # samples whose figures are computed at a time
_MOST_TEXTS = 128  # whose tokens' losses are computed


def add_evaluation(
    report: RunReport, loaded: LoadedRun, data: EvalData, batch_size: int | None, exhibits: int
) -> None:
    """Adds what predictions show; for texts, what the model writes.

    Args:
        report: what is added to.
        loaded: the run.
        data: held-out samples.
        batch_size: samples computed at once; None chooses.
        exhibits: the most mistakes that are shown.
    """
    part, target = data.dataset.part(data.part), data.dataset.spec.target
    if isinstance(target, NextTokens):
        _add_texts(report, loaded, data, exhibits)
        return
    outputs = model_outputs(loaded.model, part, data.dataset.preprocessing, loaded.runtime, batch_size)
    targets = part.take(slice(0, len(part)))[1].cpu()
    known = defined(outputs, target)
    heading = f"On {data.source}"
    rows = [("Samples", f"{len(part):,}"), ("Loss", describe_loss(loaded.loss(), target))]
    if not known.all():
        lost = counted(int((~known).sum()), "sample")
        report.add(
            heading, Facts(rows), Note(f"The model gives NaN or infinity for {lost}. {DIVERGED}", True)
        )
        if not known.any():
            return
    else:
        figures, reasons = _figures(loaded, outputs, targets)
        table = Table(
            ["", "value"], [[name, _figure(value)] for name, value in figures.items()], frozenset({1})
        )
        reasons_shown = [Note(f"{name} is not defined: {why}.") for name, why in reasons.items()]
        report.add(heading, Facts(rows), table, *reasons_shown)
    if isinstance(target, Multitask):
        return
    places = known.nonzero()[:, 0]
    report.sections += held_out.sections(outputs[known], targets[known], target)
    if data.path is not None or data.part != "val":  # which the calibration is from
        report.add("How sure it is", *sureness_blocks(loaded, outputs[known], targets[known]))
    if known.all():
        report.add("What it depends on", *column_blocks(loaded, data))
    mistakes = held_out.worst(outputs[known], targets[known], target, exhibits)
    placed = [replace(mistake, index=int(places[mistake.index])) for mistake in mistakes]
    shown = _shown(loaded, data)
    report.add("The worst mistakes", *_mistakes(shown, data, placed))
    report.sections += reasons_for_mistakes(loaded, data, placed, shown.names)


def _figures(
    loaded: LoadedRun, outputs: Tensor, targets: Tensor
) -> tuple[dict[str, float], dict[str, str]]:
    """Loss and metrics from outputs that are there already, and why some are undefined."""
    device, loss = loaded.runtime.device, loaded.loss().eval()
    metrics = metrics_for(loaded.preprocessing.spec.target, device)
    chosen = chosen_metrics(loaded)
    total, weight = torch.zeros((), device=device), torch.zeros((), device=device)
    with torch.inference_mode():
        for first in range(0, len(outputs), _CHUNK):
            own, true = (each[first : first + _CHUNK].to(device) for each in (outputs, targets))
            total, weight = total + loss(own, true), weight + loss.normaliser(true)
            metrics.update(own, true)
            chosen.update(own, true)
    usual = {"loss": float(total / weight), **metrics.compute()}
    more = chosen.compute([chosen.gathered()])
    return usual | more.values, undefined_reasons(usual) | more.reasons


def _mistakes(shown: samples.Shown, data: EvalData, mistakes: Sequence[held_out.Mistake]) -> list[Block]:
    target = data.dataset.spec.target
    if not mistakes:
        return [Note(f"There are none: every prediction for {data.source} is right.")]
    part = data.dataset.part(data.part)
    index = torch.tensor([mistake.index for mistake in mistakes])
    inputs = [part.take(one[None].to(part.device))[0][0].cpu() for one in index]
    what = "the largest errors" if isinstance(target, Values) else "the least probability of the truth"
    words = f"Those with {what} come first. Samples and rows are counted from 0."
    return [Note(words), shown.mistakes(inputs, mistakes)]


def _shown(loaded: LoadedRun, data: EvalData) -> samples.Shown:
    dataset, reader = data.dataset, loaded.preprocessing.reader
    settings = getattr(reader, "settings", None)
    audio = settings if isinstance(settings, AudioSettings) else None
    names: Sequence[str] = ()
    if data.part == "val" and data.path is None:
        rows = dataset.val_rows
        names = dataset.val_files or ([] if rows is None else [f"row {row}" for row in rows.tolist()])
    raw = audio is not None and audio.form == "raw"
    return samples.Shown(
        dataset.spec.input, reader, spectrogram=audio is not None and not raw, waveform=raw, names=names
    )


def _add_texts(report: RunReport, loaded: LoadedRun, data: EvalData, exhibits: int) -> None:
    """How well next tokens are predicted, by position and text, and what the model writes."""
    part, reader = data.dataset.part(data.part), data.dataset.reader
    if isinstance(part, PackedDocuments):
        part = part.unpacked()  # each text by itself
    count = min(_MOST_TEXTS, len(part))
    chosen = torch.arange(count) * (len(part) // count)
    losses = token_losses(loaded.model, part, chosen, loaded.runtime).double()
    if not losses[~losses.isnan()].isfinite().all() or losses.isnan().all():
        report.add(f"On {data.source}", Note(f"The model gives NaN or infinity. {DIVERGED}", True))
        return
    known = (~losses.isnan()).sum(0)
    means = losses.nansum(0) / known
    enough = [n for n, samples in enumerate(known.tolist()) if 10 * samples >= count]  # others are noise
    line = Series("loss", [(n + 1.0, float(means[n])) for n in enough])
    drawn = charts.learning_curves("Loss of a token", [line], over="position in the text")
    which = "all" if count == len(part) else f"{count:,} of {len(part):,}, evenly spread"
    words = f"Mean over {which} samples; later tokens are predicted from more text."
    report.add(f"On {data.source}", Charts([Chart("loss-by-position", drawn)]), Note(words))
    each = losses.nanmean(1)
    order = torch.argsort(each, descending=True, stable=True)[: exhibits // 4].tolist()
    if isinstance(reader, TextReader):
        worst = [_unexpected(part, reader, int(chosen[n]), float(each[n])) for n in order]
        report.add("The texts that the model expected least", Exhibits(worst))
    report.add("Generated texts", *_generated(loaded, data))
    report.sections += lens_sections(loaded, data)


def _unexpected(part: SplitData, reader: TextReader, index: int, loss: float) -> Exhibit:
    """A text with its mean loss; of a pair, the second, after the first."""
    inputs, targets = (each[0] for each in part.take(torch.tensor([index])))
    text = cut(reader.decode([token for token in targets.tolist() if token != IGNORED]))
    lines = [("mean loss", figure(loss)), ("sample", str(index))]
    if inputs.dim() == 2:
        lines.insert(0, ("source", cut(reader.decode(inputs[0].tolist()))))
    return Exhibit("", lines, text=text)


def _generated(loaded: LoadedRun, data: EvalData) -> list[Block]:
    sampler = TextSampler.of(data.dataset, loaded.model, loaded.runtime.device, 0, 1)
    if sampler is None:
        return []
    assert isinstance(loaded.model, Writer)
    try:
        texts = sampler.examples(loaded.model, data.part)
    except UndefinedError as error:
        return [Note(str(error), warning=True)]
    exhibits = []
    for each in texts:
        text, prompt = cut(each.text, 1000), cut(each.prompt)
        if each.truth:
            lines = [("source", prompt), ("reference", cut(each.truth))]
            exhibits.append(Exhibit("", lines, text=text))
        else:
            exhibits.append(Exhibit("", [], text=text, before=prompt))
    words = f"Written by the model for texts of the {SET_NAMES[data.part]} set"
    grey = "" if texts and texts[0].truth else ", after what is grey"
    return [Note(f"{words}{grey}."), Exhibits(exhibits)] if exhibits else []


def _figure(value: float) -> str:
    return figure(value) if math.isfinite(value) else "–"
