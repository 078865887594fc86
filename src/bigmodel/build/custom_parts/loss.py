"""Checks a user's own loss."""

from __future__ import annotations

from math import isclose, isfinite

import torch
from torch import Tensor, nn

from bigmodel.build.custom_parts.isolation import isolated, reported_as, warn_of_leak
from bigmodel.errors import SpecError
from bigmodel.losses import Loss
from bigmodel.spec import Classes, DataSpec, NextTokens


def try_loss(loss: Loss, outputs: Tensor, targets: Tensor) -> list[str]:
    """Compares a loss of a batch with those of two parts of it; returns warnings.

    Raises:
        SpecError: it is not the sum or mean that it should be, or cannot be trained with."""
    label = f"loss={loss.name}"
    if any(parameter.requires_grad for parameter in loss.parameters()):
        raise SpecError(
            f"{label}: it has parameters of its own, which no optimizer trains. Store fixed values in "
            "buffers (register_buffer), freeze a network in it with .requires_grad_(False), and put "
            "what is trained into the model."
        )
    if len(targets) < 3:
        outputs, targets = outputs.repeat(3, *[1] * (outputs.ndim - 1)), torch.cat([targets] * 3)
    outputs = _distinctive_outputs(loss, label, outputs, targets)
    live = outputs.clone().requires_grad_()
    with isolated(loss) as tried:
        warnings = warn_of_leak(label, lambda: tried(live, targets))
    cut = len(targets) // 3
    parts = [(outputs, targets), (outputs[:cut], targets[:cut]), (outputs[cut:], targets[cut:])]
    results = [_evaluate(loss, label, *part) for part in parts]
    (whole, weight), (first, first_weight), (rest, rest_weight) = results
    if not isfinite(whole) and outputs.isfinite().all():
        raise SpecError(
            f"{label}: it is {whole} for outputs of shape {tuple(outputs.shape)} that are finite, before"
            " any training. Does it divide by 0, or take the root or the logarithm of raw outputs, which"
            " may be negative?"
        )
    if not all(map(isfinite, (whole, first, rest))):
        return warnings  # the first step reports it
    if _is_sum(whole, first, rest):
        return warnings
    returns_sum = loss.reduction != "mean"
    is_mean = _is_sum(whole * weight, first * first_weight, rest * rest_weight)
    shapes = f"outputs {tuple(outputs.shape)}, targets {tuple(targets.shape)}"
    values = (
        f"{whole:.4g} of {len(targets)} samples, {first:.4g} of the first {cut}, {rest:.4g} of the rest"
    )
    if returns_sum and is_mean:
        raise SpecError(
            f"{label}: it returns the mean of a batch ({values}), but a loss is assumed to "
            'return the sum unless it sets reduction = "mean". Set that in its class, or return the sum'
            ' (reduction="sum" of torch\'s functions).'
        )
    if returns_sum:
        raise SpecError(
            f"{label}: it returns neither the sum nor the mean of the samples' losses ({values}). Are"
            f" shapes broadcast ({shapes})? A weighted mean needs `normaliser(targets)`, the sum of the"
            ' weights; a loss that compares the samples of a batch sets `reduction = "mean"`.'
        )
    if _ignores_pairing(loss, label, outputs, targets, whole):
        raise SpecError(
            f"{label}: it returns the same value for any order of the targets: shapes are broadcast "
            f"({shapes}), so every output is compared with every target. Give both the same shape, for "
            "example by removing a squeeze()."
        )
    means = [total / count for total, count in results]
    if _is_sum(*means):
        raise SpecError(
            f'{label}: it sets reduction = "mean" but returns the sum of a batch. Set reduction = "sum".'
        )
    return [
        *warnings,
        f"{label} does not return the mean over targets ({means[0]:.4g} of {len(targets)} samples, "
        f"{means[1]:.4g} of the first {cut}, {means[2]:.4g} of the rest), so val/loss and accumulated "
        "gradients depend on how the data is batched. A weighted mean needs `normaliser(targets)`, "
        "the sum of the weights.",
    ]


