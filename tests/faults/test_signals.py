"""SIGTERM and SIGINT save and leave, SIGUSR1 saves and goes on, whatever the run is doing."""

import signal
from pathlib import Path

import pytest

from . import interruptions, trials

pytestmark = pytest.mark.skipif(not hasattr(signal, "SIGUSR1"), reason="signals as POSIX has them")


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> str:
    return trials.whole(tmp_path_factory.mktemp("whole"), *trials.RECIPE)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=lambda n: n.name)
@pytest.mark.parametrize("phase", ["training", "evaluation", "saving"])
def test_a_stop_saves_and_the_run_goes_on(
    tmp_path: Path, expected: str, number: signal.Signals, phase: str
) -> None:
    assert interruptions.interrupt(tmp_path / "run", expected, number, phase) == []


@pytest.mark.parametrize("phase", ["training", "evaluation"])
def test_sigusr1_saves_and_goes_on(tmp_path: Path, expected: str, phase: str) -> None:
    assert interruptions.interrupt(tmp_path / "run", expected, signal.SIGUSR1, phase) == []


@pytest.mark.parametrize("wait", [0.2, 1.0])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=lambda n: n.name)
def test_a_stop_at_the_start_leaves_nothing(tmp_path: Path, number: signal.Signals, wait: float) -> None:
    assert interruptions.interrupt(tmp_path / "run", "", number, "start", wait) == []


def test_sigusr1_at_the_start_kills_nobody(tmp_path: Path) -> None:
    assert interruptions.interrupt(tmp_path / "run", "", signal.SIGUSR1, "start", 0.3) == []


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=lambda n: n.name)
def test_a_second_stop_leaves_at_once(tmp_path: Path, number: signal.Signals) -> None:
    assert interruptions.leave_at_once(tmp_path / "run", number) == []
