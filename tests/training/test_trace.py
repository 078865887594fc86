"""What a trace is added up to: traces written by hand, and torch's own sums of a real one."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.profiler import ProfilerActivity, profile, record_function

from bigmodel.training.trace import breakdown, table


def event(name: str, start: float, end: float, cat: str = "user_annotation", **more: Any) -> Any:
    thread = more.pop("tid", 1)
    return {
        "ph": "X",
        "cat": cat,
        "name": name,
        "ts": start,
        "dur": end - start,
        "tid": thread,
        "args": more,
    }


def a_step(begin: float) -> list[Any]:
    """1000 µs: 100 data, 300 forward, 400 backward, 150 optimizer, 50 of nothing in particular."""
    spans = {"data": (0, 100), "forward": (110, 410), "backward": (410, 810), "optimizer": (820, 970)}
    marks = [event(name, begin + first, begin + last) for name, (first, last) in spans.items()]
    return [event("step", begin, begin + 1000), *marks]


def test_phases_add_up_to_the_step() -> None:
    found = breakdown([*a_step(5000), *a_step(6000)], 2)
    assert found is not None
    assert found.ms == pytest.approx(1.0)
    assert found.host == pytest.approx(
        {"data": 0.1, "forward": 0.3, "backward": 0.4, "optimizer": 0.15, "waiting": 0, "other": 0.05}
    )
    assert found.device is None


def test_what_lies_outside_the_marks_does_not_count() -> None:
    early = event("forward", 0, 4000)
    found = breakdown([early, event("aten::mm", 10, 20, "cpu_op"), *a_step(5000)], 1)
    assert found is not None
    assert found.host["forward"] == pytest.approx(0.3)
    assert not found.operators


def test_waiting_for_workers_is_taken_from_data_and_never_more_than_it_took() -> None:
    for waited, (data, waiting) in {60e-6: (0.04, 0.06), 1.0: (0.0, 0.1)}.items():
        found = breakdown(a_step(0), 1, waited)
        assert found is not None
        assert found.host["data"] == pytest.approx(data)
        assert found.host["waiting"] == pytest.approx(waiting)
        assert sum(found.host.values()) == pytest.approx(found.ms)


def test_a_step_that_is_one_program() -> None:
    marks = [event("step", 0, 100), event("data", 0, 10), event("engine", 10, 95)]
    found = breakdown(marks, 4)
    assert found is not None
    assert found.ms == pytest.approx(0.025)
    assert "forward" not in found.host
    lines = table(found).splitlines()
    assert any(line.split()[:2] == ["compiled", "step"] for line in lines)
    assert not any("forward" in line for line in lines)


def test_a_call_with_phases_within_is_not_one_program() -> None:
    found = breakdown([*a_step(0), event("engine", 105, 990)], 1)
    assert found is not None
    assert "compiled step" not in found.host
    assert found.host["other"] == pytest.approx(0.05)


def test_no_step_no_sums() -> None:
    assert breakdown([event("forward", 0, 10)], 1) is None
    assert breakdown([], 3) is None


def test_a_device_works_beside_the_host() -> None:
    """Kernels count where they were launched, also by the thread that runs backward; their gaps and the
    host's synchronisation are waiting."""
    calls = [
        event("cudaLaunchKernel", 120, 125, "cuda_runtime", correlation=1),
        event("cudaLaunchKernel", 500, 505, "cuda_runtime", correlation=2, tid=7),
        event("cudaLaunchKernel", 830, 835, "cuda_runtime", correlation=3),
        event("cudaStreamSynchronize", 900, 960, "cuda_runtime", correlation=4),
        event("cudaStreamSynchronize", 900, 960, "cuda_runtime", correlation=5, tid=9),  # of saving
    ]
    operators = [
        event("aten::mm", 115, 130, "cpu_op", **{"External id": 11}),
        event("aten::mm", 495, 510, "cpu_op", tid=7, **{"External id": 12}),
    ]
    kernels = [
        event("gemm", 200, 400, "kernel", tid=50, correlation=1, **{"External id": 11}),
        event("gemm_backward", 550, 850, "kernel", tid=50, correlation=2, **{"External id": 12}),
        event("adam", 800, 900, "kernel", tid=51, correlation=3),  # 50 of them beside the other
        event("lost", 950, 960, "gpu_memcpy", tid=50, correlation=99),
    ]
    found = breakdown([*a_step(0), *calls, *operators, *kernels], 1)
    assert found is not None
    assert found.host == pytest.approx(
        {
            "data": 0.1,
            "forward": 0.3,
            "backward": 0.4,
            "optimizer": 0.09,
            "waiting": 0.06,
            "other": 0.05,
        }
    )
    assert found.device == pytest.approx(
        {"forward": 0.2, "backward": 0.3, "optimizer": 0.05, "other": 0.01, "waiting": 0.44}
    )
    assert [(row.name, row.calls) for row in found.operators] == [
        ("aten::mm", 2),
        ("adam", 1),
        ("lost", 1),
    ]
    assert found.operators[0].ms == pytest.approx(0.5)
    assert "device ms" in table(found)


def test_own_times_are_those_of_torch(tmp_path: Path) -> None:
    model = torch.nn.Sequential(torch.nn.Linear(30, 30), torch.nn.ReLU(), torch.nn.Linear(30, 1))
    with profile(activities=[ProfilerActivity.CPU]) as profiler, record_function("step"):
        for _ in range(4):
            model(torch.randn(8, 30)).sum().backward()
    profiler.export_chrome_trace(str(tmp_path / "trace.json"))
    events = json.loads((tmp_path / "trace.json").read_text())["traceEvents"]
    found = breakdown(events, 4)
    assert found is not None
    theirs = {row.key: row for row in profiler.key_averages()}
    assert len(found.operators) == 10
    for row in found.operators:
        assert row.calls * 4 >= theirs[row.name].count  # torch takes one within its like for one call
        assert row.ms * 4000 == pytest.approx(theirs[row.name].self_cpu_time_total, abs=0.5)


def test_the_table_is_aligned_and_cuts_long_names() -> None:
    long = event("void at::native::" + "x" * 80, 120, 170, "cpu_op")
    found = breakdown([*a_step(0), long], 1)
    assert found is not None
    lines = table(found).splitlines()
    assert len({len(line) for line in lines[:7]}) == 1
    assert lines[2].split() == ["forward", "0.300", "30.0%"]
    assert lines[-1].split()[1:] == ["at::native::" + "x" * 26 + "…", "1", "0.050", "5.0%"]
    assert max(map(len, lines)) <= 72
