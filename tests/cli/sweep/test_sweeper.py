"""Sweeps by the command line: what is run, recorded and told, and with which status it ends."""

from __future__ import annotations

import csv
import importlib.util
import io
import json
import multiprocessing
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from bigmodel.cli import invocation
from bigmodel.cli.sweep import runners, work
from bigmodel.reporting.sweep_view import SweepView
from bigmodel.sweeps import process
from bigmodel.sweeps.manifest import NAME, Manifest
from tests.end_to_end import conftest
from tests.end_to_end.conftest import Command, Result
from tests.faults import trials

command = conftest.command
QUICK = ("debug=fast", "device=cpu", "trainer.tensorboard=false")
SWEEP = ("-m", "hydra.sweep.dir=mine", *QUICK)
FAILING = ("data=wine", "model=fnn,rnn")  # a recurrent model reads no table


def table(folder: Path) -> dict[str, dict[str, str]]:
    """By job, the rows of the sweep's table."""
    with (folder / "mine" / "leaderboard.csv").open(newline="") as file:
        return {row["job"]: row for row in csv.DictReader(file)}


def statuses(folder: Path) -> dict[str, str]:
    return {job: row["status"] for job, row in table(folder).items()}


def at_once(result: Result) -> list[str]:
    """The lines that are printed as jobs end."""
    return [line for line in result.out.splitlines() if line.startswith("[")]


def test_each_job_has_a_line_as_it_ends_and_a_row_in_the_table(command: Command, tmp_path: Path) -> None:
    result = command(*SWEEP, "seed=1,2", "optimizer.lr=0.1,0.2")
    assert (result.status, result.err) == (0, "")
    lines = at_once(result)
    assert [line.split("]")[0] for line in lines] == [f"[{number} of 4" for number in range(1, 5)]
    for number, changed in enumerate(
        f"seed={seed} optimizer.lr={rate}" for seed in (1, 2) for rate in (0.1, 0.2)
    ):
        best = json.loads((tmp_path / f"mine/{number}/summary.json").read_text())["best"]["val/accuracy"]
        (line,) = [line for line in lines if f"job {number} " in line]
        assert f"{changed}  finished  val/accuracy {best:.4g}"[:-1] in line
    assert statuses(tmp_path) == {str(number): "finished" for number in range(4)}
    assert Manifest.read(tmp_path / "mine").words[:2] == SWEEP[:2]


