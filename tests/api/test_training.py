"""Training from Python: the same run as from the command line, and a process that is left as it was."""

import _thread
import asyncio
import gc
import logging
import os
import random
import shutil
import signal
import sys
import threading
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.singleton import Singleton
from omegaconf import OmegaConf
from omegaconf.basecontainer import BaseContainer

import bigmodel as bm
from bigmodel.api import training
from bigmodel.cli import invocation
from bigmodel.errors import ConfigError, DataError
from bigmodel.registry import models

ROWS = [
    {"a": i % 17, "b": (i * 7) % 13 / 3, "city": "xyz"[i % 3], "y": ["no", "yes"][i % 2]}
    for i in range(80)
]
QUICK = ("device=cpu", "model.hidden_sizes=[8]", "trainer.tensorboard=false")


@pytest.fixture
def there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def trained(*words: str, **how: Any) -> bm.TrainedRun:
    how = {"frame": ROWS, "progress": False} | how
    steps = () if any("max_steps" in word for word in words) else ("trainer.max_steps=4",)
    own = ("data.target=y",) if how["frame"] is not None and "data.target=none" not in words else ()
    return bm.train(*QUICK, *steps, *own, *(w for w in words if w != "data.target=none"), **how)


def process() -> dict[str, Any]:
    """What belongs to the process."""
    hydra = Singleton._instances.get(HydraConfig)
    _, keys, *rest = np.random.get_state()
    return {
        "torch": torch.get_rng_state().tolist(),
        "random": random.getstate(),
        "numpy": (np.asarray(keys).tolist(), rest),
        "threads": (torch.get_num_threads(), [thread.name for thread in threading.enumerate()]),
        "precision": torch.get_float32_matmul_precision(),
        "cudnn": (torch.backends.cudnn.allow_tf32, torch.backends.cudnn.benchmark),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "grad": (torch.is_grad_enabled(), torch.is_inference_mode_enabled()),
        "environment": dict(os.environ),
        "place": (list(sys.argv), list(sys.path), Path.cwd()),
        "warnings": list(warnings.filters),
        "loggers": (list(logging.root.handlers), logging.root.level, logging.getLogRecordFactory()),
        "signals": [signal.getsignal(number) for number in signal.valid_signals()],
        "hooks": (sys.excepthook, sys.unraisablehook, threading.excepthook, sys.gettrace()),
        "streams": (sys.stdout, sys.stderr),
        "garbage": gc.isenabled(),
        "hydra": (sorted(kind.__name__ for kind in Singleton._instances), hydra and id(hydra.cfg)),
        "resolvers": dict(BaseContainer._resolvers),
        "invocation": invocation.current,
    }


def check_unchanged(before: dict[str, Any]) -> None:
    deadline = time.monotonic() + 60
    while (after := process())["threads"] != before["threads"] and time.monotonic() < deadline:
        time.sleep(0.01)  # one that has been told to end
    # Its singleton of plugins is a cache.
    after["hydra"] = ([k for k in after["hydra"][0] if k in before["hydra"][0]], after["hydra"][1])
    assert [name for name in before if before[name] != after[name]] == []


