"""One pass over held-out data."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import torch
from torch import nn

from bigmodel.data.base import Batch, Dataset
from bigmodel.data.batching.batches import Batches
from bigmodel.data.reader import TextReader
from bigmodel.distributed.ranks import ALONE, Ranks
from bigmodel.losses import Loss
from bigmodel.metrics import ChosenMetrics, Figures, Metrics, undefined_reasons
from bigmodel.metrics.chosen import whole_of
from bigmodel.metrics.score_counts import ScoreCounts
from bigmodel.metrics.threshold import Maximised, best_cuts, move
from bigmodel.models.base import eval_mode
from bigmodel.reporting.base import EvaluationResult, PredictedSample
from bigmodel.runtime import progress_messages
from bigmodel.runtime.device import Runtime
from bigmodel.spec import Classes, NextTokens, Target, Tokens, Values

SAMPLES = 16
"""How many samples of a part are kept with their prediction, for reports."""


def evaluate(
    model: nn.Module,
    batches: Batches,
    loss: Loss,
    metrics: Metrics,
    runtime: Runtime,
    dataset: Dataset,
    *,
    samples: bool = False,
    at_once: int | None = None,
    between: Callable[[], None] = lambda: None,
    ranks: Ranks = ALONE,
    lockstep: bool = False,
    chosen: ChosenMetrics | None = None,
    by_class: bool = False,
    cuts: Sequence[float] | None = None,
    maximised: Maximised | None = None,
) -> EvaluationResult:
    """Evaluates a model on every sample of a part, model and loss in evaluation mode.

    If the model returns NaN or infinity for a sample, every metric is NaN. A metric that the samples
    leave undefined, such as r2 if all targets are equal, is NaN alone.

    Args:
        batches: the part, in order.
        metrics: they are reset first.
        samples: whether to keep the first few samples with their predictions, and how scores are
            distributed.
        at_once: the most samples that go through the model at once; None: a batch.
        between: called before each batch; what it raises ends the pass.
        ranks: the processes that share the samples of each batch.
        lockstep: whether all of them have to call the model equally often (`Parallel.lockstep`).
        chosen: more metrics, which are reset first; None: there are none.
        by_class: whether to compute those of each class, too.
        cuts: thresholds that decisions are judged with, as `metrics.threshold` has it; None: 0.5.
        maximised: what to find such thresholds for; None: they are not looked for.
    """
    metrics.reset()
    chosen, target = ChosenMetrics() if chosen is None else chosen, dataset.spec.target
    chosen.reset(keeps=maximised is not None)
    counts = ScoreCounts.of(target, runtime.device) if samples else None
    seen = _Seen(torch.zeros((), device=runtime.device), counts)
    done, size = 0, len(batches.part)
    reporting = progress_messages.report_progress(lambda: f"Evaluating: {done:,} of {size:,} samples")
    # What torch gathers of a sharded model is used in training again, for which inference mode is wrong.
    without_gradients = torch.no_grad() if lockstep else torch.inference_mode()
    with without_gradients, eval_mode(model), eval_mode(loss), reporting:
        for whole in _cut(batches.epoch(0), at_once and at_once * ranks.data_size):
            between()
            done += len(whole)
            seen.weight = seen.weight + loss.normaliser(whole.targets)
            if not len(batch := whole.rows(ranks.rows(len(whole)))):
                if lockstep:
                    with runtime.autocast():
                        model(whole.inputs[:1])
                continue
            with runtime.autocast():
                outputs = model(batch.inputs)
                seen.loss = seen.loss + loss(outputs, batch.targets)
            decided = move(outputs, cuts, target)
            metrics.update(decided, batch.targets)
            chosen.update(outputs, batch.targets, decided)
            if seen.counts is not None:
                seen.counts.update(outputs, batch.targets)
            if samples and not isinstance(target, NextTokens) and len(seen.samples) < SAMPLES:
                seen.samples += _samples(batch, decided, dataset, SAMPLES - len(seen.samples))
    result = _result(seen, metrics.summed(ranks.sum), chosen, target, ranks, by_class, maximised)
    chosen.reset()  # the outputs of all samples need not be kept any longer
    return result


@dataclass
class _Seen:
    """What is gathered over the batches of a pass, beside the metrics.

    Attributes:
        loss: the sum of the losses.
        counts: how scores are distributed; None: they are not counted.
        weight: what to divide the loss by.
        samples: the first few.
    """

    loss: torch.Tensor
    counts: ScoreCounts | None
    weight: torch.Tensor | int = 0
    samples: list[PredictedSample] = field(default_factory=list)


def _result(
    seen: _Seen,
    metrics: Metrics,
    chosen: ChosenMetrics,
    target: Target,
    ranks: Ranks,
    by_class: bool,
    maximised: Maximised | None,
) -> EvaluationResult:
    computed = metrics.compute()
    values = {"loss": float(ranks.sum(seen.loss) / seen.weight), **computed}
    undefined = math.isnan(values["loss"]) or all(map(math.isnan, computed.values()))
    if undefined:  # the loss may be finite if it ignores that sample
        values = dict.fromkeys([*values, *chosen.directions], math.nan)
    figures, best = Figures(), None
    if (chosen.metrics or maximised) and not undefined:
        # Those that compute layers together have the same samples.
        parts = list(dict(ranks.gather((ranks.data_rank, chosen.gathered()))).values())
        figures, kept = chosen.compute(parts, by_class=by_class), whole_of(parts)
        best = best_cuts(*kept, target, maximised) if maximised and kept else None
    return EvaluationResult(
        metrics=values | figures.values,
        reasons={} if undefined else undefined_reasons(values) | figures.reasons,
        by_class=figures.by_class,
        best_cuts=best,
        undefined=undefined,
        confusion=None if undefined or metrics.confusion is None else metrics.confusion.cpu(),
        class_names=target.names if isinstance(target, Classes) else (),
        samples=seen.samples,
        score_counts={} if undefined or seen.counts is None else seen.counts.by_name(ranks.sum),
    )


def _cut(batches: Iterator[Batch], at_once: int | None) -> Iterator[Batch]:
    for batch in batches:
        size = at_once or len(batch)
        yield from map(Batch, torch.split(batch.inputs, size), torch.split(batch.targets, size))


def _samples(batch: Batch, outputs: torch.Tensor, dataset: Dataset, count: int) -> list[PredictedSample]:
    inputs = _shown(batch.inputs[:count], dataset)
    predictions = outputs[:count].float().tolist()
    truths = batch.targets[:count].tolist()
    spec = dataset.spec
    pairs = [(spec.label(p), spec.truth(t)) for p, t in zip(predictions, truths, strict=True)]
    comparable = not isinstance(spec.target, Values)
    return [
        PredictedSample(x, predicted, true, predicted == true if comparable else None)
        for x, (predicted, true) in zip(inputs, pairs, strict=True)
    ]


def _shown(inputs: torch.Tensor, dataset: Dataset) -> list[torch.Tensor | str]:
    """Inputs as a report shows them: texts in words, all else in the stored scale."""
    kind, reader = dataset.spec.input, dataset.reader
    if isinstance(kind, Tokens) and isinstance(reader, TextReader):
        return [reader.decode([t for t in text if t != kind.pad]) for text in inputs.tolist()]
    return list(dataset.preprocessing.denormalize(inputs.cpu()))
