"""Standard streams that are closed, full, or that nobody reads: no run ends for them, and what is lost
of a result is told."""

import json
import os
import pty
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.faults import streams, trials

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="/dev/full, and a shell as POSIX has it")

QUICK = streams.QUICK


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("made")
    words = ("trainer.max_steps=2", "device=cpu", "device.threads=1", "trainer.tensorboard=false")
    ended = streams.called(folder, streams.TRAIN, *words)
    assert ended.status == 0, ended.err
    made = trials.run_folder(folder)
    assert made is not None
    np.savez(folder / "new.npz", inputs=np.zeros((4, 1, 8, 8), np.float32))
    return made


PRINTED = {
    "help": (streams.TRAIN, "--help"),
    "cfg": (streams.TRAIN, "--cfg", "job"),
    "info": (streams.TRAIN, "--info", "config"),
    "usage": (streams.USE, "predict", "--help"),
    "eval": (streams.USE, "eval", "RUN"),
    "json": (streams.USE, "eval", "RUN", "--json"),
    "predict": (streams.USE, "predict", "RUN", "--input", "NEW", "--output", "-"),
}
"""What is printed is the work: what is called, by a name."""

LOST = {">/dev/full": "No space left on device", ">&-": "Bad file descriptor", "| true": None}
"""Redirections that a result is lost by, and why."""

ARRIVES = ("2>&-", "2>/dev/full", "<&-")
"""Redirections that leave the result alone."""

SWEEP = ("-m", "seed=1,2", *QUICK)
EXPORT = ("export", "RUN", "--output", "model.onnx")
LEFT_BEHIND = {
    **{("sweep", by): SWEEP for by in ("<&- >&- 2>&-", ">/dev/full 2>/dev/full", "| true")},
    **{("failing", by): ("trainer.epochs=0",) for by in ("<&- >&- 2>&-", ">/dev/full", "| true")},
    **{("export", by): EXPORT for by in ("<&- >&- 2>&-", ">/dev/full", "2>/dev/full", "| true")},
}
"""What is left behind is the work: what is called, and how it is redirected."""

Copies = dict[tuple[str, str], tuple[Path, streams.Ended]]


@pytest.fixture(scope="module")
def copies(run: Path, tmp_path_factory: pytest.TempPathFactory) -> Copies:
    """How calls that need torch ended, by what is called and redirected: copies of one process."""
    wanted = {
        (what, by): PRINTED[what][1:] for what in ("eval", "json", "predict") for by in (*LOST, *ARRIVES)
    }
    places = {"RUN": str(run), "NEW": str(run.parents[2] / "new.npz")}
    calls = {
        (what, by): streams.Call(
            cwd=str(tmp_path_factory.mktemp(what)),
            program="bigmodel-train" if what in {"sweep", "failing"} else "bigmodel",
            argv=[places.get(word, word) for word in words],
            redirected=by,
        )
        for (what, by), words in (LEFT_BEHIND | wanted).items()
    }
    ended = streams.called_in_copies(list(calls.values()))
    return {key: (Path(call.cwd), how) for (key, call), how in zip(calls.items(), ended, strict=True)}


def printing(copies: Copies, tmp_path: Path, what: str, redirected: str) -> streams.Ended:
    """How a call of `PRINTED` ended."""
    if (what, redirected) in copies:
        return copies[what, redirected][1]
    start, *words = PRINTED[what]
    return streams.called(tmp_path, start, *words, redirected=redirected)


# ----- the work is what is left behind -----


@pytest.mark.parametrize("redirected", streams.REDIRECTIONS)
def test_a_run_is_trained_whatever_becomes_of_its_output(tmp_path: Path, redirected: str) -> None:
    assert streams.train(tmp_path / "run", redirected) == []


@pytest.mark.parametrize("redirected", [by for what, by in LEFT_BEHIND if what == "sweep"])
def test_a_sweep_too(copies: Copies, redirected: str) -> None:
    folder, ended = copies["sweep", redirected]
    assert (ended.status, ended.err) == (0, "")
    (table,) = folder.glob("outputs/multirun/*/*/leaderboard.csv")
    assert table.read_text().count("finished") == 2


@pytest.mark.parametrize("redirected", [by for what, by in LEFT_BEHIND if what == "export"])
def test_an_export_too(copies: Copies, redirected: str) -> None:
    folder, ended = copies["export", redirected]
    assert ended.status == 0, ended.err
    assert "bigmodel:" not in ended.err  # it tells there what the model reads and gives
    assert "Traceback" not in ended.err
    assert (folder / "model.onnx").stat().st_size > 0


