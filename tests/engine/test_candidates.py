"""What becomes of an engine that is looked for: whether it would pay, is right, and is faster.

What is compiled here are fakes.
"""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from bigmodel.engine import candidates, compiler
from bigmodel.engine.compiled import UnknownOperationError
from bigmodel.engine.functional_step import FunctionalStep, StepInputs
from bigmodel.engine.native import compiler as native
from bigmodel.engine.step import Step
from bigmodel.engine.verification import Verification
from tests.engine.fakes import Fake
from tests.engine.steps import begun, make_batch, small_step
from tests.models.cases import spec

FEATURES = spec("features")


def candidate(
    step: Step, seconds: float, left: int, is_required: bool = False
) -> candidates.CompileCandidate:
    facts = {"model": {"name": "fnn"}}
    return candidates.CompileCandidate(step, make_batch(FEATURES), seconds, left, is_required, facts)


def select(of: candidates.CompileCandidate, log: Any = pytest.fail) -> Any:
    return candidates.select_engine(of, "compiled", log, nullcontext)


@pytest.fixture
def compiles(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[Path]:
    """Has `select_engine` take fakes for compiled steps; gives the libraries that were `compiled`."""
    libraries: list[Path] = []

    def compile_step(_: FunctionalStep, __: StepInputs, path: Path, begin: Any, ___: Any) -> None:
        begin()
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"code")
        libraries.append(path)

    monkeypatch.setattr(candidates, "_compilers", lambda: (compiler,))
    monkeypatch.setattr(compiler, "compile_step", compile_step)
    monkeypatch.setattr(compiler, "missing_compiler", lambda: None)
    monkeypatch.setattr(compiler, "load", lambda _, step, example: Fake(step, example))
    monkeypatch.setenv("BIGMODEL_CACHE", str(tmp_path / "cache"))
    return libraries


def test_what_would_not_pay_is_not_even_compiled(compiles: list[Path]) -> None:
    step = begun(small_step(), FEATURES)
    assert select(candidate(step, 1e-3, 1000)) is None
    assert compiles == []


