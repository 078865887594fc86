"""Two runs and one folder: each has its own, and a run that goes on belongs to one process."""

import fcntl
import json
import multiprocessing
import os
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from bigmodel.cli.launch import lock, run_folder
from bigmodel.cli.launch.lock import NAME, holder, locked
from bigmodel.errors import CheckpointError
from tests.faults import damage, trials

QUICK = ("debug=fast", "device=cpu", "device.threads=1", "trainer.tensorboard=false")


@pytest.fixture(scope="module")
def stopped(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return damage.stopped_run(tmp_path_factory.mktemp("stopped") / "run", after=4)


@pytest.fixture
def run(tmp_path: Path, stopped: Path) -> Path:
    return Path(shutil.copytree(stopped, tmp_path / "outputs" / "day" / "time"))


def test_eight_launches_at_once_get_eight_folders(tmp_path: Path) -> None:
    assert trials.launch_at_once(tmp_path, 8, *QUICK) == []


def test_a_run_that_is_going_on_is_not_gone_on_with(tmp_path: Path, run: Path) -> None:
    first = trials.launch(tmp_path, f"resume={run}", hold="saving")
    first.wait_until_held()
    second = trials.launch(tmp_path, f"resume={run}")
    auto = trials.launch(tmp_path, "resume=auto", *trials.RECIPE)
    assert second.wait() == 1
    words = f"this run is already running, in process {first.pid} on {socket.gethostname()}"
    assert words in " ".join(second.log.split())
    assert "Traceback" not in second.log
    assert auto.wait() == 0
    assert f"is already running, in process {first.pid}" in auto.log
    assert "a new one starts" in auto.log
    first.send(signal.SIGTERM)
    first.release()
    assert first.wait() == 143, first.log
    assert not (run / NAME).exists()


def test_a_stale_lock_is_recovered(tmp_path: Path, run: Path) -> None:
    first = trials.launch(tmp_path, f"resume={run}", hold="saving")
    first.wait_until_held()
    first.process.kill()
    first.process.join()
    assert (run / NAME).exists()
    assert holder(run) is None
    second = trials.launch(tmp_path, f"resume={run}")
    assert second.wait() == 0, second.log
    assert not (run / NAME).exists()


def _look(folder: Path, ready: object, until: object) -> None:
    while not until.is_set():  # type: ignore[attr-defined]
        holder(folder)
        ready.set()  # type: ignore[attr-defined]


def test_who_only_looks_keeps_nobody_out(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    ready, until = context.Event(), context.Event()
    looking = context.Process(target=_look, args=(tmp_path, ready, until))
    looking.start()
    try:
        assert ready.wait(trials.TIMEOUT)
        for _ in range(100):
            with locked(tmp_path):
                pass
    finally:
        until.set()
        looking.join()


def _look_until(folder: Path, ready: object, until: object) -> None:
    with (folder / NAME).open("r+") as file:
        fcntl.lockf(file, fcntl.LOCK_SH, 0, 1)
        ready.set()  # type: ignore[attr-defined]
        until.wait()  # type: ignore[attr-defined]


def test_who_looks_for_long_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a machine so busy that whoever looks is stopped as it does."""
    context = multiprocessing.get_context("spawn")
    ready, until = context.Event(), context.Event()
    (tmp_path / NAME).touch()
    looking = context.Process(target=_look_until, args=(tmp_path, ready, until))
    looking.start()
    real = fcntl.lockf

    def lockf(file: object, flags: int, *part: int) -> None:
        if not flags & fcntl.LOCK_NB:
            until.set()
        real(file, flags, *part)  # type: ignore[arg-type]

    monkeypatch.setattr(fcntl, "lockf", lockf)
    monkeypatch.setattr(lock, "_WAIT_SECONDS", 0)
    try:
        assert ready.wait(trials.TIMEOUT)
        assert holder(tmp_path) is None, "nor do those who look see each other"
        with locked(tmp_path):
            assert until.is_set()
    finally:
        until.set()
        looking.join()


@pytest.mark.parametrize(
    "content", ["", "\0\0\0\0", "{", '{"pid": 1}', '{"pid": "x", "host": 1, "started": 2}']
)
def test_an_old_file_with_anything_in_it_keeps_nobody_out(tmp_path: Path, content: str) -> None:
    (tmp_path / NAME).write_text(content)
    with locked(tmp_path):
        assert json.loads((tmp_path / NAME).read_text())["pid"] == os.getpid()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("pid", "host", "taken"),
    [
        (1, socket.gethostname(), True),
        (2**22 + 1, socket.gethostname(), False),
        (1, "another host", True),
    ],
    ids=["alive", "gone", "elsewhere"],
)
def test_without_locks_of_the_system_the_file_s_word_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pid: int, host: str, taken: bool
) -> None:
    monkeypatch.setattr("bigmodel.cli.launch.lock.fcntl", None)
    (tmp_path / NAME).write_text(json.dumps({"pid": pid, "host": host, "started": "today"}))
    if taken:
        with (
            pytest.raises(CheckpointError, match=f"process {pid} on {host}, since today"),
            locked(tmp_path),
        ):
            pass
    else:
        with locked(tmp_path):
            pass


def test_where_no_process_can_be_asked_the_file_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On Windows, asking would be Ctrl-C."""
    monkeypatch.setattr(lock, "fcntl", None)
    monkeypatch.setattr(lock, "_CAN_PROBE", False)
    with locked(tmp_path):
        found = (tmp_path / NAME).read_text()
    (tmp_path / NAME).write_text(found)
    with pytest.raises(CheckpointError, match=r"if it has ended, remove .*\.lock"), locked(tmp_path):
        pass


@pytest.mark.parametrize("content", ["mine", "{}", "\0mine", b"\xff\xfe"])
def test_another_s_file_of_that_name_is_left_alone(tmp_path: Path, content: str | bytes) -> None:
    whole = content if isinstance(content, bytes) else content.encode()
    (tmp_path / NAME).write_bytes(whole)
    with pytest.raises(CheckpointError, match="is not what a run writes there"), locked(tmp_path):
        pass
    assert (tmp_path / NAME).read_bytes() == whole


def test_the_owner_may_look_at_its_folder(tmp_path: Path) -> None:
    """Closing any file that leads to a lock of this kind would give it back."""
    with locked(tmp_path):
        run_folder.check_free(tmp_path, "hydra.run.dir")
        run_folder.remove_leftovers(tmp_path)
        code = "import sys, pathlib as p; from bigmodel.cli.launch import lock"
        code += "; print(lock.holder(p.Path(sys.argv[1])))"
        words = [sys.executable, "-c", code, str(tmp_path)]
        told = subprocess.run(words, capture_output=True, text=True, check=True).stdout
    assert f"process {os.getpid()} on" in told
