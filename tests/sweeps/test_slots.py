"""A machine's processors or GPUs, divided among jobs."""

from __future__ import annotations

import os
from typing import Any

import pytest

from bigmodel.errors import DeviceError
from bigmodel.sweeps import slots as module
from bigmodel.sweeps.config import SweepConfig
from bigmodel.sweeps.process import Slot
from bigmodel.sweeps.slots import processors, slots

VISIBLE = "CUDA_VISIBLE_DEVICES"


@pytest.fixture(autouse=True)
def _all_visible(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(VISIBLE, raising=False)


def given(gpu_count: int, **settings: Any) -> list[tuple[str, str | None]]:
    """Name and visible GPUs of each slot."""
    found = slots(SweepConfig(**settings), gpu_count)
    return [(slot.name, slot.environment.get(VISIBLE)) for slot in found]


@pytest.mark.parametrize(("jobs", "count"), [("auto", 6), (1, 1), (4, 4), (9, 9)])
def test_on_processors(monkeypatch: pytest.MonkeyPatch, jobs: int | str, count: int) -> None:
    monkeypatch.setattr(module, "processors", lambda: 6)
    assert slots(SweepConfig(jobs=jobs), 0) == [Slot()] * count  # type: ignore[arg-type]


def test_the_processors_are_those_this_process_may_use() -> None:
    assert 1 <= processors() <= (os.cpu_count() or 1)


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, ["0", "1", "2"]),
        ({"jobs": 2}, ["0", "1"]),
        ({"jobs": 9}, ["0", "1", "2"]),
        ({"gpus": [2, 0]}, ["2", "0"]),
        ({"jobs_per_gpu": 2}, ["0", "1", "2", "0", "1", "2"]),
        ({"jobs_per_gpu": 2, "jobs": 4}, ["0", "1", "2", "0"]),
        ({"gpus": [1], "jobs_per_gpu": 3}, ["1", "1", "1"]),
    ],
)
def test_each_sees_its_own_gpu(settings: dict[str, Any], expected: list[str]) -> None:
    assert given(3, **settings) == [(f"gpu {index}", index) for index in expected]


def test_those_that_the_sweep_itself_may_see(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VISIBLE, "3, GPU-5a")
    assert given(2) == [("gpu 0", "3"), ("gpu 1", "GPU-5a")]
    assert given(2, gpus=[1]) == [("gpu 1", "GPU-5a")]


def test_a_gpu_that_is_not_there() -> None:
    with pytest.raises(DeviceError, match=r"sweep.gpus=\[0, 4\]: there is no GPU 4. There are 2"):
        given(2, gpus=[0, 4])
