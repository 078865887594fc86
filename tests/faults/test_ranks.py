"""Several processes that train one run stop, go on and fail together."""

from __future__ import annotations

import os
import signal
import socket
import sys
from pathlib import Path

import pytest

from tests.faults import rank_kills, trials
from tests.faults.rank_kills import RECIPE, gone
from tests.sweeps.small_jobs import until

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The digest of a run that nobody has stopped."""
    return trials.run_uninterrupted(tmp_path_factory.mktemp("whole"), *RECIPE)


def held(cwd: Path, *words: str) -> trials.Attempt:
    """Two ranks that wait at their fifth record."""
    attempt = trials.launch(cwd, *RECIPE, *words, hold="step 5")
    attempt.wait_until_held()
    attempt.wait_until(lambda: len(attempt.children) == 2)
    return attempt


def test_a_signal_to_any_of_them_counts_for_all(tmp_path: Path, whole: str) -> None:
    attempt = held(tmp_path)
    ranks = attempt.children
    os.kill(ranks[1], signal.SIGTERM)
    until((tmp_path / trials.NOTED).exists)
    attempt.release()
    assert attempt.wait() == 143, attempt.log
    assert gone(ranks)
    assert attempt.log.count("Stopped. Resume with") == 1
    assert trials.summary(tmp_path)["status"] == "stopped"
    assert trials.digest(resumed(tmp_path)) == whole


def test_ctrl_c_is_one_request(tmp_path: Path, whole: str) -> None:
    attempt = held(tmp_path)
    ranks = attempt.children
    group = os.getpgid(attempt.pid)
    for pid in (attempt.pid, *ranks):  # as a terminal does
        if os.getpgid(pid) == group:
            os.kill(pid, signal.SIGINT)
    attempt.wait_until((tmp_path / trials.NOTED).exists)
    attempt.release()
    assert attempt.wait() == 130, attempt.log
    assert attempt.log.count("Stopped.") == 1
    assert trials.summary(tmp_path)["status"] == "stopped"
    assert trials.digest(resumed(tmp_path)) == whole


def test_a_rank_that_is_killed_ends_the_others(tmp_path: Path) -> None:
    attempt = held(tmp_path, "device.restarts=0")
    ranks = attempt.children
    os.kill(ranks[1], signal.SIGKILL)
    attempt.release()
    assert attempt.wait() == 1, attempt.log
    assert gone(ranks)
    assert "rank 1 was ended by SIGKILL" in attempt.log
    assert "Traceback" not in attempt.log
    assert trials.summary(tmp_path)["status"] == "failed"


@pytest.mark.parametrize(("place", "seed"), [("training", 0), ("a save", 1)])
def test_all_start_again_after_a_rank_was_killed(
    tmp_path: Path, whole: str, place: str, seed: int
) -> None:
    assert rank_kills.kill(tmp_path / "run", whole, place, seed) == []


def test_one_rank_goes_on_with_what_two_began_when_their_launcher_was_killed(tmp_path: Path) -> None:
    attempt = held(tmp_path)
    ranks = attempt.children
    attempt.send(signal.SIGKILL)
    until((tmp_path / trials.NOTED).exists)
    attempt.release()
    assert attempt.wait() == 137
    until(lambda: gone(ranks))
    assert trials.summary(tmp_path)["status"] == "stopped"
    resumed(tmp_path, "device.ranks=1")
    assert trials.summary(tmp_path)["status"] == "finished"


@pytest.mark.parametrize(
    ("words", "status", "printed"),
    [
        (["--version"], 0, "bigmodel-train "),
        (["--cfg", "job"], 0, "epochs: 30"),
        (["-m", "seed=1,2"], 1, "-m: torchrun has started 2 processes"),
        (["modle=fnn"], 1, "modle: no such setting"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_processes_that_torchrun_has_started_end_with_the_first_when_there_is_nothing_to_train(
    tmp_path: Path, words: list[str], status: int, printed: str
) -> None:
    with socket.create_server(("localhost", 0)) as server:
        port = server.getsockname()[1]
    meeting = {"MASTER_ADDR": "localhost", "MASTER_PORT": str(port), "WORLD_SIZE": "2"}
    first, other = (
        trials.launch(tmp_path, *words, environment=meeting | {"RANK": rank}) for rank in ("0", "1")
    )
    assert (first.wait(), other.wait()) == (status, 0)
    assert printed in first.log
    assert other.log == ""
    assert not (tmp_path / "outputs").exists()


def resumed(cwd: Path, *words: str) -> Path:
    """The folder of the run, which has gone on to its end."""
    folder = trials.run_folder(cwd)
    assert folder is not None
    again = trials.launch(cwd, f"resume={folder}", *words)
    assert again.wait() == 0, again.log
    return folder
