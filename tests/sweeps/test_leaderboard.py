import math
from collections.abc import Mapping

import pytest

from bigmodel import registry
from bigmodel.metrics import choose_metrics, parse_metrics
from bigmodel.metrics.choice import metric_names as metrics_of
from bigmodel.spec import Classes, Flags, NextTokens, Values
from bigmodel.sweeps.groups import RANGES
from bigmodel.sweeps.leaderboard import HIGHER_IS_BETTER, JobResult, metric_names, rank
from tests.sweeps.job_results import job


def order(results: list[JobResult], metric: str | None = None) -> str:
    return " ".join("".join(row.result.job for row in board.rows) for board in rank(results, metric))


@pytest.mark.parametrize(("mode", "expected"), [("max", "4725361"), ("min", "2745361")])
def test_best_first_then_the_unfinished_then_the_failed(mode: str, expected: str) -> None:
    jobs = [
        job(1, 0.5, "failed", mode),
        job(2, 0.9, mode=mode),
        job(3, None, "running", mode),
        job(4, 0.95, mode=mode),
        job(5, 0.99, "stopped", mode),
        job(6, math.nan, mode=mode),
        job(7, 0.91, mode=mode),
    ]
    assert order(jobs) == expected
    (board,) = rank(jobs)
    assert [row.place for row in board.rows] == [1, 2, 3, 4, None, None, None]


def test_a_pruned_job_comes_after_those_that_finished() -> None:
    assert order([job(1, 0.9, "pruned"), job(2, 0.5), job(3, None, "waiting")]) == "213"


def test_equal_jobs_stay_in_order() -> None:
    assert order([job(2, 0.9), job(1, 0.9)]) == "21"


def test_equal_jobs_are_ranked_by_their_validation_loss_where_it_is_the_same_loss() -> None:
    def with_loss(name: int, val_loss: float, loss: str) -> JobResult:
        return job(name, 0.9, loss=loss, best={"val/accuracy": 0.9, "val/loss": val_loss})

    jobs = [with_loss(1, 0.5, "mse"), with_loss(2, 0.1, "mse"), job(3, 0.9), job(4, 0.8)]
    assert order(jobs) == "2134"
    jobs[0] = with_loss(1, 0.5, "l1")
    assert order(jobs) == "1234"


def test_jobs_that_monitor_different_metrics_are_ranked_apart() -> None:
    other = job(3, None, monitor="val/rmse", mode="min", best={"val/rmse": 2.0})
    jobs = [other, job(1, 0.5), job(2, 0.9), job(4, None, "failed", monitor="")]
    assert order(jobs) == "3 214"
    assert [(board.metric, board.mode) for board in rank(jobs)] == [
        ("val/rmse", "min"),
        ("val/accuracy", "max"),
    ]


def test_jobs_that_are_ranked_by_different_losses_are_ranked_apart() -> None:
    jobs = [
        job(
            n,
            None,
            monitor="val/loss",
            mode="min",
            loss=loss,
            best={"val/loss": value, "val/mae": value},
        )
        for n, loss, value in ((1, "mse", 2.0), (2, "l1", 0.5), (3, "mse", 1.0))
    ]
    assert order(jobs) == "31 2"
    assert order(jobs, "val/mae") == "231"


def test_jobs_without_a_validation_set_are_ranked_by_a_test_figure_alone() -> None:
    jobs = [
        job(1, None, monitor="", best={"test/r2": 0.1}),
        job(2, None, monitor="", best={"test/r2": 0.5}),
    ]
    assert [row.remark for row in rank(jobs)[0].rows] == ["no validation set to be ranked on"] * 2
    assert order(jobs, "test/r2") == "21"


def test_a_metric_of_choice_ranks_all_that_have_it() -> None:
    jobs = [
        job(1, 0.5, best={"val/accuracy": 0.5, "val/loss": 1.0, "epoch": 3}),
        job(2, 0.9, best={"val/accuracy": 0.9, "val/loss": 2.0, "test/r2": 1.0}),
        job(3, 0.7),
    ]
    assert metric_names(jobs) == ["val/accuracy", "val/loss", "test/r2"]
    assert order(jobs, "val/loss") == "123"
    (board,) = rank(jobs, "val/loss")
    assert (board.mode, board.rows[2].remark) == ("min", "no val/loss")
    assert rank(jobs, "test/r2")[0].mode == "max"
    assert rank([job(1, 0.5, mode="min")], "val/accuracy")[0].mode == "min", "as it was configured"


def test_the_way_that_a_metric_of_choice_is_better_is_what_its_run_has_told() -> None:
    jobs = [
        job(n, None, best={"val/auc": value}, directions={"auc": "max"})
        for n, value in ((1, 0.6), (2, 0.8))
    ]
    assert order(jobs, "val/auc") == "21"
    assert rank(jobs, "val/auc")[0].mode == "max"


def test_which_metrics_are_better_when_higher() -> None:
    targets = [
        Classes(tuple("0123456789"), (1,) * 10),
        Flags(("a",)),
        Values(("a",), (0.0,), (1.0,)),
        NextTokens(5, (1,) * 5),
    ]
    known: Mapping[str, str] = {k: v for target in targets for k, v in metrics_of(target).items()}
    assert {name for name, mode in known.items() if mode == "max"} == HIGHER_IS_BETTER - {"bleu"}
    chosen: set[str] = set()
    for name in filter(registry.metrics.is_builtin, registry.metrics.names()):
        accepted = registry.metrics.entry(name).factory.accepts  # type: ignore[attr-defined]
        for target in (*targets, Classes(("no", "yes"), (1, 1))):
            if isinstance(target, accepted):
                chosen |= choose_metrics(parse_metrics([name]), target).directions.keys()
    assert known.keys() | chosen == RANGES.keys() - {"bleu"} | {"loss"}
