"""Control characters are shown, not sent: one text that holds all kinds of them, at every sink."""

from __future__ import annotations

import io
import logging
import re
import sys
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from bigmodel.cli.commands import output_files
from bigmodel.cli.launch.help import help_text
from bigmodel.models.summary import Layer
from bigmodel.reporting import pictures, tensorboard_texts
from bigmodel.reporting.base import GeneratedText, PredictedSample
from bigmodel.reporting.console import Console
from bigmodel.reporting.leaderboard import print_leaderboard
from bigmodel.reporting.metrics_table import print_metrics
from bigmodel.reporting.terminal import rich_console
from bigmodel.runtime.escaping import escape, escape_library_output, escape_line, escape_message
from bigmodel.sweeps.leaderboard import JobResult, rank
from tests.reporting import facts

NASTY = "a\x1b]0;title\x07\x1b[2J\x9b31m\x85\b\u202e\u2066\u2028\r\x7f\nFORGED"
OBEYED = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
OURS = re.compile(r"\x1b\[[0-9;]*m")
"""Colours, which a terminal is sent on purpose."""


def check(text: str, *, coloured: bool = False) -> None:
    """Nothing in it is obeyed, and no name has made a line of its own."""
    told = OURS.sub("", text) if coloured else text
    assert not OBEYED.search(told), repr(told)
    assert "\nFORGED" not in told
    assert r"\x1b" in re.sub(r"\s|│", "", told)


def test_what_is_shown() -> None:
    assert escape("a\x1b[31m\x9b\x07\u202e\udcff") == r"a\x1b[31m\x9b\x07\u202e\udcff"
    assert escape("two\nlines, a\ttab, größe 猫 👩\u200d🔬 عربي") == (
        "two\nlines, a\ttab, größe 猫 👩\u200d🔬 عربي"
    )
    assert escape_line("two\nlines\t") == r"two\nlines\t"
    assert escape_message("one\ntwo\n  three\n\nfour") == "one\n  two\n  three\n\n  four"
    check(escape(escape_message(NASTY)))


@pytest.mark.parametrize("terminal", [True, False])
def test_the_console_and_its_log(tmp_path: Path, terminal: bool) -> None:
    stream, folder = io.StringIO(), tmp_path / "run"
    console = Console(folder, terminal, stream=stream, width=200, recording=terminal)
    rows = [("Data", f"classes {NASTY}"), (NASTY, "label")]
    console.start(facts.info(folder / NASTY, rows=rows, title=f"fnn on {NASTY}"))
    console.message(f"Left out: {NASTY}", "warning")
    console.finish(facts.summary("failed", error=f"{NASTY}: is no number."), folder / NASTY)
    console.close()
    check(stream.getvalue(), coloured=terminal)
    check((folder / "train.log").read_text())


def test_whatever_rich_is_given() -> None:
    stream = io.StringIO()
    rich_console(stream, width=200).print(f"{NASTY} [red]".replace("\n", ""), style="good")
    check(stream.getvalue(), coloured=True)
    assert "\x1b[32m" in stream.getvalue(), "our own colours stay"


@pytest.mark.parametrize("terminal", [True, False])
def test_tables(terminal: bool) -> None:
    stream = io.StringIO()
    nasty, known = {"data.path": NASTY, NASTY: "1"}, {"monitor": NASTY, "mode": "max"}
    results = [
        JobResult("0", nasty, "finished", None, f"runs/{NASTY}", best={NASTY: 0.5}, **known),
        JobResult("1", {"data.path": "b"}, "failed", f"{NASTY}: is no file.", "runs/1"),
        *(JobResult(s, nasty | {"seed": s}, "finished", best={NASTY: 0.4}, **known) for s in "23"),
    ]
    print_leaderboard(rank(results), stream=stream, terminal=terminal, width=400)
    check(stream.getvalue(), coloured=terminal)
    lines = [line for line in stream.getvalue().splitlines() if "0.5000" in line]
    assert len(lines) == 2, "a row stays one: that of the job, and that of its group"
    stream = io.StringIO()
    metrics = {NASTY: 0.5}
    print_metrics(NASTY, [("Data", NASTY)], metrics, stream=stream, terminal=terminal, width=400)
    check(stream.getvalue(), coloured=terminal)


