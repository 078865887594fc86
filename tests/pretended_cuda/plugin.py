"""What pytest does differently in a process that has the pretended device."""

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
from bigmodel.engine.step_figures import FigureBuffer, StepFigures
from bigmodel.metrics.base import Metrics
from bigmodel.metrics.classes import ClassMetrics
from bigmodel.training import text_samples
from tests.pretended_cuda.device import device
from tests.pretended_cuda.mode import Pretended, pretend_kernels

pretend_kernels()


@pytest.fixture(autouse=True)
def _on_the_pretended_device(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Each test begins with a device that has seen nothing, and knows when a step is under way."""
    vars(device).update(vars(type(device)()))
    call, drain, steps = Step.__call__, FigureBuffer.drain, count(1)

    def step(self: Step, *args: Any, **kwargs: Any) -> bool:
        device.step = next(steps)
        try:
            return call(self, *args, **kwargs)
        finally:
            device.step = 0

    def good(self: FigureBuffer) -> list[StepFigures]:  # every flag that is read is set, "left out" too
        return [figures._replace(loss=1.0, updated=True) for figures in drain(self)]

    monkeypatch.setattr(text_samples, "_CONTINUED", 4)
    monkeypatch.setattr(Step, "__call__", step)

    def all_of_them(self: Metrics, _sums: Tensor) -> float:  # each was defined
        return self.samples

    monkeypatch.setattr(FigureBuffer, "drain", good)
    for kind in (Metrics, ClassMetrics):
        monkeypatch.setattr(kind, "_counted", all_of_them)
    mode = Pretended()
    with mode, _in_turns(mode, monkeypatch):
        yield


@contextlib.contextmanager
def _in_turns(mode: Pretended, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Within it, threads that gather batches have the mode too, and do so while this one waits for them:
    torch's mode is for one thread at a time."""
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
