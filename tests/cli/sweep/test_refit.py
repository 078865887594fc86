"""`sweep.refit=`, as typed."""

import json
import shlex
from pathlib import Path
from typing import Any

import pytest
import yaml

from bigmodel.sweeps.jobs import Job, Outcome
from bigmodel.sweeps.manifest import Manifest
from bigmodel.sweeps.refit import Refit
from tests.end_to_end import conftest
from tests.end_to_end.conftest import Command

command = conftest.command
FIXED = ("data=iris", "device=cpu", "trainer.tensorboard=false", "trainer.epochs=1")


@pytest.fixture(autouse=True)
def _in_its_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def swept(tmp_path: Path) -> Manifest:
    """A sweep over two learning rates and two seeds, of which the last job is not finished."""
    folder = tmp_path / "swept"
    folder.mkdir()
    jobs = [
        Job(number, (*FIXED, "optimizer=sgd", f"optimizer.lr={lr}", f"seed={seed}"))
        for number, (lr, seed) in enumerate([(0.1, 1), (0.1, 2), (0.01, 1), (0.01, 2)])
    ]
    words = ["-m", *FIXED, "optimizer=sgd", "optimizer.lr=0.1,0.01", "seed=1,2", "sweep.jobs=1"]
    manifest = Manifest.create(folder, [*words, "hydra.sweep.dir=swept"], jobs)
    for job, value in zip(jobs, [0.9, 0.3, 0.7, None], strict=True):
        if value is not None:
            best = {"val/accuracy": value, "val/loss": value, "step": 6 + 3 * job.number}
            end(manifest, job, {"status": "finished", "best": best})
    return manifest


def end(manifest: Manifest, job: Job, summary: dict[str, Any]) -> None:
    folder = manifest.folder / str(job.number)
    folder.mkdir()
    known = {
        "monitor": "val/accuracy",
        "mode": "max",
        "loss": "cross_entropy",
        "epochs": 30,
        "steps": 90,
    }
    (folder / "summary.json").write_text(json.dumps(known | summary))
    manifest.started(job, folder)
    manifest.ended(job, Outcome(summary["status"]))


@pytest.mark.usefixtures("swept")
def test_the_best_settings_are_trained_again_and_can_be_named(command: Command, tmp_path: Path) -> None:
    result = command("sweep.refit=swept", "sweep.refit_name=iris_best", "hydra.run.dir=again")
    assert (result.status, result.err) == (0, "")
    first, *_, picked, own, optimistic, named = result.out.splitlines()
    assert first == (
        "sweep.refit=swept: optimizer.lr=0.01 is the best of 2 settings, mean val/accuracy of 1 seed:"
        " 0.7000. It is trained again. 1 job had not ended and did not count."
    )
    assert (picked, own[:8]) == ("best of 2 settings  0.7000", "this run")
    assert "The best of 2 settings is partly the luckiest" in optimistic
    assert named.endswith("bigmodel-train --config-dir=again experiment=iris_best")
    text = (tmp_path / "again" / "experiment" / "iris_best.yaml").read_text()
    assert text.startswith(
        "# @package _global_\n# The best settings of swept. Relative paths start from"
    )
    assert yaml.safe_load(text) == {
        "defaults": [
            {"override /data": "iris"},
            {"override /device": "cpu"},
            {"override /optimizer": "sgd"},
            "_self_",
        ],
        "trainer": {"tensorboard": False, "epochs": 1},
        "optimizer": {"lr": 0.01},
    }
    assert command("--config-dir=again", "experiment=iris_best", "hydra.run.dir=named").status == 0
    ours, theirs = (
        yaml.safe_load((tmp_path / n / ".hydra/config.yaml").read_text()) for n in ("again", "named")
    )
    assert ours == theirs
    assert (ours["optimizer"]["lr"], ours["seed"]) == (0.01, 0)