def test_help_tells_of_a_user_s_own_files(tmp_path: Path) -> None:
    (tmp_path / "own" / "model").mkdir(parents=True)
    name = NASTY.replace("\n", "")
    text = f"# Mine {name}\nname: fnn\nhidden_sizes: [1]  # sizes {name}\n"
    (tmp_path / "own" / "model" / "mine\x1b[31m.yaml").write_text(text)
    configs = Path(__file__).parents[2] / "configs"
    for bold in (True, False):
        page = help_text(configs, ["--config-dir", str(tmp_path / "own")], bold=bold)
        check(page, coloured=bold)


MARKUP = "![i](http://x/y.png) [l](http://x) <img src=z> <b>*b*</b> `c` &amp; a|b | c\\|d _e_"


@pytest.mark.parametrize(
    "make",
    [
        lambda text: tensorboard_texts.run_table(
            facts.info(Path("run"), rows=[("Data", text)], title=text)
        ),
        lambda text: tensorboard_texts.model_table([Layer(text, text, text, 1)]),
        lambda text: tensorboard_texts.sample_table([PredictedSample(text, text, text, True)]),
        lambda text: tensorboard_texts.generated_table([GeneratedText(text, text, text)]),
        lambda text: tensorboard_texts.generated_table(
            [GeneratedText(f"{text}\n```\n{text}", text, text)]
        ),
        lambda text: tensorboard_texts.config_block({"data": {"path": f"{text}\n```\n{text}"}}),
    ],
    ids=["run", "model", "samples", "written", "written lines", "config"],
)
def test_markup_in_tensorboard_s_texts(make: Callable[[str], str]) -> None:
    from bigmodel.reporting.tensorboard_events import text

    (stored,) = text("samples", make(f"{MARKUP} {NASTY}")).tensor.string_val
    assert not OBEYED.search(stored.decode())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of a library within TensorBoard
        from tensorboard.plugin_util import markdown_to_safe_html  # type: ignore[import-untyped]

    page = markdown_to_safe_html(stored.decode())
    for tag in ("<img", "<a", "<b>", "<em", "<strong>b", "</code> &"):
        assert tag not in page, page
    assert "a|b" in page
    rows = [row.count("<td") for row in page.split("<tr>")[2:]]
    assert len(set(rows)) <= 1, "no name adds a cell"


def test_hyperparameters_and_pictures() -> None:
    from bigmodel.reporting.tensorboard_events import session_start

    assert not OBEYED.search(str(session_start({f"data.{NASTY}": NASTY}).metadata.plugin_data.content))
    pictures.confusion_matrix(torch.eye(2), [NASTY, "b"])
    pictures.sample_grid([PredictedSample(torch.rand(1, 8, 8), NASTY, NASTY, False)])


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(("stream", "raw"), [(Terminal(), False), (io.StringIO(), True)])
def test_predictions_are_shown_on_a_terminal_and_sent_through_a_pipe(
    monkeypatch: pytest.MonkeyPatch, stream: io.StringIO, raw: bool
) -> None:
    monkeypatch.setattr(sys, "stdout", stream)
    output_files.write_columns({"name": [NASTY], "class": ["a"]}, None)
    output_files.write_lines([NASTY], None)
    assert bool(OBEYED.search(stream.getvalue())) == raw
    assert (NASTY in stream.getvalue()) == raw


def test_what_libraries_tell(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)
    monkeypatch.setattr(warnings, "formatwarning", warnings.formatwarning)
    before = logging.getLogRecordFactory()
    try:
        escape_library_output()
        record = logging.getLogger("other").makeRecord(
            "other", logging.INFO, "f", 1, "#%d : %s", (0, NASTY), None
        )
        check(logging.Formatter("%(message)s").format(record).replace("\n", ""))
        check(warnings.formatwarning(NASTY, UserWarning, "f.py", 1).replace("\n", ""))
        error = ValueError(NASTY)
        sys.excepthook(ValueError, error, None)
        check(capsys.readouterr().err.replace("\n", ""))
    finally:
        logging.setLogRecordFactory(before)
