"""What is shown of a sweep while it runs."""

import io
from pathlib import Path

from bigmodel.reporting.sweep_view import SweepView
from bigmodel.sweeps.jobs import Job, Outcome


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
