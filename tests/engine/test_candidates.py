"""What becomes of an engine that is looked for: whether it would pay, is right, and is faster.

What is compiled here are fakes.
"""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from bigmodel.engine import candidates, compiler
from bigmodel.engine.functional_step import Given, Whole
from bigmodel.engine.step import Step
from bigmodel.engine.verification import Verdict
from tests.engine.fakes import Fake
from tests.engine.steps import begun, make_batch, small_step
from tests.models.cases import spec

FEATURES = spec("features")


def prospect(step: Step, seconds: float, left: int, asked: bool = False) -> candidates.Prospect:
    facts = {"model": {"name": "fnn"}}
    return candidates.Prospect(step, make_batch(FEATURES), seconds, left, asked, facts)


@pytest.fixture
def compiles(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[Path]:
    """Has `faster` take fakes for compiled steps; gives the libraries that were `compiled`."""
    libraries: list[Path] = []

    def compile_whole(_: Whole, __: Given, path: Path, ___: Any) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"code")
        libraries.append(path)

    monkeypatch.setattr(compiler, "compile_whole", compile_whole)
    monkeypatch.setattr(compiler, "lacking", lambda: None)
    monkeypatch.setattr(compiler, "load", lambda *_: list)
    monkeypatch.setattr(candidates, "Compiled", lambda step, _, __, like: Fake(step, like))
    monkeypatch.setenv("BIGMODEL_CACHE", str(tmp_path / "cache"))
    return libraries


def test_what_would_not_pay_is_not_even_compiled(compiles: list[Path]) -> None:
    step = begun(small_step(), FEATURES)
    assert candidates.faster(prospect(step, 1e-3, 1000), "compiled", pytest.fail, nullcontext) is None
    assert compiles == []


def test_what_would_pay_is_and_kept(compiles: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(candidates, "judged", lambda *_: Verdict(None, seconds=1e-3, eager=1.0))
    step, told = begun(small_step(), FEATURES), list[str]()
    for _ in range(2):
        found = candidates.faster(prospect(step, 1.0, 100_000), "compiled", told.append, nullcontext)
        assert isinstance(found, Fake)
    assert len(compiles) == 1, "the second time it is there"
    assert "Compiling the step, which takes some" in told[0]
    assert "(compiled) instead of 1e+03 ms" in told[1]
    assert len(told) == 3


def test_what_is_no_faster_is_dropped_and_remembered(
    compiles: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(candidates, "judged", lambda *_: Verdict(None, seconds=2e-3, eager=1e-3))
    step, told = begun(small_step(), FEATURES), list[str]()
    slow = prospect(step, 1e-9, 10**12)
    assert candidates.faster(slow, "compiled", told.append, nullcontext) is None
    assert "2 ms a step, which is no gain over 1 ms" in told[-1]
    assert len(told) == 2, "one line for the compiling, one for the outcome"
    assert candidates.faster(slow, "compiled", told.append, nullcontext) is None
    assert "when they were compiled before, they gave" in told[-1]
    assert len(compiles) == 1, "not again"
    asked = prospect(step, 1e-9, 10**12, asked=True)
    assert candidates.faster(asked, "compiled", told.append, nullcontext) is not None, "as the user says"


def test_what_is_wrong_is_dropped(compiles: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    class Wrong(Fake):
        def once(self, given: Given) -> Tensor:
            figures = super().once(given)
            self._whole.weights[0].add_(1.0)
            return figures

    monkeypatch.setattr(candidates, "Compiled", lambda step, _, __, like: Wrong(step, like))
    step, told = begun(small_step(), FEATURES), list[str]()
    before = [weight.clone() for weight in step.model.parameters()]
    found = candidates.faster(prospect(step, 1.0, 10, asked=True), "compiled", told.append, nullcontext)
    assert found is None
    assert "compiled, they gave an update that is" in told[-1]
    assert all(map(torch.equal, before, step.model.parameters()))
    assert not compiles[0].exists()


def test_batches_in_pieces_are_refused_in_words(compiles: list[Path]) -> None:
    told: list[str] = []
    step = begun(small_step(micro_batch=4), FEATURES)
    assert candidates.faster(prospect(step, 1.0, 10**6), "compiled", told.append, nullcontext) is None
    assert told == [
        "Steps are done one by one by torch's operations: batches go through the model in pieces."
    ]
    assert compiles == []


@pytest.mark.usefixtures("compiles")
def test_a_failing_compiler_is_told_of_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def failing(*_: object) -> None:
        raise OSError("no space left\nand much more")

    monkeypatch.setattr(compiler, "compile_whole", failing)
    told: list[str] = []
    step = begun(small_step(), FEATURES)
    assert candidates.faster(prospect(step, 1.0, 10**6), "compiled", told.append, nullcontext) is None
    assert told[1:] == ["Steps are done one by one by torch's operations: OSError: no space left."]
