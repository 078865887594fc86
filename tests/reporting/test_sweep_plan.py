"""The table of a sweep that has not begun."""

import io
from dataclasses import replace

from bigmodel.reporting.sweep_plan import JobCost, PlannedJob, print_plan

COST = JobCost(parameters=1234, steps=500, seconds=12.0, memory=3 << 30, disk=5 << 20)


def printed(
    jobs: list[PlannedJob], at_a_time: int = 2, room: int | None = None, per_gpu: int = 1
) -> str:
    stream = io.StringIO()
    print_plan(jobs, at_a_time, room, per_gpu=per_gpu, stream=stream)
    return stream.getvalue()


def test_each_job_has_a_row_and_all_have_a_sum() -> None:
    text = printed([PlannedJob(0, "model=fnn", COST), PlannedJob(1, "model=cnn", COST)])
    assert "0    model=fnn  1,234       500    12.0 s  3.0 GiB  5.0 MiB" in text.splitlines()
    assert "2 jobs, 2 at a time: about 12.0 s by eager steps, 10.0 MiB of checkpoints." in text


def test_a_sweep_takes_as_long_as_its_longest_job() -> None:
    jobs = [PlannedJob(0, "a", COST), PlannedJob(1, "b", replace(COST, seconds=50.0))]
    assert "about 50.0 s" in printed(jobs)
    assert "about 1 min 02 s" in printed(jobs, at_a_time=1)


def test_jobs_that_were_not_measured_count_as_the_others() -> None:
    text = printed([PlannedJob(0, "a", COST), PlannedJob(1, "b", None)], at_a_time=1)
    assert "not measured" in text
    assert "about 24.0 s" in text


def test_a_thousand_jobs_are_readable() -> None:
    lines = printed([PlannedJob(n, f"seed={n}", COST) for n in range(1000)]).splitlines()
    assert len(lines) == 43
    assert "… 960 more …" in lines
    assert any(line.startswith("999 ") for line in lines)


def test_too_little_memory_is_told() -> None:
    jobs = [PlannedJob(n, "", COST) for n in range(4)]
    assert "Warning: 2 jobs at a time may need 6.0 GiB of memory, and there are 4.0 GiB" in printed(
        jobs, 2, 4 << 30
    )
    assert "Warning" not in printed(jobs, 1, 4 << 30)


def test_so_is_too_little_of_a_gpu_whatever_the_machine_has() -> None:
    jobs = [PlannedJob(n, "", replace(COST, gpu_memory=(8 - n) << 30)) for n in range(4)]
    text = printed(jobs, 6, 1 << 30, per_gpu=2)
    assert "Warning: 2 jobs on a GPU may need 6.0 GiB of memory, and there are 5.0 GiB." in text
    assert "Lower sweep.jobs_per_gpu." in text
    assert "Warning" not in printed(jobs, 3, 1 << 30)