def test_jobs_may_be_spawned_instead_of_forked(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on macOS and Windows: nothing that this process has set up is there."""
    monkeypatch.setattr(process, "context", lambda: multiprocessing.get_context("spawn"))
    (tmp_path / "plugin.py").write_text("")  # found only where the sweep was started
    result = command(
        "-m", *QUICK, "plugins=[plugin]", "seed=3"
    )  # in a folder that is named by a resolver
    assert (result.status, result.err) == (0, "")
    (folder,) = tmp_path.glob("outputs/multirun/*/*/0")
    assert json.loads((folder / "summary.json").read_text())["status"] == "finished"
    assert not list(folder.glob("../logs/*"))


def test_a_sweep_of_one(command: Command, tmp_path: Path) -> None:
    assert command(*SWEEP, "seed=3").status == 0
    assert statuses(tmp_path) == {"0": "finished"}


@pytest.mark.parametrize("subdir", ["lr/${hydra.job.num}", "${hydra.job.override_dirname}"])
def test_folders_of_jobs_may_lie_deeper(command: Command, tmp_path: Path, subdir: str) -> None:
    result = command(*SWEEP, f"hydra.sweep.subdir={subdir}", *FAILING)
    assert result.status == 1
    assert statuses(tmp_path) == {"0": "finished", "1": "failed"}
    folders = [Path(row["folder"]) for row in table(tmp_path).values()]
    assert all((tmp_path / folder / "summary.json").is_file() for folder in folders)


def test_jobs_that_share_a_folder_are_told_apart(command: Command, tmp_path: Path) -> None:
    subdir = "hydra.sweep.subdir=${model.name}"
    result = command(*SWEEP, subdir, "seed=1,2", "sweep.jobs=1")
    assert result.status == 1
    assert sorted(statuses(tmp_path).values()) == ["failed", "finished"]
    assert "already holds a run" in result.out


@pytest.mark.skipif(
    importlib.util.find_spec("hydra_plugins.hydra_joblib_launcher") is None,
    reason="hydra-joblib-launcher is not installed",
)
def test_jobs_of_another_launcher_are_in_the_table_too(tmp_path: Path) -> None:
    words = [sys.executable, "-m", "bigmodel.cli.train", *SWEEP, "hydra/launcher=joblib", *FAILING]
    ended = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert ended.returncode == 1, ended.stderr
    assert statuses(tmp_path) == {"0": "finished", "1": "failed"}
    assert "rnn" in table(tmp_path)["1"]["error"]
    assert "Job 1 (model=rnn) failed: model=rnn cannot read data=wine" in ended.stdout


def test_a_launcher_that_is_not_installed_is_refused(command: Command, tmp_path: Path) -> None:
    result = command(*SWEEP, "hydra/launcher=nowhere", "seed=1,2")
    assert result.status == 1
    assert "nowhere" in result.err
    assert not (tmp_path / "mine").exists()


# ----- refused -----


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["seed=1,2", "seed=3,4"], "seed: is given more than once (seed=1,2 and seed=3,4)"),
        (["optimizer.lr=interval(0.1,1)"], "an interval has no list of values"),
        (["seed=range(0,1e8)"], "100,000,000"),
        (["seed=1,2", "sweep.jobs=0"], "sweep.jobs=0"),
        (["seed=1,2", "sweep.jbos=2"], "sweep.jobs"),
        (["seed=1,2", "sweep.on_error=ignore"], "sweep.on_error"),
        (["trainer.epochs=1,ten"], "Job 1"),
        (["seed=1,2", "sweep.resume=nowhere"], "nowhere/sweep.jsonl: is not a sweep's record"),
        (["seed=1,2", "sweep.zip=[seed,model]"], "sweep.zip"),
        (["seed=1,2", "hydra.sweep.subdir=same"], "hydra.sweep.subdir=same: is the same folder"),
        (["seed=1,2", "+resume=elsewhere"], "resume=elsewhere: would be ignored"),
        (["device.name=cpu,mps"], "this machine has no mps device"),
        (["seed=1,2", "trainer.checkpoint.monitor=val/rmse"], "monitor=val/rmse: no such metric"),
        (["hydra/launcher=submitit_slurm"], "For Slurm use sweep.launcher=submitit."),
        (["seed=rnage(3)"], "There is no function rnage. Did you mean 'range'?"),
        (["seed=1,"], "A value is missing beside a comma"),
        (["data=wine", "sweep.folds=49"], "sweep.folds=49: class 'class_2' has 48 samples for training"),
        (["data=wine", "data.folds=500", "data.val_fold=0,1"], "data.folds=500: the training set has"),
        (["data=wine,iris", "sweep.folds=50"], "data=wine: sweep.folds=50: class"),
        (["data.validation=false", "sweep.folds=3"], "sweep.folds=3 hold a fold out for validation."),
        (["data.folds=3", "sweep.folds=3"], "sweep.folds=3: data.folds=3 is given as well."),
        (["seed=1,2", "sweep.gpus=[0]"], "sweep.gpus=[0]: jobs run on the CPU here"),
    ],
)
def test_what_is_wrong_is_one_message_and_nothing_is_made(
    command: Command, tmp_path: Path, words: list[str], message: str
) -> None:
    result = command(*SWEEP, *words)
    assert result.status == 1
    assert message in result.err
    assert result.err.count("bigmodel-train: ") == 1
    assert "Traceback" not in result.err
    assert not (tmp_path / "mine").exists()


# ----- failures -----


def test_the_status_comes_from_what_was_started(command: Command, tmp_path: Path) -> None:
    """Not from what is found afterwards: here a job's folder is gone."""
    result = command(*SWEEP, *FAILING, "hydra.sweep.subdir=/dev/null/${hydra.job.num}")
    assert result.status == 1
    assert statuses(tmp_path) == {"0": "failed", "1": "failed"}


def test_the_first_failure_can_stop_the_sweep(command: Command, tmp_path: Path) -> None:
    words = ("data=wine", "model=rnn,fnn,cnn,transformer", "sweep.on_error=stop", "sweep.jobs=1")
    assert command(*SWEEP, *words).status == 1
    found = statuses(tmp_path)
    assert found["0"] == "failed"
    assert found["2"] == found["3"] == "waiting"


# ----- stopped and gone on with -----

LONGER = tuple(word for word in trials.RECIPE if "threads" not in word)
STOP = pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=lambda n: n.name)


@STOP
def test_a_stopped_sweep_lists_what_has_not_begun_and_goes_on(
    tmp_path: Path, number: signal.Signals
) -> None:
    words = ("-m", "hydra.sweep.dir=mine", *LONGER, "seed=1,2,3", "sweep.jobs=1")
    attempt = trials.launch(tmp_path, *words, hold="step 5")
    attempt.wait_until_held()
    second = trials.launch(tmp_path, "-m", "sweep.resume=mine")
    assert second.wait() == 1, second.log
    assert f"in process {attempt.pid}" in " ".join(second.log.split())
    attempt.send(number)
    attempt.wait_until((tmp_path / trials.NOTED).exists)
    attempt.release()
    attempt.process.join(trials.TIMEOUT)
    assert attempt.process.exitcode == 128 + number, attempt.log
    assert statuses(tmp_path) == {"0": "stopped", "1": "waiting", "2": "waiting"}
    assert "Stopped. Resume with -m sweep.resume=mine" in attempt.log
    assert not list(tmp_path.rglob(".lock"))
    assert not (tmp_path / "mine/1/.hydra").exists()

    again = trials.launch(tmp_path, "-m", "sweep.resume=mine")
    assert again.wait() == 0, again.log
    assert statuses(tmp_path) == {"0": "finished", "1": "finished", "2": "finished"}
    trials.launch(tmp_path, "hydra.run.dir=alone", *LONGER, "seed=1").wait()
    # It went on from its checkpoint, and ended as the run that nobody stopped.
    assert trials.digest(tmp_path / "mine/0") == trials.digest(tmp_path / "alone")
    assert Manifest.read(tmp_path / "mine").states[0].attempts == 2