@pytest.mark.usefixtures("swept")
def test_a_run_that_was_interrupted_ends_with_the_same_words(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = command("sweep.refit=swept", "hydra.run.dir=again").out.splitlines()[-5:]
    (tmp_path / "again" / "summary.json").unlink()  # as if it had been killed before that was written
    gone_on = command("resume=again")
    assert (gone_on.status, gone_on.err) == (0, "")
    assert gone_on.out.splitlines()[-5:] == words
    monkeypatch.setattr(Path, "cwd", lambda: tmp_path / "elsewhere")
    elsewhere = Refit.read(tmp_path / "again", ["mine"])
    assert elsewhere is not None
    assert (elsewhere.moved_to, elsewhere.plugins) == (tmp_path, ["mine"])
    monkeypatch.undo()
    monkeypatch.chdir(tmp_path)
    longer = command("resume=again", "trainer.epochs=2")
    assert longer.status == 0
    assert "These settings" not in longer.out, "they are others"
    (tmp_path / "again" / "experiment" / "refit.json").write_text('{"winner": 3}')
    assert Refit.read(tmp_path / "again") is None


@pytest.mark.usefixtures("swept")
def test_what_is_typed_beside_it_counts(command: Command, tmp_path: Path) -> None:
    assert (
        command("sweep.refit=swept", "optimizer.lr=0.5", "hydra.run.dir=again", "model=attention").status
        == 0
    )
    config = yaml.safe_load((tmp_path / "again" / ".hydra" / "config.yaml").read_text())
    assert (config["optimizer"]["lr"], config["model"]["name"]) == (0.5, "attention")


@pytest.mark.usefixtures("swept")
@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["sweep.refit=nowhere"], "sweep.refit=nowhere: there is no such folder."),
        (["sweep.refit=."], "sweep.jsonl: is not a sweep's record."),
        (
            ["sweep.refit=losses"],
            "by (val/loss), so none is the best of all. Name one that decides: sweep.re",
        ),
        (["sweep.refit=empty"], "no job of this sweep has finished with a figure"),
        (["sweep.refit=unvalidated"], "no finished job has a validation figure, so none is best."),
        (["sweep.refit=swept", "-m"], "sweep.refit=swept: trains one run."),
        (["sweep.refit=plugged"], "type them again. If you trust them, add: 'plugins=[my_code]'"),
        (["sweep.refit=sly"], r"add: 'hydra.searchpath=[pkg\://antigravity]'"),
        (["sweep.refit=slier"], "add: '+hydra.job.env_set={PATH: evil}'"),
        (["sweep.refit=mixed"], "differ in what they are ranked by (val/accuracy, val/rmse)"),
        (
            ["sweep.refit=pareto"],
            "val/accuracy and seconds, of which none decides alone. Name the metric",
        ),
        (["sweep.refit=older"], "an older version ran this sweep and kept no record"),
        (
            ["sweep.refit=silent", "sweep.refit_on=all"],
            "Say how long to train, such as trainer.epochs=10.",
        ),
        (["sweep.refit="], "sweep.refit=: is empty. Name the folder of a sweep."),
        (["sweep.refit_on=all"], "sweep.refit_on=all: goes with sweep.refit=<folder of a sweep>."),
        (["sweep.refit=swept", "sweep.refit_on=both"], "sweep.refit_on=both: is train, or all"),
        (
            ["sweep.refit=swept", "sweep.refit_metric=val/los"],
            "no such metric. Did you mean 'val/loss'?",
        ),
        (
            ["sweep.refit=swept", "sweep.refit_metric=test/loss"],
            "the test set takes no part in the choice",
        ),
        (["sweep.refit=removing"], "~optimizer.momentum: removes a setting"),
        (["sweep.refit=swept", "sweep.refit_name=a/b"], "sweep.refit_name=a/b: may consist of"),
        (["sweep.refit=swept", "sweep.jobs=2"], "sweep.jobs=2: is a setting of sweeps."),
    ],
)
def test_what_cannot_be_refitted_is_refused_in_one_message(
    command: Command, tmp_path: Path, words: list[str], message: str
) -> None:
    sweeps = {
        "empty": [("seed=1", None)],
        "plugged": [("plugins=[my_code]", "val/accuracy")],
        "sly": [("seed=1", "val/accuracy")],
        "slier": [("+hydra.job.env_set={PATH: evil}", "val/accuracy")],
        "mixed": [("seed=1", "val/accuracy"), ("seed=2", "val/rmse")],
        "removing": [("~optimizer.momentum", "val/accuracy")],
        "pareto": [("seed=1", "val/accuracy")],
        "silent": [("seed=1", "val/accuracy")],
        "older": [],
        "losses": [],
        "unvalidated": [("seed=1", "")],
    }
    found_in = {"sly": [r"hydra.searchpath=[pkg\://antigravity]"]}
    for name, jobs in sweeps.items():
        (tmp_path / name).mkdir()
        own = [Job(number, (word,)) for number, (word, _) in enumerate(jobs)]
        manifest = Manifest.create(tmp_path / name, ["-m", *found_in.get(name, [])], own)
        for job, (_, metric) in zip(own, jobs, strict=True):
            if metric is not None:
                end(manifest, job, {"status": "finished", "monitor": metric, "best": {metric: 0.5}})
    (tmp_path / "pareto" / "multirun.yaml").write_text("sweep: {metrics: [val/accuracy, seconds]}")
    manifest = Manifest.create(tmp_path / "losses", ["-m"], [Job(n, (f"seed={n}",)) for n in (0, 1)])
    for job, loss in zip(manifest.jobs, ("mse", "l1"), strict=True):
        best = {"val/loss": 0.5, "val/rmse": 0.5}
        end(manifest, job, {"status": "finished", "monitor": "val/loss", "loss": loss, "best": best})
    (tmp_path / "older" / "sweep.jsonl").rename(tmp_path / "older" / "leaderboard.csv")
    before = {path for path in tmp_path.rglob("*") if path.is_file()}
    result = command(*words)
    assert (result.status, result.out) == (1, "")
    assert message in result.err
    assert len(result.err.splitlines()) == 1
    assert {path for path in tmp_path.rglob("*") if path.is_file()} == before


