import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from bigmodel.errors import CheckpointError
from bigmodel.sweeps.jobs import Job, Outcome
from bigmodel.sweeps.leaderboard import rank
from bigmodel.sweeps.manifest import Manifest
from bigmodel.sweeps.report import FileChannel, path_of
from bigmodel.sweeps.results import collect, curve, read

FINISHED = {
    "status": "finished",
    "best": {"epoch": 2, "val/accuracy": 0.9},
    "monitor": "val/accuracy",
    "mode": "max",
    "seconds": 1.5,
    "error": None,
}


def job(sweep: Path, number: int | str, overrides: list[str], summary: Any = FINISHED) -> Path:
    """Lays out a job's folder; a summary of None is one that was never written."""
    folder = sweep / str(number)
    (folder / ".hydra").mkdir(parents=True)
    (folder / ".hydra" / "overrides.yaml").write_text(yaml.safe_dump(overrides))
    if summary is not None:
        text = summary if isinstance(summary, str) else json.dumps(summary)
        (folder / "summary.json").write_text(text)
    return folder


def test_jobs_of_an_older_sweep_come_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    for number in (10, 2, 0, 1, 11):
        job(tmp_path, number, [f"seed={number}"])
    (tmp_path / "multirun.yaml").touch()
    (tmp_path / "notes").mkdir()
    results = read([tmp_path])
    assert [result.job for result in results] == ["0", "1", "2", "10", "11"]
    assert [result.changed for result in results] == [{"seed": result.job} for result in results]
    assert [result.folder for result in results] == [str(tmp_path / result.job) for result in results]


def test_of_a_single_job_only_what_its_sweep_chose_is_told(tmp_path: Path) -> None:
    job(tmp_path, 0, ["data=iris", "optimizer.lr=0.1"])
    assert [result.changed for result in read([tmp_path])] == [{}]  # it is not known what was typed
    words = ["-m", "sweep=optuna", "data=iris", "optimizer.lr=interval(0.01,1)"]
    manifest = Manifest.create(tmp_path, words, [Job(0, ("data=iris", "optimizer.lr=0.1"))])
    assert [result.changed for result in collect(manifest)] == [{"optimizer.lr": "0.1"}]


def test_jobs_that_have_begun_while_nobody_was_watching_are_found(tmp_path: Path) -> None:
    jobs = [Job(number, (f"seed={number}",)) for number in range(2)]
    manifest = Manifest.create(tmp_path, ["-m"], jobs)
    (tmp_path / "slurm" / "1").mkdir(parents=True)
    report = path_of(tmp_path / "slurm" / "1", jobs[1], attempt=1)
    FileChannel(report, jobs[1]).started(job(tmp_path, 1, ["seed=1"]))
    record = (tmp_path / "sweep.jsonl").read_text()
    assert [result.status for result in collect(manifest)] == ["waiting", "finished"]
    assert (tmp_path / "sweep.jsonl").read_text() == record


def test_figures_come_from_the_summaries(tmp_path: Path) -> None:
    more = {"final": {"val/accuracy": 0.4}, "test": {"test/accuracy": 0.3}, "epochs": 2.5, "loss": "mse"}
    job(tmp_path, 0, ["seed=0"])
    worse = job(tmp_path, 1, ["seed=1"], FINISHED | more | {"best": {"val/accuracy": 0.5}, "seconds": 3})
    for name in ("last", "best"):
        (worse / "checkpoints" / name).mkdir(parents=True)
    (board,) = rank(read([tmp_path]))
    assert (board.metric, board.mode) == ("val/accuracy", "max")
    assert [(row.value, row.result.seconds, row.result.status, row.remark) for row in board.rows] == [
        (0.9, 1.5, "finished", None),
        (0.5, 3.0, "finished", None),
    ]
    result = board.rows[1].result
    assert (board.rows[1].final, result.epochs, result.loss) == (0.4, 2.5, "mse")
    assert result.best["test/accuracy"] == 0.3
    assert result.checkpoint == str(worse / "checkpoints" / "best")
    assert board.rows[0].result.checkpoint == ""


def test_only_keys_that_differ_are_named(tmp_path: Path) -> None:
    common = ["trainer.epochs=2", "+new.key=1"]
    job(tmp_path, 0, ["model=fnn", "model.hidden_sizes=[8,8]", *common])
    job(tmp_path, 1, ["model=rnn", *common])
    assert [result.changed for result in read([tmp_path])] == [
        {"model": "fnn", "model.hidden_sizes": "[8,8]"},
        {"model": "rnn"},
    ]


