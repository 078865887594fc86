"""Beam search for the most likely text."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from bigmodel.models.generation.decoding import DecodingBatch
from bigmodel.models.generation.sampling import Sampling

Finished = list[tuple[float, tuple[int, ...]]]
"""Texts that have ended: the score of each, and its new tokens."""


@dataclass(frozen=True)
class Beam:
    """An unfinished text: its log-probability, its new tokens, and the row that it continues."""

    log_probability: float
    tokens: tuple[int, ...]
    row: int


def beam_search(batch: DecodingBatch, sampling: Sampling) -> list[list[int] | None]:
    """At each step, keeps each text's most likely continuations, as many as there are beams.

    A text is done when as many of its continuations as there are beams have ended, or when no unfinished
    one can still become better than the best of those.

    Returns:
        The new tokens of each text; None if the model gives NaN or infinity for one of its beams.
    """
    active = {index: [Beam(0.0, (), index)] for index in range(len(batch.rows))}
    finished: list[Finished] = [[] for _ in active]
    for position in range(sampling.max_tokens):
        log_probs = batch.logits.log_softmax(-1)
        for index, beams in list(active.items()):
            if any(batch.undefined[beam.row] for beam in beams):
                finished[index] = []
                del active[index]
                continue
            active[index] = expand(beams, log_probs, sampling, finished[index])
            is_last = position + 1 == sampling.max_tokens
            if is_last:
                finished[index] += [(_score(beam, sampling), beam.tokens) for beam in active[index]]
            if is_last or _is_done(active[index], finished[index], sampling):
                del active[index]
        if not active:
            break
        beams = [beam for group in active.values() for beam in group]
        batch.select([beam.row for beam in beams])
        batch.append([beam.tokens[-1] for beam in beams])
        # The rows of the batch are now the beams in this order.
        rows = iter(range(len(beams)))
        active = {i: [replace(beam, row=next(rows)) for beam in group] for i, group in active.items()}
    return [list(max(texts)[1]) if texts else None for texts in finished]


def expand(beams: list[Beam], log_probs: Tensor, sampling: Sampling, finished: Finished) -> list[Beam]:
    """The best unfinished continuations; of the best ones, those that end are added to `finished`."""
    before = torch.tensor([beam.log_probability for beam in beams]).unsqueeze(1)
    totals = log_probs[[beam.row for beam in beams]] + before
    # One continuation of each beam may end, so twice as many leave enough unfinished ones.
    best = totals.flatten().topk(min(2 * sampling.beams, totals.numel()))
    unfinished: list[Beam] = []
    for rank, (total, index) in enumerate(zip(*(part.tolist() for part in best), strict=True)):
        parent, token = beams[index // totals.shape[1]], index % totals.shape[1]
        if total == -math.inf:
            break
        beam = Beam(total, (*parent.tokens, token), parent.row)
        if token != sampling.end:
            unfinished.append(beam)
        elif rank < sampling.beams:
            finished.append((_score(beam, sampling), parent.tokens))
    return unfinished[: sampling.beams]


def _score(beam: Beam, sampling: Sampling, length: int | None = None) -> float:
    penalty: float = ((5 + (length or len(beam.tokens))) / 6) ** sampling.length_penalty
    return beam.log_probability / penalty


def _is_done(active: list[Beam], finished: Finished, sampling: Sampling) -> bool:
    if not active or len(finished) >= sampling.beams:
        return True
    # Log-probabilities only fall, and the penalty that divides them is largest for the longest text.
    highest = max(_score(beam, sampling, sampling.max_tokens) for beam in active)
    return bool(finished) and max(finished)[0] >= highest