def test_it_trains_on_a_table_and_leaves_the_process_alone(
    there: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.set_float32_matmul_precision("medium")
    before = process()
    run = trained("seed=3", "device.tf32=true")
    check_unchanged(before)
    torch.set_float32_matmul_precision("highest")
    assert run.folder.parents[2] == there
    assert len(run.metrics) == 4
    assert set(run.predict({"a": [1], "b": [0.5], "city": ["x"]})["prediction"]) <= {"no", "yes"}
    assert "Output: outputs" in (run.folder / "train.log").read_text()
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize(
    "words", [["trainer.epochs=ten"], ["data.target=none", "data.target=z"], ["model=cnm"]]
)
def test_after_an_error_nothing_is_left(there: Path, words: list[str]) -> None:
    before = process()
    with pytest.raises((ConfigError, DataError)):
        trained(*words)
    check_unchanged(before)
    assert list(there.iterdir()) == []


def test_the_same_run_as_from_a_file(there: Path) -> None:
    table = pa.table({name: [row[name] for row in ROWS] for name in ROWS[0]})
    lines = [",".join(map(str, row.values())) for row in ROWS]
    (there / "t.csv").write_text("\n".join([",".join(ROWS[0]), *lines, ""]))
    by_path = trained("data=table", "data.path=t.csv", "data.target=y", frame=None)
    by_table, by_rows = trained(frame=table), trained()
    wanted = by_path.predict_proba(table)
    assert by_table.predict_proba(table) == wanted
    assert by_rows.predict_proba(table) == wanted


@pytest.mark.usefixtures("there")
def test_a_run_on_a_table_resumes_like_any_other() -> None:
    whole = trained("trainer.max_steps=8", "scheduler=constant")
    first = trained("trainer.max_steps=4", "scheduler=constant")
    assert (first.folder / "data.parquet").is_file()
    gone_on = bm.train(f"resume={first.folder}", "trainer.max_steps=8", progress=False)
    assert gone_on.folder == first.folder
    last = [bm.load(run.folder, weights="last", device="cpu") for run in (whole, gone_on)]
    assert last[0].step == last[1].step == 8
    for one, other in zip(*(run.model.state_dict().values() for run in last), strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("kept", [True, False], ids=["copied", "moved"])
def test_a_run_that_was_moved_has_its_table_with_it(there: Path, kept: bool) -> None:
    first = trained("trainer.max_steps=4")
    folder = there / "elsewhere" / "run"
    shutil.copytree(first.folder, folder)
    if kept:  # a table of another run is not its own
        pq.write_table(pa.table({"y": [1]}), first.folder / "data.parquet")
    else:
        shutil.rmtree(first.folder)
    gone_on = bm.train("resume=elsewhere/run", "trainer.max_steps=8", progress=False)
    assert gone_on.folder == folder
    assert bm.load(folder, weights="last", device="cpu").step == 8
    assert gone_on.config["data"]["path"] == str(folder / "data.parquet")
    figures = gone_on.evaluate()
    folder.rename(there / "again")
    assert bm.load("again", device="cpu").evaluate() == figures


def test_a_module_of_torch_is_a_model_by_its_name_alone(
    there: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (there / "mine" / "model").mkdir(parents=True)
    (there / "mine" / "model" / "my_net.yaml").write_text("name: my_net\n")
    (there / "my_net_of_test.py").write_text(
        "from torch import nn\n"
        "from bigmodel.registry import models\n"
        "@models.register('my_net')\n"
        "def my_net(config, spec):\n"
        "    return nn.Sequential(nn.Flatten(), nn.Linear(64, spec.target.output_size))\n"
    )
    monkeypatch.syspath_prepend(str(there))
    words = ("device=cpu", "data=digits", "model=my_net", "trainer.max_steps=3")
    made = bm.train("--config-dir=mine", "plugins=[my_net_of_test]", *words, progress=False)
    again = bm.load(made.folder, plugins=["my_net_of_test"], device="cpu")
    assert type(again.model).__name__ == "Sequential"
    assert again.evaluate() == made.evaluate()
    models._entries.pop("my_net")
    with pytest.raises(ConfigError, match="--config-dir=yours: there is no such folder"):
        bm.train("--config-dir=yours", *words, progress=False)


def test_it_works_while_the_program_uses_hydra(there: Path) -> None:
    (there / "mine").mkdir()
    (there / "mine" / "own.yaml").write_text("mine: ${twice:3}\n")
    OmegaConf.register_new_resolver("twice", lambda number: 2 * number, replace=True)
    with initialize_config_dir(str(there / "mine"), version_base="1.2"):
        hydra = GlobalHydra.instance().hydra
        trained()
        assert GlobalHydra.instance().hydra is hydra
        assert compose("own").mine == 6
    OmegaConf.clear_resolver("twice")


@pytest.mark.usefixtures("there")
def test_it_works_in_a_running_event_loop_and_in_threads() -> None:
    async def main() -> bm.TrainedRun:
        return trained()

    runs = [asyncio.run(main())]
    threads = [threading.Thread(target=lambda: runs.append(trained())) for _ in range(2)]
    before = process()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    check_unchanged(before)
    shares = [run.predict_proba(ROWS) for run in runs]
    assert len(shares) == 3
    assert shares[0] == shares[1] == shares[2]


@pytest.mark.usefixtures("there")
def test_the_callers_mode_does_not_matter() -> None:
    with torch.inference_mode():
        run = trained()
    assert len(run.metrics) == 4


def interrupt_after(ready: Any) -> threading.Thread:
    def wait() -> None:
        deadline = time.monotonic() + 120
        while not ready() and time.monotonic() < deadline:
            time.sleep(0.01)
        _thread.interrupt_main()

    thread = threading.Thread(target=wait)
    thread.start()
    return thread


def test_an_interrupt_saves_and_then_raises(there: Path) -> None:
    before = process()
    thread = interrupt_after(lambda: [*there.glob("outputs/*/*/metrics.jsonl")])
    with pytest.raises(KeyboardInterrupt, match=r"bigmodel\.train\('resume=.*'\) goes on") as stop:
        trained("trainer.max_steps=1000000", "scheduler=constant")
    thread.join()
    check_unchanged(before)
    folder = str(stop.value).split("resume=")[1].split("'")[0]
    step = bm.load(folder, weights="last", device="cpu").step
    assert step > 0
    run = bm.train(f"resume={folder}", f"trainer.max_steps={step + 2}", progress=False)
    assert bm.load(run.folder, weights="last", device="cpu").step == step + 2


def test_an_interrupt_before_the_first_step_leaves_nothing(
    there: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reading = threading.Event()

    def read(*_: Any, **__: Any) -> None:
        reading.set()
        while True:
            time.sleep(0.01)

    monkeypatch.setattr("bigmodel.cli.job.prepare", read)
    thread = interrupt_after(reading.is_set)
    with pytest.raises(KeyboardInterrupt, match=r"^Stopped\.$"):
        trained()
    thread.join()
    assert list(there.iterdir()) == []


@pytest.mark.parametrize("started", [True, False])
def test_an_interrupt_while_the_thread_starts_leaves_nothing(
    there: Path, monkeypatch: pytest.MonkeyPatch, started: bool
) -> None:
    real = threading.Thread.start

    def start(thread: threading.Thread) -> None:
        if started or thread.name != "bigmodel-train":
            real(thread)
        if thread.name == "bigmodel-train":
            raise KeyboardInterrupt

    monkeypatch.setattr(threading.Thread, "start", start)
    monkeypatch.setattr("bigmodel.api.training._START", 60 if started else 0.1)
    monkeypatch.setattr("bigmodel.cli.job.ask_git", for_ever)  # what a run asks before it has a folder
    before = process()
    with pytest.raises(KeyboardInterrupt, match=r"^Stopped\.$" if started else None):
        trained("trainer.max_steps=1000000")
    check_unchanged(before)
    assert list(there.iterdir()) == []


def for_ever(*_: Any) -> None:
    while True:
        time.sleep(0.001)


def test_a_thread_is_interrupted_after_it_has_started_another(monkeypatch: pytest.MonkeyPatch) -> None:
    real, looked, going_on = threading.Thread.start, training._starts_another, threading.Event()
    seen: list[bool] = []
    ends: list[str] = []

    def start(thread: threading.Thread) -> None:
        if thread.name == "child":
            going_on.wait()
        real(thread)

    def starts_another(ident: int) -> bool:
        seen.append(looked(ident))
        return seen[-1]

    def work() -> None:
        try:
            threading.Thread(target=ends.append, args=("child",), name="child").start()
            for_ever()
        except KeyboardInterrupt:
            ends.append("parent")

    monkeypatch.setattr(threading.Thread, "start", start)
    monkeypatch.setattr(training, "_starts_another", starts_another)
    parent = threading.Thread(target=work)
    parent.start()
    while not looked(parent.ident or 0):
        time.sleep(0.001)
    interrupting = threading.Thread(target=training._interrupt, args=(parent,))
    interrupting.start()
    while len(seen) < 2:
        time.sleep(0.001)
    going_on.set()
    interrupting.join()
    parent.join()
    assert seen[:2] == [True, True]
    assert seen[-1] is False
    assert ends == ["child", "parent"]


def test_progress_is_printed(there: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = trained(progress=True)
    printed = capsys.readouterr().out
    assert printed == (run.folder / "train.log").read_text()
    assert str(run.folder.relative_to(there)) in printed


@pytest.mark.usefixtures("there")
@pytest.mark.parametrize(
    ("words", "how", "told"),
    [
        (["-m", "seed=1,2"], {}, "--multirun: train runs a single run"),
        (["--cfg", "job"], {}, "--cfg: train runs a single run"),
        (["sweep.seeds=3"], {}, r"sweep\.seeds=3: train runs a single run"),
        (["device.ranks=2"], {}, r"device\.ranks=2: train uses one process"),
        (["data.path=t.csv"], {}, r"data\.path=t\.csv: goes without a frame"),
        (["data=digits"], {}, "data=digits: reads no frame"),
        (["resume=outputs"], {}, "a run that goes on keeps its own data"),
        ([7], {}, "7: settings are texts"),
        (["modle=cnn"], {}, "Did you mean 'model'"),
        (["+x._target_=os.getcwd"], {}, "cannot name code to run"),
        ([], {"frame": [1, 2]}, "frame: list is no table"),
        ([], {"frame": {"a": [1, 2], "y": [1]}}, "the table: its columns have different lengths"),
    ],
)
def test_what_it_cannot_do_is_refused(words: list[Any], how: dict[str, Any], told: str) -> None:
    with pytest.raises((ConfigError, DataError), match=told):
        bm.train(*words, progress=False, **{"frame": ROWS} | how)


def test_secrets_and_errors_are_worded_as_by_the_command(there: Path) -> None:
    with pytest.raises(ConfigError, match=r"trainer\.epochs='ten': should be a valid integer"):
        trained("trainer.epochs=ten")
    with pytest.raises(ConfigError, match=r"model\.hiden_sizes: no such setting"):
        trained("model.hiden_sizes=[3]")
    assert list(there.iterdir()) == []
