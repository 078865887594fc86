"""`sweep=models`, as typed."""

import csv
import json
from pathlib import Path

import pytest

from bigmodel.cli.sweep.models import BASELINES
from tests.end_to_end import conftest
from tests.end_to_end.conftest import Command

command = conftest.command
QUICK = (
    "-m",
    "sweep=models",
    "device=cpu",
    "trainer.tensorboard=false",
    "debug=fast",
    "hydra.sweep.dir=swept",
)


def leaderboard(folder: Path) -> list[dict[str, str]]:
    with (folder / "swept" / "leaderboard.csv").open() as file:
        return list(csv.DictReader(file))


def test_models_for_tables_beside_baselines(command: Command, tmp_path: Path) -> None:
    rows = [f"{n % 7},{'abc'[n % 3]},{2 * (n % 7)}" for n in range(80)]
    (tmp_path / "table.csv").write_text("\n".join(["x,kind,y", *rows]))
    table = ("data=table", "data.path=table.csv", "data.target=y", "data.task=values")
    result = command(*QUICK, *table, "model.dropout=0.1")
    assert (result.status, result.err) == (0, "")
    jobs = leaderboard(tmp_path)
    assert sorted(job["model"] for job in jobs) == ["attention", "fnn", "fnn", "transformer"]
    assert all("model.dropout" not in job for job in jobs)  # what is typed counts for all of them
    *_, title, first, _, _, last = result.out.splitlines()
    assert title == "Baselines on the same samples, val/rmse"
    assert first.split("  ")[0] in ("linear regression", "gradient boosting")
    assert last.startswith("A network is not worth it here:")  # after one short epoch
    known = json.loads((tmp_path / "swept" / BASELINES).read_text())
    assert known["validation_samples"] <= 16
    assert len(known["baselines"]) == 3


@pytest.mark.parametrize(
    ("words", "models"),
    [
        (["data=digits"], {"cnn", "fnn", "attention", "transformer"}),
        (
            ["data=synthetic", "data.input=sequence", "data.shape=[8,3]"],
            {"rnn", "cnn", "transformer", "fnn"},
        ),
        (
            ["data=text_labels", "data.path=texts.csv", "data.unit=character"],
            {"fnn", "cnn", "rnn", "transformer"},
        ),
    ],
)
def test_each_kind_of_data_has_models_of_its_own(
    command: Command, tmp_path: Path, words: list[str], models: set[str]
) -> None:
    lines = [f"{'good fine' if n % 2 else 'bad poor'} {n % 5} film,{n % 2}" for n in range(60)]
    (tmp_path / "texts.csv").write_text("\n".join(["text,label", *lines]))
    result = command(*QUICK, "sweep.baselines=false", *words)
    assert (result.status, result.err) == (0, "")
    jobs = leaderboard(tmp_path)
    assert {job["model"] for job in jobs} == models
    assert "Baselines" not in result.out
    assert not (tmp_path / "swept" / BASELINES).exists()


def test_own_settings_with_seeds_and_a_resume(command: Command, tmp_path: Path) -> None:
    own = 'sweep.tables=["model=fnn model.hidden_sizes=[4]","model=fnn model.hidden_sizes=[8]"]'
    assert command(*QUICK, own, "sweep.seeds=2", "data=iris").status == 0
    jobs = leaderboard(tmp_path)
    assert sorted((job["model.hidden_sizes"], job["seed"]) for job in jobs) == [
        ("[4]", "0"),
        ("[4]", "1"),
        ("[8]", "0"),
        ("[8]", "1"),
    ]
    written = (tmp_path / "swept" / BASELINES).stat().st_mtime_ns
    again = command("-m", "sweep.resume=swept")
    assert (again.status, again.err) == (0, "")
    assert "Baselines on the same samples" in again.out
    assert (tmp_path / "swept" / BASELINES).stat().st_mtime_ns == written


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["data=iris", "model=fnn"], "sweep=models: chooses the models itself. Leave out model="),
        (["data=iris", "data.split_seed=0,1"], "data.split_seed has several values"),
        (["data=iris", "sweep.tables=[]"], "sweep.tables=[]: names no settings to try."),
        (["data=iris", 'sweep.tables=["model=nosuch"]'], "model=nosuch: no such model."),
        (["data=synthetic", "data.target=flags", "data.outputs=3"], "this data is"),
        (["data=table", "data.path=none.csv", "data.target=y"], "none.csv"),
    ],
)
def test_what_cannot_be_compared_is_refused_in_one_message(
    command: Command, tmp_path: Path, words: list[str], message: str
) -> None:
    result = command(*QUICK, *words)
    assert (result.status, result.out) == (1, "")
    assert message in result.err
    assert len(result.err.splitlines()) == 1
    assert not list(tmp_path.rglob("*.jsonl"))


def test_networks_and_baselines_on_the_same_folds(command: Command, tmp_path: Path) -> None:
    own = 'sweep.tables=["model=fnn model.hidden_sizes=[4]"]'
    words = ("sweep=models", "device=cpu", "device.engine=eager", "hydra.sweep.dir=swept")
    words += ("trainer.tensorboard=false",)
    result = command("-m", *words, own, "sweep.folds=2", "data=iris", "trainer.epochs=1")
    assert (result.status, result.err) == (0, "")
    known = json.loads((tmp_path / "swept" / BASELINES).read_text())
    assert known["validation_samples"] == 150
    for baseline in known["baselines"]:
        folds = [baseline["folds"][fold]["val/accuracy"] for fold in ("0", "1")]
        assert baseline["figures"]["val/accuracy"] == pytest.approx(sum(folds) / 2)
    *_, title, first, _, last, verdict, _ = result.out.splitlines()
    assert title == "Baselines on the same folds, mean val/accuracy and 95 % interval"
    assert first.split("  ")[0] in ("logistic regression", "gradient boosting")
    assert last.startswith("the most frequent class   0.3333")
    assert verdict.startswith("A network is not worth it here:")  # after one short epoch
    assert "over the same 2 folds" in verdict
