"""A run that was begun on one processor goes on, and is judged, on another: equal but for rounding."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from . import processors
from .processors import RUNS, STEPS, STOP, SWITCHES

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


@pytest.fixture(scope="module", params=["as it is", "without vector instructions"])
def begun(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """Runs that were stopped under some switches, and went on under each of the others."""
    folder = tmp_path_factory.mktemp("processors")
    processors.write_data(folder)
    elsewhere(folder, SWITCHES[request.param], "begin")
    found = {}
    for place, name in enumerate(set(SWITCHES) - {request.param}):
        elsewhere(folder, SWITCHES[name], "go-on", f"copy{place}")
        found[name] = json.loads((folder / f"copy{place}.json").read_text())
    return folder, found


@pytest.mark.timeout(1200)
@pytest.mark.parametrize("run", RUNS)
def test_a_run_goes_on_on_another_processor(begun: Any, run: str) -> None:
    folder, found = begun
    whole = processors.losses(folder / "whole" / run)
    assert sorted(whole) == list(range(1, STEPS + 1))
    within = ROUNDING["bf16" if "device.precision=bf16" in RUNS[run] else "fp32"]
    for name, told in found.items():
        status, printed = told[run]["resume"]
        assert status == 0, (name, printed)
        assert f"after step {STOP} of {STEPS}" in printed
        assert "cannot be told" not in printed
        again = {int(step): loss for step, loss in told[run]["losses"].items()}
        assert again == pytest.approx(whole, rel=within), name


@pytest.mark.timeout(1200)
@pytest.mark.parametrize("run", RUNS)
def test_a_run_is_judged_on_another_processor(begun: Any, run: str) -> None:
    for name, told in begun[1].items():
        status, printed = told[run]["eval"]
        assert status == 0, (name, printed)
        assert "not what the run has learnt from" not in printed, name
        assert "cannot be told" not in printed, name


def test_the_switches_do_compute_otherwise(begun: Any) -> None:
    """Else the tests above would say nothing; some processors know one way only."""
    folder, found = begun
    runs = [{run: told[run]["losses"] for run in RUNS} for told in found.values()]
    whole = {
        run: {str(s): v for s, v in processors.losses(folder / "whole" / run).items()} for run in RUNS
    }
    if all(losses == whole for losses in runs):
        pytest.skip("under each of the switches this processor computes the same to the last bit")
