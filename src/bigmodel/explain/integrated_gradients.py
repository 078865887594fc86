"""Attributions of real inputs by integrated gradients; see `path_integral`."""

from __future__ import annotations

import torch
from torch import Tensor

from bigmodel.errors import ConfigError
from bigmodel.explain.baselines import baseline_of
from bigmodel.explain.groups import Columns
from bigmodel.explain.lookups import Lookups
from bigmodel.explain.path_integral import integrate
from bigmodel.explain.results import Attributions
from bigmodel.explain.subject import Options, Subject
from bigmodel.explain.token_gradients import token_gradients
from bigmodel.spec import Features, Image, Sequence, Tokens

_NUMBERS = 1 << 23  # inputs of so many numbers in all are explained at once


def integrated_gradients(subject: Subject, options: Options) -> Attributions:
    """How much each column, pixel, feature of a step, or token added to the score, for each sample."""
    kind = subject.preprocessing.spec.input
    if isinstance(kind, Tokens):
        return token_gradients(subject, options)
    if not isinstance(kind, Features | Image | Sequence):
        raise ConfigError(f"--method integrated_gradients: cannot explain {kind} yet.")
    baseline = baseline_of(subject.preprocessing)
    start = baseline.inputs.to(subject.runtime.device)
    size = max(1, _NUMBERS // start.numel())
    columns = Columns.from_preprocessing(subject.preprocessing) if isinstance(kind, Features) else None
    origins = lookup_origins(subject)
    values, ends = [], []
    for chosen in torch.split(torch.arange(len(subject)), size):
        inputs = subject.inputs(chosen)
        score = subject.score_of(chosen)
        path = integrate(subject.model, inputs, start, score, most=options.most)
        own = path.values
        if columns is not None:
            for vectors, origin in zip(path.looked_up, origins, strict=True):
                own = own + vectors.flatten(1) @ origin
            own = columns.sum(own)
        values.append(own.cpu())
        ends.append(torch.stack([path.start, path.end]).cpu())
    scores = torch.cat(ends, dim=1)
    return Attributions(
        "integrated_gradients",
        torch.cat(values),
        subject.explained,
        scores=scores[1],
        baseline_scores=scores[0],
        baseline=baseline.words,
        complete=True,
        names=() if columns is None else columns.names,
    )


def lookup_origins(subject: Subject) -> list[Tensor]:
    """See `Lookups.origins`; empty if there are no categories."""
    kind = subject.preprocessing.spec.input
    if not (isinstance(kind, Features) and any(kind.categories)):
        return []
    return Lookups(subject.model).origins(subject.model, kind, subject.runtime.device)
