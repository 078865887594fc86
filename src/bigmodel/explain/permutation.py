"""Permutation importance (Breiman 2001; Fisher et al. 2019, arXiv:1801.01489): how much worse a model is
if the values of a column are shuffled among the rows.

The intervals are those of a bootstrap: the rows are drawn anew with replacement, shuffled, and judged
before and after. So they tell how much depends on the rows that there happen to be, and on the shuffles.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from bigmodel.errors import ConfigError
from bigmodel.explain.groups import Columns
from bigmodel.explain.results import Importances
from bigmodel.explain.subject import Options, Subject
from bigmodel.runtime import progress_messages

_RESAMPLES = 20


def permutation(subject: Subject, options: Options) -> Importances:
    """The importance of each column of a table, with 95 % intervals.

    Raises:
        ConfigError: the samples have no targets, or there is only one.
        UndefinedError: the model gives NaN or infinity.
    """
    figure = subject.needed_figure("permutation")
    if len(subject) < 2:
        raise ConfigError("--method permutation: needs two samples or more, whose values it shuffles.")
    subject.check_defined()
    columns = Columns.from_preprocessing(subject.preprocessing)
    draw = torch.Generator().manual_seed(options.seed)
    rows = _rows(len(subject), len(columns), options, draw)
    inputs, targets = subject.inputs(rows), subject.part.take(rows)[1].cpu()
    outputs = subject.outputs_of(inputs)
    value = figure(outputs, targets)
    # All columns are judged on the same resamples.
    resamples = torch.randint(len(rows), (_RESAMPLES, len(rows)), generator=draw)
    before = [figure(outputs[chosen], targets[chosen]) for chosen in resamples]
    found, done = [], 0

    def drop(places: Tensor, chosen: Tensor | None, base: float) -> float:
        own, true = (inputs, targets) if chosen is None else (inputs[chosen], targets[chosen])
        return figure.drop(base, figure(subject.outputs_of(_shuffled(own, places, draw)), true))

    with progress_messages.report_progress(lambda: f"Shuffling: {done} of {len(columns):,} columns"):
        for column in range(len(columns)):
            places = columns.inputs(column).to(inputs.device)
            drops = torch.tensor([drop(places, None, value) for _ in range(options.repeats)])
            others = [drop(places, *each) for each in zip(resamples, before, strict=True)]
            found.append((drops.mean(), _deviation(drops, torch.tensor(others))))
            done += 1
    mean, half = (torch.stack(each) for each in zip(*found, strict=True))
    half = half * _student(_RESAMPLES - 1)
    order = torch.argsort(mean, descending=True, stable=True)
    return Importances(
        figure.name,
        value,
        tuple(columns.names[column] for column in order.tolist()),
        mean[order],
        (mean - half)[order],
        (mean + half)[order],
        len(rows),
    )


def _rows(samples: int, columns: int, options: Options, draw: torch.Generator) -> Tensor:
    """The rows that are judged: all, or a draw of them that keeps to the `budget`."""
    most = max(200, options.budget // (columns * (options.repeats + _RESAMPLES)))
    if samples <= most:
        return torch.arange(samples)
    return torch.randperm(samples, generator=draw)[:most].sort().values


def _shuffled(inputs: Tensor, places: Tensor, draw: torch.Generator) -> Tensor:
    order = torch.randperm(len(inputs), generator=draw).to(inputs.device)
    shuffled = inputs.clone()
    shuffled[:, places] = inputs[order][:, places]
    return shuffled


def _deviation(drops: Tensor, resampled: Tensor) -> Tensor:
    """Of the mean of `drops`: that of resampled rows, less what several shuffles average out.

    Args:
        drops: each by a shuffle of the same rows.
        resampled: each by one shuffle of rows drawn anew. NaN where the figure is not defined.
    """
    known = resampled[resampled.isfinite()]
    if 2 * len(known) <= len(resampled) or not drops.isfinite().all():
        return torch.tensor(math.nan)
    whole = known.var()
    averaged = drops.var() * (1 - 1 / len(drops)) if len(drops) > 1 else torch.zeros(())
    return torch.maximum(whole - averaged, whole / 4).sqrt()


def _student(freedom: int) -> float:
    """The 97.5 % quantile of Student's distribution."""
    from scipy.special import stdtrit  # slow to import

    return float(stdtrit(freedom, 0.975))
