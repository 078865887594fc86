import io
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from rich.text import Text

from bigmodel.reporting import console as console_module
from bigmodel.reporting.base import ProgressReport, Summary
from bigmodel.reporting.console import Console
from tests.reporting import facts


def life(step: int) -> ProgressReport:
    return ProgressReport(epoch=3, step=step, loss=0.5, metric=0.9, samples_per_second=12000)


def whole_run(console: Console, folder: Path, summary: Summary | None = None) -> None:
    for name in ("checkpoints/best", "checkpoints/last", "tensorboard"):
        (folder / name).mkdir(parents=True)
    console.start(facts.info(folder))
    for epoch, accuracy in ((9, 0.9833), (10, 0.9722)):
        console.record(facts.record(epoch, accuracy), facts.record(9, 0.9833))
    console.log(facts.record(10))
    console.message("3 samples are copies.", "warning")
    console.finish(summary or facts.summary(), folder)
    console.close()


PLAIN = """\
Model: fnn, 9,610 parameters
Data: digits [8×8] → 10 classes
Epoch 10, Loss: 0.1234, val/loss: 0.0987, val/accuracy: 0.9722
Warning: 3 samples are copies.
Best: epoch 18, train/loss 0.1234, val/loss 0.0987, val/accuracy 0.9833
Final: epoch 30, train/loss 0.1234, val/loss 0.0987, val/accuracy 0.9722
Test: test/loss 0.2000, test/accuracy 0.9611
Finished: 30 epochs, 690 steps, 3.2 s
Checkpoints: outputs/a run/checkpoints (best, last)
TensorBoard: tensorboard --logdir outputs
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path / "outputs" / "a run"


@pytest.mark.parametrize("width", [10, 200])
def test_off_a_terminal_only_plain_lines_whatever_the_width(folder: Path, width: int) -> None:
    stream = io.StringIO()
    whole_run(Console(folder, False, stream=stream, width=width), folder)
    assert stream.getvalue() == PLAIN
    assert (folder / "train.log").read_text() == PLAIN


def test_a_terminal_writes_the_same_plain_lines_to_the_log(folder: Path) -> None:
    stream = io.StringIO()
    whole_run(Console(folder, True, stream=stream, width=80), folder)
    assert "\x1b[" in stream.getvalue()
    assert (folder / "train.log").read_text() == PLAIN


def test_a_resumed_run_appends_to_the_log(folder: Path) -> None:
    whole_run(Console(folder, False, stream=io.StringIO()), folder)
    again = Console(folder, False, stream=io.StringIO())
    again.start(facts.info(folder, first_step=230))
    again.close()
    assert (folder / "train.log").read_text() == (
        PLAIN
        + "Model: fnn, 9,610 parameters\nData: digits [8×8] → 10 classes\n"
        + "Resuming: after step 230 of 690, 10 epochs done\n"
    )


def test_without_colours_the_layout_is_the_same(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shown = {}
    for choice in ("", "1"):
        monkeypatch.setenv("NO_COLOR", choice)
        stream = io.StringIO()
        console = Console(None, True, stream=stream, width=80)
        console.start(facts.info(folder))
        console.log(facts.record(10))
        console.message("3 samples are copies.", "warning")
        console.finish(facts.summary(), folder)
        console.close()
        shown[choice] = stream.getvalue()
    plain = [
        [line.plain.rstrip(" ━") for line in Text.from_ansi(text).split()] for text in shown.values()
    ]  # a bar that colours alone would tell to be empty is blank
    assert plain[0] == plain[1]
    assert any(line.startswith("╭─ fnn on digits ─") for line in plain[1])
    coloured = re.compile(r"\x1b\[(?:\d+;)*(?:3|4|9|10)\d[;m]")
    assert coloured.search(shown[""])
    assert not coloured.search(shown["1"])


@pytest.mark.parametrize("width", [80, 200])
def test_on_a_terminal_every_line_fits(folder: Path, width: int) -> None:
    stream = io.StringIO()
    whole_run(Console(folder, True, stream=stream, width=width), folder)
    shown = [line.plain for line in Text.from_ansi(stream.getvalue()).split()]
    assert max(len(line) for line in shown) <= width
    assert any(line.startswith("╭─ fnn on digits ─") for line in shown)
    assert "Epoch 10, Loss: 0.1234, val/loss: 0.0987, val/accuracy: 0.9722" in [
        line.rstrip() for line in shown
    ]
    assert any(line.split() == ["val/accuracy", "0.9833", "0.9722"] for line in shown)
    assert any(line.split() == ["test/accuracy", "0.9611"] for line in shown)
    assert "TensorBoard: tensorboard --logdir outputs" in [line.rstrip() for line in shown]


def test_green_marks_the_best_so_far_only(folder: Path) -> None:
    green = "\x1b[32mval/accuracy: 0.9722\x1b[0m"
    for earlier, marked in ((0.9, True), (0.9833, False)):
        stream = io.StringIO()
        console = Console(None, True, stream=stream, width=80)
        console.start(facts.info(folder))
        records = facts.record(9, earlier), facts.record(10, 0.9722)
        console.record(records[1], max(records, key=lambda record: record["val/accuracy"]))
        console.log(facts.record(10, 0.9722))
        console.close()
        assert (green in stream.getvalue()) == marked


def test_a_resumed_run_knows_the_best_before(folder: Path) -> None:
    stream = io.StringIO()
    console = Console(None, True, stream=stream, width=80)
    console.start(facts.info(folder, first_step=23))
    console.record(facts.record(2), facts.record(1, 0.98))
    console.log(facts.record(2))
    console.close()
    assert "\x1b[32m" not in stream.getvalue()


@pytest.mark.parametrize(
    ("status", "colour"), [("finished", "\x1b[32m"), ("stopped", "\x1b[33m"), ("failed", "\x1b[1;31m")]
)
def test_the_outcome_has_its_colour(folder: Path, status: str, colour: str) -> None:
    stream = io.StringIO()
    whole_run(Console(folder, True, stream=stream, width=80), folder, facts.summary(status, error="no"))
    assert f"{colour}{status.capitalize()}" in stream.getvalue()
    assert ("Resume with" in stream.getvalue()) == (status != "finished")


def test_text_is_shown_as_it_is(folder: Path) -> None:
    stream = io.StringIO()
    console = Console(None, True, stream=stream, width=80)
    console.start(facts.info(folder, rows=[("Model", "fnn [bold] :smile: hidden_sizes=[1, 2]")]))
    console.close()
    assert "fnn [bold] :smile: hidden_sizes=[1, 2]" in stream.getvalue()


def test_a_warning_in_the_header_stands_out(folder: Path) -> None:
    stream = io.StringIO()
    console = Console(None, True, stream=stream, width=80)
    rows = [("Model", "fnn"), ("Warning", "column 'x' is left out")]
    console.start(facts.info(folder, rows=rows))
    console.close()
    yellow = "\x1b[33m"
    assert stream.getvalue().count(yellow) == 2  # label and text
    assert f"{yellow}column 'x' is left out" in stream.getvalue()


def test_a_sign_of_life_after_half_a_minute_of_silence(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [100.0]
    monkeypatch.setattr(console_module.time, "monotonic", lambda: now[0])
    stream = io.StringIO()
    console = Console(folder, False, stream=stream)
    console.start(facts.info(folder))
    for moment in (110, 129, 131, 140, 160, 162, 165):
        now[0] = moment
        if moment == 140:
            console.log(facts.record(1))
        console.progress(life(moment))
    assert [line for line in stream.getvalue().splitlines() if "samples/s" in line] == [
        "Epoch 3, Loss: 0.5000, val/accuracy: 0.9000, step: 131 of 690, 12,000 samples/s"
    ]
    now[0] = 171
    console.progress(life(171))
    assert "step: 171 of 690" in stream.getvalue()
    assert "step: 171 of 690" in (folder / "train.log").read_text()
    console.close()


def test_the_bar_is_gone_at_the_end_and_the_cursor_back(folder: Path) -> None:
    stream = io.StringIO()
    console = Console(None, True, stream=stream, width=100)
    console.start(facts.info(folder))
    console.progress(life(60))
    console.log(facts.record(10))
    console.finish(facts.summary(), folder)
    written = stream.getvalue()
    assert "━" in written
    assert written.rindex("\x1b[?25h") > written.rindex("\x1b[?25l")
    assert "━" not in written[written.rindex("\x1b[2K") :]


class Broken(io.StringIO):
    """A pipe whose reader has gone."""

    def write(self, text: str) -> int:
        raise BrokenPipeError(32, "Broken pipe", text)


def test_training_survives_a_reader_that_leaves(folder: Path) -> None:
    whole_run(Console(folder, False, stream=Broken()), folder)
    assert (folder / "train.log").read_text() == PLAIN


def test_training_survives_a_log_that_cannot_be_written(folder: Path) -> None:
    (folder / "train.log").mkdir(parents=True)
    stream = io.StringIO()
    console = Console(folder, False, stream=stream)
    console.start(facts.info(folder))
    console.log(facts.record(10))
    console.close()
    said = stream.getvalue().splitlines()
    assert (
        said[2]
        == f"Warning: {folder / 'train.log'}: cannot be written: Is a directory. Logging to it stops."
    )
    assert said[3:] == ["Epoch 10, Loss: 0.1234, val/loss: 0.0987, val/accuracy: 0.9722"]


def test_an_encoding_without_our_characters(folder: Path) -> None:
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, encoding="ascii")
    console = Console(None, False, stream=stream)
    console.start(facts.info(folder))
    assert b"Data: digits [8?8] ? 10 classes" in raw.getvalue()


def test_an_svg_of_what_was_shown(folder: Path, tmp_path: Path) -> None:
    console = Console(folder, True, stream=io.StringIO(), width=80, recording=True)
    whole_run(console, folder)
    console.save_svg(tmp_path / "terminal.svg", title="bigmodel-train")
    drawn = (tmp_path / "terminal.svg").read_text().replace("&#160;", " ")
    assert drawn.startswith("<svg")
    assert "Epoch 10, Loss: 0.1234" in drawn


SCRIPT = """
import sys
from bigmodel.reporting.terminal import is_terminal
sys.stderr.write(str(is_terminal(sys.stdout)))
"""


@pytest.fixture
def terminal() -> Callable[[dict[str, str]], str]:
    """Says, with some environment, what a process with a real terminal thinks of it."""

    def ask(environment: dict[str, str]) -> str:
        controller, user = os.openpty()
        try:
            plain = {k: v for k, v in os.environ.items() if k not in {"NO_COLOR", "CI", "TERM"}}
            result = subprocess.run(
                [sys.executable, "-c", SCRIPT],
                stdout=user,
                stderr=subprocess.PIPE,
                env=plain | {"PYTHONIOENCODING": "utf-8", "TERM": "xterm"} | environment,
                text=True,
                check=True,
            )
        finally:
            os.close(controller)
            os.close(user)
        return result.stderr

    return ask


@pytest.mark.skipif(not hasattr(os, "openpty"), reason="needs pseudo-terminals")
@pytest.mark.parametrize(
    ("environment", "answer"),
    [
        ({}, "True"),
        ({"CI": "false", "NO_COLOR": ""}, "True"),
        ({"TERM": "dumb"}, "False"),
        ({"NO_COLOR": "1"}, "True"),
        ({"CI": "true"}, "False"),
        ({"PYTHONIOENCODING": "ascii"}, "False"),
    ],
)
def test_what_counts_as_a_terminal(
    terminal: Callable[[dict[str, str]], str], environment: dict[str, str], answer: str
) -> None:
    assert terminal(environment) == answer


def test_a_file_is_no_terminal(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    console = Console(None)
    console.start(facts.info(folder))
    assert capsys.readouterr().out == "Model: fnn, 9,610 parameters\nData: digits [8×8] → 10 classes\n"


def test_without_a_best_checkpoint_test_figures_belong_to_the_last_weights(folder: Path) -> None:
    stream, summary = io.StringIO(), facts.summary(best={}, monitor="")
    whole_run(Console(folder, True, stream=stream, width=80), folder, summary)
    shown = [line.plain.split() for line in Text.from_ansi(stream.getvalue()).split()]
    assert ["final"] in shown
    assert ["test/accuracy", "0.9611"] in shown
    assert (summary.best, "test/loss" in summary.final) == ({}, False)
