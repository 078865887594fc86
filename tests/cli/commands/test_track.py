"""`bigmodel track`, with a library that does as a test likes."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from bigmodel.cli.commands import main as commands
from bigmodel.reporting.summary import write_summary
from bigmodel.reporting.trackers.described import known_trackers
from tests.reporting import facts
from tests.tracker_library import Library, library

__all__ = ["library"]
Track = Callable[..., tuple[int, str]]


@pytest.fixture
def run_folder(tmp_path: Path) -> Path:
    """A run that was trained without trackers."""
    folder = tmp_path / "run"
    (folder / ".hydra").mkdir(parents=True)
    config = "model: {name: fnn}\ndata: {name: digits, api_key: '${oc.env:X}'}\nrun: {name: mine}\n"
    (folder / ".hydra" / "config.yaml").write_text(config)
    lines = [json.dumps(facts.record(epoch)) + "\n" for epoch in (1, 2, 3)]
    (folder / "metrics.jsonl").write_text("".join(lines))
    write_summary(facts.summary(), folder)
    return folder


@pytest.fixture
def track(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Track:
    monkeypatch.chdir(tmp_path)

    def call(*words: str) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", ["bigmodel", "track", *words])
        status = 0
        try:
            commands.main()
        except SystemExit as end:
            status = int(end.code or 0)
        out, err = capsys.readouterr()
        assert out == ""
        return status, err

    return call


@pytest.mark.usefixtures("run_folder")
def test_a_run_is_sent_to_a_tracker_once(library: Library, track: Track) -> None:
    status, told = track("run", "--logger", "trackio")
    assert status == 0
    first, last = told.splitlines()
    assert first.startswith("trackio: run mine, ")
    assert last == "trackio: has all of run"
    assert library.steps() == [23, 46, 69]
    [[_, how]] = library.heard("began")
    assert how["config"]["data"] == {"name": "digits", "api_key": "${oc.env:X}"}
    assert how["config"]["title"] == "fnn on digits"
    assert track("run") == (0, "trackio: has all of run\n")
    assert len(library.heard("began")) == 1


def test_what_is_missing_can_be_sent_from_where_the_run_was_moved(
    library: Library, track: Track, run_folder: Path
) -> None:
    library.breaks("log", "raise ConnectionError('no route to host')")
    status, told = track("run", "--logger", "trackio")
    assert status == 1
    assert told.splitlines()[-1] == "bigmodel: run: trackio: ConnectionError: no route to host."
    library.mend()
    run_folder.rename(run_folder.with_name("moved"))
    assert track("moved")[0] == 0
    assert library.steps() == [23, 46, 69]
    assert len({how["name"] for _, how in library.heard("began")}) == 1


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["run"], "run: the run has no tracker yet. Choose one with --logger: mlflow, trackio, wandb."),
        (["run", "--logger", "mlflw"], "--logger mlflw: there is no 'mlflw'. Did you mean 'mlflow'?"),
        (["rum", "--logger", "mlflow"], "rum: there is no such folder."),
        ([], "the following arguments are required: RUN"),
    ],
)
def test_a_mistake_is_told_on_one_line(
    track: Track, run_folder: Path, words: list[str], told: str
) -> None:
    status, err = track(*words)
    assert status == 1
    assert err.startswith(f"bigmodel: {told}")
    assert len(err.splitlines()) == 1
    assert known_trackers(run_folder) == []


@pytest.mark.usefixtures("run_folder")
def test_a_missing_library_is_told_before_anything_is_sent(
    library: Library, track: Track, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)
    status, told = track("run", "--logger", "trackio,wandb")
    assert status == 1
    assert "--logger wandb needs wandb, which is not installed: pip install" in told
    assert library.heard("began") == []


_HOLD = """
import sys
from pathlib import Path
from bigmodel.cli.launch.lock import locked
with locked(Path("run")):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.mark.usefixtures("run_folder")
def test_a_run_that_still_trains_is_left_to_itself(library: Library, track: Track) -> None:
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    pipe = subprocess.PIPE
    with subprocess.Popen(
        [sys.executable, "-c", _HOLD], stdin=pipe, stdout=pipe, env=environment
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"held\n"
        status, told = track("run", "--logger", "trackio")
        other.communicate()
    assert status == 1
    assert f"process {other.pid}" in told
    assert library.heard("began") == []
