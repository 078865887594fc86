import io
import re
from pathlib import Path

import pytest
from rich.text import Text

from bigmodel.reporting.base import ProgressReport
from bigmodel.reporting.progress_bar import Bar
from bigmodel.reporting.terminal import rich_console
from tests.reporting import facts


def shown(bar: Bar, width: int) -> str:
    stream = io.StringIO()
    rich_console(stream, width=width).print(bar)
    return Text.from_ansi(stream.getvalue()).plain.rstrip("\n")


@pytest.fixture
def bar(tmp_path: Path) -> Bar:
    """A bar after 10 seconds and a tenth of the run."""
    now = iter([0.0, 10.0, *[12.0] * 9])
    bar = Bar(facts.info(tmp_path), lambda: next(now))
    bar.update(ProgressReport(epoch=4, step=69, loss=0.12341, metric=0.9722, samples_per_second=12345.6))
    return bar


@pytest.mark.parametrize(
    ("width", "facts_shown"),
    [
        (200, "  loss 0.1234  val/accuracy 0.9722  12,346 samples/s  1:28 left"),
        (80, "  loss 0.1234  val/accuracy 0.9722  12,346/s  1:28 left"),
        (60, "  loss 0.1234  1:28 left"),
        (34, "  1:28 left"),
    ],
)
def test_what_does_not_fit_is_left_out(bar: Bar, width: int, facts_shown: str) -> None:
    line = shown(bar, width)
    assert line.startswith("epoch 4/30 ━")
    assert line.endswith(facts_shown)
    assert len(line) <= width
    assert "\n" not in line


@pytest.mark.parametrize(
    ("width", "facts_shown"),
    [
        (200, "  val/accuracy 0.9722  1,234,560 tokens/s  MFU 41 %  12.3 GiB  1:28 left"),
        (103, "  val/accuracy 0.9722  1,234,560 tok/s  MFU 41 %  12.3 GiB  1:28 left"),
        (97, "  val/accuracy 0.9722  1,234,560 tok/s  MFU 41 %  1:28 left"),
        (88, "  val/accuracy 0.9722  1,234,560 tok/s  1:28 left"),
    ],
)
def test_a_gpus_share_and_memory_go_first(tmp_path: Path, width: int, facts_shown: str) -> None:
    now = iter([0.0, 10.0, *[12.0] * 9])
    bar = Bar(facts.info(tmp_path), lambda: next(now))
    speeds = {"tokens_per_second": 1234560.0, "mfu": 0.412, "memory_gib": 12.34}
    figures = {"loss": 0.1234, "metric": 0.9722, "samples_per_second": 12345.6}
    bar.update(ProgressReport(epoch=4, step=69, **figures, **speeds))
    line = shown(bar, width)
    assert line.endswith(facts_shown)
    assert len(line) <= width


def test_the_bar_is_as_long_as_the_part_done(bar: Bar) -> None:
    stream = io.StringIO()
    rich_console(stream, width=200).print(bar)
    done = re.findall("\x1b\\[36m(━+)", stream.getvalue())
    assert len("".join(done)) == 4  # a tenth of 40 columns


def test_before_the_first_step(tmp_path: Path) -> None:
    assert shown(Bar(facts.info(tmp_path)), 80).startswith("starting ━")


def test_a_resumed_run_judges_by_its_own_steps(tmp_path: Path) -> None:
    now = iter([0.0, 10.0, 10.0, 10.0])
    bar = Bar(facts.info(tmp_path, first_step=590), lambda: next(now))
    bar.update(ProgressReport(epoch=27, step=600, loss=None, metric=None, samples_per_second=0))
    assert shown(bar, 80).endswith("━  1:30 left")
