"""What starts the ranks of a machine."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

LAUNCHER = """
import os
import sys

import torch

launcher = os.getpid()


def called(*_):
    if os.getpid() == launcher:
        os.write(2, b"the launcher has started CUDA")
        os._exit(9)
    return 0


for name in ("is_available", "device_count", "_lazy_init", "current_device", "mem_get_info"):
    setattr(torch.cuda, name, called)

from bigmodel.__main__ import main

sys.exit(main())
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="ranks are not forked")
def test_the_launcher_leaves_cuda_alone(tmp_path: Path) -> None:
    """A process that has asked for its GPUs cannot be forked: no GPU could be used in the new one."""
    words = ["debug=fast", "device=cpu", "device.ranks=2", "trainer.tensorboard=false"]
    done = subprocess.run(
        [sys.executable, "-c", LAUNCHER, *words],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        timeout=200,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Finished" in done.stdout


SAVING = """
import sys
import time

from bigmodel.distributed import launcher
from bigmodel.errors import CheckpointError
from bigmodel.runtime.signals import Stopped

launcher.GRACE = 0.1


def act(ranks):
    if ranks.is_first:
        time.sleep(1.5)
        print("saved", flush=True)
        if len(sys.argv) > 1:
            raise CheckpointError(sys.argv[1])
    raise Stopped(15)


print(launcher.launch(2, act, lambda: None).error)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="ranks are not forked")
@pytest.mark.parametrize(("words", "told"), [([], "terminated"), (["disk full"], "disk full")])
def test_the_first_of_ranks_that_stop_has_time_to_save_and_to_say_that_it_cannot(
    words: list[str], told: str
) -> None:
    done = subprocess.run(
        [sys.executable, "-c", SAVING, *words], capture_output=True, text=True, check=False, timeout=100
    )
    assert done.stdout == f"saved\n{told}\n", done.stderr


TALKATIVE = """
from bigmodel.distributed import launcher
from bigmodel.errors import DataError


def act(ranks):
    raise DataError("x" * 1_000_000)


print(len(str(launcher.launch(2, act, lambda: None).error)))
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="ranks are not forked")
def test_an_error_may_be_longer_than_a_pipe_holds() -> None:
    done = subprocess.run(
        [sys.executable, "-c", TALKATIVE], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.stdout == "1000000\n", done.stderr
