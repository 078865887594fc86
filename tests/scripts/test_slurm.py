"""`scripts/slurm/train.sbatch`, with stand-ins for Slurm's commands: torchrun and training are real."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.scripts import step_of_slurm
from tests.sweeps.small_jobs import until

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "scripts" / "slurm" / "train.sbatch"
WORDS = ("device=cpu", "trainer.epochs=60", "trainer.record_every_steps=1", "trainer.tensorboard=false")

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")


@pytest.fixture
def number() -> str:
    """That of a job whose port is free."""
    while True:
        with socket.create_server(("localhost", 0)) as server:
            job = server.getsockname()[1]
        try:
            socket.create_server(("localhost", 61440 + job % 4096)).close()
        except OSError:
            continue
        return str(job)


def submitted(folder: Path, number: str, *words: str) -> subprocess.Popen[str]:
    """The script's process, as sbatch starts it."""
    commands = [folder / "slurm", Path(sys.executable).parent]
    path = os.pathsep.join([*map(str, commands), os.environ["PATH"]])
    job = {"SLURM_JOB_ID": number, "SLURM_JOB_NUM_NODES": "2", "SLURM_JOB_NODELIST": "localhost"}
    with (folder / "printed").open("a") as log:
        return subprocess.Popen(
            ["bash", str(SCRIPT), *WORDS, *words],
            cwd=folder,
            env=os.environ | job | {"PATH": path, "PYTHONPATH": str(ROOT / "src"), "NO_COLOR": "1"},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            text=True,
        )


@pytest.mark.slow
def test_a_run_goes_on_in_the_next_job_when_its_time_is_up(tmp_path: Path, number: str) -> None:
    step_of_slurm.install(tmp_path / "slurm")
    run, asked, log = tmp_path / "outputs/slurm" / number, tmp_path / "slurm/asked", tmp_path / "printed"
    summary = run / "summary.json"
    job = submitted(tmp_path, number)
    until(lambda: (run / "metrics.jsonl").exists() or job.poll() is not None)
    job.send_signal(signal.SIGUSR1)
    assert job.wait() != 0, log.read_text()
    assert asked.read_text() == f"requeue {number}\n", log.read_text()
    assert json.loads(summary.read_text())["status"] == "stopped"
    steps = json.loads(summary.read_text())["steps"]
    assert 0 < steps < 60 * 23
    job = submitted(tmp_path, number)
    assert job.wait() == 0, log.read_text()
    assert f"resume=auto: resuming {Path('outputs/slurm') / number}" in log.read_text()
    assert json.loads(summary.read_text())["status"] == "finished"
    lines = [json.loads(line)["step"] for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert lines == sorted(set(lines))
    assert lines[-1] == 60 * 23
    job = submitted(tmp_path, number)
    assert job.wait() == 0, log.read_text()
    assert "this run is finished" in log.read_text()
    assert asked.read_text() == f"requeue {number}\n"


def test_a_mistake_is_told_and_does_not_queue_the_job_again(tmp_path: Path, number: str) -> None:
    step_of_slurm.install(tmp_path / "slurm")
    assert submitted(tmp_path, number, "modle=fnn").wait() == 1
    assert (tmp_path / "printed").read_text().count("bigmodel-train: modle: no such setting") == 1
    assert not (tmp_path / "slurm/asked").exists()
    assert not (tmp_path / "outputs").exists()
