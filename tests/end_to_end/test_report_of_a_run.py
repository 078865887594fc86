"""A report of a run of the command line; the command in it trains the same run again."""

import html
import re
import shlex
from pathlib import Path

import pytest

from tests.cli.commands.cli import Bigmodel, caller
from tests.end_to_end.conftest import Command

PRESET = """# @package _global_
trainer:
  max_steps: 6
  tensorboard: false
"""


@pytest.fixture
def bigmodel(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Bigmodel:
    return caller(monkeypatch, capsys)


def test_the_command_in_it_trains_the_same_run(
    command: Command, bigmodel: Bigmodel, tmp_path: Path
) -> None:
    (tmp_path / "my configs" / "experiment").mkdir(parents=True)
    (tmp_path / "my configs" / "experiment" / "mine.yaml").write_text(PRESET)
    (tmp_path / "house prices.csv").write_text(
        "area,rooms,price\n" + "".join(f"{n % 9},{n % 4},{n % 9 + n % 4}.5\n" for n in range(80))
    )
    words = ("--config-dir", "my configs", "experiment=mine", "data=table", "device=cpu", "seed=3")
    first = command(
        *words, "data.path='house prices.csv'", "data.target=price", "model.hidden_sizes=[4]"
    )
    assert first.status == 0, first.err
    said = bigmodel("report", first.folder, "--output", "report.html", "--device", "cpu")
    assert said.status == 0, said.err
    page = (tmp_path / "report.html").read_text()
    typed = html.unescape(re.findall(r"<pre tabindex=0>(bigmodel-train [^<]*)</pre>", page)[0])
    again = command(*shlex.split(typed)[1:])
    assert again.status == 0, again.err
    assert again.folder != first.folder
    assert again.summary()["final"]["val/loss"] == first.summary()["final"]["val/loss"]
    both = bigmodel("report", first.folder, again.folder, "--output", "both.html", "--device", "cpu")
    assert both.status == 0, both.err
    assert "Settings that differ" not in (tmp_path / "both.html").read_text()
    assert "Learning curves together" in (tmp_path / "both.html").read_text()
