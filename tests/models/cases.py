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
    Multimodal,
    NextTokens,
    Sequence,
    Target,
    TokenPair,
    Tokens,
    Values,
)

INPUTS: dict[str, Input] = {
    "image": Image(1, 8, 8),
    "odd_image": Image(3, 7, 5),
    "sequence": Sequence(6, 3),
    "tokens": Tokens(9, 11),
    "padded": Tokens(9, 11, pad=0),
    "features": Features(4, ("a", "b", "c", "d")),
    "categories": Features(5, ("a", "b", "c", "d", "e"), (3, 0, 4, 0, 2)),
}
SEVERAL = Multimodal(
    ("columns", "photo", "wave", "title"),
    (Features(2), Image(1, 8, 8), Sequence(6, 3), Tokens(9, 11, pad=0)),
)
PAIR = TokenPair(7, 11, pad=0, start=1, end=2)
TARGETS: dict[str, Target] = {
    "classes": Classes(("x", "y", "z"), (5, 5, 5)),
    "flags": Flags(("p", "q")),
    "values": Values(("u",), (0.0,), (1.0,)),
}
NEXT = NextTokens(11)


def spec(kind: Input | str, target: str = "classes") -> DataSpec:
    """The spec of a data source named `toy`."""
    named = {**INPUTS, "pair": PAIR, "several": SEVERAL}
    chosen = named[kind] if isinstance(kind, str) else kind
    return DataSpec("toy", chosen, NEXT if target == "next" else TARGETS[target])


def samples(kind: Input, count: int = 5) -> Tensor:
    """Random inputs, (count, *kind.shape), those of texts with padding where there is such; of several
    kinds, with all parts."""
    if isinstance(kind, Multimodal):
        parts = [samples(part, count).flatten(1).float() for part in kind.parts]
        return torch.cat([torch.ones(count, len(parts)), *parts], dim=1)
    if isinstance(kind, Tokens | TokenPair):
        tokens = torch.randint(3, kind.vocab_size, (count, *kind.shape))
        if kind.pad is None:
            return tokens
        lengths = torch.randint(2, kind.length + 1, tokens.shape[:-1])
        lengths[0] = kind.length
        return tokens.masked_fill(torch.arange(kind.length) >= lengths.unsqueeze(-1), kind.pad)
    inputs = torch.randn(count, *kind.shape)
    if isinstance(kind, Features):
        for column, size in enumerate(kind.categories):
            if size:
                inputs[:, column] = torch.randint(0, size, (count,)).float()
    return inputs


def build(name: str, of: DataSpec, **options: Any) -> Model:
    """The model as the command line would build it."""
    model: Model = models.build(models.parse({"name": name, **options}), of)
    return model


def stir(model: torch.nn.Module) -> None:
    """Moves every parameter off its start, so that none is exactly zero."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.05)