def test_the_best_settings_of_folds_are_trained_without_them(command: Command, tmp_path: Path) -> None:
    words = ("optimizer.lr=0.1,0.01", "sweep.folds=2", "sweep.jobs=1", "hydra.sweep.dir=folds")
    swept = command("-m", *FIXED, *words)
    assert swept.status == 0
    assert "Means over folds: val/accuracy, higher is better" in swept.out
    result = command("sweep.refit=folds", "hydra.run.dir=again")
    assert (result.status, result.err) == (0, "")
    assert "best of 2 settings" in result.out
    data = yaml.safe_load((tmp_path / "again" / ".hydra" / "config.yaml").read_text())["data"]
    assert (data["folds"], data["val_fold"]) == (None, None)
    result = command("sweep.refit=folds", "sweep.refit_on=all", "hydra.run.dir=whole")
    assert (result.status, result.err) == (0, "")
    assert "data together, for 1 epoch, the median of those after which" in result.out
    summary = json.loads((tmp_path / "whole" / "summary.json").read_text())
    assert (summary["best"], summary["monitor"], summary["epochs"]) == ({}, "", 1)
    written = yaml.safe_load((tmp_path / "whole" / "experiment" / "winner.yaml").read_text())
    assert (written["data"], written["trainer"]) == (
        {"validation": False},
        {"tensorboard": False, "epochs": 1, "early_stopping": {"patience": None}},
    )
    assert "(150 train)" in result.out


@pytest.mark.usefixtures("swept")
def test_training_and_validation_data_together_take_as_long_as_the_best_checkpoints_did(
    command: Command, tmp_path: Path
) -> None:
    words = ("sweep.refit=swept", "sweep.refit_on=all", "sweep.refit_metric=val/accuracy")
    result = command(*words, "hydra.run.dir=again")
    assert (result.status, result.err) == (0, "")
    assert (
        "on training and validation data together, for 4 epochs, after which it was at its" in result.out
    )
    assert "so that val/accuracy as picked is optimistic" in result.out
    written = yaml.safe_load((tmp_path / "again" / "experiment" / "winner.yaml").read_text())
    assert (written["data"]["validation"], written["trainer"]["epochs"]) == (False, 4)
    (tmp_path / "swept" / "2" / ".hydra").mkdir()
    config = {
        "trainer": {"max_steps": None, "checkpoint": {"monitor": "val/loss"}},
        "data": {"folds": None},
    }
    (tmp_path / "swept" / "2" / ".hydra" / "config.yaml").write_text(yaml.safe_dump(config))
    result = command(*words, "trainer.epochs=2", "hydra.run.dir=typed")
    assert "on training and validation data together." in result.out
    assert json.loads((tmp_path / "typed" / "summary.json").read_text())["epochs"] == 2
    written = yaml.safe_load((tmp_path / "typed" / "experiment" / "winner.yaml").read_text())
    assert written["data"] == {"validation": False}, "folds were not set"
    assert written["trainer"]["checkpoint"] == {"monitor": "auto"}, "val/loss chose"


