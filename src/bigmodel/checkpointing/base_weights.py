"""Weights that a run reads and does not change: its checkpoints name them instead of holding them."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

from bigmodel.errors import CheckpointError

ELSEWHERE = "name their place: model.pretrained=PATH for resume=, --base PATH for other commands"
"""What to do about a base that has moved."""


class BaseWeights(NamedTuple):
    """The base of a run with low-rank updates.

    Attributes:
        path: where they were read.
        digest: of all of them, as the model had them; see `digest_of`.
        names: in the model.
    """

    path: str
    digest: str
    names: frozenset[str]

    def facts(self) -> dict[str, str]:
        """What a checkpoint knows of them."""
        return {"path": self.path, "digest": self.digest}

    def check(self, facts: Mapping[str, Any]) -> None:
        """Makes sure that a checkpoint belongs to these weights.

        Raises:
            CheckpointError: it was made with others.
        """
        saved = facts.get("base")
        if saved is None:
            raise CheckpointError(
                "The checkpoint has no low-rank updates, and model.lora asks for some. Leave it out, or"
                " start a new run with this one as model.pretrained."
            )
        if saved.get("digest") != self.digest:
            raise CheckpointError(
                f"The checkpoint holds updates of other weights than those in {self.path}, which have"
                " changed since, or are another model's. If those that the run was started with are"
                f" elsewhere, {ELSEWHERE}."
            )


def digest_of(weights: Mapping[str, Tensor]) -> str:
    """SHA-256 of weights, with their names, shapes and formats."""
    digest = hashlib.sha256()
    for name in sorted(weights):
        tensor = weights[name].detach().cpu().contiguous()
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}\n".encode())
        digest.update(tensor.view(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
