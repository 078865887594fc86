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
def test_all_start_again_after_a_rank_with_a_copy_was_killed(
    tmp_path: Path, whole: str, place: str, seed: int
) -> None:
    assert rank_kills.kill(tmp_path / "run", whole, place, seed) == []


def test_all_start_again_after_a_rank_with_a_part_was_killed_in_a_save(tmp_path: Path) -> None:
    words = rank_kills.WAYS["parts"]
    whole = trials.run_uninterrupted(tmp_path / "whole", *RECIPE, *words)
    assert rank_kills.kill(tmp_path / "run", whole, "a save", 1, *words) == []


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


def test_what_a_launcher_leaves_has_no_name(tmp_path: Path) -> None:
    attempt = held(tmp_path)
    handles = [path.readlink() for path in Path(f"/proc/{attempt.pid}/fd").iterdir()]
    left = [str(path) for path in handles if "bigmodel-rank" in path.name]
    assert len(left) == 2
    assert all(path.endswith(" (deleted)") for path in left)
    attempt.send(signal.SIGTERM)
    attempt.release()
    assert attempt.wait() == 143


def test_a_second_request_ends_all_at_once(tmp_path: Path) -> None:
    attempt = held(tmp_path)
    ranks = attempt.children
    for _ in range(2):
        attempt.send(signal.SIGINT)
        attempt.wait_until((tmp_path / trials.NOTED).exists)  # by the ranks, which are held
    assert attempt.wait() == 130
    until(lambda: gone(ranks))


def test_a_rank_that_hangs_is_named_and_ended(tmp_path: Path) -> None:
    attempt = held(tmp_path, "device.timeout=8", "device.restarts=0")
    ranks = attempt.children
    os.kill(ranks[1], signal.SIGSTOP)
    attempt.release()
    assert attempt.wait() == 1, attempt.log
    assert gone(ranks)
    told = "bigmodel-train: device.timeout=8: all ranks have ended, since rank 1 did not answer"
    assert attempt.log.count(told) == attempt.log.count("bigmodel-train: ") == 1


# ----- started by torchrun, by srun, or by a program like them -----


def together(
    cwd: Path, *words: str, slurm: bool = False, hold: str | None = None
) -> tuple[trials.Attempt, trials.Attempt]:
    """Two processes, each on a machine of its own as far as they are told, that are started together."""
    with socket.create_server(("localhost", 0)) as server:
        port = server.getsockname()[1]
    meeting = {"MASTER_ADDR": "localhost", "MASTER_PORT": str(port)}
    size = {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "1", "LOCAL_RANK": "0"}
    if slurm:
        size = {"SLURM_STEP_ID": "0", "SLURM_STEP_NUM_TASKS": "2", "SLURM_NTASKS": "2"}
    first, other = (
        trials.launch(
            cwd,
            *words,
            hold=hold,
            environment=meeting | size | {"SLURM_PROCID" if slurm else "RANK": str(rank)},
        )
        for rank in range(2)
    )
    return first, other


@pytest.mark.parametrize("slurm", [False, True], ids=["torchrun", "srun"])
def test_two_processes_train_one_run(tmp_path: Path, whole: str, slurm: bool) -> None:
    first, other = together(tmp_path, *RECIPE, "device.restarts=1", slurm=slurm)
    assert (first.wait(), other.wait()) == (0, 0), first.log + other.log
    assert other.log == ""
    folder = trials.run_folder(tmp_path)
    assert folder is not None
    assert trials.digest(folder) == whole


@pytest.mark.slow
def test_a_hung_process_is_named_by_another(tmp_path: Path) -> None:
    first, other = together(tmp_path, *trials.RECIPE, "device.timeout=8", hold="step 5")
    first.wait_until_held()
    other.send(signal.SIGSTOP)
    first.release()
    assert first.wait() == 1, first.log
    told = f"since rank 1 on {socket.gethostname()} did not answer for so many seconds"
    assert first.log.count(told) == 1
    other.send(signal.SIGKILL)
    other.wait()


def test_a_mistake_that_all_find_is_told_once(tmp_path: Path) -> None:
    attempts = together(tmp_path, *trials.RECIPE, "data.batch_size=1", "trainer.accumulate=1")
    assert [attempt.wait() for attempt in attempts] == [1, 1]
    log = "".join(attempt.log for attempt in attempts)
    assert log.count("bigmodel-train: device.ranks=2: a batch of 1 sample has no row for each") == 1
    assert log.count("bigmodel-train: ") == 1
    assert not (tmp_path / "outputs").exists()


@pytest.mark.parametrize(
    ("words", "status", "printed"),
    [
        (["--version"], 0, "bigmodel-train "),
        (["--cfg", "job"], 0, "epochs: auto"),
        (["-m", "seed=1,2"], 1, "-m: srun has started 2 processes"),
        (["modle=fnn"], 1, "modle: no such setting"),
        (["device.ranks=3"], 1, "device.ranks=3: srun has started 2 processes"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_the_others_end_as_the_first_does_when_there_is_nothing_to_train(
    tmp_path: Path, words: list[str], status: int, printed: str
) -> None:
    first, other = together(tmp_path, *words, slurm=True)
    assert (first.wait(), other.wait()) == (status, status)
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