def test_settings_can_be_named_again_whatever_they_are(command: Command, tmp_path: Path) -> None:
    (tmp_path / "conf" / "experiment").mkdir(parents=True)
    mine = "# @package _global_\n# mine\ndefaults: [override /optimizer: sgd]\ntrainer: {epochs: 1}\n"
    (tmp_path / "conf" / "experiment" / "mine.yaml").write_text(mine)
    rows = "\n".join(f"{n},a{n % 3},{'yes' if n % 2 else 'no'}" for n in range(40))
    (tmp_path / "my, rows.csv").write_text(f"x,the city,y\n{rows}\n")
    job = Job(0, (
        *("experiment=mine", "device=cpu", "trainer.tensorboard=false", "data=table", "data.target=y"),
        *("data.path='my, rows.csv'", "data.missing=[null,'NA, none','nil','1e3',' a: b']"),
        *("data.columns={x: number}", "data.ignore=['the city']", "model.hidden_sizes=[8,4]"),
        "trainer.clip_norm=null",
    ))  # fmt: skip
    (tmp_path / "swept").mkdir()
    manifest = Manifest.create(tmp_path / "swept", ["-m", "--config-dir=conf"], [job])
    end(manifest, job, {"status": "finished", "best": {"val/accuracy": 0.5}})
    result = command("sweep.refit=swept", "hydra.run.dir=again")
    assert (result.status, result.err) == (0, "")
    words = shlex.split(result.out.splitlines()[-1].partition("bigmodel-train ")[2])
    assert command(*words, "hydra.run.dir=named").status == 0
    ours, theirs = (
        yaml.safe_load((tmp_path / n / ".hydra/config.yaml").read_text()) for n in ("again", "named")
    )
    assert ours == theirs
    assert ours["data"]["missing"] == [None, "NA, none", "nil", "1e3", " a: b"]
    swept = command("-m", *words, "optimizer.lr=0.1,0.01", "sweep.jobs=1", "hydra.sweep.dir=more")
    assert (swept.status, swept.err) == (0, "")


def test_folds_of_an_experiment_are_left_out_and_settings_that_a_file_lacks_added(
    command: Command, tmp_path: Path
) -> None:
    (tmp_path / "conf" / "experiment").mkdir(parents=True)
    (tmp_path / "conf" / "data").mkdir()
    own = "# mine, without most settings\nname: iris\n"
    (tmp_path / "conf" / "data" / "own.yaml").write_text(own)
    mine = (
        "# @package _global_\n# mine\ndefaults: [override /data: own]\ndata: {folds: 5, val_fold: 0}\n"
    )
    (tmp_path / "conf" / "experiment" / "mine.yaml").write_text(mine)
    jobs = [Job(n, ("experiment=mine", "device=cpu", f"data.val_fold={n}")) for n in (0, 1)]
    (tmp_path / "swept").mkdir()
    manifest = Manifest.create(tmp_path / "swept", ["-m", "--config-dir=conf"], jobs)
    for job in jobs:
        end(manifest, job, {"status": "finished", "best": {"val/accuracy": 0.5, "step": 3}})
    for on in ("train", "all"):
        result = command("sweep.refit=swept", f"sweep.refit_on={on}", "trainer.epochs=1")
        assert (result.status, result.err) == (0, "")
        assert ("(120 train, 30 val)" if on == "train" else "(150 train)") in result.out
        assert result.folder is not None
        data = yaml.safe_load((result.folder / ".hydra" / "config.yaml").read_text())["data"]
        assert (data["folds"], data["val_fold"]) == (None, None)
