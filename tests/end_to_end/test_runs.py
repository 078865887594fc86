"""Runs from the command line, from the first word to the last file."""

import csv
import json
from pathlib import Path

import pytest

from bigmodel import registry
from tests.end_to_end.conftest import Command

QUICK = ("trainer.epochs=2", "trainer.log_every=1", "device=cpu")


def test_the_default_run_learns_and_leaves_its_files(command: Command) -> None:
    result = command("trainer.epochs=10", "device=cpu")
    assert result.status == 0, result.err
    assert result.folder is not None
    assert "Epoch 10, Loss: 0." in result.out
    assert "tensorboard --logdir outputs" in result.out
    names = {path.name for path in result.folder.iterdir()}
    assert {
        ".hydra",
        "checkpoints",
        "metrics.jsonl",
        "summary.json",
        "tensorboard",
        "train.log",
    } <= names
    assert {path.name for path in (result.folder / "checkpoints").iterdir()} >= {"last", "best"}
    records = result.records()
    assert [record["epoch"] for record in records] == list(range(1, 11))
    assert records[-1]["train/loss"] < records[0]["train/loss"] / 2
    assert records[-1]["val/accuracy"] > 0.9
    summary = result.summary()
    assert summary["status"] == "finished"
    assert summary["best"]["val/accuracy"] == max(record["val/accuracy"] for record in records)
    assert summary["final"] == records[-1]


@pytest.mark.parametrize("model", registry.models.names())
def test_every_model_trains_on_digits(command: Command, model: str) -> None:
    result = command(f"model={model}", "debug=fast", "device=cpu")
    assert result.status == 0, result.err
    assert result.summary()["status"] == "finished"


@pytest.mark.parametrize("model", registry.models.names())
def test_every_model_learns_two_batches_by_heart(command: Command, model: str) -> None:
    result = command(
        f"model={model}",
        "debug=overfit",
        "data.batch_size=16",
        "trainer.tensorboard=false",
        "device=cpu",
    )
    assert result.status == 0, result.err
    assert result.records()[-1]["train/loss"] < 0.05


@pytest.mark.parametrize("name", ["fnn", "cnn", "rnn", "attention", "transformer"])
def test_the_article_s_experiments_run(command: Command, name: str) -> None:
    limits = ("trainer.limit.train=2", "trainer.limit.val=1", "data.batch_size=4", "trainer.epochs=1")
    result = command(f"experiment=seed_{name}", *limits, "device=cpu")
    assert result.status == 0, result.err


def test_a_sweep_ranks_its_jobs(command: Command, tmp_path: Path) -> None:
    result = command("-m", "model=fnn,rnn", "optimizer.lr=0.003,0.0001", *QUICK)
    assert result.status == 0, result.err
    board = next(tmp_path.rglob("leaderboard.csv"))
    rows = list(csv.DictReader(board.read_text().splitlines()))
    assert len(rows) == 4
    values = [float(row["val/accuracy"]) for row in rows]
    assert values == sorted(values, reverse=True)
    assert {(row["model"], row["optimizer.lr"]) for row in rows} == {
        (model, lr) for model in ("fnn", "rnn") for lr in ("0.003", "0.0001")
    }
    assert "trainer.epochs" not in rows[0]
    assert all(Path(row["folder"], "checkpoints", "last").is_dir() for row in rows)


def test_a_failing_job_leaves_the_others_alone(command: Command, tmp_path: Path) -> None:
    result = command("-m", "model=rnn,fnn", "data=wine", *QUICK)
    assert result.status == 1
    assert "job 0  model=rnn  failed" in result.out
    rows = list(csv.DictReader(next(tmp_path.rglob("leaderboard.csv")).read_text().splitlines()))
    assert [row["status"] for row in rows] == ["finished", "failed"]
    assert "rnn" in rows[1]["error"]


def test_a_model_that_gives_nan_has_no_rank(command: Command, tmp_path: Path) -> None:
    result = command("-m", "optimizer.lr=1e30,0.003", "trainer.on_nonfinite=skip", *QUICK)
    rows = list(csv.DictReader(next(tmp_path.rglob("leaderboard.csv")).read_text().splitlines()))
    assert [(row["rank"], row["optimizer.lr"]) for row in rows] == [("1", "0.003"), ("", "1e+30")]
    assert rows[1]["val/accuracy"] == ""
    told = "val/accuracy was never a number: the model gave NaN or infinity in every evaluation"
    assert rows[1]["error"] == told
    assert f"Job 0 (optimizer.lr=1e+30) finished: {told}" in result.out


