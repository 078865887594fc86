"""A search asks Optuna for jobs and tells it how they ended."""

from __future__ import annotations

import contextlib
import logging
import math
import pickle
import sqlite3
import warnings
from pathlib import Path
from typing import Any

import pytest

from bigmodel.errors import CheckpointError, ConfigError
from bigmodel.sweeps.config import SearchConfig
from bigmodel.sweeps.jobs import Job, Outcome
from bigmodel.sweeps.search import DATABASE, Search
from bigmodel.sweeps.search_space import Choices, Objective, Range, Space

optuna = pytest.importorskip("optuna")

LR, SIZE, MODEL = Range(1e-4, 1.0, log=True), Range(4, 64), Choices(("fnn", "cnn"))
SPACE: Space = {"optimizer.lr": LR, "size": SIZE, "model": MODEL}
ACCURACY = Objective("val/accuracy", "max")


def make(folder: Path, space: Space = SPACE, wanted: Any = (ACCURACY,), **settings: Any) -> Search:
    known = settings.pop("known", ())
    config = SearchConfig(**({"trials": 8} | settings))
    return Search(config, space, ["seed=1"], wanted, folder, evaluations=5, known=known)


def values(job: Job) -> dict[str, str]:
    return dict(words.split("=", 1) for words in job.overrides)


def finished(value: float | None, **details: Any) -> Outcome:
    return Outcome("finished", None, None, value, {"best": {"val/accuracy": value}} | details)


def accuracy(job: Job) -> float:
    """Best at a learning rate of 0.01."""
    return 1 - abs(math.log10(float(values(job)["optimizer.lr"])) + 2) / 4


def run_all(source: Search, evaluations: int = 0) -> list[Job]:
    jobs = []
    while (job := source.next()) is not None:
        jobs.append(job)
        reached = accuracy(job)
        for evaluation in range(1, evaluations + 1):
            if source.evaluated(job, evaluation, reached * evaluation / 5):
                source.ended(job, Outcome("pruned", "was worse"))
                break
        else:
            source.ended(job, finished(reached))
    return jobs


def states(folder: Path) -> list[str]:
    study = optuna.load_study(study_name=None, storage=f"sqlite:///{folder / DATABASE}")
    return [trial.state.name for trial in study.trials]


@pytest.mark.parametrize("sampler", ["tpe", "cmaes", "random", "qmc"])
def test_a_sampler_stays_within_the_space(tmp_path: Path, sampler: str) -> None:
    jobs = run_all(make(tmp_path, sampler=sampler, pruner="none"))
    assert [job.number for job in jobs] == list(range(8))
    for job in jobs:
        found = values(job)
        assert list(found) == ["seed", *SPACE]
        assert 1e-4 <= float(found["optimizer.lr"]) <= 1
        assert int(found["size"]) in range(4, 65)
        assert found["model"] in MODEL.values
    assert len({job.overrides for job in jobs}) == 8
    assert states(tmp_path) == ["COMPLETE"] * 8


def test_the_evolution_goes_on_from_results_and_never_from_a_pickle(tmp_path: Path) -> None:
    """Optuna's own sampler unpickles what is in the file, which may be a stranger's."""
    space: Space = {"optimizer.lr": Range(1e-8, 1.0, log=True), "size": SIZE}
    settings = {"sampler": "cmaes", "pruner": "none"}
    first = run_all(make(tmp_path, space, trials=18, **settings))
    code = pickle.dumps(_Code(tmp_path / "ran")).hex()
    with contextlib.closing(sqlite3.connect(tmp_path / DATABASE)) as connection, connection:
        connection.execute(
            "INSERT OR REPLACE INTO trial_system_attributes (trial_id, key, value_json)"
            f" SELECT trial_id, 'cma:optimizer:0', '\"{code}\"' FROM trials"
        )
    later = run_all(make(tmp_path, space, trials=30, known=first, **settings))
    assert not (tmp_path / "ran").exists()
    assert sum(map(accuracy, later)) / 12 > sum(map(accuracy, first[:6])) / 6 + 0.2
    study = optuna.load_study(study_name=None, storage=f"sqlite:///{tmp_path / DATABASE}")
    assert study.trials[-1].system_attrs["cma:generation"] == 4  # of six trials each, after a random one
    assert list(study.trials[-1].system_attrs) == ["cma:generation"]


