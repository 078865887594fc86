"""What is shown of a sweep while it runs."""

import io
from pathlib import Path

import pytest
from rich.text import Text

from bigmodel.reporting.sweep_view import SweepView
from bigmodel.sweeps.jobs import Job, Outcome

JOBS = [
    Job(0, ("model=fnn", "model.hidden_sizes=[512,256]", "optimizer.lr=0.01", "seed=0")),
    Job(12, ("optimizer.weight_decay=0.0001", "seed=1")),
]
STANDING = {"epoch": 3, "epochs": 50, "step": 300, "steps": 5000, "metric": "val/accuracy", "value": 0.9}


def drawn(width: int, *reports: dict[str, object]) -> list[str]:
    """The lines that a terminal shows of two jobs that run."""
    stream = io.StringIO()
    view = SweepView(
        lambda job: " ".join(job.overrides), total=24, terminal=True, stream=stream, width=width
    )
    for job, report in zip(JOBS, reports, strict=True):
        view.started(job, Path(str(job.number)))
        view.progressed(job, report)
    view.tick()
    text = stream.getvalue()
    view.close()
    return [line.plain.rstrip() for line in Text.from_ansi(text).split()]


def test_a_job_that_is_tried_again_counts_once() -> None:
    stream, job = io.StringIO(), Job(0, ("seed=1",))
    view = SweepView(lambda _: "seed=1", total=2, terminal=False, stream=stream)
    for outcome in (Outcome("failed", "no memory"), Outcome("finished")):
        view.started(job, Path("0"))
        view.ended(job, outcome)
    first, second = stream.getvalue().splitlines()
    assert first.startswith("[1 of 2] job 0  seed=1  failed")
    assert second.startswith("[1 of 2] job 0  seed=1  finished")
    assert "failed" not in view._totals(0.0)


def test_a_sweep_does_not_end_before_a_job_of_it() -> None:
    view = SweepView(lambda _: "", total=2, terminal=False, stream=io.StringIO())
    view.started(JOBS[0], Path("0"))
    view.ended(JOBS[0], Outcome("finished"))
    view.started(JOBS[1], Path("1"))
    assert view._totals(view._began + 60).endswith("1 min 00 s left")
    view.progressed(JOBS[1], {"step": 10, "steps": 100})
    assert view._totals(view._began + 60).endswith("9 min 00 s left")


@pytest.mark.parametrize("width", [40, 50, 80, 120])
def test_settings_and_figures_are_whole_at_any_width(width: int) -> None:
    lines = drawn(width, STANDING, STANDING | {"value": 0.25})
    assert all(len(line) <= width for line in lines)
    text = " ".join(lines)
    assert all(word in text.split() for job in JOBS for word in job.overrides)
    assert [text.count(each) for each in ("3 / 50", "0.9000", "0.2500")] == [2, 1, 1]
    assert "0 of 24 done" in lines[0]  # which stays in sight where the jobs do not all fit
    assert "…" not in text


def test_a_metric_that_all_share_is_named_once() -> None:
    assert " ".join(drawn(120, STANDING, STANDING)).count("val/accuracy") == 1
    text = " ".join(drawn(120, STANDING, STANDING | {"metric": "val/rmse"}))
    assert "val/accuracy 0.9000" in text
    assert "val/rmse 0.9000" in text
