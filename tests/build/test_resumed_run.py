"""A run on one rank goes on from what several ranks have shared."""

from pathlib import Path
from typing import Any

import pytest
import torch

from bigmodel.build import resumed_run
from bigmodel.build.new_run import build_run
from bigmodel.build.resumed_run import resume_run
from bigmodel.checkpointing import checkpoint
from bigmodel.checkpointing.writers import Writers
from bigmodel.distributed.layout import Part
from bigmodel.distributed.ranks import Ranks
from bigmodel.errors import DeviceError
from bigmodel.training.loop import fit
from bigmodel.training.run import Run
from bigmodel.training.state import State
from tests.distributed.thread_ranks import on_ranks
from tests.small_runs import config

SETTINGS = {"trainer.epochs": 3, "trainer.record_every_steps": 1, "device.engine": "eager"}


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """A finished run whose newest checkpoint is in parts of two ranks."""
    run = build_run(config(SETTINGS), tmp_path)
    fit(run)
    share_out(tmp_path / "checkpoints" / "last")
    return run


def share_out(folder: Path) -> None:
    """Writes a checkpoint anew, as two ranks with half the rows of each tensor would."""
    groups, facts = checkpoint.load(folder)

    def act(ranks: Ranks) -> None:
        writers, parts = Writers(ranks), dict[str, dict[str, Part]]()
        for group in ("model", "optimizer"):
            tensors = {name: t for name, t in groups[group].items() if t.ndim}
            rows = {name: ranks.rows(len(t)) for name, t in tensors.items()}
            parts[group] = {
                name: Part.rows(tuple(t.shape), rows[name].start, rows[name].stop)
                for name, t in tensors.items()
            }
        own: dict[str, Any] = {
            group: {n: parts[group][n].cut(t) if n in parts.get(group, {}) else t for n, t in of.items()}
            for group, of in groups.items()
        }
        if ranks.is_first:
            checkpoint.save(folder, own, facts, parts=parts, writers=writers)
        else:
            checkpoint.save_shards(folder, own, parts=parts, writers=writers)

    assert on_ranks(2, act) == [None, None]


def test_one_rank_goes_on_from_the_parts_of_two(tmp_path: Path, run: Run) -> None:
    assert (tmp_path / "checkpoints" / "last" / "optimizer-00002-of-00002.safetensors").exists()
    assert checkpoint.load_newest(tmp_path / "checkpoints").folder.name == "last"
    again = resume_run(build_run(config(SETTINGS), tmp_path))
    before, after = run.state.save()[0], again.state.save()[0]
    for group in ("model", "optimizer"):
        assert before[group].keys() == after[group].keys()
        for name, value in before[group].items():
            assert torch.equal(value, after[group][name]), name
    assert again.state.progress.step == run.state.progress.step


@pytest.mark.usefixtures("run")
def test_parts_that_do_not_fit_into_memory_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    last = tmp_path / "checkpoints" / "last"
    size = sum(path.stat().st_size for path in last.glob("optimizer-*"))
    monkeypatch.setattr(resumed_run, "free_memory", lambda: size)
    resume_run(build_run(config(SETTINGS), tmp_path))
    monkeypatch.setattr(resumed_run, "free_memory", lambda: size - 1)
    words = f"last: the optimizer's state takes {size:,} bytes on this machine, where {size - 1:,} bytes"
    with pytest.raises(DeviceError, match=words):
        resume_run(build_run(config(SETTINGS), tmp_path))


@pytest.mark.usefixtures("run")
@pytest.mark.parametrize("error", [MemoryError(), torch.OutOfMemoryError("CUDA out of memory.")])
def test_memory_that_runs_out_while_loading_is_one_message(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    again = build_run(config(SETTINGS), tmp_path)

    def load(*_: Any) -> None:
        raise error

    monkeypatch.setattr(State, "load", load)
    with pytest.raises(DeviceError, match=r"last: memory ran out while .*device\.parallel\.shard"):
        resume_run(again)
