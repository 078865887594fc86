"""What several ranks cannot do is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from bigmodel.build.ranks import synchronise
from bigmodel.distributed.ranks import Ranks
from bigmodel.errors import ConfigError
from bigmodel.models.layers.batch_norm import BatchNorm, SyncBatchNorm
from bigmodel.runtime.device import Runtime
from tests.models.cases import SEVERAL, build, spec
from tests.small_runs import built, config


class Two(Ranks):
    """The first of two."""

    size = data_size = 2


def synchronised(folder: Path, settings: dict[str, Any], layer: nn.Module, device: str) -> nn.Module:
    """A model with a batch norm, as two ranks train it. Nothing is computed on the device."""
    run, _ = built(folder, {key: value for key, value in settings.items() if key != "device.compile"})
    model = nn.Sequential(nn.Linear(5, 4), layer)
    runtime = Runtime(torch.device(device), "fp32")
    synchronise(model, run.train, run.dataset, config(settings), runtime, Two())
    return model


class Own(nn.BatchNorm1d):
    """With arithmetic of its own."""


ODD = {"data.samples": 81, "data.batch_size": 16}  # the last of its batches has a single sample


@pytest.mark.parametrize(
    ("settings", "layer", "device", "message"),
    [
        ({}, BatchNorm(4), "cpu", "whose statistics only GPUs add up over ranks. Use one rank, or a"),
        ({}, Own(4), "cuda", "of a kind whose statistics cannot be added up"),
        ({"device.compile": True}, BatchNorm(4), "cuda", "Leave device.compile out"),
        ({"trainer.accumulate": 2}, BatchNorm(4), "cuda", "Use trainer.accumulate=1 instead of 2"),
        (ODD, BatchNorm(4), "cuda", "of 1 sample, has no row for each rank. Use data.drop_last=true"),
    ],
    ids=["cpu", "another kind", "compiled", "accumulation", "last batch"],
)
def test_batch_norm_is_refused_where_it_would_not_be_that_of_one_rank(
    tmp_path: Path, settings: dict[str, Any], layer: nn.Module, device: str, message: str
) -> None:
    with pytest.raises(ConfigError, match=f"device.ranks=2: model.1 is a batch norm, .*{message}"):
        synchronised(tmp_path, settings, layer, device)


@pytest.mark.parametrize(
    ("name", "of", "options", "fix"),
    [
        ("cnn", "image", {}, r"model\.batch_norm=false"),
        ("fnn", "features", {"norm": "batch"}, r"model\.norm=none"),
        (
            "fusion",
            SEVERAL,
            {"encoders": {"photo": {"channels": [4]}, "features": {"norm": "batch"}}},
            r"model\.encoders\.features\.norm=none model\.encoders\.photo\.batch_norm=false"
            r" model\.encoders\.sequence\.batch_norm=false",
        ),
    ],
)
def test_what_does_without_batch_norm_is_named(
    tmp_path: Path, name: str, of: Any, options: dict[str, Any], fix: str
) -> None:
    run, _ = built(tmp_path, {})
    model, runtime = build(name, spec(of), **options), Runtime(torch.device("cpu"), "fp32")
    with pytest.raises(ConfigError, match=rf"Use one rank, or {fix}\.$"):
        synchronise(model, run.train, run.dataset, config({}), runtime, Two())


@pytest.mark.parametrize("settings", [{}, {**ODD, "data.drop_last": True}], ids=["rows", "drop_last"])
def test_batch_norm_is_synchronised_on_gpus(tmp_path: Path, settings: dict[str, Any]) -> None:
    model = synchronised(tmp_path, settings, BatchNorm(4), "cuda")
    assert isinstance(model[1], SyncBatchNorm)  # type: ignore[index]
