"""`sweep=models`, as typed, and what is said at its end."""

import csv
import json
from pathlib import Path
from typing import Any

import pytest

from bigmodel.cli.sweep.models import BASELINES, verdict
from bigmodel.sweeps.leaderboard import JobResult
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


# ----- the verdict -----


def job(
    value: float, test: float | None = None, metric: str = "val/accuracy", mode: str = "max"
) -> JobResult:
    best: dict[str, float | None] = {metric: value}
    if test is not None:
        best[metric.replace("val", "test")] = test
    return JobResult("0", {"model": "fnn"}, "finished", monitor=metric, mode=mode, best=best)


def lines(
    folder: Path, result: JobResult, samples: int = 1000, **figures: dict[str, float]
) -> list[str]:
    listed: list[dict[str, Any]] = [
        {"name": name, "figures": known, "seconds": 1.0, "samples": 9, "error": None if known else "why"}
        for name, known in figures.items()
    ]
    known = {"validation_samples": samples, "baselines": listed}
    (folder / BASELINES).write_text(json.dumps(known))
    return verdict(folder, [result])


def test_a_network_that_is_no_better_is_not_worth_it(tmp_path: Path) -> None:
    *_, best, worse, failed, last = lines(
        tmp_path, job(0.8), forest={"val/accuracy": 0.85}, line={"val/accuracy": 0.9}, broken={}
    )
    assert [row.split()[0] for row in (best, worse, failed)] == ["line", "forest", "broken"]
    assert failed.endswith("failed: why")
    assert last == (
        "A network is not worth it here: line is better by 0.1000 than the best of 1 job, model=fnn"
        " (val/accuracy 0.9000 against 0.8000)."
    )
    assert "line is as good as the best" in lines(tmp_path, job(0.9), line={"val/accuracy": 0.9})[-1]


def test_a_lead_is_told_and_whether_it_may_be_luck(tmp_path: Path) -> None:
    figures = {"val/accuracy": 0.8, "test/accuracy": 0.7}
    last = lines(tmp_path, job(0.9, test=0.75), line=figures)[-1]
    assert last == (
        "The best of 1 job, model=fnn, is better by 0.1000 than line (val/accuracy 0.9000 against"
        " 0.8000). On the test set: test/accuracy 0.7500 for the network, 0.7000 for the baseline."
    )
    assert (
        "With 30 validation samples this may well be luck."
        in lines(tmp_path, job(0.9), 30, line=figures)[-1]
    )


def test_less_may_be_better(tmp_path: Path) -> None:
    result = job(2.0, metric="val/rmse", mode="min")
    *_, first, _, last = lines(tmp_path, result, a={"val/rmse": 4.0}, b={"val/rmse": 3.0})
    assert first.startswith("b ")
    assert last.startswith("The best of 1 job, model=fnn, is better by 1.0000 than b (")


# ----- with folds -----


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


def by_fold(folder: Path, line: list[float], mode: str = "max", **models: list[float]) -> list[str]:
    """The verdict on models and a baseline by their figures in each fold."""
    folds = {str(fold): {"val/m": value} for fold, value in enumerate(line)}
    means = {"val/m": sum(line) / len(line)}
    listed = [
        {"name": "line", "figures": means, "seconds": 1.0, "samples": 9, "error": None, "folds": folds}
    ]
    (folder / BASELINES).write_text(json.dumps({"validation_samples": 50, "baselines": listed}))
    jobs = [
        JobResult(
            f"{model}{fold}",
            {"model": model, "data.val_fold": str(fold)},
            "finished",
            monitor="val/m",
            mode=mode,
            best={"val/m": value},
        )
        for model, values in models.items()
        for fold, value in enumerate(values)
    ]
    return verdict(folder, jobs)


def test_a_network_is_compared_with_a_baseline_fold_by_fold(tmp_path: Path) -> None:
    line = [0.70, 0.80, 0.60]
    *_, row, last = by_fold(tmp_path, line, fnn=[0.81, 0.9, 0.7], rnn=[0.5, 0.5, 0.5])
    assert row.startswith("line                      0.7000  0.4516 to 0.9484")
    assert last.startswith(
        "model=fnn (the best of 2 settings) is better than line: by 0.1033 on average over the same 3"
        " folds, which is hardly luck (95 % interval 0.0890 to 0.1177, paired t-test,"
    )
    last = by_fold(tmp_path, line, fnn=[0.75, 0.78, 0.65])[-1]
    assert last.startswith("model=fnn (the best of 1 setting) leads line by 0.0267 on average over")
    assert last.endswith("So a network may not be worth it here.")
    last = by_fold(tmp_path, line, fnn=[0.6, 0.71, 0.5])[-1]
    assert last.startswith(
        "A network is not worth it here: line is better than model=fnn (the best of 1 setting): by"
    )
    less = by_fold(tmp_path, line, "min", fnn=[0.6, 0.71, 0.5])[-1]
    assert less.startswith("model=fnn (the best of 1 setting) is better than line: by 0.0967 on average")


def test_a_lead_that_the_choice_explains_is_none(tmp_path: Path) -> None:
    models = {"a": [0.75, 0.78, 0.65], "b": [0.65, 0.82, 0.69]}
    assert by_fold(tmp_path, [0.7, 0.8, 0.67], **models)[-1].endswith(
        "Having been picked flatters it by about 0.0267, which is more than its lead: a network is"
        " hardly worth it here."
    )


def test_only_folds_of_both_are_compared(tmp_path: Path) -> None:
    two = by_fold(tmp_path, [0.7, 0.8, 0.1], fnn=[0.9, 0.91])[-1]
    assert "by 0.1550 on average over the same 2 folds" in two
    assert by_fold(tmp_path, [0.7, 0.8, 0.1], fnn=[0.9])[-1].startswith("line ")


def test_there_is_none_without_baselines_figures_or_jobs(tmp_path: Path) -> None:
    assert verdict(tmp_path, [job(0.5)]) == []
    other = job(0.5, metric="val/loss", mode="min")
    assert lines(tmp_path, other, line={"val/accuracy": 1.0})[-1].startswith("line")
    assert verdict(tmp_path, []) == []
