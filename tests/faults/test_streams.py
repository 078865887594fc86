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

from bigmodel.checkpointing import checkpoint
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


# ----- the work is what is left behind -----


@pytest.mark.parametrize("redirected", streams.REDIRECTIONS)
def test_a_run_is_trained_whatever_becomes_of_its_output(tmp_path: Path, redirected: str) -> None:
    assert streams.train(tmp_path / "run", redirected) == []


@pytest.mark.parametrize("redirected", ["<&- >&- 2>&-", ">/dev/full 2>/dev/full", "| true"])
def test_a_sweep_too(tmp_path: Path, redirected: str) -> None:
    ended = streams.called(tmp_path, streams.TRAIN, "-m", "seed=1,2", *QUICK, redirected=redirected)
    assert (ended.status, ended.err) == (0, "")
    (table,) = tmp_path.glob("outputs/multirun/*/*/leaderboard.csv")
    assert table.read_text().count("finished") == 2


@pytest.mark.parametrize("redirected", ["<&- >&- 2>&-", ">/dev/full", "2>/dev/full", "| true"])
def test_an_export_too(tmp_path: Path, run: Path, redirected: str) -> None:
    words = ("export", str(run), "--output", str(tmp_path / "model.onnx"))
    ended = streams.called(tmp_path, streams.USE, *words, redirected=redirected)
    assert ended.status == 0, ended.err
    assert "bigmodel:" not in ended.err  # it tells there what the model reads and gives
    assert "Traceback" not in ended.err
    assert (tmp_path / "model.onnx").stat().st_size > 0


@pytest.mark.parametrize("redirected", ["<&- >&- 2>&-", ">/dev/full", "| true"])
def test_a_failing_run_says_so_by_its_status(tmp_path: Path, redirected: str) -> None:
    ended = streams.called(tmp_path, streams.TRAIN, "trainer.epochs=0", redirected=redirected)
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

PRINTED = {
    "help": (streams.TRAIN, "--help"),
    "cfg": (streams.TRAIN, "--cfg", "job"),
    "info": (streams.TRAIN, "--info", "config"),
    "usage": (streams.USE, "predict", "--help"),
    "eval": (streams.USE, "eval", "RUN"),
    "json": (streams.USE, "eval", "RUN", "--json"),
    "predict": (streams.USE, "predict", "RUN", "--input", "NEW", "--output", "-"),
}


@pytest.mark.parametrize("what", PRINTED)
@pytest.mark.parametrize(
    ("redirected", "why"),
    [(">/dev/full", "No space left on device"), (">&-", "Bad file descriptor"), ("| true", None)],
)
def test_a_result_that_is_lost_is_told(
    tmp_path: Path, run: Path, what: str, redirected: str, why: str | None
) -> None:
    """Where its reader has just gone, it ends as `cat` does."""
    start, *words = PRINTED[what]
    places = {"RUN": str(run), "NEW": str(run.parents[2] / "new.npz")}
    argv = [places.get(word, word) for word in words]
    ended = streams.called(tmp_path, start, *argv, redirected=redirected)
    told = [line for line in ended.err.splitlines() if "cannot be written" in line]
    if why is None:
        assert (ended.status, ended.err) == (141, "")
    else:
        program = "bigmodel-train" if start is streams.TRAIN else "bigmodel"
        assert ended.status == 1
        assert told == [f"{program}: The output cannot be written: {why}."]
        assert "Traceback" not in ended.err


@pytest.mark.parametrize("redirected", ["2>&-", "2>/dev/full", "<&-"])
@pytest.mark.parametrize("what", ["help", "cfg", "json", "predict"])
def test_a_result_that_arrives_is_all_that_counts(
    tmp_path: Path, run: Path, what: str, redirected: str
) -> None:
    start, *words = PRINTED[what]
    places = {"RUN": str(run), "NEW": str(run.parents[2] / "new.npz")}
    argv = [places.get(word, word) for word in words]
    ended = streams.called(tmp_path, start, *argv, redirected=redirected)
    assert (ended.status, ended.out == "", ended.err) == (0, False, "")


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
    assert process.wait(trials.HANGS) == 0


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


def test_a_checkpoint_made_with_closed_streams_is_whole(tmp_path: Path) -> None:
    assert streams.train(tmp_path / "run", "<&- >&- 2>&-") == []
    folder = trials.run_folder(tmp_path / "run")
    assert folder is not None
    assert checkpoint.load(folder / "checkpoints" / "last")
