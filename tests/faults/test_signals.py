"""SIGTERM and SIGINT save and leave, SIGUSR1 saves and goes on, whatever the run is doing."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.faults import interruptions, trials

pytestmark = pytest.mark.skipif(not hasattr(signal, "SIGUSR1"), reason="signals as POSIX has them")


STOPS = pytest.mark.parametrize("number", list(interruptions.STATUS), ids=lambda n: n.name)


@STOPS
@pytest.mark.parametrize("phase", ["training", "evaluation", "saving"])
def test_a_stop_saves_and_the_run_goes_on(
    tmp_path: Path, expected: str, number: signal.Signals, phase: str
) -> None:
    assert interruptions.interrupt(tmp_path / "run", expected, number, phase) == []


@pytest.mark.parametrize("phase", ["training", "evaluation"])
def test_sigusr1_saves_and_goes_on(tmp_path: Path, expected: str, phase: str) -> None:
    assert interruptions.interrupt(tmp_path / "run", expected, signal.SIGUSR1, phase) == []


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=lambda n: n.name)
def test_a_second_stop_leaves_at_once(tmp_path: Path, number: signal.Signals) -> None:
    assert interruptions.leave_at_once(tmp_path / "run", number) == []


@pytest.mark.parametrize("ignored", [False, True], ids=["closed", "nohup"])
def test_a_terminal_that_is_closed(tmp_path: Path, expected: str, ignored: bool) -> None:
    assert interruptions.hang_up(tmp_path / "run", expected, ignored=ignored) == []


# ----- a signal at a chosen state of the process -----


@dataclass
class Ended:
    """How a process ended: its status, as a shell has it, its output, and what it left in its folder."""

    status: int
    printed: str
    left: list[str]


AS_MODULE = ("-m", "bigmodel.cli.train")
AS_SCRIPT = (
    "-c",
    "import sys; from bigmodel.cli.entry import bigmodel_train; sys.exit(bigmodel_train())",
)
EVAL = ("-c", "import sys; from bigmodel.cli.entry import bigmodel; sys.exit(bigmodel())")
Struck = dict[tuple[str, signal.Signals], Ended]


def started(
    cwd: Path, start: tuple[str, ...], plan: dict[str, Any], *argv: str
) -> subprocess.CompletedProcess[str]:
    """A process that strikes itself by a plan; see `strike/sitecustomize.py`."""
    path = os.pathsep.join([str(Path(__file__).with_name("strike")), *sys.path])
    more = {"STRIKE": json.dumps(plan), "PYTHONPATH": path, "NO_COLOR": "1"}
    return subprocess.run(
        [sys.executable, *start, *argv], cwd=cwd, env=os.environ | more, stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT, text=True, timeout=trials.TIMEOUT, check=False,
    )  # fmt: skip


def shell_status(status: int) -> int:
    return 128 - status if status < 0 else status


def struck(
    cwd: Path,
    start: tuple[str, ...],
    at: str,
    numbers: Sequence[signal.Signals],
    *argv: str,
    ignored: bool = False,
) -> Ended:
    """A process that sends itself signals when it is `at` a state."""
    plan = {"states": [at], "numbers": numbers, "ignored": ignored, "results": None}
    done = started(cwd, start, plan, *argv)
    assert (cwd / "struck").exists(), done.stdout  # or nothing was tried
    (cwd / "struck").unlink()
    return Ended(shell_status(done.returncode), done.stdout, [path.name for path in cwd.iterdir()])


def struck_at_each(
    folder: Path,
    start: tuple[str, ...],
    states: Sequence[str],
    numbers: Sequence[signal.Signals],
    *argv: str,
) -> Struck:
    """What becomes of a process that is sent each of the signals at each of the states; its copies are,
    made when it is there."""
    (cwd := folder / "cwd").mkdir()
    results = folder / "results"
    plan = {"states": states, "numbers": numbers, "ignored": False, "results": str(results)}
    done = started(cwd, start, plan, *argv)
    assert done.returncode == 0, done.stdout
    found: Struck = {}
    for line in results.read_text().splitlines():
        state, number, status, *left = line.split("\t")
        printed = Path(f"{results}.{states.index(state)}.{number}").read_text()
        key = state, signal.Signals(int(number))
        found[key] = Ended(shell_status(int(status)), printed, left)
    assert found.keys() == {(state, number) for state in states for number in numbers}, done.stdout
    return found


LOADING = (
    *(
        "bigmodel.runtime.standard_streams",
        "bigmodel.runtime.signals",
        "bigmodel.cli.train",
        "difflib",
        "hydra",
        "antlr4",
    ),
    *(
        "omegaconf",
        "torch",
        "torch._C",
        "torch.nn.modules",
        "numpy",
        "bigmodel.build.new_run",
        "pydantic",
    ),
)
"""What is imported one after the other, until the data is read."""


@pytest.fixture(scope="module")
def while_loading(tmp_path_factory: pytest.TempPathFactory) -> Struck:
    states = [f"import {module}" for module in LOADING]
    folder = tmp_path_factory.mktemp("loading")
    return struck_at_each(folder, AS_SCRIPT, states, [signal.SIGINT], "device=cpu")


@pytest.mark.parametrize("module", LOADING)
def test_ctrl_c_while_something_is_imported_is_one_line(while_loading: Struck, module: str) -> None:
    ended = while_loading[f"import {module}", signal.SIGINT]
    assert (ended.status, ended.printed) == (130, "bigmodel-train: Stopped.\n")
    assert ended.left == []


BEFORE_TRAINING = (
    "import hydra",
    "call hydra._internal.config_loader_impl:ConfigLoaderImpl.load_configuration",
    "import torch.nn",
    "import pyarrow.lib",
    "import pyarrow.compute",
    "call bigmodel.data.sources.table:split_samples",
    "call bigmodel.build.new_run:build_run",
    "drop bigmodel.build.new_run:build_run",
)


@pytest.fixture(scope="module")
def before_training(tmp_path_factory: pytest.TempPathFactory) -> Struck:
    folder = tmp_path_factory.mktemp("before")
    rows = "".join(f"{n % 7},{n % 2}\n" for n in range(60))
    (folder / "t.csv").write_text(f"a,y\n{rows}")
    words = ("data=table", "data.path=../t.csv", "data.target=y", "device=cpu")
    return struck_at_each(folder, AS_MODULE, BEFORE_TRAINING, list(interruptions.STATUS), *words)


@STOPS
@pytest.mark.parametrize("state", BEFORE_TRAINING)
def test_a_stop_before_training_leaves_one_line_and_nothing_else(
    before_training: Struck, state: str, number: signal.Signals
) -> None:
    ended = before_training[state, number]
    assert (ended.status, ended.printed) == (128 + number, "bigmodel-train: Stopped.\n")
    assert ended.left == []


@STOPS
def test_a_stop_at_the_first_step_saves_it(tmp_path: Path, number: signal.Signals) -> None:
    at = "call bigmodel.engine.step:Step.__call__"
    ended = struck(tmp_path, AS_MODULE, at, [number], "device=cpu")
    assert ended.status == 128 + number
    assert "Traceback" not in ended.printed
    assert "bigmodel-train: Stopped. Resume with resume=" in ended.printed
    assert trials.last_saved_step(tmp_path) == 1


QUICK = ("debug=fast", "device=cpu", "trainer.tensorboard=false")
AT_THE_END = ("end threads", "end exit", "end last exit", "end modules")


@pytest.fixture(scope="module")
def at_the_end(tmp_path_factory: pytest.TempPathFactory) -> Struck:
    numbers = [*interruptions.STATUS, signal.SIGUSR1]
    return struck_at_each(tmp_path_factory.mktemp("end"), AS_MODULE, AT_THE_END, numbers, *QUICK)


@pytest.mark.parametrize("number", [*interruptions.STATUS, signal.SIGUSR1], ids=lambda n: n.name)
@pytest.mark.parametrize("state", AT_THE_END)
def test_what_comes_after_all_is_done_changes_nothing(
    at_the_end: Struck, state: str, number: signal.Signals
) -> None:
    ended = at_the_end[state, number]
    assert ended.status == 0, ended.printed
    assert "Traceback" not in ended.printed
    assert "Exception ignored" not in ended.printed


def test_a_request_to_save_while_loading_is_no_end(tmp_path: Path) -> None:
    several = ("trainer.epochs=1", "device=cpu", "trainer.tensorboard=false")  # steps
    ended = struck(tmp_path, AS_MODULE, "import torch.nn", [signal.SIGUSR1], *several)
    assert ended.status == 0, ended.printed
    assert "as a signal requested" in ended.printed


OF_EVAL = ("import bigmodel.cli.commands.arguments", "import torch.nn")


@pytest.fixture(scope="module")
def in_eval(tmp_path_factory: pytest.TempPathFactory) -> Struck:
    folder, numbers = tmp_path_factory.mktemp("eval"), list(interruptions.STATUS)
    return struck_at_each(folder, EVAL, OF_EVAL, numbers, "eval", "nothing")


@STOPS
@pytest.mark.parametrize("state", OF_EVAL)
def test_the_other_program_ends_in_a_line_too(
    in_eval: Struck, state: str, number: signal.Signals
) -> None:
    ended = in_eval[state, number]
    assert (ended.status, ended.printed) == (128 + number, "bigmodel: Stopped.\n")


def test_what_is_ignored_at_the_start_stays_ignored(tmp_path: Path) -> None:
    at = "call bigmodel.engine.step:Step.__call__"
    ended = struck(tmp_path, AS_MODULE, at, list(interruptions.STATUS), *QUICK, ignored=True)
    assert ended.status == 0, ended.printed
