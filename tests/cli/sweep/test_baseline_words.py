"""What is said of baselines at the end of a sweep, and whether a network is better."""

import json
from pathlib import Path
from typing import Any

from bigmodel.cli.sweep.baseline_words import verdict
from bigmodel.cli.sweep.models import BASELINES
from bigmodel.sweeps.leaderboard import JobResult


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
