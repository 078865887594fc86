"""Standard streams that are closed, full, or not read by anyone: they end no run, and lost output is
reported."""

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
    ended = streams.call(folder, streams.TRAIN, *words)
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
"""Calls whose output is the result, by name."""

LOST = {">/dev/full": "No space left on device", ">&-": "Bad file descriptor", "| true": None}
"""Redirections that lose the result, and the error."""

ARRIVES = ("2>&-", "2>/dev/full", "<&-")
"""Redirections that do not affect the result."""

SWEEP = ("-m", "seed=1,2", *QUICK)
EXPORT = ("export", "RUN", "--output", "model.onnx")
LEFT_BEHIND = {
    **{("training", by): QUICK for by in streams.REDIRECTIONS},
    **{("sweep", by): SWEEP for by in ("<&- >&- 2>&-", ">/dev/full 2>/dev/full", "| true")},
    **{("failing", by): ("trainer.epochs=0",) for by in ("<&- >&- 2>&-", ">/dev/full", "| true")},
    **{("export", by): EXPORT for by in ("<&- >&- 2>&-", ">/dev/full", "2>/dev/full", "| true")},
}
"""Calls whose result is a file, and how they are redirected."""

Outcomes = dict[tuple[str, str], tuple[Path, streams.Outcome]]


@pytest.fixture(scope="module")
def outcomes(run: Path, tmp_path_factory: pytest.TempPathFactory) -> Outcomes:
    """The outcomes of the calls that need torch, each in a fork of one process."""
    wanted = {
        (what, by): PRINTED[what][1:] for what in ("eval", "json", "predict") for by in (*LOST, *ARRIVES)
    }
    places = {"RUN": str(run), "NEW": str(run.parents[2] / "new.npz")}
    calls = {
        (what, by): streams.Call(
            cwd=str(tmp_path_factory.mktemp(what)),
            program="bigmodel-train" if what in {"training", "sweep", "failing"} else "bigmodel",
            argv=[places.get(word, word) for word in words],
            redirected=by,
        )
        for (what, by), words in (LEFT_BEHIND | wanted).items()
    }
    ended = streams.call_in_forks(list(calls.values()))
    return {key: (Path(call.cwd), how) for (key, call), how in zip(calls.items(), ended, strict=True)}


def outcome_of(outcomes: Outcomes, tmp_path: Path, what: str, redirected: str) -> streams.Outcome:
    """The outcome of a call of `PRINTED`."""
    if (what, redirected) in outcomes:
        return outcomes[what, redirected][1]
    start, *words = PRINTED[what]
    return streams.call(tmp_path, start, *words, redirected=redirected)


# ----- the result is a file -----


@pytest.mark.parametrize("redirected", streams.REDIRECTIONS)
def test_a_run_is_trained_whatever_becomes_of_its_output(outcomes: Outcomes, redirected: str) -> None:
    folder, ended = outcomes["training", redirected]
    assert streams.faults_of(folder, ended, redirected) == []


def test_so_is_one_whose_interpreter_starts_without_streams(tmp_path: Path) -> None:
    assert streams.train(tmp_path / "run", "<&- >&- 2>&-") == []


@pytest.mark.parametrize("redirected", [by for what, by in LEFT_BEHIND if what == "sweep"])
def test_a_sweep_too(outcomes: Outcomes, redirected: str) -> None:
    folder, ended = outcomes["sweep", redirected]
    assert (ended.status, ended.err) == (0, "")
    (table,) = folder.glob("outputs/multirun/*/*/leaderboard.csv")
    assert table.read_text().count("finished") == 2


@pytest.mark.parametrize("redirected", [by for what, by in LEFT_BEHIND if what == "export"])
def test_an_export_too(outcomes: Outcomes, redirected: str) -> None:
    folder, ended = outcomes["export", redirected]
    assert ended.status == 0, ended.err
    assert "bigmodel:" not in ended.err  # it tells there what the model reads and gives
    assert "Traceback" not in ended.err
    assert (folder / "model.onnx").stat().st_size > 0


@pytest.mark.parametrize("redirected", [by for what, by in LEFT_BEHIND if what == "failing"])
def test_a_failing_run_says_so_by_its_status(outcomes: Outcomes, redirected: str) -> None:
    _, ended = outcomes["failing", redirected]
    assert ended.status == 1
    assert len(ended.err.splitlines()) == (0 if "2>" in redirected else 1)


def test_files_of_a_run_never_get_the_numbers_of_closed_streams(tmp_path: Path) -> None:
    code = (
        "import os\nfrom bigmodel.runtime import standard_streams\nstandard_streams.make_safe()\n"
        "file = open('checkpoint', 'wb')\nfile.write(b'weights')\nfile.flush()\n"
        "print('figures', flush=True)\nos.write(1, b'from C')\nos.write(2, b'a warning')\n"
        "assert os.read(0, 1) == b''\nassert file.fileno() > 2\n"
    )
    ended = streams.call(tmp_path, ("-c", code), redirected="<&- >&- 2>&-")
    assert ended.status == 0
    assert (tmp_path / "checkpoint").read_text() == "weights"


# ----- the result is the output -----


@pytest.mark.parametrize("what", PRINTED)
@pytest.mark.parametrize("redirected", LOST)
def test_a_result_that_is_lost_is_told(
    outcomes: Outcomes, tmp_path: Path, what: str, redirected: str
) -> None:
    """If the reader is gone, it ends as `cat` does."""
    ended = outcome_of(outcomes, tmp_path, what, redirected)
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
    outcomes: Outcomes, tmp_path: Path, what: str, redirected: str
) -> None:
    ended = outcome_of(outcomes, tmp_path, what, redirected)
    assert (ended.status, ended.out == "", ended.err) == (0, False, "")


def test_a_copy_ends_as_a_process_of_its_own(outcomes: Outcomes, run: Path, tmp_path: Path) -> None:
    own = streams.call(tmp_path, streams.USE, "eval", str(run), "--json", redirected=">&-")
    assert outcomes["json", ">&-"][1] == own


@pytest.mark.parametrize("start", [(), ("-u",)], ids=["buffered", "unbuffered"])
def test_the_head_of_a_long_page_is_all_that_is_read(tmp_path: Path, start: tuple[str, ...]) -> None:
    ended = streams.call(tmp_path, (*start, *streams.TRAIN), "--info", redirected="| head -1")
    assert (ended.err, len(ended.out.splitlines())) == ("", 1)


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_a_stream_that_does_not_block_is_waited_for(tmp_path: Path, unbuffered: str) -> None:
    """Another program may have set the pipe or terminal so; then it takes only part of a large write."""
    code = "from bigmodel.runtime.standard_streams import make_safe; make_safe(); print('x' * 1_000_000)"
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
        "import json, sys\nfrom bigmodel.runtime import standard_streams\n"
        "def facts(s): return [s.isatty(), s.encoding, s.errors, s.fileno(), s.line_buffering]\n"
        "before = [facts(sys.stdout), facts(sys.stderr)]\nstandard_streams.make_safe()\n"
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
