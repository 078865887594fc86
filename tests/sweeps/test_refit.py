"""The best settings of a sweep, and what is said about them."""

from pathlib import Path
from typing import Any

from bigmodel.sweeps.leaderboard import JobResult
from bigmodel.sweeps.refit import Length, Refit, length_to_best, winners


def job(number: int, value: float | None, status: str = "finished", **more: Any) -> JobResult:
    known: dict[str, Any] = {
        "changed": {"model": f"m{number}"},
        "monitor": "val/accuracy",
        "mode": "max",
        "best": {"val/accuracy": value},
    }
    return JobResult(job=str(number), status=status, **(known | more))


def test_the_best_finished_job_wins() -> None:
    jobs = [job(0, 0.5), job(1, 0.9, "stopped"), job(2, 0.8), job(3, 0.95, "failed"), job(4, None)]
    (winner,) = winners(jobs)
    assert (winner.job.job, winner.value, winner.among, winner.runs) == ("2", 0.8, "2 jobs", 1)


def test_less_is_better_if_the_metric_says_so_and_the_loss_decides_between_equal_ones() -> None:
    def figures(rmse: float, loss: float) -> dict[str, Any]:
        return {"monitor": "val/rmse", "mode": "min", "best": {"val/rmse": rmse, "val/loss": loss}}

    jobs = [job(0, None, **figures(2, 1)), job(1, None, **figures(1, 2)), job(2, None, **figures(1, 1))]
    assert [winner.job.job for winner in winners(jobs)] == ["2"]


def test_of_repetitions_the_best_mean_wins_not_the_best_job() -> None:
    values = {("a", 1): 0.99, ("a", 2): 0.1, ("b", 1): 0.8, ("b", 2): 0.7}
    jobs = [
        job(number, value, changed={"model": model, "seed": str(seed)})
        for number, ((model, seed), value) in enumerate(values.items())
    ]
    (winner,) = winners(jobs)
    assert winner.job.changed["model"] == "b"
    assert (winner.value, winner.runs, winner.repeats) == (0.75, 2, ["seed"])
    assert winner.among == "2 settings"


def test_jobs_that_monitor_something_else_have_a_winner_of_their_own() -> None:
    jobs = [job(0, 0.5), job(1, None, monitor="val/rmse", mode="min", best={"val/rmse": 1.0})]
    assert [winner.metric for winner in winners(jobs)] == ["val/accuracy", "val/rmse"]


def test_there_is_none_without_a_finished_job() -> None:
    assert winners([job(0, 0.5, "stopped"), job(1, None)]) == winners([]) == []


def test_a_chosen_metric_decides_by_its_own_direction() -> None:
    def figures(accuracy: float, loss: float) -> dict[str, Any]:
        return {"best": {"val/accuracy": accuracy, "val/loss": loss}}

    (winner,) = winners([job(0, None, **figures(0.9, 2)), job(1, None, **figures(0.8, 1))], "val/loss")
    assert (winner.job.job, winner.value, winner.mode) == ("1", 1.0, "min")


def lengths(*steps: float, epochs: float = 10.0, of: int = 100) -> Length | None:
    """Of runs of so many epochs and steps that were at their best after `steps`."""
    best: list[dict[str, float]] = [{"val/accuracy": 0.5, "step": step} for step in steps]
    jobs = [
        job(n, None, changed={"seed": str(n)}, best=each, steps=of, epochs=epochs)
        for n, each in enumerate(best)
    ]
    (winner,) = winners(jobs)
    return length_to_best(winner)


def test_the_length_is_the_median_of_those_to_the_best_checkpoints() -> None:
    assert lengths(30, 90, 50) == Length(5, 50, [3.0, 9.0, 5.0])
    assert lengths(26, 38) == Length(3, 32, [2.6, 3.8])
    assert lengths(7) == Length(1, 7, [0.7])
    assert lengths(4) == Length(None, 4, [0.4])
    assert lengths(30, 50, of=0) is None


def test_the_experiment_is_written_into_the_run(tmp_path: Path) -> None:
    (winner,) = winners([job(0, 0.5)])
    Refit(winner, "", "mine", "text").write(tmp_path)
    assert (tmp_path / "experiment" / "mine.yaml").read_text() == "text"
