"""A run that was begun on one processor goes on, and is judged, on another: equal but for rounding."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.faults import processors
from tests.faults.processors import RUNS, STEPS, STOP, SWITCHES

ROOT = Path(__file__).parents[2]
ROUNDING = {"fp32": 1e-4, "bf16": 2.0**-6}
"""How far losses may differ, relatively: some hundred roundings of float32 a step add up, and a few of
bfloat16, each of 2^-8 at most."""


def elsewhere(folder: Path, switches: dict[str, str], *argv: str) -> None:
    """Runs `processors` as another processor would, in `folder`."""
    known = {key: value for key, value in os.environ.items() if not key.startswith(("MKL_", "ATEN_"))}
    path = os.pathsep.join(filter(None, [str(ROOT), str(ROOT / "src"), known.get("PYTHONPATH", "")]))
    done = subprocess.run(
        [sys.executable, "-m", "tests.faults.processors", *argv],
        cwd=folder,
        env=known | switches | {"PYTHONPATH": path, "NO_COLOR": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.timeout(1200)
@pytest.mark.parametrize(
    ("begun", "others"),
    [
        pytest.param("as it is", sorted(SWITCHES.keys() - {"as it is"}), marks=pytest.mark.slow),
        ("without vector instructions", ["as it is"]),
    ],
)
def test_a_run_goes_on_and_is_judged_on_another_processor(
    tmp_path: Path, begun: str, others: list[str]
) -> None:
    processors.write_data(tmp_path)
    elsewhere(tmp_path, SWITCHES[begun], "begin")
    for place, name in enumerate(others):
        elsewhere(tmp_path, SWITCHES[name], "go-on", f"copy{place}")
        found = json.loads((tmp_path / f"copy{place}.json").read_text())
        for run, told in found.items():
            whole = processors.losses(tmp_path / "whole" / run)
            check(f"{run}, {name}", told, whole, "device.precision=bf16" in RUNS[run])


def check(what: str, told: dict[str, Any], whole: dict[int, float], bf16: bool) -> None:
    """Holds what was said and learnt elsewhere to the run that was never stopped."""
    for status, printed in (told["eval"], told["resume"]):
        assert status == 0, f"{what}: {printed}"
        assert "not what the run was trained on" not in printed, what
        assert "cannot be told" not in printed, what
    assert f"after step {STOP} of {STEPS}" in told["resume"][1], what
    assert sorted(whole) == list(range(1, STEPS + 1)), what
    again = {int(step): loss for step, loss in told["losses"].items()}
    assert again == pytest.approx(whole, rel=ROUNDING["bf16" if bf16 else "fp32"]), what
