"""How many processors a process may use, where containers limit them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from bigmodel.runtime import processors as module
from bigmodel.runtime.processors import multiplies_bf16, processors


@pytest.fixture(autouse=True)
def _eight(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)), raising=False)
    monkeypatch.setattr(module, "_GROUPS", tmp_path)
    monkeypatch.setattr(module, "_OWN_GROUPS", tmp_path / "own")


def test_those_it_may_run_on() -> None:
    assert processors() == 8


@pytest.mark.parametrize(
    ("limit", "count"),
    [("max 100000", 8), ("200000 100000", 2), ("50000 100000", 1), ("9 1", 8), ("", 8)],
)
@pytest.mark.parametrize("place", ["", "pod", "pod/task"])
def test_a_container_s_share_of_time(tmp_path: Path, limit: str, count: int, place: str) -> None:
    (tmp_path / "own").write_text("0::/pod/task\n")
    (tmp_path / place).mkdir(parents=True, exist_ok=True)
    (tmp_path / place / "cpu.max").write_text(f"{limit}\n")
    assert processors() == count


@pytest.mark.parametrize(("quota", "count"), [("-1", 8), ("150000", 2)])
def test_the_first_version_of_control_groups(tmp_path: Path, quota: str, count: int) -> None:
    (tmp_path / "own").write_text("3:cpu,cpuacct:/task\n2:memory:/\n")
    folder = tmp_path / "cpu,cpuacct" / "task"
    folder.mkdir(parents=True)
    (folder / "cpu.cfs_quota_us").write_text(f"{quota}\n")
    (folder / "cpu.cfs_period_us").write_text("100000\n")
    assert processors() == count


@pytest.mark.parametrize(
    ("text", "there"),
    [
        ("model name\t: X\nflags\t\t: fpu avx512f avx512_bf16 amx_tile\n", True),
        ("flags\t\t: fpu amx_bf16 amx_tile\n", True),
        ("Features\t: fp asimd i8mm bf16\n", True),
        ("flags\t\t: fpu avx2 fma\nbugs\t\t: bf16\n", False),
        ("", False),
        (None, False),
    ],
)
def test_processors_that_multiply_bf16(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str | None, there: bool
) -> None:
    if text is not None:
        (tmp_path / "cpuinfo").write_text(text)
    monkeypatch.setattr(module, "_CPUINFO", tmp_path / "cpuinfo")
    assert multiplies_bf16() is there
