"""SIGTERM and SIGINT save and leave, SIGUSR1 saves and goes on, whatever the run is doing."""

import os
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.faults import interruptions, trials

pytestmark = pytest.mark.skipif(not hasattr(signal, "SIGUSR1"), reason="signals as POSIX has them")


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> str:
    return trials.whole(tmp_path_factory.mktemp("whole"), *trials.RECIPE)


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
    """How a process ended: its status, as a shell has it, and all that it printed."""

    status: int
    printed: str


AS_MODULE = ("-m", "bigmodel.cli.train")
AS_SCRIPT = (
    "-c",
    "import sys; from bigmodel.cli.entry import bigmodel_train; sys.exit(bigmodel_train())",
)
EVAL = ("-c", "import sys; from bigmodel.cli.entry import bigmodel; sys.exit(bigmodel())")


def struck(cwd: Path, start: tuple[str, ...], at: str, number: signal.Signals, *argv: str) -> Ended:
    """A process that sends itself a signal when it is `at` a state; see `strike/sitecustomize.py`."""
    path = os.pathsep.join([str(Path(__file__).with_name("strike")), *sys.path])
    more = {"STRIKE": f"{number.value} {at}", "PYTHONPATH": path, "NO_COLOR": "1"}
    done = subprocess.run(
        [sys.executable, *start, *argv], cwd=cwd, env=os.environ | more, stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT, text=True, timeout=trials.HANGS, check=False,
    )  # fmt: skip
    assert (cwd / "struck").exists(), done.stdout  # or nothing was tried
    (cwd / "struck").unlink()
    status = done.returncode
    return Ended(128 - status if status < 0 else status, done.stdout)


LOADING = (
    *(
        "bigmodel.runtime.streams",
        "bigmodel.runtime.signals",
        "bigmodel.cli.train",
        "difflib",
        "hydra",
        "antlr4",
    ),
    *("omegaconf", "torch", "torch._C", "torch.nn.modules", "numpy", "bigmodel.build.runs", "pydantic"),
)
"""What is imported one after the other, until the data is read."""


@pytest.mark.parametrize("module", LOADING)
def test_ctrl_c_while_something_is_imported_is_one_line(tmp_path: Path, module: str) -> None:
    ended = struck(tmp_path, AS_SCRIPT, f"import {module}", signal.SIGINT, "device=cpu")
    assert (ended.status, ended.printed) == (130, "bigmodel-train: Stopped.\n")
    assert list(tmp_path.iterdir()) == []


@STOPS
@pytest.mark.parametrize(
    "state",
    [
        "import hydra",
        "call hydra._internal.config_loader_impl:ConfigLoaderImpl.load_configuration",
        "import torch.nn",
        "import pyarrow.lib",
        "import pyarrow.compute",
        "call bigmodel.data.sources.table:split",
        "call bigmodel.build.runs:build_run",
        "drop bigmodel.build.runs:build_run",
    ],
)
def test_a_stop_before_training_leaves_one_line_and_nothing_else(
    tmp_path: Path, state: str, number: signal.Signals
) -> None:
    rows = "".join(f"{n % 7},{n % 2}\n" for n in range(60))
    (tmp_path / "t.csv").write_text(f"a,y\n{rows}")
    data = ("data=table", "data.path=../t.csv", "data.target=y")
    (tmp_path / "run").mkdir()
    ended = struck(tmp_path / "run", AS_MODULE, state, number, *data, "device=cpu")
    assert (ended.status, ended.printed) == (128 + number, "bigmodel-train: Stopped.\n")
    assert list((tmp_path / "run").iterdir()) == []


@STOPS
def test_a_stop_at_the_first_step_saves_it(tmp_path: Path, number: signal.Signals) -> None:
    ended = struck(tmp_path, AS_MODULE, "call bigmodel.engine.step:Step.__call__", number, "device=cpu")
    assert ended.status == 128 + number
    assert "Traceback" not in ended.printed
    assert "bigmodel-train: Stopped. Go on with resume=" in ended.printed
    assert trials.acknowledged(tmp_path) == 1


@pytest.mark.parametrize("number", [*interruptions.STATUS, signal.SIGUSR1], ids=lambda n: n.name)
@pytest.mark.parametrize("state", ["threads", "exit", "last exit", "modules"])
def test_what_comes_after_all_is_done_changes_nothing(
    tmp_path: Path, state: str, number: signal.Signals
) -> None:
    quick = ("debug=fast", "device=cpu", "trainer.tensorboard=false")
    ended = struck(tmp_path, AS_MODULE, f"end {state}", number, *quick)
    assert ended.status == 0, ended.printed
    assert "Traceback" not in ended.printed
    assert "Exception ignored" not in ended.printed


def test_a_request_to_save_while_loading_is_no_end(tmp_path: Path) -> None:
    several = ("trainer.epochs=1", "device=cpu", "trainer.tensorboard=false")  # steps
    ended = struck(tmp_path, AS_MODULE, "import torch.nn", signal.SIGUSR1, *several)
    assert ended.status == 0, ended.printed
    assert "as a signal asked for" in ended.printed


@STOPS
@pytest.mark.parametrize("module", ["bigmodel.cli.commands.arguments", "torch.nn"])
def test_the_other_program_ends_in_a_line_too(
    tmp_path: Path, module: str, number: signal.Signals
) -> None:
    ended = struck(tmp_path, EVAL, f"import {module}", number, "eval", "nothing")
    assert (ended.status, ended.printed) == (128 + number, "bigmodel: Stopped.\n")


@STOPS
def test_what_is_ignored_at_the_start_stays_ignored(tmp_path: Path, number: signal.Signals) -> None:
    quick = ("debug=fast", "device=cpu", "trainer.tensorboard=false")
    ended = struck(
        tmp_path, AS_MODULE, "ignored call bigmodel.engine.step:Step.__call__", number, *quick
    )
    assert ended.status == 0, ended.printed
