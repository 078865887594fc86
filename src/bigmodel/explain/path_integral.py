"""Integrated gradients (Sundararajan et al. 2017, arXiv:1703.01365), to a tolerance.

The gradient of a score is integrated along the straight line from a baseline to an input. The sum over
all parts of the input is the difference of the two scores, whatever the network: so the error of each
stretch of the line is known. It is largest at the kinks of ReLU, which no fixed number of steps resolves
for every sample. There the weights of the nodes are adjusted a little, and where that does not suffice,
the stretch is halved.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from bigmodel.errors import ConfigError
from bigmodel.explain.lookups import Lookups
from bigmodel.explain.subject import Score

TOLERANCE = 1e-3
"""Of the sum of a sample's attributions, relative to the difference of its scores."""

_NODES = 8  # of Gauss and Legendre's rule, in each stretch
_STRETCHES = 4  # that a line begins with
_HALVINGS = 10
_MOST = 1024  # points that go through the model at once
_BYTES = 64 << 20  # of inputs at once
_MOST_STRETCHES = 256  # of a sample; from there on errors are of rounding, or not worth the time
_UNADJUSTED = 20  # times the tolerance is what the rule may be wrong by before its weights are adjusted
_CANCELLED = 1e-5  # of the sum of all sizes: less is not told from rounding


@dataclass(frozen=True)
class PathIntegral:
    """Attributions of a batch.

    Attributes:
        values: of the inputs, in their shape; of what is looked up, 0.
        looked_up: of each call of a lookup, the attributions of its vectors, (samples, …).
        indices: the indices that each call looked up, (samples, …).
        start, end: the scores of baseline and input, (samples,).
    """

    values: Tensor
    looked_up: list[Tensor]
    indices: list[Tensor]
    start: Tensor
    end: Tensor


def integrate(
    model: nn.Module,
    inputs: Tensor,
    baseline: Tensor | None,
    score: Score,
    *,
    tolerance: float = TOLERANCE,
    most: int | None = None,
) -> PathIntegral:
    """Integrates the score's gradient from the baseline to each input.

    Vectors that a model looks up are moved too, from those of the baseline to those of the input. Inputs
    of an integer type stay as they are, so that lengths and masks are the input's all along.

    Args:
        model: on the inputs' device, in evaluation mode.
        inputs: model inputs, (samples, *shape).
        baseline: (1, *shape) or (samples, *shape), of the same type. None: of texts, tokens whose
            vectors are zero.
        score: what is explained. It is given the indices of samples in `inputs`.
        tolerance: see `TOLERANCE`.
        most: points that go through the model at once; None chooses.
    """
    whole = None if baseline is None else baseline.expand_as(inputs)
    walk = _Walk.of(model, inputs, whole, score, most)
    count = len(inputs)
    sums = [torch.zeros_like(part, dtype=torch.float64) for part in walk.differences]
    gap, done = torch.zeros(2, count, dtype=torch.float64, device=inputs.device)
    sample = torch.arange(count, device=inputs.device).repeat_interleave(_STRETCHES)
    low = (torch.arange(_STRETCHES, device=inputs.device) / _STRETCHES).repeat(count)
    width = torch.full_like(low, 1 / _STRETCHES)
    start, end = (walk.scores(torch.arange(count, device=inputs.device), at) for at in (0.0, 1.0))
    for halving in range(_HALVINGS + 1):
        found = walk.stretches(sample, low, width)
        size = done.index_add(0, sample, found.sizes)
        allowed = tolerance / 2 * (end - start).abs() + _CANCELLED * size
        pending = torch.bincount(sample, minlength=count)
        # Errors of stretches that are halved no more stay; those of the others are to become small.
        errors = torch.maximum(found.errors.abs(), found.plain_errors.abs() / _UNADJUSTED)
        total = torch.zeros_like(gap).index_add(0, sample, errors)
        unsure = (gap + total > allowed) & (pending < _MOST_STRETCHES) & (halving < _HALVINGS)
        again = unsure[sample] & (errors > (allowed / (2 * pending.clamp(min=1)))[sample])
        kept = ~again
        for whole, part in zip(sums, found.parts, strict=True):
            whole.index_add_(0, sample[kept], part[kept].double())
        gap.index_add_(0, sample[kept], errors[kept])
        done.index_add_(0, sample[kept], found.sizes[kept])
        if not again.any():
            break
        sample, width = sample[again].repeat_interleave(2), (width[again] / 2).repeat_interleave(2)
        low = low[again].repeat_interleave(2)
        low[1::2] += width[1::2]
    own = sums.pop(0) if walk.moves_inputs else torch.zeros_like(inputs, dtype=torch.float64)
    looked_up = [
        sums.pop(0).sum(-1).float() if moved else torch.zeros_like(index, dtype=torch.float32)
        for moved, index in zip(walk.moved, walk.indices, strict=True)
    ]
    return PathIntegral(own.float(), looked_up, walk.indices, start.float(), end.float())


