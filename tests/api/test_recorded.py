"""What a run records of the user's code and of the machine, and the report of it."""

import itertools
import subprocess
from pathlib import Path

import pytest

import bigmodel as bm
from bigmodel.reporting.summary import read_summary
from bigmodel.runtime import energy
from tests.cli.commands.cli import Bigmodel
from tests.runtime.test_energy import domain

ROWS = [{"a": i % 7, "y": i % 3} for i in range(60)]
WORDS = ("device=cpu", "data.target=y", "model.hidden_sizes=[8]", "trainer.tensorboard=false")


def git(*words: str) -> str:
    who = ("-c", "user.name=Ann", "-c", "user.email=ann@example.org", "-c", "commit.gpgsign=false")
    return subprocess.run(["git", *who, *words], check=True, capture_output=True, text=True).stdout


def test_git_and_energy_are_recorded_and_add_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bigmodel: Bigmodel
) -> None:
    monkeypatch.chdir(tmp_path)
    git("init", "-q", "-b", "trunk")
    git("commit", "-q", "--allow-empty", "-m", "First")
    domain(tmp_path / "powercap", "intel-rapl:0", "package-0", 0)
    monkeypatch.setattr(energy, "POWERCAP", tmp_path / "powercap")
    joules = itertools.count(step=1000)  # at each reading so many more
    monkeypatch.setattr(energy, "_reader", lambda _: lambda: float(next(joules)))
    first = bm.train(*WORDS, "trainer.max_steps=4", frame=ROWS, progress=False)
    begun = read_summary(first.folder)
    assert begun is not None
    assert begun.energy["cpu"] >= 1000
    assert begun.environment["git_branch"] == "trunk"
    assert begun.environment["git_commit"] == git("rev-parse", "HEAD").strip()
    bm.train(f"resume={first.folder}", "trainer.max_steps=8", progress=False)
    ended = read_summary(first.folder)
    assert ended is not None
    assert ended.energy["cpu"] >= begun.energy["cpu"] + 1000
    assert bigmodel("report", first.folder, "--output", "r.html").status == 0
    page = (tmp_path / "r.html").read_text()
    assert begun.environment["git_commit"] in page
    assert f"{ended.energy['cpu']:,.0f} J (cpu)" in page


def test_a_machine_that_tells_nothing_has_no_energy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bigmodel: Bigmodel
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(energy, "POWERCAP", tmp_path / "nowhere")
    run = bm.train(*WORDS, "trainer.max_steps=2", frame=ROWS, progress=False)
    summary = read_summary(run.folder)
    assert summary is not None
    assert summary.energy == {}
    assert bigmodel("report", run.folder, "--output", "r.html").status == 0
    assert "Energy" not in (tmp_path / "r.html").read_text()
