"""Beam search: the likeliest text, looked for with several side by side."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from bigmodel.models.generation.sampling import Sampling
from bigmodel.models.generation.texts import Texts

Ended = list[tuple[float, tuple[int, ...]]]
"""Texts that have ended: how good each is, and its new tokens."""


@dataclass(frozen=True)
class Beam:
    """A text on the way: its log-probability, its new tokens, and which row it went on from."""

    score: float
    tokens: tuple[int, ...]
    row: int


def search(texts: Texts, sampling: Sampling) -> list[list[int] | None]:
    """Beam search: at each step, each text's most likely continuations, as many as there are beams.

    A text is done when as many of its continuations as there are beams have ended, or when none that
    goes on can still become better than the best of those. There is none, None, where the model gives
    NaN or infinity for one of them.
    """
    going = {index: [Beam(0.0, (), index)] for index in range(len(texts.rows))}
    ended: list[Ended] = [[] for _ in going]
    for position in range(sampling.max_tokens):
        log_probabilities = texts.logits.log_softmax(-1)
        for index, beams in list(going.items()):
            if any(texts.undefined[beam.row] for beam in beams):
                ended[index] = []
                del going[index]
                continue
            going[index] = continued(beams, log_probabilities, sampling, ended[index])
            last = position + 1 == sampling.max_tokens
            if last:
                ended[index] += [(_rated(beam, sampling), beam.tokens) for beam in going[index]]
            if last or _done(going[index], ended[index], sampling):
                del going[index]
        if not going:
            break
        beams = [beam for group in going.values() for beam in group]
        texts.select([beam.row for beam in beams])
        texts.append([beam.tokens[-1] for beam in beams])
        rows = iter(range(len(beams)))
        going = {i: [replace(beam, row=next(rows)) for beam in group] for i, group in going.items()}
    return [list(max(found)[1]) if found else None for found in ended]


def continued(
    beams: list[Beam],
    log_probabilities: Tensor,
    sampling: Sampling,
    ended: Ended,
) -> list[Beam]:
    """The best continuations that go on; of the best ones, those that end are added to `ended`."""
    before = torch.tensor([beam.score for beam in beams]).unsqueeze(1)
    scores = log_probabilities[[beam.row for beam in beams]] + before
    # one continuation of each beam may end, so twice as many leave enough that go on
    best = scores.flatten().topk(min(2 * sampling.beams, scores.numel()))
    found: list[Beam] = []
    for rank, (score, place) in enumerate(zip(*(part.tolist() for part in best), strict=True)):
        parent, token = beams[place // scores.shape[1]], place % scores.shape[1]
        if score == -math.inf:
            break
        beam = Beam(score, (*parent.tokens, token), parent.row)
        if token != sampling.end:
            found.append(beam)
        elif rank < sampling.beams:
            ended.append((_rated(beam, sampling), parent.tokens))
    return found[: sampling.beams]


def _rated(beam: Beam, sampling: Sampling, length: int | None = None) -> float:
    penalty: float = ((5 + (length or len(beam.tokens))) / 6) ** sampling.length_penalty
    return beam.score / penalty


def _done(going: list[Beam], ended: Ended, sampling: Sampling) -> bool:
    if not going or len(ended) >= sampling.beams:
        return True
    # log-probabilities only fall, and are divided by the most where the text is longest
    highest = max(_rated(beam, sampling, sampling.max_tokens) for beam in going)
    return bool(ended) and max(ended)[0] >= highest
