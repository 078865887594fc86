"""Runs with trackers, from the command line and from Python."""

import os
import sys
import threading
from pathlib import Path

import pytest

import bigmodel
from tests.end_to_end.conftest import Command
from tests.tracker_library import Library, library

__all__ = ["library"]
SHORT = ("device=cpu", "data=iris", "trainer.tensorboard=false", "logger=[trackio]")


def test_a_run_and_its_continuation_are_one(library: Library, command: Command) -> None:
    first = command(*SHORT, "trainer.epochs=2", "run.name=mine", "hydra.run.dir=here")
    assert (first.status, first.err) == (0, "")
    assert "\ntrackio: run mine, " in first.out
    second = command("resume=here", "trainer.epochs=3")
    assert (second.status, second.err) == (0, "")
    steps = [record["step"] for record in second.records()]
    assert library.steps() == steps
    (_, one), (_, other) = library.heard("began")
    assert one["name"] == other["name"]
    assert one["config"]["model"]["name"] == "fnn"
    assert library.heard("logged")[-1][0]["status"] == "finished"


def test_a_tracker_may_be_added_when_a_run_is_resumed(library: Library, command: Command) -> None:
    command(*SHORT[:-1], "trainer.epochs=2", "hydra.run.dir=here")
    assert library.heard("began") == []
    second = command("resume=here", "trainer.epochs=3", "logger=[trackio]")
    assert library.steps() == [record["step"] for record in second.records()]


def test_the_jobs_of_a_sweep_are_runs_of_a_group(
    library: Library, command: Command, tmp_path: Path
) -> None:
    sweep = command("-m", *SHORT, "trainer.epochs=1", "seed=1,2", "hydra.sweep.dir=mysweep")
    assert (sweep.status, sweep.err) == (0, "")
    began = [how for _, how in library.heard("began")]
    assert len({how["name"] for how in began}) == 2
    assert {how["group"] for how in began} == {f"{tmp_path.name}/mysweep"}
    assert sorted(how["config"]["seed"] for how in began) == [1, 2]


def test_a_library_that_fails_costs_one_line_and_the_run_is_the_same(
    library: Library, command: Command
) -> None:
    library.breaks("init", "sys.exit('no key')")
    without = command(*SHORT[:-1], "trainer.epochs=2", "hydra.run.dir=without")
    broken = command(*SHORT, "trainer.epochs=2", "hydra.run.dir=broken")
    assert (broken.status, broken.err) == (0, "")
    timed = ("samples_per_second",)
    records = [{k: v for k, v in each.items() if k not in timed} for each in broken.records()]
    assert records == [{k: v for k, v in e.items() if k not in timed} for e in without.records()]
    assert "trackio: 2 records of the run were not sent: the library has exited: no key." in broken.out


def test_from_python_nothing_of_the_process_changes(
    library: Library, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    before = dict(os.environ), threading.active_count()
    run = bigmodel.train(*SHORT, "trainer.epochs=1", progress=False)
    assert (dict(os.environ), threading.active_count()) == before
    assert library.steps() == list(run.metrics["step"])
    assert capsys.readouterr() == ("", "")
    assert "trackio" not in sys.modules
