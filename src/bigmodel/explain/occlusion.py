"""Occlusion (Zeiler and Fergus 2013, arXiv:1311.2901): what the score loses if a part is replaced.

A patch of the baseline slides over each sample. Each place is given the mean of what all patches that
cover it take away. Unlike integrated gradients these do not add up to anything, but they need no
gradient, and show regions instead of single pixels.
"""

from __future__ import annotations

import itertools

import torch
from torch import Tensor

from bigmodel.explain.baselines import baseline_of
from bigmodel.explain.groups import Columns
from bigmodel.explain.results import Attributions
from bigmodel.explain.subject import Options, Subject
from bigmodel.runtime import progress_messages
from bigmodel.spec import Features, Image, Input

_PATCHES = 8  # that lie beside each other along the longer side of an image
_STEPS = 16  # of a sequence


def occlusion(subject: Subject, options: Options) -> Attributions:
    """What the score of each sample loses without a column, a patch of pixels, or some steps."""
    kind = subject.preprocessing.spec.input
    baseline = baseline_of(subject.preprocessing)
    start, every = baseline.inputs.to(subject.runtime.device), torch.arange(len(subject))
    scores = subject.scores_of(subject.inputs(), every)
    names: tuple[str, ...] = ()
    if isinstance(kind, Features):
        columns = Columns.from_preprocessing(subject.preprocessing)
        names = columns.names
        taken = [
            _without(subject, start, columns.inputs(n).to(start.device)) for n in range(len(columns))
        ]
        values = scores[:, None] - torch.stack(taken, dim=1)
    else:
        values = _over_patches(subject, start, scores, patch_of(kind, options.patch))
    baseline_scores = subject.scores_of(start.expand(len(subject), *kind.shape), every)
    return Attributions(
        "occlusion",
        values.float(),
        subject.explained,
        scores=scores,
        baseline_scores=baseline_scores,
        baseline=baseline.words,
        complete=False,
        names=names,
    )


def patch_of(kind: Input, side: int | None) -> tuple[int, int]:
    """Height and width of a patch: pixels of an image, or steps and features of a sequence.

    Args:
        side: of a square of pixels, or steps; None chooses.
    """
    if isinstance(kind, Image):
        longer = max(kind.height, kind.width)
        square = min(side or max(1, round(longer / _PATCHES)), longer)
        return min(square, kind.height), min(square, kind.width)
    steps, features = kind.shape
    few = features <= _PATCHES
    return min(side or max(1, round(steps / _STEPS)), steps), 1 if few else round(features / _PATCHES)


def _without(subject: Subject, start: Tensor, places: Tensor) -> Tensor:
    inputs = subject.inputs().clone()
    inputs[:, places] = start[:, places]
    return subject.scores_of(inputs, torch.arange(len(subject)))


def _over_patches(subject: Subject, start: Tensor, scores: Tensor, patch: tuple[int, int]) -> Tensor:
    """The mean of what patches take away at each place; the same for all channels: (samples, *shape)."""
    inputs, every = subject.inputs(), torch.arange(len(subject))
    *_, height, width = inputs.shape
    taken, covered = torch.zeros(len(inputs), height, width), torch.zeros(height, width)
    corners = list(
        itertools.product(*(_starts(*each) for each in zip((height, width), patch, strict=True)))
    )
    done = 0
    with progress_messages.report_progress(lambda: f"Covering: {done:,} of {len(corners):,} places"):
        for top, left in corners:
            area = (..., slice(top, top + patch[0]), slice(left, left + patch[1]))
            changed = inputs.clone()
            changed[area] = start[area]
            lost = scores - subject.scores_of(changed, every)
            taken[area] += lost[:, None, None]
            covered[area] += 1
            done += 1
    values = taken / covered
    return values[:, None].expand(inputs.shape) / inputs.shape[1] if inputs.dim() == 4 else values


def _starts(length: int, patch: int) -> list[int]:
    """Where patches begin that overlap by half, and cover everything."""
    return sorted({*range(0, length - patch, max(1, patch // 2)), length - patch})
