from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import nn

from bigmodel import registry
from bigmodel.optim.optimizers.elementwise import is_elementwise
from tests.small_runs import config


class PerTensor(torch.optim.SGD):
    """Divides each gradient by its norm."""

    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            for parameter in group["params"]:
                parameter.grad = parameter.grad / parameter.grad.norm()
        super().step(closure)


class Counting(torch.optim.SGD):
    """Keeps a number in a vector for each matrix."""

    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        super().step(closure)
        for parameter in self.param_groups[0]["params"]:
            self.state[parameter]["count"] = torch.ones(1)


@pytest.mark.parametrize("name", registry.optimizers.names())
def test_all_but_muon_update_each_number_by_itself(name: str) -> None:
    chosen: Any = config({"optimizer": name}).optimizer
    assert is_elementwise(partial(registry.optimizers.build, chosen)) is (name != "muon")


@pytest.mark.parametrize("kind", [PerTensor, Counting])
def test_an_optimizer_of_whole_weights_or_other_shapes_is_found_out(
    kind: type[torch.optim.SGD],
) -> None:
    def build(model: nn.Module) -> torch.optim.Optimizer:
        return kind(model.parameters(), lr=0.1)

    assert not is_elementwise(build)


def test_random_numbers_stay_as_they_are() -> None:
    before = torch.get_rng_state()
    is_elementwise(lambda model: torch.optim.SGD(model.parameters()))
    assert torch.equal(torch.get_rng_state(), before)