def test_a_second_signal_ends_the_sweep_at_once_with_its_jobs(tmp_path: Path) -> None:
    words = ("-m", "hydra.sweep.dir=mine", *LONGER, "seed=1,2,3", "sweep.jobs=1")
    attempt = trials.launch(tmp_path, *words, hold="step 5")
    attempt.wait_until_held()
    attempt.send(signal.SIGTERM)
    attempt.wait_until((tmp_path / trials.NOTED).exists)
    attempt.send(signal.SIGTERM)  # its job is still held
    attempt.process.join(trials.TIMEOUT)
    assert attempt.process.exitcode == 128 + signal.SIGTERM, attempt.log
    assert "Traceback" not in attempt.log
    assert "Resume with -m sweep.resume=mine" in attempt.log
    again = trials.launch(tmp_path, "-m", "sweep.resume=mine")  # nobody holds its folders
    assert again.wait() == 0, again.log
    assert statuses(tmp_path) == {"0": "finished", "1": "finished", "2": "finished"}


def test_it_is_said_once_how_jobs_that_are_slow_to_stop_are_ended(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(invocation, "current", invocation.Invocation())
    shown = io.StringIO()
    requests = runners._impatiently(SweepView(str, terminal=False, stream=shown))
    assert (requests(), shown.getvalue()) == (None, "")
    monkeypatch.setattr(invocation.current.signals, "urgent", lambda: True)
    assert requests() is requests() is None
    assert shown.getvalue().count("Ctrl-C again ends them at once.") == 1


def test_a_signal_after_the_last_job_does_not_take_the_table(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    close = SweepView.close

    def interrupted(view: SweepView) -> None:
        close(view)
        os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(SweepView, "close", interrupted)
    result = command(*SWEEP, "seed=1,2")
    assert result.status == 130
    assert statuses(tmp_path) == {"0": "finished", "1": "finished"}
    assert "folder\n1  1    2 " in result.out


def test_a_sweep_that_is_done_has_nothing_to_go_on_with(command: Command, tmp_path: Path) -> None:
    assert command(*SWEEP, "seed=1,2").status == 0
    before = {path: path.read_bytes() for path in (tmp_path / "mine").glob("*/*") if path.is_file()}
    result = command("-m", f"sweep.resume={tmp_path}/mine")
    assert (result.status, at_once(result)) == (0, [])
    assert {path: path.read_bytes() for path in before} == before
    assert statuses(tmp_path) == {"0": "finished", "1": "finished"}


def test_another_grid_is_refused_and_a_larger_one_on_demand(command: Command, tmp_path: Path) -> None:
    assert command(*SWEEP, "seed=1,2").status == 0
    record = (tmp_path / "mine" / NAME).read_bytes()
    result = command("-m", "sweep.resume=mine", "seed=2,3")
    assert (result.status, "such as seed=1. Leave out" in result.err) == (1, True)
    result = command("-m", "sweep.resume=mine", "seed=1,2,3")
    assert (result.status, "such as seed=3. Add sweep.extend=true" in result.err) == (1, True)
    assert (tmp_path / "mine" / NAME).read_bytes() == record
    result = command("-m", "sweep.resume=mine", "seed=1,2,3", "sweep.extend=true")
    assert (result.status, len(at_once(result))) == (0, 1)
    assert {job: row["seed"] for job, row in table(tmp_path).items()} == {"0": "1", "1": "2", "2": "3"}


def test_what_a_job_that_failed_has_printed_is_kept_and_where_is_said(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def faulty(_: object) -> None:
        os.write(2, b"a library's last words")
        raise ValueError("a bug")

    monkeypatch.setattr(work, "fit_run", faulty)
    result = command(*SWEEP, "seed=1")
    assert (result.status, statuses(tmp_path)) == (1, {"0": "failed"})
    assert "What jobs have printed: mine/logs\n" in result.out
    assert (tmp_path / "mine/logs/0.log").read_text() == "a library's last words"


def test_failed_jobs_are_run_again_where_asked(command: Command, tmp_path: Path) -> None:
    result = command(*SWEEP, *FAILING)
    assert result.status == 1
    assert result.out.splitlines()[-1].endswith("-m sweep.resume=mine sweep.retries=1")
    result = command("-m", "sweep.resume=mine")
    assert (result.status, at_once(result)) == (1, [])
    result = command("-m", "sweep.resume=mine", "sweep.retries=1")
    assert (result.status, len(at_once(result))) == (1, 1)  # refused settings would be refused again
    assert Manifest.read(tmp_path / "mine").states[1].attempts == 2
