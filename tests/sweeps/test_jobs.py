"""Lists of jobs, what they change, and those who watch them."""

from pathlib import Path
from typing import Any

import pytest

from bigmodel.sweeps.jobs import Job, JobList, Observers, Outcome, Status, changes, in_one_line
from tests.sweeps.small_jobs import Recorder, jobs


def drawn(source: JobList) -> list[int]:
    """The numbers of all jobs that a source still has."""
    found = []
    while (job := source.next()) is not None:
        found.append(job.number)
    return found


def test_jobs_come_in_their_order_and_then_none() -> None:
    source = JobList(jobs(3))
    assert drawn(source) == [0, 1, 2]
    assert source.next() is None


@pytest.mark.parametrize("status", ["finished", "stopped", "pruned"])
def test_only_a_failed_one_comes_again(status: Status) -> None:
    source = JobList(jobs(1), retries=2)
    assert drawn(source) == [0]
    source.ended(Job(0, ()), Outcome(status))
    assert drawn(source) == []


def test_a_failed_one_comes_again_so_often_and_after_the_others() -> None:
    source = JobList(jobs(3), retries=1)
    first = source.next()
    assert first is not None
    source.ended(first, Outcome("failed"))
    assert drawn(source) == [1, 2, 0]
    source.ended(first, Outcome("failed"))
    assert drawn(source) == []


def test_a_list_prunes_nothing() -> None:
    assert not JobList(jobs(1)).evaluated(jobs(1)[0], 1, float("nan"))


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        ([("a=1", "b=2"), ("a=2", "b=2")], [{"a": "1"}, {"a": "2"}]),
        ([("a=1",), ("b=2",)], [{"a": "1"}, {"b": "2"}]),
        ([("a=x=y", "+b=1"), ("a=z", "++b=2")], [{"a": "x=y", "b": "1"}, {"a": "z", "b": "2"}]),
        ([("a=1", "b=2")], [{}]),  # there is nothing to differ from
        ([("a=1",), ("a=1",)], [{}, {}]),
        ([()], [{}]),
        ([], []),
    ],
)
def test_changes_are_the_keys_that_differ(
    overrides: list[tuple[str, ...]], expected: list[dict[str, str]]
) -> None:
    found = changes(Job(number, words) for number, words in enumerate(overrides))
    assert list(found.values()) == expected


def test_changes_are_said_in_one_line() -> None:
    both = ("trainer.epochs=2", "+new.key=1")
    listed = [Job(0, ("model=fnn", "model.hidden_sizes=[8,8]", *both)), Job(1, ("model=rnn", *both))]
    found = {number: in_one_line(own) for number, own in changes(listed).items()}
    assert found == {0: "model=fnn model.hidden_sizes=[8,8]", 1: "model=rnn"}


def test_each_observer_is_told_everything() -> None:
    class Counting(Recorder):
        ticks = 0

        def chosen(self, job: Job) -> None:
            self.events.append(("chosen", job.number))

        def tick(self) -> None:
            self.ticks += 1

    watchers = [Counting(), Counting()]
    all_of_them = Observers(watchers)
    (job,) = jobs(1)
    report: dict[str, Any] = {"step": 1}
    all_of_them.chosen(job)
    all_of_them.started(job, Path("0"))
    all_of_them.progressed(job, report)
    all_of_them.ended(job, Outcome("finished"))
    all_of_them.tick()
    for watcher in watchers:
        assert watcher.events == [("chosen", 0), ("started", 0), ("ended", 0)]
        assert (watcher.reports, watcher.ticks) == ([(0, report)], 1)
