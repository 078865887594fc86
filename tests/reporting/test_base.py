from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from torch import nn

from bigmodel.reporting.base import EvaluationResult, ProgressReport, Sink, Sinks
from tests.reporting import facts

ALL = ["start", "progress", "evaluated", "weights", "record", "log", "message", "finish", "close"]


class Notes(Sink):
    """Notes every call; fails at the one named."""

    def __init__(self, fails_at: str = "", essential: bool = True) -> None:
        self.calls: list[str] = []
        self.told: list[tuple[Any, ...]] = []
        self.fails_at, self.essential = fails_at, essential


def noting(name: str) -> Callable[..., None]:
    def method(self: Notes, *told: Any) -> None:
        self.calls.append(name)
        self.told.append(told)
        if name == self.fails_at:
            raise OSError("No space left on device")

    return method


for each in ALL:
    setattr(Notes, each, noting(each))


def everything(sink: Sink, folder: Path) -> None:
    sink.start(facts.info(folder))
    sink.progress(ProgressReport(1, 1, None, None, 0.0))
    sink.evaluated(EvaluationResult({"loss": 1.0}), 1)
    sink.weights(nn.Linear(1, 1), 1)
    sink.record(facts.record(1), facts.record(1))
    sink.log(facts.record(1))
    sink.message("hello", "warning")
    sink.finish(facts.summary(), folder)
    sink.close()


def test_a_sink_is_its_own_null_object(tmp_path: Path) -> None:
    everything(Sink(), tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_every_call_reaches_every_sink(tmp_path: Path) -> None:
    first, second = Notes(), Notes()
    everything(Sinks([first, second]), tmp_path)
    assert first.calls == second.calls == ALL
    assert first.told == second.told
    assert first.told[0] == (facts.info(tmp_path),)


@pytest.mark.parametrize("where", ALL)
def test_a_dispensable_sink_that_fails_is_dropped_with_a_warning(tmp_path: Path, where: str) -> None:
    kept, broken = Notes(), Notes(fails_at=where, essential=False)
    everything(Sinks([broken, kept]), tmp_path)
    assert [call for call in kept.calls if call != "message"] == [c for c in ALL if c != "message"]
    assert broken.calls[-2:] == [where, "close"]
    assert (
        "Notes failed and is switched off: OSError: No space left on device",
        "warning",
    ) in kept.told


@pytest.mark.parametrize("where", ALL)
def test_an_essential_sink_s_error_is_raised_after_all_were_told(tmp_path: Path, where: str) -> None:
    broken, other = Notes(fails_at=where), Notes()
    with pytest.raises(OSError, match="No space left"):
        everything(Sinks([broken, other]), tmp_path)
    assert other.calls[-1] == where