def test_a_value_may_hold_an_equals_sign_and_a_key_a_plus(tmp_path: Path) -> None:
    job(tmp_path, 0, ["data.root='a=b'", "+trainer.x=1"])
    job(tmp_path, 1, ["data.root=c", "++trainer.x=2"])
    assert [result.changed for result in read([tmp_path])] == [
        {"data.root": "'a=b'", "trainer.x": "1"},
        {"data.root": "c", "trainer.x": "2"},
    ]


@pytest.mark.parametrize("summary", [None, "", '{"status": "fini', "[]", "\x00"])
def test_a_job_that_was_ended_from_outside(tmp_path: Path, summary: str | None) -> None:
    job(tmp_path, 0, ["seed=0"], summary)
    job(tmp_path, 1, ["seed=1"])
    results = read([tmp_path])
    (board,) = rank(results)
    assert (board.metric, board.mode) == ("val/accuracy", "max")  # from the one that says so
    first = results[0]
    assert (first.status, first.best, first.seconds) == ("failed", {}, 0.0)
    assert first.error is not None
    assert "left no summary" in first.error
    assert first.changed == {"seed": "0"}


def test_a_job_that_never_evaluated(tmp_path: Path) -> None:
    failed = {"status": "failed", "best": {}, "monitor": "val/rmse", "mode": "min", "error": "no data"}
    job(tmp_path, 0, ["seed=0"], failed)
    (board,) = rank(read([tmp_path]))
    (row,) = board.rows
    assert (row.result.status, row.value, row.remark) == ("failed", None, "no data")
    assert (board.metric, board.mode) == ("val/rmse", "min")


def test_a_figure_that_is_no_number(tmp_path: Path) -> None:
    job(tmp_path, 0, ["seed=0"], FINISHED | {"best": {"val/accuracy": None}})
    assert rank(read([tmp_path]))[0].rows[0].value is None


@pytest.mark.parametrize(
    ("rmse", "why"), [(2.0, "the validation part leaves it undefined"), (None, "the model gave NaN")]
)
def test_why_a_figure_was_never_a_number_is_told(tmp_path: Path, rmse: float | None, why: str) -> None:
    final = {"val/r2": None, "val/rmse": rmse, "train/loss": 0.5}
    job(tmp_path, 0, ["seed=0"], FINISHED | {"monitor": "val/r2", "best": {}, "final": final})
    remark = rank(read([tmp_path]))[0].rows[0].remark
    assert remark is not None
    assert remark.startswith(f"val/r2 was never a number: {why}")


@pytest.mark.parametrize("content", [None, "", "- seed=0\n- 'da", "\x00"])
def test_overrides_that_cannot_be_read_do_not_hide_the_job(tmp_path: Path, content: str | None) -> None:
    path = job(tmp_path, 0, []) / ".hydra" / "overrides.yaml"
    path.unlink() if content is None else path.write_text(content)
    job(tmp_path, 1, ["seed=1"])
    found = [(result.changed, result.best["val/accuracy"]) for result in read([tmp_path])]
    assert found == [({}, 0.9), ({"seed": "1"}, 0.9)]


def sweep(folder: Path, **accuracies: float | None) -> Manifest:
    """A sweep with its record, a job for each model; one without a figure never began."""
    folder.mkdir()
    jobs = [Job(number, (f"model={model}", "data=iris")) for number, model in enumerate(accuracies)]
    manifest = Manifest.create(folder, ["model=…"], jobs)
    for each, accuracy in zip(jobs, accuracies.values(), strict=True):
        if accuracy is not None:
            summary = FINISHED | {"best": {"val/accuracy": accuracy}}
            manifest.started(each, job(folder, each.number, list(each.overrides), summary).resolve())
            manifest.ended(each, Outcome("finished"))
    return manifest


def test_jobs_that_never_began_are_listed(tmp_path: Path) -> None:
    results = collect(sweep(tmp_path / "s", fnn=0.9, cnn=None))
    assert [(result.job, result.status, result.folder) for result in results] == [
        ("0", "finished", str((tmp_path / "s" / "0").resolve())),
        ("1", "waiting", ""),
    ]


def test_the_record_knows_better_than_a_killed_job_s_summary(tmp_path: Path) -> None:
    manifest = sweep(tmp_path / "s", fnn=0.9)
    (tmp_path / "s" / "0" / "summary.json").write_text('{"status": "running"}')
    manifest.ended(manifest.states[0].job, Outcome("failed", "its process was ended by SIGKILL"))
    (result,) = collect(manifest)
    assert (result.status, result.error) == ("failed", "its process was ended by SIGKILL")


