"""Threads that gather batches: how a run ends when one of them hangs or meets an error."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.faults import trials

ENDLESS = 100_000.0  # seconds, where nobody may wait for them
RUN = (
    *("data=synthetic", "data.samples=2000", "data.batch_size=16", "data.workers=1", "device=cpu"),
    *("device.threads=1", "trainer.epochs=50", "trainer.tensorboard=false"),
)
STEPS = 25  # in a block: a quarter of an epoch's


def hang(folder, *argv):
    """A run whose thread hangs in its second block."""
    attempt = trials.launch(folder, *RUN, *argv, hold="gathering 2")
    attempt.wait_until_held()
    return attempt


@pytest.mark.skipif(sys.platform != "linux", reason="processes are forked")
def test_a_run_whose_thread_hangs_saves_what_it_has(tmp_path):
    attempt = hang(tmp_path, "data.timeout=2")
    assert attempt.wait() == 1
    assert "data.timeout=2: no batch came for 2 seconds" in attempt.log
    assert "Traceback" not in attempt.log
    assert trials.last_saved_step(tmp_path) == STEPS


@pytest.mark.skipif(sys.platform != "linux", reason="processes are forked")
def test_a_stop_while_a_thread_hangs_does_not_wait_for_it(tmp_path):
    attempt = hang(tmp_path, f"data.timeout={ENDLESS}")
    attempt.send(signal.SIGTERM)
    assert attempt.wait() == 143, attempt.log
    assert trials.last_saved_step(tmp_path) > 0


TIMEOUT = """
import threading
from bigmodel.data.batching.prefetch import Prefetcher

begun = threading.Event()
def hang():
    begun.set()
    threading.Event().wait()

gathered = Prefetcher(1, timeout=0.01).gather([hang])
try:
    next(gathered)
except Exception as error:
    assert begun.wait(600)
    print(error)
"""


def test_the_process_exits_though_a_thread_hangs():
    root = str(Path(__file__).parents[2])  # named: Python may have been told to leave its folder out
    ended = subprocess.run(
        [sys.executable, "-c", TIMEOUT],
        env=os.environ | {"PYTHONPATH": os.pathsep.join([root, *sys.path])},
        capture_output=True,
        text=True,
        timeout=trials.TIMEOUT,
    )
    assert ended.returncode == 0, ended.stderr
    assert "data.timeout=0.01" in ended.stdout


PLUGIN = """
from dataclasses import dataclass

import torch

from bigmodel.data.assemble import assemble
from bigmodel.data.base import RealConfig
from bigmodel.data.parts import Part
from bigmodel.registry import data
from bigmodel.spec import Classes, DataSpec, Features


class Torn(Part):
    def take(self, chosen, *more):
        if not isinstance(chosen, slice) and 7 in chosen:
            raise OSError(5, "sample 7 cannot be read")
        return super().take(chosen, *more)


@data.register("torn", RealConfig)
def torn(config):
    spec = DataSpec("torn", Features(2), Classes(("a", "b"), ()))
    made = assemble(config, spec, Part(torch.rand(500, 2), torch.arange(500) % 2))
    made.train = Torn(made.train.inputs, made.train.targets)
    return made
"""


@pytest.mark.skipif(sys.platform != "linux", reason="processes are forked")
@pytest.mark.parametrize("workers", [0, 2])
def test_an_error_in_a_part_of_the_user_s_own_ends_the_run_as_itself(tmp_path, workers):
    (tmp_path / "torn_data.py").write_text(PLUGIN)
    (tmp_path / "mine" / "data").mkdir(parents=True)
    (tmp_path / "mine" / "data" / "torn.yaml").write_text("name: torn\nworkers: 0\n")
    attempt = trials.launch(
        tmp_path,
        *("--config-dir", "mine", "plugins=[torn_data]", "data=torn", "device=cpu"),
        *(f"data.workers={workers}", "trainer.epochs=2"),
    )
    assert attempt.wait() == 1, attempt.log
    assert "sample 7 cannot be read" in attempt.log
