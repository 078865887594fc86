"""`sweep.launcher=submitit` as typed: by submitit's local executor, and by Slurm's commands as
`fake_slurm` has them."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import pytest

from bigmodel.sweeps.manifest import Manifest
from tests.cli.sweep.test_sweeper import LONGER, statuses
from tests.end_to_end import conftest
from tests.end_to_end.conftest import Command
from tests.faults import trials
from tests.sweeps import fake_slurm

pytest.importorskip("submitit")
pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="submitit's local executor")

command = conftest.command
SWEEP = ("-m", "hydra.sweep.dir=mine", "sweep.launcher=submitit", "plugins=[makes_room]", *LONGER)
LOCAL = (*SWEEP, "sweep.slurm.cluster=local")

PLUGIN = """\
import os
import signal
from pathlib import Path

from bigmodel.training import records

make, calls = records.make_record, []


def make_record(*args, **more):
    calls.append(None)
    first = "SUBMITIT_EXECUTOR" in os.environ and os.environ.get("SLURM_ARRAY_TASK_ID", "0") == "0"
    if len(calls) == 5 and first and not Path("asked").exists():
        Path("asked").touch()
        os.kill(os.getpid(), signal.SIGUSR2)
        os.kill(os.getpid(), signal.SIGTERM)  # Slurm may send both
    return make(*args, **more)


records.make_record = make_record
"""
"""Asks the first job for its place at its fifth step, once."""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A current folder with the plugin."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "makes_room.py").write_text(PLUGIN)
    return tmp_path


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The digest of a single run with the first job's settings that nobody has interrupted."""
    folder = tmp_path_factory.mktemp("alone")
    (folder / "makes_room.py").write_text(PLUGIN)
    return trials.run_uninterrupted(folder, "plugins=[makes_room]", *LONGER, "seed=1")


def test_a_job_whose_place_is_needed_goes_on_from_its_checkpoint(folder: Path, alone: str) -> None:
    attempt = trials.launch(folder, *LOCAL, "seed=1")
    assert attempt.wait() == 0, attempt.log
    assert statuses(folder) == {"0": "finished"}
    assert (folder / "asked").exists()
    log = "".join(path.read_text() for path in (folder / "mine/slurm/1").glob("*_log.out"))
    assert log.count("Starting with JobEnvironment") == 2
    assert trials.digest(folder / "mine/0") == alone
    assert Manifest.read(folder / "mine").states[0].attempts == 1


@pytest.fixture
def slurm(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Slurm's commands, and what they know."""
    place = fake_slurm.install(folder / "slurm")
    monkeypatch.setenv("PATH", f"{place}{os.pathsep}{os.environ['PATH']}")
    return place


def test_jobs_outlive_their_sweep_and_are_waited_for(folder: Path, slurm: Path, alone: str) -> None:
    path = {"PATH": os.environ["PATH"]}
    (slurm / "hold").touch()
    attempt = trials.launch(folder, *SWEEP, "seed=1,2", "sweep.jobs=1", environment=path)
    attempt.wait_until((folder / "mine/slurm/submitted.jsonl").exists)
    attempt.send(signal.SIGINT)
    attempt.process.join(trials.TIMEOUT)
    assert attempt.process.exitcode == 128 + signal.SIGINT, attempt.log
    assert statuses(folder) == {"0": "waiting", "1": "waiting"}
    assert "To cancel them: scancel 7" in attempt.log
    assert "Resume with -m sweep.resume=mine 'plugins=[makes_room]'" in attempt.log
    (slurm / "hold").unlink()
    again = trials.launch(folder, "-m", "sweep.resume=mine", "plugins=[makes_room]", environment=path)
    assert again.wait() == 0, again.log
    assert statuses(folder) == {"0": "finished", "1": "finished"}
    assert [path.name for path in slurm.glob("*.sh")] == ["7.sh"]  # submitted once
    assert "--array=0-1%1" in (slurm / "7.sh").read_text()
    assert trials.digest(folder / "mine/0") == alone


@pytest.mark.parametrize("typed", ["", "++sweep.slurm.additional_parameters.nodelist=a"])
def test_a_file_sets_no_options_of_sbatch_by_itself(command: Command, folder: Path, typed: str) -> None:
    (folder / "theirs" / "experiment").mkdir(parents=True)
    text = (
        "# @package _global_\nsweep:\n  slurm:\n    additional_parameters: {export: PYTHONPATH=evil}\n"
    )
    (folder / "theirs" / "experiment" / "evil.yaml").write_text(text)
    words = ["--config-dir=theirs", "experiment=evil", *filter(None, [typed])]
    result = command(*LOCAL, "seed=1,2", *words)
    assert result.status == 1
    assert "additional_parameters.export=PYTHONPATH=evil: a configuration file sets" in result.err
    assert not (folder / "mine").exists()
    trusted = "sweep.slurm.additional_parameters={export: b, nodelist: a}"
    result = command(*LOCAL, "seed=1", *words, trusted, "sweep.gpus=[0]")
    assert "sweep.gpus=[0]" in result.err  # which comes next


@pytest.mark.usefixtures("slurm")
def test_what_slurm_refuses_is_one_message_and_nothing_is_left(command: Command, folder: Path) -> None:
    result = command(*SWEEP, "seed=1,2", "sweep.slurm.partition=nowhere")
    assert (result.status, result.out) == (1, "")
    assert "sbatch has refused the jobs: error: invalid partition specified: nowhere" in result.err
    assert len(result.err.splitlines()) == 1
    assert not list(folder.glob("mine/*"))
