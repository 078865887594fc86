"""`sweep.refit=`, as typed."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from bigmodel.sweeps.jobs import Job, Outcome
from bigmodel.sweeps.manifest import Manifest
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
            end(manifest, job, {"status": "finished", "best": {"val/accuracy": value}})
    return manifest


def end(manifest: Manifest, job: Job, summary: dict[str, Any]) -> None:
    folder = manifest.folder / str(job.number)
    folder.mkdir()
    known = {"monitor": "val/accuracy", "mode": "max", "loss": "cross_entropy"}
    (folder / "summary.json").write_text(json.dumps(known | summary))
    manifest.started(job, folder)
    manifest.ended(job, Outcome(summary["status"]))


@pytest.mark.usefixtures("swept")
def test_the_best_settings_are_trained_again_and_can_be_named(command: Command, tmp_path: Path) -> None:
    result = command("sweep.refit=swept", "sweep.refit_name=iris_best", "hydra.run.dir=again")
    assert (result.status, result.err) == (0, "")
    first, *_, optimistic, named = result.out.splitlines()
    assert first == (
        "sweep.refit=swept: optimizer.lr=0.01 is the best of 2 settings, mean val/accuracy of 1 run:"
        " 0.7000. It is trained again. 1 job had not ended and did not count."
    )
    assert "best of 2 settings was picked on the validation set" in optimistic
    assert named.endswith("bigmodel-train --config-dir=again experiment=iris_best")
    text = (tmp_path / "again" / "experiment" / "iris_best.yaml").read_text()
    assert text.startswith("# @package _global_\n")
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
        (["sweep.refit=empty"], "no job of this sweep has finished with a figure"),
        (["sweep.refit=swept", "-m"], "sweep.refit=swept: trains one run."),
        (["sweep.refit=plugged"], "name them again: 'plugins=[my_code]'"),
        (["sweep.refit=mixed"], "differ in what they are ranked by (val/accuracy, val/rmse)"),
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
        "mixed": [("seed=1", "val/accuracy"), ("seed=2", "val/rmse")],
        "removing": [("~optimizer.momentum", "val/accuracy")],
    }
    for name, jobs in sweeps.items():
        (tmp_path / name).mkdir()
        own = [Job(number, (word,)) for number, (word, _) in enumerate(jobs)]
        manifest = Manifest.create(tmp_path / name, ["-m"], own)
        for job, (_, metric) in zip(own, jobs, strict=True):
            if metric is not None:
                end(manifest, job, {"status": "finished", "monitor": metric, "best": {metric: 0.5}})
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