def test_what_would_pay_is_and_kept(compiles: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(candidates, "verify", lambda *_: Verification(None, 1e-3, 1.0))
    step, messages = begun(small_step(), FEATURES), list[str]()
    for _ in range(2):
        found = select(candidate(step, 1.0, 100_000), messages.append)
        assert isinstance(found, Fake)
    assert len(compiles) == 1, "the second time it is there"
    assert "Compiling the step takes about" in messages[0]
    assert "(compiled) instead of 1e+03 ms" in messages[1]
    assert len(messages) == 3


def test_what_is_no_faster_is_dropped_and_remembered(
    compiles: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(candidates, "verify", lambda *_: Verification(None, 2e-3, 1e-3))
    step, messages = begun(small_step(), FEATURES), list[str]()
    slow = candidate(step, 1e-9, 10**12)
    assert select(slow, messages.append) is None
    assert "2 ms per step, not faster than 1 ms" in messages[-1]
    assert len(messages) == 2, "one line for the compiling, one for the outcome"
    assert select(slow, messages.append) is None
    assert "compiled before: 2 ms per step, not faster than 1 ms." in messages[-1]
    assert len(compiles) == 1, "not again"
    asked = candidate(step, 1e-9, 10**12, is_required=True)
    assert select(asked, messages.append) is not None, "as the user says"


def test_what_is_wrong_is_dropped(compiles: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    class Wrong(Fake):
        def run_step(self, inputs: StepInputs) -> Tensor:
            metrics = super().run_step(inputs)
            next(iter(self.function.tensors.weights.values())).add_(1.0)
            return metrics

    monkeypatch.setattr(compiler, "load", lambda _, step, example: Wrong(step, example))
    step, messages = begun(small_step(), FEATURES), list[str]()
    before = [weight.clone() for weight in step.model.parameters()]
    found = select(candidate(step, 1.0, 10, is_required=True), messages.append)
    assert found is None
    assert "compiled: an update that is" in messages[-1]
    assert all(map(torch.equal, before, step.model.parameters()))
    assert not compiles[0].exists()


def test_batches_in_pieces_are_refused_in_words(compiles: list[Path]) -> None:
    messages: list[str] = []
    step = begun(small_step(micro_batch=4), FEATURES)
    assert select(candidate(step, 1.0, 10**6), messages.append) is None
    assert messages == ["Steps run eagerly: batches go through the model in pieces."]
    assert compiles == []


@pytest.mark.usefixtures("compiles")
def test_a_failing_compiler_is_reported_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def failing(*_: object) -> None:
        raise OSError("no space left\nand much more")

    monkeypatch.setattr(compiler, "compile_step", failing)
    messages: list[str] = []
    step = begun(small_step(), FEATURES)
    assert select(candidate(step, 1.0, 10**6), messages.append) is None
    assert messages == ["Steps run eagerly: OSError: no space left."]


def test_what_the_quick_compiler_does_not_know_is_left_to_the_other(
    compiles: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def unknown(*_: object) -> None:
        asked.append("quick")
        raise UnknownOperationError("aten.unheard_of")

    monkeypatch.setattr(candidates, "_compilers", lambda: (native, compiler))
    monkeypatch.setattr(native, "accepts", lambda *_: True)
    monkeypatch.setattr(native, "compile_step", unknown)
    monkeypatch.setattr(candidates, "verify", lambda *_: Verification(None, 1e-3, 1.0))
    step, messages = begun(small_step(), FEATURES), list[str]()
    for _ in range(2):
        assert isinstance(select(candidate(step, 1.0, 100_000), messages.append), Fake)
    assert asked == ["quick"], "the second time it is known that it does not know"
    assert len(compiles) == 1
    assert [message for message in messages if "takes about" in message] == messages[:1]


@pytest.mark.usefixtures("compiles")
def test_small_weights_are_compiled_sooner(monkeypatch: pytest.MonkeyPatch) -> None:
    """Half of a step of 4 ms is worth more than what torch's operations cost."""
    monkeypatch.setattr(candidates, "verify", lambda *_: Verification(None, 1e-3, 4e-3))
    monkeypatch.setattr(compiler, "estimate", lambda _: 1.5)
    step = begun(small_step(), FEATURES)
    assert select(candidate(step, 4e-3, 3000)) is None, "an overhead of half a second"
    monkeypatch.setattr(compiler, "share_saved", native.share_saved)
    assert select(candidate(step, 4e-3, 3000), lambda _: None) is not None
    monkeypatch.setattr(native, "_CACHE", 0)
    monkeypatch.setattr(candidates.cache, "find_entry", lambda *_: None)
    assert select(candidate(step, 4e-3, 3000)) is None


def test_another_compiler_is_tried_when_the_quick_one_fails(
    compiles: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("g++ failed: unknown option")

    monkeypatch.setattr(candidates, "_compilers", lambda: (native, compiler))
    monkeypatch.setattr(native, "accepts", lambda *_: True)
    monkeypatch.setattr(native, "compile_step", fail)
    monkeypatch.setattr(candidates, "verify", lambda *_: Verification(None, 1e-3, 1.0))
    step, messages = begun(small_step(), FEATURES), list[str]()
    assert isinstance(select(candidate(step, 1.0, 100_000), messages.append), Fake)
    assert messages[0] == ("The native compiler failed (g++ failed: unknown option); another is tried.")
    assert len(compiles) == 1


def test_a_resumed_run_goes_on_with_the_compiler_that_it_had(
    compiles: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(candidates, "_compilers", lambda: (native, compiler))
    monkeypatch.setattr(native, "accepts", lambda *_: True)
    monkeypatch.setattr(native, "compile_step", lambda *_: pytest.fail("other code, other bits"))
    monkeypatch.setattr(candidates, "verify", lambda *_: Verification(None, 1e-3, 1.0))
    of = candidate(begun(small_step(), FEATURES), 1.0, 100, is_required=True)
    assert select(replace(of, compiler="inductor"), lambda _: None) is not None
    assert len(compiles) == 1


def test_another_compiler_is_tried_when_the_quick_ones_step_is_not_faster(
    compiles: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    results = iter([Verification(None, 2.0, 1.0), Verification(None, 1e-3, 1.0)])
    monkeypatch.setattr(candidates, "_compilers", lambda: (native, compiler))
    monkeypatch.setattr(native, "accepts", lambda *_: True)
    monkeypatch.setattr(native, "compile_step", compiler.compile_step)
    monkeypatch.setattr(native, "load", compiler.load)
    monkeypatch.setattr(candidates, "verify", lambda *_: next(results))
    step, messages = begun(small_step(), FEATURES), list[str]()
    assert isinstance(select(candidate(step, 1.0, 100_000), messages.append), Fake)
    assert messages[1] == (
        "Another compiler may do better; compiled: 2e+03 ms per step, not faster than 1e+03 ms."
    )
    assert messages[-1] == "A step takes 1 ms (compiled) instead of 1e+03 ms."
    assert len(compiles) == 2
