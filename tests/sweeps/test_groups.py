"""Jobs grouped over seeds and folds."""

from collections.abc import Mapping, Sequence

import pytest

from bigmodel.sweeps.groups import by_fold, choice_bias, group
from bigmodel.sweeps.jobs import FOLD
from bigmodel.sweeps.leaderboard import JobResult, rank
from tests.sweeps.job_results import job


@pytest.mark.parametrize(
    ("metric", "values", "interval"),
    [
        ("val/accuracy", [0.99, 1.0], (0.9315, 1.0)),
        ("val/rmse", [0.01, 0.02], (0.0, 0.0785)),
        ("val/loss", [0.01, 0.02], (-0.0485, 0.0785)),
    ],
)
def test_an_interval_does_not_leave_the_range_of_its_metric(
    metric: str, values: list[float], interval: tuple[float, float]
) -> None:
    jobs = [job(n, None, monitor=metric, best={metric: value}) for n, value in enumerate(values)]
    found = group(rank(jobs)[0])
    assert found is not None
    estimate = found.groups[0].estimate
    assert estimate is not None
    assert estimate.interval == pytest.approx(interval, abs=1e-4)


def grid(**values: list[float | None]) -> list[JobResult]:
    """A job for each model and seed; one without a figure failed."""
    return [
        job(
            f"{model}{seed}",
            value,
            "failed" if value is None else "finished",
            changed={"model": model, "seed": str(seed)},
        )
        for model, of_seeds in values.items()
        for seed, value in enumerate(of_seeds)
    ]


def test_jobs_that_differ_in_the_seed_are_grouped() -> None:
    (board,) = rank(grid(fnn=[0.5, 0.7], cnn=[0.8, 0.9], rnn=[None, 0.2], mlp=[None, None]))
    found = group(board)
    assert found is not None
    assert (found.keys, found.repeats) == (["model"], ["seed"])
    assert [(each.changed["model"], each.estimate and each.estimate.n) for each in found.groups] == [
        ("cnn", 2),
        ("fnn", 2),
        ("rnn", 1),
        ("mlp", None),
    ]
    assert found.groups[0].estimate is not None
    assert found.groups[0].estimate.mean == pytest.approx(0.85)
    assert found.groups[2].rows[0].result.job == "rnn1"
    assert found.comparison is not None
    assert found.comparison.kind == "paired"
    assert found.comparison.difference == pytest.approx(0.25)


def test_the_lowest_mean_comes_first_where_lower_is_better() -> None:
    jobs = [
        job(each.job, None, mode="min", changed=each.changed, best=each.best)
        for each in grid(fnn=[0.5, 0.7], cnn=[0.8, 0.9])
    ]
    found = group(rank(jobs)[0])
    assert found is not None
    assert [each.changed["model"] for each in found.groups] == ["fnn", "cnn"]


def test_other_seeds_are_not_paired() -> None:
    jobs = grid(fnn=[0.5, 0.7], cnn=[0.8, 0.9])
    jobs[3] = job("other", 0.9, changed={"model": "cnn", "seed": "7"})
    found = group(rank(jobs)[0])
    assert found is not None
    assert found.comparison is not None
    assert found.comparison.kind == "welch"