def test_losses_of_different_kinds_are_told_apart(command: Command, tmp_path: Path) -> None:
    monitor = "trainer.checkpoint.monitor=val/loss"
    result = command("-m", "loss=mse,l1", "data=diabetes", monitor, *QUICK)
    assert result.status == 0, result.err
    rows = list(csv.DictReader(next(tmp_path.rglob("leaderboard.csv")).read_text().splitlines()))
    assert [(row["loss"], row["loss used"]) for row in rows] in (
        [("mse", "mse"), ("l1", "l1")],
        [("l1", "l1"), ("mse", "mse")],
    )
    assert "Warning: val/loss comes from different losses" in result.out


def test_two_runs_of_one_second_have_two_folders(command: Command, tmp_path: Path) -> None:
    for _ in range(3):
        assert command("debug=fast", "device=cpu", "trainer.tensorboard=false").status == 0
    assert len(list(tmp_path.rglob("summary.json"))) == 3


def test_regression_reports_in_its_own_unit(command: Command) -> None:
    result = command("data=diabetes", *QUICK)
    assert result.status == 0, result.err
    record = result.records()[-1]
    assert {"val/mae", "val/rmse", "val/r2", "val/loss"} <= record.keys()
    assert record["val/mae"] > 10  # of a score from 25 to 346; standardised it would be below 2


def test_early_stopping_ends_a_run(command: Command) -> None:
    result = command(
        "trainer.epochs=500", "trainer.early_stopping.patience=2", "optimizer.lr=0.01", "device=cpu"
    )
    assert result.status == 0, result.err
    assert "Stopping early" in result.out
    assert result.summary()["epochs"] < 500


def test_a_diverging_run_stops_and_keeps_its_last_good_checkpoint(command: Command) -> None:
    result = command(
        "data=diabetes",
        "optimizer=sgd",
        "optimizer.lr=1e4",
        "trainer.epochs=50",
        "device=cpu",
        "scheduler=constant",
    )
    assert result.status == 1
    assert "learning rate 1e+04" in result.err
    assert "Traceback" not in result.err
    assert result.summary()["status"] == "failed"
    assert result.folder is not None
    for manifest in result.folder.rglob("manifest.json"):
        facts = json.loads((manifest.parent / "state.json").read_text())
        assert facts["progress"]["step"] < 50 * 6


def test_records_of_every_step(command: Command) -> None:
    result = command("trainer.epochs=1", "trainer.record_every_steps=1", "device=cpu")
    assert [record["step"] for record in result.records()] == list(range(1, 24))


def test_a_given_folder_is_not_overwritten(command: Command) -> None:
    assert command("debug=fast", "hydra.run.dir=mine", "device=cpu").status == 0
    again = command("debug=fast", "hydra.run.dir=mine", "device=cpu")
    assert again.status == 1
    assert "already holds a run" in again.err


SHORT = ("trainer.limit.train=2", "trainer.limit.val=1", "device=cpu", "data=iris")


def shown_names(folder: Path) -> list[str]:
    """The names by which TensorBoard knows the runs below a folder, without those of the folders."""
    return sorted(path.name for path in folder.glob("**/tensorboard/*"))


def test_tensorboard_knows_a_run_by_what_was_changed(command: Command, tmp_path: Path) -> None:
    first = command(*SHORT, "trainer.epochs=1", "optimizer.lr=0.01", "output_dir=elsewhere")
    assert first.folder is not None
    assert shown_names(tmp_path) == ["fnn-iris,train=2,val=1,epochs=1,lr=0.01"]
    again = command(f"resume={first.folder}", "trainer.epochs=2", "run.name=later")
    assert again.status == 0, again.err
    assert len(shown_names(tmp_path)) == 1  # and its curves go on


def test_tensorboard_knows_a_sweep_s_jobs_by_what_is_their_own(command: Command, tmp_path: Path) -> None:
    once = (*SHORT, "trainer.epochs=1", "seed=0,1")
    result = command("-m", *once, "model=fnn,transformer", "hydra.sweep.dir=a")
    assert result.status == 0, result.err
    own = [f"{model}-iris,seed={seed}" for model in ("fnn", "transformer") for seed in (0, 1)]
    assert shown_names(tmp_path / "a") == own
    assert command("-m", *once, "run.name=again", "hydra.sweep.dir=b").status == 0
    assert shown_names(tmp_path / "b") == ["again,seed=0", "again,seed=1"]