@pytest.mark.parametrize("redirected", [by for what, by in LEFT_BEHIND if what == "failing"])
def test_a_failing_run_says_so_by_its_status(copies: Copies, redirected: str) -> None:
    _, ended = copies["failing", redirected]
    assert ended.status == 1
    assert len(ended.err.splitlines()) == (0 if "2>" in redirected else 1)


def test_files_of_a_run_never_get_the_numbers_of_closed_streams(tmp_path: Path) -> None:
    code = (
        "import os\nfrom bigmodel.runtime import streams\nstreams.make_safe()\n"
        "file = open('checkpoint', 'wb')\nfile.write(b'weights')\nfile.flush()\n"
        "print('figures', flush=True)\nos.write(1, b'from C')\nos.write(2, b'a warning')\n"
        "assert os.read(0, 1) == b''\nassert file.fileno() > 2\n"
    )
    ended = streams.called(tmp_path, ("-c", code), redirected="<&- >&- 2>&-")
    assert ended.status == 0
    assert (tmp_path / "checkpoint").read_text() == "weights"


# ----- what is printed is the work -----


@pytest.mark.parametrize("what", PRINTED)
@pytest.mark.parametrize("redirected", LOST)
def test_a_result_that_is_lost_is_told(
    copies: Copies, tmp_path: Path, what: str, redirected: str
) -> None:
    """Where its reader has just gone, it ends as `cat` does."""
    ended = printing(copies, tmp_path, what, redirected)
    told = [line for line in ended.err.splitlines() if "cannot be written" in line]
    why = LOST[redirected]
    if why is None:
        assert (ended.status, ended.err) == (141, "")
    else:
        program = "bigmodel-train" if PRINTED[what][0] is streams.TRAIN else "bigmodel"
        assert ended.status == 1
        assert told == [f"{program}: The output cannot be written: {why}."]
        assert "Traceback" not in ended.err


@pytest.mark.parametrize("redirected", ARRIVES)
@pytest.mark.parametrize("what", ["help", "cfg", "json", "predict"])
def test_a_result_that_arrives_is_all_that_counts(
    copies: Copies, tmp_path: Path, what: str, redirected: str
) -> None:
    ended = printing(copies, tmp_path, what, redirected)
    assert (ended.status, ended.out == "", ended.err) == (0, False, "")


def test_a_copy_ends_as_a_process_of_its_own(copies: Copies, run: Path, tmp_path: Path) -> None:
    own = streams.called(tmp_path, streams.USE, "eval", str(run), "--json", redirected=">&-")
    assert copies["json", ">&-"][1] == own


@pytest.mark.parametrize("start", [(), ("-u",)], ids=["buffered", "unbuffered"])
def test_the_head_of_a_long_page_is_all_that_is_read(tmp_path: Path, start: tuple[str, ...]) -> None:
    ended = streams.called(tmp_path, (*start, *streams.TRAIN), "--info", redirected="| head -1")
    assert (ended.err, len(ended.out.splitlines())) == ("", 1)


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_a_stream_that_does_not_block_is_waited_for(tmp_path: Path, unbuffered: str) -> None:
    """Others may have set a pipe or terminal so; then more than it holds cannot be written at once."""
    code = "from bigmodel.runtime import streams; streams.make_safe(); print('x' * 1_000_000)"
    read, write = os.pipe()
    os.set_blocking(write, False)
    environment = os.environ | {"PYTHONUNBUFFERED": unbuffered}
    process = subprocess.Popen([sys.executable, "-c", code], cwd=tmp_path, stdout=write, env=environment)
    os.close(write)
    with os.fdopen(read) as file:
        assert len(file.read()) == 1_000_001
    assert process.wait(trials.TIMEOUT) == 0


def test_a_stream_stays_what_it_was(tmp_path: Path) -> None:
    code = (
        "import json, sys\nfrom bigmodel.runtime import streams\n"
        "def facts(s): return [s.isatty(), s.encoding, s.errors, s.fileno(), s.line_buffering]\n"
        "before = [facts(sys.stdout), facts(sys.stderr)]\nstreams.make_safe()\n"
        "print(json.dumps([before, [facts(sys.stdout), facts(sys.stderr)]]))\n"
    )
    ours, its = pty.openpty()
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, stdout=its, stderr=its, check=True)
    assert done.returncode == 0
    before, after = json.loads(os.read(ours, 4096))
    os.close(ours)
    os.close(its)
    assert before[0][0]
    assert after == before