def _distinctive_outputs(loss: Loss, label: str, outputs: Tensor, targets: Tensor) -> Tensor:
    """The outputs; if all are alike or the loss is 0, others near them: otherwise a sum, a mean and the
    result of broadcast shapes would be the same."""
    total, _ = _evaluate(loss, label, outputs, targets)
    alike = torch.equal(outputs, outputs[:1].expand_as(outputs))
    if not isfinite(total) or not (alike or abs(total) < _ROUNDING):
        return outputs
    for size in (1.0, 10.0, 100.0, 1000.0):
        others = outputs + size * torch.randn_like(outputs)
        try:
            total, _ = _evaluate(loss, label, others, targets)
        except SpecError:  # it only takes outputs such as this model's: probabilities, for example
            break
        if isfinite(total) and abs(total) > _ROUNDING:
            return others
    return outputs


_ROUNDING = 1e-6
"""Losses below this are rounding."""


def _ignores_pairing(loss: Loss, label: str, outputs: Tensor, targets: Tensor, whole: float) -> bool:
    """Whether a loss stays the same if targets change places and outputs do not."""
    moved = [targets.roll(by, 0) for by in (1, len(targets) // 3)]
    if any(torch.equal(other, targets) for other in moved):
        return False
    losses = [_evaluate(loss, label, outputs, other)[0] for other in moved]
    return all(isclose(other, whole, rel_tol=1e-5) for other in losses)


def _evaluate(loss: Loss, label: str, outputs: Tensor, targets: Tensor) -> tuple[float, float]:
    """A loss's total and what to divide it by; its gradient has to reach the outputs."""
    leaf = outputs.clone().requires_grad_()
    passed, passed_targets = leaf.clone(), targets.clone()  # a leaf may not be changed in place
    shapes = f"outputs of shape {tuple(outputs.shape)} and targets of shape {tuple(targets.shape)}"
    with reported_as(label, f"{shapes} ({targets.dtype})"), isolated(loss) as tried:
        total = tried(passed, passed_targets)
        if not (torch.equal(passed, outputs) and torch.equal(passed_targets, targets)):
            raise SpecError(
                f"{label}: it changes its outputs or targets in place, which metrics read too. Change a"
                " copy."
            )
        if not isinstance(total, Tensor) or total.shape != () or total.dtype != torch.float32:
            what = f"{total.dtype} of shape {tuple(total.shape)}" if isinstance(total, Tensor) else total
            raise SpecError(f"{label}: a loss returns a float32 tensor without dimensions, not {what}.")
        gradient = None
        if total.requires_grad:
            (gradient,) = torch.autograd.grad(total, leaf, allow_unused=True)
        if gradient is None:
            raise SpecError(
                f"{label}: it has no gradient, so the model would not learn. Is there an item(), a"
                " detach(), an argmax or NumPy between its outputs and what it returns?"
            )
        return float(total.detach()), float(tried.normaliser(targets))


def _is_sum(whole: float, first: float, rest: float) -> bool:
    """Whether a whole is the sum of its parts, apart from rounding."""
    return abs(whole - first - rest) <= 1e-3 * max(map(abs, (whole, first, rest)))


def warn_wrong_form(
    model: str, loss: Loss, is_custom: bool, outputs: Tensor, spec: DataSpec
) -> list[str]:
    """Warns if a model's outputs are not in the form that the loss of classes expects."""
    made = getattr(loss, "made", None)
    if not isinstance(spec.target, Classes | NextTokens):
        return []
    takes_raw = not is_custom or isinstance(made, nn.CrossEntropyLoss)
    if takes_raw and _are_probabilities(outputs):
        return [
            f"model={model} gives probabilities, and loss={loss.name} takes raw outputs (logits), of"
            " which it makes probabilities itself: leave the softmax at its end out."
        ]
    if isinstance(made, nn.NLLLoss) and not _are_probabilities(outputs.exp()):
        return [
            f"loss={loss.name} takes the logarithms of probabilities, and model={model} gives others, so"
            " that the loss falls without end: use loss=cross_entropy, or end the model with"
            " log_softmax(-1)."
        ]
    return []


def _are_probabilities(outputs: Tensor) -> bool:
    sums = outputs.sum(-1)
    return bool((outputs >= 0).all()) and torch.allclose(sums, torch.ones_like(sums), atol=1e-4)
