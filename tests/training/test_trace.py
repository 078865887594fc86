"""What a profile is added up to: events written by hand, and those of a real one."""

from typing import Any

import pytest
import torch
from torch.autograd import DeviceType  # type: ignore[attr-defined]
from torch.autograd.profiler_util import EventList, FunctionEvent
from torch.profiler import ProfilerActivity, profile, record_function

from bigmodel.training.trace import Breakdown, breakdown, table

TRAINING_THREAD, BACKWARD_THREAD, SAVING_THREAD = 1, 7, 9


def mark(name: str, start: float, end: float) -> FunctionEvent:
    return event(name, start, end, is_user_annotation=True)


def event(name: str, start: float, end: float, **more: Any) -> FunctionEvent:
    facts = {"id": 0, "thread": TRAINING_THREAD, "stack": []} | more
    return FunctionEvent(name=name, start_us=start, end_us=end, **facts)


def kernel(name: str, start: float, end: float, correlation: int) -> FunctionEvent:
    return event(name, start, end, id=correlation, device_type=DeviceType.CUDA, use_device="cuda")


def a_step(begin: float) -> list[FunctionEvent]:
    """1000 µs: 100 data, 300 forward, 400 backward, 150 optimizer, 50 without a mark."""
    spans = {"data": (0, 100), "forward": (110, 410), "backward": (410, 810), "optimizer": (820, 970)}
    marks = [mark(name, begin + first, begin + last) for name, (first, last) in spans.items()]
    return [mark("ProfilerStep*", begin, begin + 1000), *marks]


def added_up(events: list[FunctionEvent], steps: int, data_wait: float = 0.0) -> Breakdown | None:
    listed = EventList(events, use_device="cuda")
    listed._build_tree()
    return breakdown(listed, listed.key_averages(), steps, data_wait)


def test_phases_add_up_to_the_step() -> None:
    found = added_up([*a_step(5000), *a_step(6000)], 2)
    assert found is not None
    assert found.ms == pytest.approx(1.0)
    assert found.host == pytest.approx(
        {"data": 0.1, "forward": 0.3, "backward": 0.4, "optimizer": 0.15, "waiting": 0, "other": 0.05}
    )
    assert found.device is None


def test_what_lies_outside_the_steps_does_not_count() -> None:
    found = added_up([mark("forward", 0, 4000), *a_step(5000)], 1)
    assert found is not None
    assert found.host["forward"] == pytest.approx(0.3)


def test_waiting_for_batches_is_taken_from_data_and_never_more_than_it_took() -> None:
    for data_wait, (data, waiting) in {60e-6: (0.04, 0.06), 1.0: (0.0, 0.1)}.items():
        found = added_up(a_step(0), 1, data_wait)
        assert found is not None
        assert found.host["data"] == pytest.approx(data)
        assert found.host["waiting"] == pytest.approx(waiting)
        assert sum(found.host.values()) == pytest.approx(found.ms)


def test_a_step_that_is_one_program() -> None:
    found = added_up(
        [mark("ProfilerStep*", 0, 100), mark("data", 0, 10), mark("compiled step", 10, 95)], 4
    )
    assert found is not None
    assert found.ms == pytest.approx(0.025)
    assert "forward" not in found.host
    lines = table(found).splitlines()
    assert any(line.split()[:3] == ["compiled", "step", "0.021"] for line in lines)
    assert not any("forward" in line for line in lines)


def test_no_step_no_sums() -> None:
    assert added_up([mark("forward", 0, 10)], 1) is None
    assert added_up([], 3) is None


def a_step_on_a_device() -> list[FunctionEvent]:
    calls = [
        event("cudaLaunchKernel", 120, 125, id=1),
        event("cudaLaunchKernel", 500, 505, id=2, thread=BACKWARD_THREAD),
        event("cuLaunchKernelEx", 830, 835, id=3),
        event("cudaStreamSynchronize", 900, 960, id=4),
        event("cudaStreamSynchronize", 900, 960, id=5, thread=SAVING_THREAD),
    ]
    operators = [
        event("aten::mm", 115, 130, id=3, use_device="cuda"),  # operators are numbered on their own
        event("aten::mm", 495, 510, id=4, thread=BACKWARD_THREAD, use_device="cuda"),
        event("aten::view", 830, 836, id=5, use_device="cuda"),
    ]
    operators[0].append_kernel("gemm", 0, 200)
    operators[1].append_kernel("gemm_backward", 0, 300)
    kernels = [
        kernel("gemm", 200, 400, 1),
        kernel("gemm_backward", 550, 850, 2),
        kernel("adam", 800, 900, 3),  # half of it beside the one before
        kernel("lost", 950, 960, 99),
    ]
    annotation = event("forward", 200, 400, device_type=DeviceType.CUDA, is_user_annotation=True)
    return [*a_step(0), *calls, *operators, *kernels, annotation]


def test_a_device_works_beside_the_host() -> None:
    """Kernels count where they were launched, also by the thread that runs backward; their gaps and the
    host's synchronisation are waiting."""
    found = added_up(a_step_on_a_device(), 1)
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
    assert (found.operators[0].name, found.operators[0].calls) == ("aten::mm", 2)
    assert found.operators[0].ms == pytest.approx(0.5)
    assert "device ms" in table(found)


def test_kernels_that_no_operator_launched_stand_by_their_own_names() -> None:
    events = [e for e in a_step_on_a_device() if not e.name.startswith("aten::")]
    found = added_up(events, 1)
    assert found is not None
    assert [(row.name, row.calls) for row in found.operators] == [
        ("gemm_backward", 1),
        ("gemm", 1),
        ("adam", 1),
        ("lost", 1),
    ]


def test_a_profile_of_torch() -> None:
    model = torch.nn.Sequential(torch.nn.Linear(30, 30), torch.nn.ReLU(), torch.nn.Linear(30, 1))
    with profile(activities=[ProfilerActivity.CPU]) as profiler:
        for _ in range(4):
            with record_function("ProfilerStep#1"):
                with record_function("forward"):
                    loss = model(torch.randn(8, 30)).sum()
                with record_function("backward"):
                    loss.backward()
    found = breakdown(profiler.events(), profiler.key_averages(), 4)  # type: ignore[no-untyped-call]
    assert found is not None
    assert set(found.host) == {"data", "forward", "backward", "waiting", "other"}
    assert sum(found.host.values()) == pytest.approx(found.ms)
    assert min(found.host["forward"], found.host["backward"]) > 0
    calls = {row.name: row.calls for row in found.operators}
    assert calls["aten::addmm"] == 2
    assert not {"forward", "backward"} & calls.keys()
    assert len(found.operators) == 10


def test_the_table_is_aligned_and_cuts_long_names() -> None:
    long = event("void at::native::" + "x" * 80, 120, 170)
    found = added_up([*a_step(0), long], 1)
    assert found is not None
    lines = table(found).splitlines()
    assert len({len(line) for line in lines[:7]}) == 1
    assert lines[2].split() == ["forward", "0.300", "30.0%"]
    assert lines[-1].split()[1:] == ["at::native::" + "x" * 26 + "…", "1", "0.050", "5.0%"]
    assert max(map(len, lines)) <= 72
