"""Heads as other libraries have them: values in their own unit, and no bias where a family has none."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from bigmodel.errors import SpecError
from bigmodel.models.families.base import Family, Weights
from bigmodel.spec import NextTokens, Target, Values

_TOLERANCE = 1e-5  # of the largest bias


def fitted_head(weights: Mapping[str, Tensor], family: Family, target: Target) -> Weights:
    """Weights whose head gives the same in the data's own unit, with a bias only if the family has one.

    Values are trained standardised: the head multiplies by their deviation and adds their mean. A bias
    that the family lacks moves into the last norm: W (x + d) = W x + b for the shortest d with W d = b.

    Raises:
        SpecError: the family has no place for the bias.
    """
    found = dict(weights)
    if isinstance(target, Values):
        std, mean = torch.tensor(target.std).double(), torch.tensor(target.mean).double()
        bias = found.get("head.bias", torch.zeros(len(std))).double() * std + mean
        found["head.weight"] = (found["head.weight"].double() * std[:, None]).float()
        found["head.bias"] = bias.float()
    if family.head_bias or "head.bias" not in found:
        return found
    moved = _before_head(found["head.weight"], found.pop("head.bias"))
    if moved is None or "final_norm.bias" not in found:
        raise SpecError(f"model={family.model_type} {_without_place(target)}.")
    found["final_norm.bias"] = found["final_norm.bias"] + moved
    return found


def _before_head(weight: Tensor, bias: Tensor) -> Tensor | None:
    """What to add to the head's inputs in place of its bias, (dim,); None: nothing gives the same."""
    if len(weight) > weight.shape[1] and bias.any():  # more equations than unknowns
        return None
    added = (torch.linalg.pinv(weight.double()) @ bias.double()).float()
    error = (weight.float() @ added - bias.float()).abs().max()
    return added if error <= _TOLERANCE * bias.abs().max().clamp(min=1) else None


def _without_place(target: Target) -> str:
    match target:
        case NextTokens():
            needed = "model.tied_embeddings=true and model.initialisation=gpt2"
            return f"has no bias in its head, which this model has: it needs {needed}"
        case Values():
            return "has no bias that could hold the mean of the values. Train model=bert instead"
    return "has no place for the bias of this head. Train model=bert instead"