@dataclass(frozen=True)
class _Walk:
    """Points on the line between baselines and inputs, and what the model gives there.

    Attributes:
        moves_inputs: whether inputs are moved themselves; the first of `starts`, then.
        moved: which calls of lookups give other vectors for the input than for the baseline. Others,
            such as those of positions, need not even have a vector for each sample.
        starts, differences: the baselines, and how far they are from the inputs: of the inputs, and of
            the vectors of each call that is moved.
    """

    model: nn.Module
    lookups: Lookups
    inputs: Tensor
    score: Score
    moves_inputs: bool
    moved: list[bool]
    starts: list[Tensor]
    differences: list[Tensor]
    indices: list[Tensor]
    most: int

    @classmethod
    def of(
        cls, model: nn.Module, inputs: Tensor, baseline: Tensor | None, score: Score, most: int | None
    ) -> _Walk:
        lookups, moves = Lookups(model), inputs.is_floating_point()
        most = most or max(_NODES, min(_MOST, _BYTES // (4 * inputs[0].numel())))
        indices: list[Tensor] = []
        pieces: list[list[Tensor]] = []
        for whole in (inputs if baseline is None else baseline, inputs):
            batches = [lookups.found(model, each) for each in torch.split(whole, most)]
            indices = [torch.cat(calls) for calls in zip(*(each[0] for each in batches), strict=True)]
            pieces.append(
                [torch.cat(calls) for calls in zip(*(each[1] for each in batches), strict=True)]
            )
        starts, ends = pieces
        if baseline is None:
            starts = _without_tokens(ends, indices, inputs)
        moved = [not torch.equal(*pair) for pair in zip(starts, ends, strict=True)]
        starts, ends = ([v for v, own in zip(vs, moved, strict=True) if own] for vs in (starts, ends))
        if moves and baseline is not None:
            starts, ends = [baseline.detach(), *starts], [inputs.detach(), *ends]
        differences = [end - start for start, end in zip(starts, ends, strict=True)]
        return cls(model, lookups, inputs, score, moves, moved, starts, differences, indices, most)

    def scores(self, sample: Tensor, at: Tensor | float) -> Tensor:
        """The score at points of the line, 0 for the baseline: (points,) float64."""
        at = torch.as_tensor(at, device=self.inputs.device).expand(len(sample))
        batches = zip(torch.split(sample, self.most), torch.split(at, self.most), strict=True)
        with torch.no_grad():
            return torch.cat([self._score(each, self._points(each, t)).double() for each, t in batches])

    def stretches(self, sample: Tensor, low: Tensor, width: Tensor) -> _Stretches:
        """Integrates over the stretches of samples from `low` to `low + width`."""
        ends = self.scores(sample, low), self.scores(sample, low + width)
        size = max(1, self.most // _NODES)
        given = (torch.split(each, size) for each in (sample, low, width, ends[1] - ends[0]))
        found = [self._stretches(*each) for each in zip(*given, strict=True)]
        parts = [torch.cat(each) for each in zip(*(one.parts for one in found), strict=True)]
        return _Stretches(
            parts, *(torch.cat(each) for each in zip(*(f[1:] for f in found), strict=True))
        )

    def _stretches(self, sample: Tensor, low: Tensor, width: Tensor, gain: Tensor) -> _Stretches:
        nodes, weights = (
            torch.tensor(each, device=low.device, dtype=low.dtype)
            for each in np.polynomial.legendre.leggauss(_NODES)
        )
        points = (low[:, None] + width[:, None] * (nodes + 1) / 2).flatten()
        several = sample.repeat_interleave(_NODES)
        moved = [point.requires_grad_() for point in self._points(several, points)]
        with torch.enable_grad(), _differentiable(self.model):
            total = self._score(several, moved).sum()
            gradients = torch.autograd.grad(total, moved, allow_unused=True, materialize_grads=True)
        # What each node says of each part, if the whole stretch were like it: (stretches, nodes, …).
        each = [
            gradient.view(-1, _NODES, *gradient.shape[1:]) * _beside(width, difference[sample])[:, None]
            for gradient, difference in zip(gradients, self.differences, strict=True)
        ]
        slopes = torch.stack([part.flatten(2).sum(2).double() for part in each]).sum(0)
        share, error, plain_error = _weights(weights / 2, slopes, gain)
        parts = [torch.einsum("sn...,sn->s...", part, share.to(part)) for part in each]
        sizes = torch.stack([part.flatten(1).abs().sum(1).double() for part in parts]).sum(0)
        return _Stretches(parts, error, plain_error, sizes)

    def _points(self, sample: Tensor, at: Tensor) -> list[Tensor]:
        return [
            start[sample] + _beside(at, difference[sample])
            for start, difference in zip(self.starts, self.differences, strict=True)
        ]

    def _score(self, sample: Tensor, moved: list[Tensor]) -> Tensor:
        inputs, vectors = (moved[0], moved[1:]) if self.moves_inputs else (self.inputs[sample], moved)
        given = iter(vectors)
        with self.lookups.replaced([next(given) if own else None for own in self.moved]):
            return self.score(self.model(inputs), sample)


class _Stretches(NamedTuple):
    """Integrals over stretches.

    Attributes:
        parts: of each part of the input, (stretches, …).
        errors: how far the sum of the parts is from the difference of the scores: (stretches,).
        plain_errors: the same without adjusted weights.
        sizes: the sum of the parts' absolute values.
    """

    parts: list[Tensor]
    errors: Tensor
    plain_errors: Tensor
    sizes: Tensor


def _weights(weights: Tensor, slopes: Tensor, gain: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Weights of nodes with which slopes add up to the gain, changed as little as possible.

    At a kink between two nodes the rule gives one side too much; the known gain says how much. Weights
    that would turn negative are left alone.

    Args:
        weights: of the rule, adding up to 1: (nodes,).
        slopes: of the score, (stretches, nodes).
        gain: of the score from one end to the other, (stretches,).

    Returns:
        Weights, (stretches, nodes), and the errors with them and without the change.
    """
    plain = weights.double().expand_as(slopes)
    error = (plain * slopes).sum(1) - gain
    spread = slopes - slopes.mean(1, keepdim=True)
    change = -error[:, None] * spread / spread.square().sum(1, keepdim=True).clamp(min=1e-300)
    changed = torch.where((plain + change > 0).all(1, keepdim=True), plain + change, plain)
    return changed, (changed * slopes).sum(1) - gain, error


def _differentiable(model: nn.Module) -> AbstractContextManager[None]:
    """Within it, recurrent layers have gradients: cuDNN's have none in evaluation mode."""
    if any(isinstance(module, nn.RNNBase) for module in model.modules()):
        return torch.backends.cudnn.flags(enabled=False)
    return nullcontext()


def _beside(numbers: Tensor, like: Tensor) -> Tensor:
    """One number for each sample times that sample: (samples,) and (samples, …)."""
    return numbers.view(-1, *[1] * (like.dim() - 1)) * like


def _without_tokens(vectors: list[Tensor], indices: list[Tensor], inputs: Tensor) -> list[Tensor]:
    """The vectors of calls that look up the inputs themselves as zeros; others stay, such as those of
    positions.

    Raises:
        ConfigError: no call looks them up.
    """
    tokens = [index.shape == inputs.shape and torch.equal(index, inputs) for index in indices]
    if not any(tokens):
        raise ConfigError(
            "The model looks its tokens up in no torch.nn.Embedding, so there are no vectors to explain."
        )
    pairs = zip(vectors, tokens, strict=True)
    return [torch.zeros_like(vector) if own else vector for vector, own in pairs]
