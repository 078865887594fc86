"""A head gives the same in the data's own unit, with a bias only if the family has one."""

from __future__ import annotations

import re

import pytest
import torch
from torch import Tensor

from bigmodel.errors import SpecError
from bigmodel.models.families import FAMILIES
from bigmodel.models.families.heads import fitted_head
from bigmodel.spec import Classes, NextTokens, Target, Values

CLASSES, NEXT = Classes(("a", "b"), (1, 1)), NextTokens(50)
VALUES = Values(("x", "y"), (100.0, -3.0), (20.0, 0.5))


def head(outputs: int, norm: bool = True) -> dict[str, Tensor]:
    draw = torch.Generator().manual_seed(0)
    made = {"head.weight": torch.randn(outputs, 8, generator=draw)}
    made["head.bias"] = torch.randn(outputs, generator=draw)
    return made | ({"final_norm.bias": torch.randn(8, generator=draw)} if norm else {})


def outputs_of(weights: dict[str, Tensor], x: Tensor) -> Tensor:
    x = x + weights.get("final_norm.bias", torch.zeros(8))
    return x @ weights["head.weight"].T + weights.get("head.bias", torch.zeros(1))


@pytest.mark.parametrize("name", ["gpt2", "bert"])
@pytest.mark.parametrize("target", [CLASSES, VALUES])
def test_a_head_gives_the_same_in_the_data_s_unit(name: str, target: Target) -> None:
    given, x = head(2), torch.randn(5, 8)
    expected = outputs_of(given, x)
    if isinstance(target, Values):
        expected = expected * torch.tensor(target.std) + torch.tensor(target.mean)
    made = fitted_head(given, FAMILIES[name], target)
    assert ("head.bias" in made) == (name == "bert")
    torch.testing.assert_close(outputs_of(made, x), expected, atol=1e-4, rtol=1e-5)


@pytest.mark.parametrize(
    ("given", "name", "target", "words"),
    [
        (head(20), "gpt2", NEXT, "it needs model.tied_embeddings=true and model.initialisation=gpt2"),
        (head(20), "gpt2", CLASSES, "model=gpt2 has no place for the bias of this head"),
        ({"head.weight": torch.ones(2, 8)}, "llama", VALUES, "that could hold the mean of the values"),
    ],
)
def test_a_bias_without_a_place_is_refused(
    given: dict[str, Tensor], name: str, target: Target, words: str
) -> None:
    with pytest.raises(SpecError, match=re.escape(words)):
        fitted_head(given, FAMILIES[name], target)
