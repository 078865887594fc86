"""Which jobs a command line stands for."""

from __future__ import annotations

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser

from bigmodel.cli.sweep.grid import combinations
from bigmodel.errors import ConfigError


def listed(
    *words: str, zipped: tuple[str, ...] = (), seeds: tuple[int, ...] = (), folds: int = 0
) -> list[str]:
    """The jobs, each in one line."""
    overrides = OverridesParser.create().parse_overrides(list(words))
    return [" ".join(job) for job in combinations(overrides, zipped, seeds, folds)]


@pytest.mark.parametrize(
    ("words", "jobs"),
    [
        (["a=1,2"], ["a=1", "a=2"]),
        (["a=1,2", "b=x,y"], ["a=1 b=x", "a=1 b=y", "a=2 b=x", "a=2 b=y"]),
        (["b=x,y", "a=1,2"], ["b=x a=1", "b=x a=2", "b=y a=1", "b=y a=2"]),
        (["a=1,2", "c=3"], ["a=1 c=3", "a=2 c=3"]),
        (["a=3"], ["a=3"]),
        ([], [""]),
        (["a=range(3)"], ["a=0", "a=1", "a=2"]),
        (["a=choice(x,y)"], ["a=x", "a=y"]),
        (["a=[1,2],[3]"], ["a=[1,2]", "a=[3]"]),
        (["a='1,2'"], ["a='1,2'"]),
        (["a='x,y',z"], ["a='x,y'", "a=z"]),
        (["+a=1,2"], ["+a=1", "+a=2"]),
        (["++a.b=1,2", "~c"], ["++a.b=1 ~c", "++a.b=2 ~c"]),
        (["a@b=x,y"], ["a@b=x", "a@b=y"]),
        (["a=1,2", "sweep.jobs=2", "+sweep.seeds=3", "sweep=default"], ["a=1", "a=2"]),
        (["sweeper=1,2"], ["sweeper=1", "sweeper=2"]),
        (["a=1", "a=2"], ["a=2"]),  # as Hydra has it: the last counts
    ],
)  # fmt: skip
def test_every_combination_and_the_last_varies_fastest(words: list[str], jobs: list[str]) -> None:
    assert listed(*words) == jobs


def test_each_is_run_with_each_seed() -> None:
    assert listed("a=1,2", seeds=(5, 6)) == ["a=1 seed=5", "a=1 seed=6", "a=2 seed=5", "a=2 seed=6"]
    assert listed("seed=5", "a=1", seeds=(5, 6)) == ["seed=5 a=1", "seed=6 a=1"]


def test_folds_are_the_last_to_vary() -> None:
    assert listed("a=1,2", folds=2) == [
        f"a={a} ++data.folds=2 ++data.val_fold={fold}" for a in (1, 2) for fold in (0, 1)
    ]
    assert len(listed("a=1,2", seeds=(1, 2, 3), folds=2)) == 12


@pytest.mark.parametrize("word", ["data.val_fold=1", "data.folds=3", "data.val_fold=0,1"])
def test_folds_given_in_both_ways_are_refused(word: str) -> None:
    with pytest.raises(ConfigError, match=r"sweep.folds=2: data.(val_fold|folds).* is given as well"):
        listed(word, folds=2)


def test_seeds_given_in_both_ways_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"sweep.seeds=2: seed=1 seed=2 are given as well"):
        listed("seed=1,2", seeds=(1, 2))


def test_zipped_values_are_taken_pairwise() -> None:
    zipped = ("a", "c")
    assert listed("a=1,2", "c=x,y", zipped=zipped) == ["a=1 c=x", "a=2 c=y"]
    assert listed("a=1,2", "b=0,9", "c=x,y", zipped=zipped) == [
        "a=1 c=x b=0", "a=1 c=x b=9", "a=2 c=y b=0", "a=2 c=y b=9",
    ]  # fmt: skip
    assert listed("+a=1,2", "++c=x,y", zipped=zipped) == ["+a=1 ++c=x", "+a=2 ++c=y"]
    assert len(listed("a=1,2", "c=x,y", zipped=zipped, seeds=(1, 2, 3))) == 6


@pytest.mark.parametrize(
    ("words", "zipped", "message"),
    [
        (["a=1,2", "b=1,2,3"], ("a", "b"), "there are 2 of a, 3 of b. Give each as many"),
        (["a=1,2", "b=1"], ("a", "b"), "there are 2 of a, 1 of b"),
        (["model=x,y", "b=1,2"], ("modle", "b"), "modle is not given any values.*model"),
    ],
)
def test_what_cannot_be_paired(words: list[str], zipped: tuple[str, ...], message: str) -> None:
    with pytest.raises(ConfigError, match=f"sweep.zip: .*{message}"):
        listed(*words, zipped=zipped)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["seed=1,2", "seed=3,4"], r"seed: is given more than once \(seed=1,2 and seed=3,4\)"),
        (["seed=1,2", "seed=3"], r"seed: is given more than once \(seed=1,2 and seed=3\)"),
        (["seed=3", "seed=1,2"], "seed: is given more than once"),
        (["+a=1,2", "a=3"], r"a: is given more than once \(\+a=1,2 and a=3\)"),
        (["a=interval(0,1)"], "an interval has no list of values.*a=0.1,0.01"),
        (["a=tag(log,interval(0.1,1))"], "an interval has no list of values"),
        (["a=1,2,1"], "a=1,2,1: a=1 is there more than once"),
        (["sweep.jobs=1,2"], "sweep.jobs=1,2: a setting of the sweep itself has one value"),
        (["sweep=default,optuna"], "a setting of the sweep itself has one value"),
    ],
)
def test_what_stands_for_no_jobs_is_refused(words: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        listed(*words)