class _Code:
    """Creates a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __reduce__(self) -> Any:
        return Path.touch, (self._path,)


def test_gaussian_processes_are_computed_in_a_process_of_their_own(tmp_path: Path) -> None:
    jobs = run_all(make(tmp_path, sampler="gp", trials=2))
    assert [job.number for job in jobs] == [0, 1]
    assert states(tmp_path) == ["COMPLETE", "COMPLETE"]


def test_a_grid_is_run_once_and_has_an_end(tmp_path: Path) -> None:
    space: Space = {
        "optimizer.lr": Range(0.1, 0.3, step=0.1),
        "size": Range(2, 6, step=2),
        "model": MODEL,
    }
    jobs = run_all(make(tmp_path, space, sampler="grid", trials=100, pruner="none"))
    found = {tuple(values(job)[key] for key in space) for job in jobs}
    assert len(jobs) == 3 * 3 * 2
    assert found == {(lr, n, m) for lr in ("0.1", "0.2", "0.3") for n in "246" for m in ("fnn", "cnn")}


@pytest.mark.parametrize("sampler", ["tpe", "random"])
def test_the_same_seed_gives_the_same_jobs(tmp_path: Path, sampler: str) -> None:
    folders = [tmp_path / name for name in "abc"]
    found = []
    for folder, seed in zip(folders, (1, 1, 2), strict=True):
        folder.mkdir()
        found.append(run_all(make(folder, sampler=sampler, seed=seed)))
    assert found[0] == found[1] != found[2]


@pytest.mark.parametrize(("mode", "better"), [("max", 0.9), ("min", 0.1)])
def test_the_mode_says_which_job_is_the_best(tmp_path: Path, mode: str, better: float) -> None:
    source = make(tmp_path, wanted=[Objective("val/accuracy", mode)], trials=3)
    for value in (0.5, 0.9, 0.1):
        job = source.next()
        assert job is not None
        source.ended(job, finished(value))
    assert source.best() == [[0.5, 0.9, 0.1].index(better)]


@pytest.mark.parametrize("pruner", ["median", "hyperband", "successive_halving"])
def test_bad_jobs_are_pruned(tmp_path: Path, pruner: str) -> None:
    source = make(tmp_path, pruner=pruner, trials=20, sampler="random")
    jobs = run_all(source, evaluations=5)
    ended = states(tmp_path)
    assert set(ended) == {"COMPLETE", "PRUNED"}
    best = max(jobs, key=accuracy)
    assert ended[best.number] == "COMPLETE"


def test_nothing_is_pruned_without_a_pruner(tmp_path: Path) -> None:
    run_all(make(tmp_path, pruner="none", trials=8, sampler="random"), evaluations=3)
    assert states(tmp_path) == ["COMPLETE"] * 8


def test_jobs_at_the_same_time_are_told_apart(tmp_path: Path) -> None:
    source = make(tmp_path, trials=12, sampler="random")
    pruned = []
    while (pair := [job for job in (source.next(), source.next()) if job is not None]) != []:
        asked = [source.evaluated(job, 1, accuracy(job)) for job in pair]
        for job, stop in reversed(list(zip(pair, asked, strict=True))):
            source.ended(job, Outcome("pruned") if stop else finished(accuracy(job)))
            pruned += [job.number] if stop else []
    assert [number for number, state in enumerate(states(tmp_path)) if state == "PRUNED"] == sorted(
        pruned
    )
    assert pruned


@pytest.mark.parametrize(
    "outcome", [Outcome("failed", "no"), finished(None), finished(math.nan), finished(math.inf)]
)
def test_a_failed_job_is_a_failed_trial_and_the_search_goes_on(tmp_path: Path, outcome: Outcome) -> None:
    source = make(tmp_path, trials=2)
    first = source.next()
    assert first is not None
    source.ended(first, outcome)
    run_all(source)
    assert states(tmp_path) == ["FAIL", "COMPLETE"]
    assert source.best() == [1]


def test_a_failed_job_is_tried_again_where_asked(tmp_path: Path) -> None:
    source = make(tmp_path, trials=1, retries=1)
    job = source.next()
    assert job is not None
    source.ended(job, Outcome("failed", "no"))
    assert source.next() == job
    source.ended(job, Outcome("failed", "no"))
    assert source.next() is None
    assert states(tmp_path) == ["FAIL"]


def test_one_that_would_fail_again_is_not(tmp_path: Path) -> None:
    source = make(tmp_path, trials=1, retries=1)
    job = source.next()
    assert job is not None
    assert not source.ended(job, Outcome("failed", "refused", may_pass=False))
    assert states(tmp_path) == ["FAIL"]


def test_several_metrics_each_in_its_direction(tmp_path: Path) -> None:
    wanted = [ACCURACY, Objective("seconds", "min")]
    source = make(tmp_path, wanted=wanted, metrics=["val/accuracy", "seconds"], trials=3)
    for value, seconds in ((0.9, 9.0), (0.8, 1.0), (0.7, 2.0)):
        job = source.next()
        assert job is not None
        source.ended(job, finished(value, seconds=seconds))
    assert source.best() == [0, 1]


def test_a_search_goes_on_with_what_it_knows(tmp_path: Path) -> None:
    before = make(tmp_path, trials=4)
    jobs = [before.next() for _ in range(4)]
    assert before.next() is None
    known = [job for job in jobs if job is not None]
    before.ended(known[0], finished(0.5))
    before.ended(known[1], Outcome("stopped", "interrupted"))
    before.ended(known[2], Outcome("failed", "no"))

    after = make(tmp_path, trials=6, known=known)
    assert after.unfinished == [known[1], known[3]]
    assert after.to_run == 4
    again = run_all(after)
    assert again[:2] == [known[1], known[3]]
    assert [job.number for job in again[2:]] == [4, 5]
    assert not {job.overrides for job in again[2:]} & {job.overrides for job in known}
    assert states(tmp_path) == ["COMPLETE", "COMPLETE", "FAIL", "COMPLETE", "COMPLETE", "COMPLETE"]


def test_a_trial_that_never_became_a_job_is_failed(tmp_path: Path) -> None:
    make(tmp_path).next()
    make(tmp_path, known=[])
    assert states(tmp_path) == ["FAIL"]


def test_another_space_is_refused_with_the_difference(tmp_path: Path) -> None:
    make(tmp_path)
    with pytest.raises(ConfigError, match=r"other values of size\. Leave out what changes it"):
        make(tmp_path, SPACE | {"size": Range(4, 65)})
    with pytest.raises(ConfigError, match=r"other values of seed\."):
        Search(SearchConfig(), SPACE, ["seed=2"], [ACCURACY], tmp_path)
    with pytest.raises(ConfigError, match=r"other values of sweep\.metrics\."):
        make(tmp_path, wanted=[Objective("val/accuracy", "min")])


def test_a_file_that_cannot_be_used_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bigmodel.sweeps.search._PATIENCE", 0.1)
    (tmp_path / "text.db").write_text("this is no database, but a text of some length\n" * 30)
    with pytest.raises(CheckpointError, match=r"text\.db: .*not a database.*sweep\.storage=my\.db"):
        make(tmp_path, storage=str(tmp_path / "text.db"))
    with pytest.raises(CheckpointError, match="unable to open database file"):
        make(tmp_path, storage=str(tmp_path / "nowhere" / "search.db"))
    source = make(tmp_path)
    other = sqlite3.connect(tmp_path / DATABASE)
    other.execute("BEGIN EXCLUSIVE")
    with pytest.raises(CheckpointError, match=r"is locked\. Another program writes to it"):
        source.next()
    other.close()


def test_optuna_says_nothing_itself(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    with warnings.catch_warnings(), caplog.at_level(logging.INFO):
        warnings.simplefilter("error")
        run_all(make(tmp_path, sampler="qmc", trials=3))
    assert capfd.readouterr() == ("", "")
    assert not caplog.records
