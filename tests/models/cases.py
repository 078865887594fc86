"""Specs of every kind of input and target, samples of them, and models built by name."""

from typing import Any

import torch
from torch import Tensor

from bigmodel.models.base import Model
from bigmodel.registry import models
from bigmodel.spec import (
    Classes,
    DataSpec,
    Features,
    Flags,
    Image,
    Input,
    Sequence,
    Target,
    Tokens,
    Values,
)

INPUTS: dict[str, Input] = {
    "image": Image(1, 8, 8),
    "odd_image": Image(3, 7, 5),
    "sequence": Sequence(6, 3),
    "tokens": Tokens(9, 11),
    "features": Features(4, ("a", "b", "c", "d")),
}
TARGETS: dict[str, Target] = {
    "classes": Classes(("x", "y", "z"), (5, 5, 5)),
    "flags": Flags(("p", "q")),
    "values": Values(("u",), (0.0,), (1.0,)),
}


def spec(kind: Input | str, target: str = "classes") -> DataSpec:
    """The spec of a data source named `toy`."""
    return DataSpec("toy", INPUTS[kind] if isinstance(kind, str) else kind, TARGETS[target])


def samples(kind: Input, count: int = 5) -> Tensor:
    """Random inputs: (count, *kind.shape)."""
    if isinstance(kind, Tokens):
        return torch.randint(0, kind.vocab_size, (count, *kind.shape))
    return torch.randn(count, *kind.shape)


def build(name: str, of: DataSpec, **options: Any) -> Model:
    """The model as the command line would build it."""
    model: Model = models.build(models.parse({"name": name, **options}), of)
    return model


def stir(model: torch.nn.Module) -> None:
    """Moves every parameter off its start, so that none is exactly zero."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.05)
