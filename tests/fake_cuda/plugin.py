"""Pytest plugin: every test runs on a fresh fake device."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from itertools import count
from typing import Any

import pytest
from torch import Tensor

from bigmodel.data.batching import prefetch
from bigmodel.engine.step import Step
from bigmodel.engine.step_metrics import StepMetricsBuffer, StepMetricsList
from bigmodel.metrics.classes import ClassMetrics
from bigmodel.metrics.sums import Metrics
from bigmodel.training import text_samples
from tests.fake_cuda.device import device
from tests.fake_cuda.mode import FakeCudaMode, replace_kernels

replace_kernels()


@pytest.fixture(autouse=True)
def _on_the_fake_device(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Each test gets a device that has recorded nothing yet, and whose `step` is kept up to date."""
    vars(device).update(vars(type(device)()))
    call, drain, steps = Step.__call__, StepMetricsBuffer.drain, count(1)

    def step(self: Step, *args: Any, **kwargs: Any) -> bool:
        device.step = next(steps)
        try:
            return call(self, *args, **kwargs)
        finally:
            device.step = 0

    def good(self: StepMetricsBuffer) -> StepMetricsList:  # all flags read as set, "skipped" too
        drained = drain(self)
        drained.losses[:], drained.updated[:] = 1.0, True
        return drained

    def all_of_them(self: Metrics, _sums: Tensor) -> float:  # none is undefined
        return self.samples

    monkeypatch.setattr(text_samples, "_CONTINUED", 4)
    monkeypatch.setattr(Step, "__call__", step)
    monkeypatch.setattr(StepMetricsBuffer, "drain", good)
    for kind in (Metrics, ClassMetrics):
        monkeypatch.setattr(kind, "_counted", all_of_them)
    mode = FakeCudaMode()
    with mode, _in_turns(mode, monkeypatch):
        yield


@contextlib.contextmanager
def _in_turns(mode: FakeCudaMode, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Within it, threads that gather batches use the mode too, but only while this thread waits for
    them: torch's mode works in one thread at a time."""
    turn, run = threading.Lock(), prefetch._run

    def in_mode(*arguments: Any) -> None:
        with turn, mode:
            run(*arguments)

    def giving_way(act: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any) -> Any:
            turn.release()
            try:
                return act(*arguments)
            finally:
                turn.acquire()

        return call

    monkeypatch.setattr(prefetch, "_run", in_mode)
    for name in ("wait", "_end"):
        monkeypatch.setattr(prefetch, name, giving_way(getattr(prefetch, name)))
    with turn:
        yield
