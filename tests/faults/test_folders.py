"""Whose folder it is: nobody writes into another's, nothing of a user's goes, and no loop sticks."""

import csv
import json
import os
import shutil
import time
from pathlib import Path

import pytest

from bigmodel.cli.launch.lock import holder, locked
from tests.end_to_end import conftest
from tests.end_to_end.conftest import Command
from tests.faults import damage, foreign, trials
from tests.faults.foreign import FILES, QUICK, content, lay_out

command = conftest.command
# ----- a folder of the user's -----


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("kind", ["run", "sweep"])
def test_a_folder_with_what_a_run_would_write_is_refused(
    command: Command, tmp_path: Path, name: str, kind: str
) -> None:
    mine = tmp_path / "mine"
    inner = mine if kind == "run" else mine / "0"
    lay_out(inner, {name: FILES[name], "notes.txt": "mine"})
    before = content(inner)
    words = ("hydra.run.dir=mine",) if kind == "run" else ("-m", "hydra.sweep.dir=mine", "seed=1,2")
    result = command(*words, *QUICK)
    said = result.err if kind == "run" else result.out
    assert result.status == 1
    assert f"hydra.{kind}.dir: " in said or name == ".lock"
    assert str(inner) in said
    assert "Traceback" not in result.out + result.err
    assert content(inner) == before
    if kind == "sweep":  # the other job is none the worse for it
        assert json.loads((mine / "1" / "summary.json").read_text())["status"] == "finished"
        with (mine / "leaderboard.csv").open() as table:
            rows = [(row["job"], row["status"]) for row in csv.DictReader(table)]
        assert rows == [("1", "finished"), ("0", "failed")]


@pytest.mark.parametrize("name", ["multirun.yaml", "leaderboard.csv", ".lock"])
def test_a_sweep_is_refused_where_its_plan_or_table_would_write_over_another(
    command: Command, tmp_path: Path, name: str
) -> None:
    before = lay_out(tmp_path / "mine", {name: "mine"})
    result = command("-m", "hydra.sweep.dir=mine", "seed=1,2", *QUICK)
    assert result.status == 1
    wanted = f"hydra.sweep.dir: mine holds {name} already"
    assert (wanted if name != ".lock" else "mine/.lock: is not what a run writes there") in result.err
    assert content(tmp_path / "mine") == before


def test_an_experiment_of_a_stranger_s_finds_no_way_in(command: Command, tmp_path: Path) -> None:
    experiment = "# @package _global_\nhydra: {run: {dir: mine}}\n"
    lay_out(tmp_path, {"theirs/experiment/nice.yaml": experiment})
    before = lay_out(tmp_path / "mine", {"checkpoints/best/model.pt": "weights"})
    result = command("--config-dir", "theirs", "experiment=nice", *QUICK)
    assert result.status == 1
    assert "holds checkpoints already, which a run would overwrite" in result.err
    assert content(tmp_path / "mine") == before


def test_other_files_of_the_user_s_are_none_of_its_business(command: Command, tmp_path: Path) -> None:
    before = lay_out(
        tmp_path / "mine", {"notes.txt": "mine", "data/a.csv": "x,y\n", ".notes.5.tmp": "x"}
    )
    assert command("hydra.run.dir=mine", *QUICK).status == 0
    assert content(tmp_path / "mine").items() >= before.items()
    again = command("hydra.run.dir=mine", *QUICK)
    assert (again.status, "resume the run with resume=" in again.err) == (1, True)


@pytest.mark.parametrize("words", [(), ("hydra.verbose=true",)], ids=["plain", "verbose"])
def test_the_log_that_hydra_makes_for_a_job_is_no_stranger_s(
    tmp_path: Path, words: tuple[str, ...]
) -> None:
    attempt = trials.launch(tmp_path, "hydra/job_logging=default", *words, *QUICK)
    assert attempt.wait() == 0, attempt.log


@pytest.mark.parametrize("name", foreign.COPIES[:3])
def test_a_copy_beside_the_checkpoints_is_left_alone(tmp_path: Path, expected: str, name: str) -> None:
    assert foreign.left_alone(tmp_path / "run", name, expected, "best") == []


# ----- two in one folder -----


def test_a_job_in_a_folder_that_another_has_leaves_it_alone(tmp_path: Path) -> None:
    """As with two sweeps in one folder: the other's record and summary stay."""
    other = tmp_path / "mine" / "1"
    other.mkdir(parents=True)
    with locked(other):
        before = sorted(other.iterdir())
        words = ("-m", "hydra.sweep.dir=mine", "seed=1,2", *QUICK)
        attempt = trials.launch(tmp_path, *words)
        assert attempt.wait() == 1
        assert sorted(other.iterdir()) == before
    log = attempt.log
    assert "Job 1 (seed=2" in log
    assert f"this run is already running, in process {os.getpid()}" in " ".join(log.split())
    assert json.loads((tmp_path / "mine" / "0" / "summary.json").read_text())["status"] == "finished"


def test_two_sweeps_in_one_folder_at_once(tmp_path: Path) -> None:
    words = ("-m", "hydra.sweep.dir=mine", *QUICK)
    first = trials.launch(tmp_path, *words, "seed=1,2,3")
    while holder(tmp_path / "mine") is None:
        assert first.process.is_alive(), first.log
        time.sleep(0.001)
    second = trials.launch(tmp_path, *words, "seed=7,8,9")
    assert second.wait() == 1
    assert "hydra.sweep.dir" in second.log or f"in process {first.pid}" in " ".join(second.log.split())
    assert "Traceback" not in second.log
    assert first.wait() == 0, first.log
    table = (tmp_path / "mine" / "leaderboard.csv").read_text()
    assert [row.split(",")[1] for row in sorted(table.splitlines()[1:])] != []
    assert {line.split(",")[2] for line in table.splitlines()[1:]} == {"1", "2", "3"}
    assert "seed=1,2,3" in (tmp_path / "mine" / "multirun.yaml").read_text()
    assert not (tmp_path / "mine" / ".lock").exists()


