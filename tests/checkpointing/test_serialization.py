from typing import Any

import pytest
import torch
from torch import nn

from bigmodel.checkpointing.serialization import plain_names, upgrade


class Wrapped(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = torch.optim.swa_utils.AveragedModel(nn.Sequential(nn.Linear(2, 2)))
        self.module = nn.Linear(2, 1)  # the user's own name


@pytest.mark.filterwarnings("ignore")  # torch's own, on the way to its compiler
def test_names_are_plain_whether_compiled_or_wrapped() -> None:
    plain = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    names = list(plain.state_dict())
    assert plain_names(plain) == {name: name for name in names}
    for wrapped in (torch.compile(plain), nn.DataParallel(plain), nn.DataParallel(torch.compile(plain))):
        assert list(plain_names(wrapped).values()) == names
    inside = nn.Sequential(torch.compile(nn.Linear(2, 2)))
    assert plain_names(inside) == {"0._orig_mod.weight": "0.weight", "0._orig_mod.bias": "0.bias"}


def test_only_what_wraps_loses_its_name() -> None:
    names = set(plain_names(Wrapped()).values())
    assert {"body.0.weight", "body.0.bias", "module.weight", "module.bias"} <= names


def test_the_first_schema_gets_back_its_tuples() -> None:
    facts: dict[str, Any] = {
        "progress": {"step": 3},
        "python_random": [3, [1, 2], None],
        "optimizer": {"param_groups": [{"params": [0, 1], "betas": [0.9, 0.99], "lr": 0.1}]},
    }
    _, new = upgrade(1, {}, facts)
    assert new["progress"] == {"step": 3, "attended": 3}
    assert new["random"] == {"python": (3, (1, 2), None), "numpy": None}
    assert new["optimizer"]["param_groups"] == [{"params": [0, 1], "betas": (0.9, 0.99), "lr": 0.1}]
