"""The outputs of an exported graph: probabilities and labels, values in their own unit, or logits."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from bigmodel.cli.commands.onnx_models.inputs import Front
from bigmodel.models.base import Model
from bigmodel.reporting.predictions import unused_name
from bigmodel.spec import Classes, Flags, Target, Values


class ExportedModel(nn.Module):
    """A model with its preprocessing and the decoding of its outputs.

    Returns, for classes, their probabilities, (batch, classes), and the index of the likeliest,
    (batch,); for flags their probabilities; for values themselves in their own unit; for next tokens
    logits.

    Args:
        front: the preprocessing.
        model: in evaluation mode.
        target: what it predicts.
        longest: most tokens of a text; 1 if the model reads none.
        cuts: decision thresholds, as `metrics.threshold` has them; None: 0.5.
    """

    def __init__(
        self,
        front: Front,
        model: Model,
        target: Target,
        longest: int = 1,
        cuts: Sequence[float] | None = None,
    ) -> None:
        super().__init__()
        self.preprocess, self.model = front.module, model
        self.front, self.target, self.longest = front, target, longest
        self.register_buffer("cuts", None)
        if cuts is not None and isinstance(target, Classes):
            self.cuts = torch.tensor([0.0, *cuts]).double()
        self.register_buffer("mean", None)
        self.register_buffer("std", None)
        if isinstance(target, Values):
            self.mean = torch.tensor(target.mean).double()
            self.std = torch.tensor(target.std).double()

    @property
    def input_names(self) -> list[str]:
        return [graph_input.name for graph_input in self.front.inputs]

    @property
    def output_names(self) -> list[str]:
        """The names of the outputs, before labels are added; none is that of an input."""
        match self.target:
            case Classes():
                names = ["probabilities", "index"]
            case Flags():
                names = ["probabilities"]
            case Values():
                names = ["values"]
            case _:
                names = ["logits"]
        return [unused_name(name, self.input_names) for name in names]

    def forward(self, *given: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        outputs: Tensor = self.model(self.preprocess(*given))
        if isinstance(self.target, Classes):
            decided = outputs if self.cuts is None else outputs.double() - self.cuts
            return torch.softmax(outputs, dim=1), decided.argmax(1)
        if isinstance(self.target, Flags):
            return torch.sigmoid(outputs)
        if self.std is None:
            return outputs
        return (outputs.double() * self.std + self.mean).float()
