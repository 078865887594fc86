"""`sweep=optuna` and `hydra/sweeper=optuna`, as typed."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest

from tests.end_to_end import conftest
from tests.end_to_end.conftest import Command

optuna = pytest.importorskip("optuna")

command = conftest.command
QUICK = (
    "-m",
    "data=iris",
    "device=cpu",
    "trainer.tensorboard=false",
    "hydra.sweep.dir=swept",
    "sweep.jobs=2",
)
SEARCH = ("sweep=optuna", "optimizer.lr=tag(log,interval(1e-5,1))", "sweep.sampler=random")


def rows(folder: Path) -> dict[int, dict[str, str]]:
    with (folder / "leaderboard.csv").open() as file:
        return {int(row["job"]): row for row in csv.DictReader(file)}


def trials(folder: Path) -> list[Any]:
    study = optuna.load_study(study_name=None, storage=f"sqlite:///{folder / 'search.db'}")
    assert [direction.name for direction in study.directions] == ["MAXIMIZE"]
    found: list[Any] = study.trials
    return found


def test_bad_trials_are_pruned_and_the_rest_finishes(command: Command, tmp_path: Path) -> None:
    result = command(*QUICK, *SEARCH, "sweep.trials=12", "trainer.epochs=4")
    assert (result.status, result.err) == (0, "")
    table, told = rows(tmp_path / "swept"), trials(tmp_path / "swept")
    assert [trial.number for trial in told] == sorted(table) == list(range(12))
    pruned = [trial.number for trial in told if trial.state.name == "PRUNED"]
    assert pruned
    assert {number for number, row in table.items() if row["status"] == "pruned"} == set(pruned)
    for trial in told:
        folder = tmp_path / "swept" / str(trial.number)
        summary = json.loads((folder / "summary.json").read_text())
        evaluations = len((folder / "metrics.jsonl").read_text().splitlines())
        assert sorted(trial.intermediate_values) == list(range(1, evaluations + 1))
        if trial.number not in pruned:
            assert (summary["status"], evaluations) == ("finished", 4)
            assert trial.value == summary["best"]["val/accuracy"]
            continue
        assert summary["status"] == "pruned"
        assert evaluations < 4
        assert f"at step {summary['steps']} (epoch {evaluations})" in summary["error"]
        assert table[trial.number]["error"] == summary["error"]
        assert summary["test"] == {}
        assert (folder / "checkpoints" / "last").is_dir()
        assert (folder / "checkpoints" / "best").is_dir()
    best = max((trial for trial in told if trial.number not in pruned), key=lambda trial: trial.value)
    assert float(table[best.number]["val/accuracy"]) == best.value
    # A pruned run's checkpoint is whole: the run can be resumed by itself.
    alone = command(f"resume=swept/{pruned[0]}")
    assert alone.status == 0
    assert json.loads((tmp_path / "swept" / str(pruned[0]) / "summary.json").read_text())["epochs"] == 4


def test_a_search_is_extended_when_it_is_resumed(command: Command, tmp_path: Path) -> None:
    command(*QUICK, *SEARCH, "sweep.trials=2", "trainer.epochs=1")
    before = [trial.params for trial in trials(tmp_path / "swept")]
    result = command("-m", "sweep.resume=swept", "sweep.trials=4")
    assert result.status == 0
    after = [trial.params for trial in trials(tmp_path / "swept")]
    assert after[:2] == before
    assert len({params["optimizer.lr"] for params in after}) == len(rows(tmp_path / "swept")) == 4


FILE = """\
# @package _global_
# a search
defaults:
  - override /hydra/sweeper: optuna
  - override /hydra/sweeper/sampler: random

hydra:
  sweeper:
    n_trials: 2
    n_jobs: 1
    direction: minimize
    study_name: mine
    sampler:
      seed: 3
    params:
      optimizer.lr: tag(log, interval(1e-3, 1e-1))
"""


def test_a_file_for_hydras_own_sweeper_is_searched_for_the_best(
    command: Command, tmp_path: Path
) -> None:
    (tmp_path / "mine" / "experiment").mkdir(parents=True)
    (tmp_path / "mine" / "experiment" / "tuned.yaml").write_text(FILE)
    result = command(*QUICK, "--config-dir", "mine", "experiment=tuned", "trainer.epochs=1")
    assert result.status == 0
    assert "hydra.sweeper.direction=minimize has no effect" in result.err
    assert len(trials(tmp_path / "swept")) == len(rows(tmp_path / "swept")) == 2


def test_hydras_own_sweeper_as_typed(command: Command, tmp_path: Path) -> None:
    typed = ("hydra/sweeper=optuna", "hydra.sweeper.n_trials=1", "hydra.sweeper.storage=sqlite:///my.db")
    result = command(*QUICK, *typed, "model.hidden_sizes=[4],[8]", "trainer.epochs=1")
    assert result.status == 0
    assert len(rows(tmp_path / "swept")) == 1
    assert (tmp_path / "my.db").is_file()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("sweep=optuna", "sweep.trials=0", "seed=1,2"), "sweep.trials=0: should be greater"),
        (("sweep=optuna", "sweep.sampler=best", "seed=1,2"), "should be 'tpe', 'cmaes'"),
        (("sweep=optuna",), "there is nothing to search"),
        (("sweep=optuna", "sweep.metrics=[val/acc]", "seed=1,2"), "Did you mean 'val/accuracy'?"),
        (("sweep=optuna", "sweep.storage=mysql://u@h/db", "seed=1,2"), "not in a database of the kind"),
        (("sweep=optuna", "sweep.storage=/proc/no/s.db", "seed=1,2"), "unable to open database file"),
        (("sweep=optuna", "model.hidden_sizes=[4],four"), "should be a valid list"),
        (("sweep.trials=3", "seed=1,2"), "it is one of sweep=optuna"),
        (("hydra.sweeper.n_trials=3", "seed=1,2"), "is a setting of hydra/sweeper=optuna"),
    ],
)
def test_what_is_wrong_is_said_in_one_message_and_nothing_is_left(
    command: Command, tmp_path: Path, words: tuple[str, ...], message: str
) -> None:
    result = command("-m", "data=iris", "device=cpu", *words)
    assert result.status == 1
    assert message in result.err
    assert len(result.err.splitlines()) == 1
    assert not (tmp_path / "outputs").exists()


def test_translations_are_searched_by_their_bleu(command: Command, tmp_path: Path) -> None:
    (tmp_path / "de.txt").write_text("ein haus\nein baum\n" * 20)
    (tmp_path / "en.txt").write_text("a house\na tree\n" * 20)
    pairs = ("data=pairs", "data.source=de.txt", "data.target=en.txt", "data.bleu_pairs=2")
    model = ("model=transformer", "model.dim=8", "model.depth=1", "model.num_heads=2")
    words = ("sweep=optuna", "sweep.metrics=[val/bleu]", "sweep.trials=1", "optimizer.lr=0.1,0.2")
    result = command(*QUICK[:1], *QUICK[2:], *pairs, *model, *words, "trainer.epochs=1")
    assert (result.status, result.err) == (0, "")
    assert rows(tmp_path / "swept")[0]["status"] == "finished"