def test_folds_and_seeds_are_both_repetitions() -> None:
    jobs = [
        job(n, 0.5 + n / 10, changed={"model": "fnn", "seed": str(n % 2), "data.val_fold": str(n // 2)})
        for n in range(4)
    ]
    found = group(rank(jobs)[0])
    assert found is not None
    assert (found.keys, found.repeats, len(found.groups)) == (["model"], ["seed", "data.val_fold"], 1)
    assert found.comparison is None


def test_only_finished_jobs_count() -> None:
    jobs = grid(fnn=[0.5, 0.7, 0.6])
    jobs[0] = job("fnn0", 0.5, "pruned", changed=jobs[0].changed)
    found = group(rank(jobs)[0])
    assert found is not None
    assert found.groups[0].estimate is not None
    assert (found.groups[0].estimate.n, len(found.groups[0].rows)) == (2, 3)


def test_without_repetitions_there_are_no_groups() -> None:
    assert group(rank([job(n, 0.5, changed={"lr": str(n)}) for n in range(3)])[0]) is None
    once = [job(n, 0.5, changed={"lr": str(n), "seed": str(n)}) for n in range(3)]
    assert group(rank(once)[0]) is None
    assert group(rank(grid(fnn=[None, None]))[0]) is None
    assert rank([]) == []


def test_groups_by_a_key_pair_what_else_is_the_same() -> None:
    jobs = [
        job(f"{model}{lr}", value, changed={"model": model, "lr": lr})
        for model, lr, value in (("a", "1", 0.9), ("a", "2", 0.8), ("b", "1", 0.7), ("b", "2", 0.5))
    ]
    found = group(rank(jobs)[0], ["model"])
    assert found is not None
    assert (found.keys, found.repeats) == (["model"], ["lr"])
    assert found.comparison is not None
    assert (found.comparison.kind, found.comparison.n) == ("paired", 2)


def test_the_same_job_in_two_sweeps_counts_once() -> None:
    found = group(rank(grid(fnn=[0.5, 0.7, None]) + grid(fnn=[0.5, 0.8]))[0])
    assert found is not None
    (only,) = found.groups
    assert only.values == {("0",): 0.5, ("1",): 0.75}
    assert (only.repeats, len(only.rows)) == (3, 5)
    assert only.estimate is not None
    assert only.estimate.n == 2


def folds(
    figures: Mapping[str, Sequence[float | None]], mode: str = "max", seeds: int = 1
) -> list[JobResult]:
    """Jobs of models, by fold. Each further seed adds a hundredth to the figure of the one before."""
    return [
        job(
            f"{model}{fold}{seed}",
            value and value + 0.01 * seed,
            mode=mode,
            changed={"model": model, FOLD: str(fold)} | ({"seed": str(seed)} if seeds > 1 else {}),
        )
        for model, values in figures.items()
        for fold, value in enumerate(values)
        for seed in range(seeds)
    ]


@pytest.mark.parametrize("seeds", [1, 3])
def test_by_how_much_the_choice_flatters_the_best_of_a_cross_validation(seeds: int) -> None:
    """Worse than the best in its fold by 0, 0.1 and 0.05."""
    figures = {"a": (0.90, 0.80, 0.70), "b": (0.80, 0.90, 0.64), "c": (0.85, 0.75, 0.75)}
    for mode, sign in (("max", 1), ("min", -1)):
        signed = {model: [sign * value for value in values] for model, values in figures.items()}
        (board,) = rank(folds(signed, mode, seeds))
        grouping = group(board)
        assert grouping is not None
        assert grouping.groups[0].changed == {"model": "a"}
        assert choice_bias(board, grouping) == pytest.approx(0.05)


def test_a_choice_with_folds_missing_is_not_judged() -> None:
    (board,) = rank(folds({"a": (0.9, 0.8, None), "b": (0.6, 0.7, 0.5), "c": (0.7, 0.6, 0.5)}))
    grouping = group(board)
    assert grouping is not None
    assert choice_bias(board, grouping) is None  # the best may be so for lack of the hardest fold
    (board,) = rank(folds({"a": (0.9, 0.8, 0.7), "b": (0.6, 0.9, 0.5), "c": (0.99, 0.6, None)}))
    grouping = group(board)
    assert grouping is not None
    assert choice_bias(board, grouping) == pytest.approx(0.1 / 3)


def test_seeds_count_once_in_each_fold() -> None:
    (board,) = rank(folds({"a": (0.9, 0.8), "b": (0.7, 0.6)}, seeds=3))
    grouping = group(board)
    assert grouping is not None
    assert (list(grouping.repeats), list(grouping.counted)) == ([FOLD, "seed"], [FOLD])
    best = grouping.groups[0]
    assert by_fold(grouping, best) == pytest.approx({"0": 0.91, "1": 0.81})
    assert best.estimate is not None
    assert (best.estimate.n, len(best.rows)) == (2, 6)
    assert grouping.comparison is not None
    assert (grouping.comparison.kind, grouping.comparison.n) == ("paired", 2)