def test_a_sweep_that_is_refused_leaves_no_plan(command: Command, tmp_path: Path) -> None:
    result = command("-m", "hydra.sweep.dir=mine", "seed=1,2", "model=fnn,nothing", *QUICK)
    assert result.status == 1
    assert content(tmp_path / "mine") == {} if (tmp_path / "mine").exists() else True


# ----- loops of resume=auto -----


def loop(cwd: Path, *words: str) -> tuple[trials.Attempt, int]:
    """`until bigmodel-train …; do :; done`, five times at most."""
    for number in range(1, 6):
        attempt = trials.launch(cwd, *words)
        if attempt.wait() == 0:
            return attempt, number
    raise AssertionError(attempt.log)


@pytest.mark.parametrize(
    ("fixed", "moment"),
    [*((True, moment) for moment in trials.MOMENTS), *((False, m) for m in trials.MOMENTS[:-1])],
)
def test_a_loop_goes_on_wherever_the_run_was_killed(tmp_path: Path, fixed: bool, moment: str) -> None:
    """In one folder, or in one that has the time as its name."""
    where = [f"hydra.run.dir={tmp_path}/else where/mine"] if fixed else []
    words = ("resume=auto", *trials.RECIPE, *where)
    trials.launch(tmp_path, *words, killed_at=moment).process.join()
    last, number = loop(tmp_path, *words)
    assert number == 1, "the very next one goes on"
    (folder,) = {path.parent for path in tmp_path.rglob("summary.json")}
    assert json.loads((folder / "summary.json").read_text())["status"] == "finished"
    records = [json.loads(line)["step"] for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert records == list(range(1, 25))
    assert trials.leftovers(folder) == []
    said = {
        "record": "a new one starts",
        "saved": "Resuming: after step",
        "finished": "this run is finished",
    }
    wanted = said.get(moment, "this run ended before its first save. It starts from the beginning.")
    assert wanted in " ".join(last.log.split())


@pytest.mark.parametrize("moment", ["recorded", "records"])
def test_a_run_that_was_killed_before_its_first_save_begins_anew_in_its_folder(
    tmp_path: Path, moment: str
) -> None:
    trials.launch(tmp_path, *trials.RECIPE, killed_at=moment).process.join()
    folder = trials.run_folder(tmp_path)
    assert folder is not None
    lay_out(folder, {"checkpoints/best-mine/model.pt": "weights", "notes.txt": "mine"})
    again = trials.launch(tmp_path, f"resume={folder}")
    assert again.wait() == 0, again.log
    assert "this run ended before its first save. It starts from the beginning." in " ".join(
        again.log.split()
    )
    assert json.loads((folder / "summary.json").read_text())["steps"] == 24
    assert (folder / "checkpoints" / "best-mine" / "model.pt").read_text() == "weights"
    assert (folder / "notes.txt").read_text() == "mine"


def test_a_run_whose_checkpoints_were_taken_away_does_not_begin_anew(command: Command) -> None:
    first = command(*QUICK)
    assert first.folder is not None
    (first.folder / "summary.json").write_text('{"status": "stopped"}')
    for path in (first.folder / "checkpoints").iterdir():
        if path.is_dir():
            shutil.rmtree(path)
    before = content(first.folder)
    again = command(f"resume={first.folder}")
    assert again.status == 1
    assert "the run had saved some, and they are gone. Restore them" in again.err
    assert content(first.folder) == before


def test_the_path_that_a_run_prints_is_one_to_go_on_from(command: Command) -> None:
    first = command(*QUICK)
    assert first.folder is not None
    told = command(f"resume={first.folder}/checkpoints/last/", f"hydra.run.dir={first.folder}")
    assert (told.status, "this run is finished" in told.out) == (0, True)
    more = command(f"resume={first.folder}/checkpoints", "trainer.epochs=2")
    assert more.status == 0, more.err
    assert more.folder == first.folder


# ----- a folder that was moved -----


@pytest.mark.parametrize("instead", ["nothing", "an empty folder", "another run's folder"])
def test_a_moved_folder_is_not_written_to(tmp_path: Path, instead: str) -> None:
    attempt = trials.launch(tmp_path, *trials.RECIPE, "trainer.epochs=2000", hold="step 4")
    damage.until_step(attempt, 3)
    folder = trials.run_folder(tmp_path)
    assert folder is not None
    moved = tmp_path / "moved"
    folder.rename(moved)
    if instead != "nothing":
        folder.mkdir()
    if instead == "another run's folder":
        lay_out(
            folder, {"checkpoints/last/state.json": "{}", "summary.json": "{}", ".lock": '{"pid": 1'}
        )
    before, there = content(moved), content(folder)
    attempt.release()
    assert attempt.wait() == 1
    assert "is gone: it was moved or deleted" in " ".join(attempt.log.split())
    assert "Traceback" not in attempt.log
    after = content(moved)
    assert {name for name in after if after[name] != before.get(name)} == set()
    assert content(folder) == there
    assert folder.exists() == (instead != "nothing")
    again = trials.launch(tmp_path, f"resume={moved}", "trainer.max_steps=30")
    assert again.wait() == 0, again.log
