"""What an exported graph gives: probabilities and labels, values in their own unit, or logits."""

from __future__ import annotations

from collections.abc import Collection

import torch
from torch import Tensor, nn

from bigmodel.models.base import Model
from bigmodel.spec import Classes, Flags, Target, Values


class ExportedModel(nn.Module):
    """A model with all that stands before and after it.

    Returns, of classes, their probabilities, (batch, classes), and the index of the likeliest, (batch,);
    of flags their probabilities; of values themselves in their own unit; of next tokens logits.
    """

    def __init__(self, front: nn.Module, model: Model, target: Target) -> None:
        super().__init__()
        self.front, self.model = front, model
        self.classes, self.flags = isinstance(target, Classes), isinstance(target, Flags)
        self.register_buffer("mean", None)
        self.register_buffer("std", None)
        if isinstance(target, Values):
            self.mean = torch.tensor(target.mean).double()
            self.std = torch.tensor(target.std).double()

    def forward(self, *given: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        outputs: Tensor = self.model(self.front(*given))
        if self.classes:
            return torch.softmax(outputs, dim=1), outputs.argmax(1)
        if self.flags:
            return torch.sigmoid(outputs)
        if self.std is None:
            return outputs
        return (outputs.double() * self.std + self.mean).float()


def names_of(target: Target, inputs: Collection[str]) -> list[str]:
    """The names of a graph's outputs, before labels are added; none is that of an input."""
    match target:
        case Classes():
            names = ["probabilities", "index"]
        case Flags():
            names = ["probabilities"]
        case Values():
            names = ["values"]
        case _:
            names = ["logits"]
    return [free(name, inputs) for name in names]


def free(name: str, inputs: Collection[str]) -> str:
    """A name that no input has, changed as `predict` changes it."""
    while name in inputs:
        name = f"{name} (predicted)"
    return name
