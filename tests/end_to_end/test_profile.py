"""`profile=true` on the command line, and what of it a run keeps: nothing."""

import gzip
import json

import pytest
import torch

from bigmodel.checkpointing import checkpoint
from tests.end_to_end.conftest import Command

SHORT = ("device=cpu", "trainer.tensorboard=false", "trainer.limit.train=12", "trainer.limit.val=1")


@pytest.mark.parametrize("model", ["fnn", "transformer"])
def test_a_table_and_a_trace(command: Command, model: str) -> None:
    run = command(*SHORT, f"model={model}", "profile=true", "trainer.epochs=3")
    assert run.status == 0, run.err
    assert run.err == ""
    assert run.folder is not None
    log = (run.folder / "train.log").read_text()
    for said in (run.out, log):
        assert "Profile of steps 19 to 35, " in said
        assert "profile/trace.json.gz (for Perfetto or chrome://tracing)" in said
    with gzip.open(run.folder / "profile" / "trace.json.gz", "rt", encoding="utf-8") as file:
        names = [event["name"] for event in json.load(file)["traceEvents"]]
    assert {"ProfilerStep#18", "data", "forward", "backward", "optimizer"} <= set(names)


def test_a_run_goes_on_profiled_or_not_and_ends_the_same(command: Command) -> None:
    first = command(*SHORT, "profile=true", "trainer.epochs=4", "trainer.max_steps=12")
    assert first.folder is not None
    assert "profile" not in (first.folder / ".hydra" / "config.yaml").read_text()
    without = command(f"resume={first.folder}", "trainer.max_steps=36")
    assert without.status == 0, without.err
    assert "Profile of steps" not in without.out
    profiled = command(f"resume={first.folder}", "trainer.max_steps=60", "profile=true")
    assert profiled.status == 0, profiled.err
    assert "Profile of steps 49 to 59, " in profiled.out
    plain = command(*SHORT, "trainer.epochs=4", "trainer.max_steps=12")
    plain = command(f"resume={plain.folder}", "trainer.max_steps=36")
    plain = command(f"resume={plain.folder}", "trainer.max_steps=60")
    assert plain.folder is not None
    assert plain.folder != profiled.folder
    ended = [checkpoint.load(run / "checkpoints" / "last")[0] for run in (first.folder, plain.folder)]
    for name, weights in ended[0]["model"].items():
        assert torch.equal(weights, ended[1]["model"][name])


def test_help_tells_of_it(command: Command) -> None:
    shown = command("--help=all")
    assert "profile" in shown.out
    assert "write a trace of a few steps, and print where time goes" in " ".join(shown.out.split())