def test_a_job_that_finished_and_was_killed_then_has_finished(tmp_path: Path) -> None:
    manifest = sweep(tmp_path / "s", fnn=0.9)
    manifest.ended(manifest.states[0].job, Outcome("failed", "its process was ended by SIGKILL"))
    (result,) = collect(manifest)
    assert (result.status, result.error) == ("finished", None)


def test_why_a_sweep_stopped_a_job_is_told(tmp_path: Path) -> None:
    manifest = sweep(tmp_path / "s", fnn=0.9)
    (tmp_path / "s" / "0" / "summary.json").write_text('{"status": "stopped", "error": "terminated"}')
    manifest.ended(manifest.states[0].job, Outcome("stopped", "since job 3 failed"))
    (result,) = collect(manifest)
    assert (result.status, result.error) == ("stopped", "since job 3 failed")


def test_a_sweep_that_was_moved_is_read(tmp_path: Path) -> None:
    sweep(tmp_path / "s", fnn=0.9)
    (tmp_path / "s").rename(tmp_path / "moved")
    (result,) = read([tmp_path / "moved"])
    assert result.best == {"val/accuracy": 0.9}
    assert Path(result.folder) == tmp_path / "moved" / "0"


def test_several_sweeps_and_a_run(tmp_path: Path) -> None:
    (tmp_path / "monday").mkdir()
    (tmp_path / "friday").mkdir()
    sweep(tmp_path / "monday" / "s", fnn=0.9, cnn=0.8)
    sweep(tmp_path / "friday" / "s", fnn=0.7)
    run = job(tmp_path, "run", ["optimizer.lr=1"])
    config = {"model": {"name": "rnn"}, "data": {"name": "iris"}, "optimizer": {"lr": 1.0}}
    (run / ".hydra" / "config.yaml").write_text(yaml.safe_dump(config))
    folders = [
        tmp_path / "monday" / "s",
        tmp_path / "friday" / "s",
        run,
        tmp_path / "friday" / "s" / "0",
    ]
    results = read(folders)
    assert [(result.job, dict(result.changed)) for result in results] == [
        ("monday/s/0", {"model": "fnn"}),
        ("monday/s/1", {"model": "cnn"}),
        ("friday/s/0", {"model": "fnn"}),
        (f"{tmp_path.name}/run", {"model": "rnn", "optimizer.lr": "1"}),
    ]


def test_sweeps_below_a_folder_are_found(tmp_path: Path) -> None:
    sweep(tmp_path / "s", fnn=0.9, cnn=0.8)
    job(tmp_path / "lr", 0, ["seed=1"])
    assert [result.job for result in read([tmp_path])] == ["s/0", "s/1", "lr/0"]


def test_what_holds_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="there is no such folder"):
        read([tmp_path / "nowhere"])
    with pytest.raises(CheckpointError, match=r"holds no run\. Name the folder of a sweep"):
        read([tmp_path])


def test_a_learning_curve(tmp_path: Path) -> None:
    lines = [
        '{"epoch": 1, "step": 5, "val/accuracy": 0.5}',
        '{"epoch": 1, "step": 10, "train/loss": 0.1}',
        '{"epoch": 2, "step": 20, "val/accuracy": null}',
        "[]",
        '{"epoch": 3, "step": 30, "val/accuracy": 0.75}',
        '{"epoch": 4, "st',
    ]
    folder = job(tmp_path, 0, [], FINISHED | {"epochs": 3.0, "steps": 30})
    (result,) = read([folder])
    assert curve(result, "val/accuracy") == []
    (folder / "metrics.jsonl").write_text("\n".join(lines))
    assert curve(result, "val/accuracy") == [(0.5, 0.5), (3.0, 0.75)]


def test_what_runs_are_called_is_told_and_is_no_setting(tmp_path: Path) -> None:
    labels = {"name": "a/b", "tags": ["x", "y"], "notes": None}
    job(tmp_path, 0, ["seed=0", "run.name=a/b", "run.tags=[x,y]"], FINISHED | {"run": labels})
    job(tmp_path, 1, ["seed=1", "run.name=c"], FINISHED | {"run": "spoilt"})
    first, second = read([tmp_path])
    assert [result.changed for result in (first, second)] == [{"seed": "0"}, {"seed": "1"}]
    assert (first.name, first.tags, first.notes) == ("a/b", ["x", "y"], "")
    assert (second.name, second.tags, second.notes) == ("", [], "")
    (alone,) = read([tmp_path / "0"])
    assert alone.labels == {"name": "a/b", "tags": "x, y", "notes": ""}
