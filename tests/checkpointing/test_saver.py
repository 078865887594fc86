import threading
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from bigmodel.checkpointing import checkpoint, tensor_files
from bigmodel.checkpointing.saver import Saver
from bigmodel.checkpointing.serialization import TensorGroups
from bigmodel.errors import CheckpointError
from tests.faults.durability import Order


def at(step: int) -> dict[str, Any]:
    return {"progress": {"step": step}}


def weights(value: float) -> TensorGroups:
    return {"model": {"w": torch.full((4,), value)}}


def test_what_is_held_back_is_written_by_flush_as_it_was(tmp_path: Path) -> None:
    saver = Saver(tmp_path, keep=1, interval=3600)
    weights = torch.ones(2)
    saver.offer({"model": {"w": weights}}, at(1), best=True, last=True, now=False)
    weights.zero_()
    saver.offer({"model": {"w": weights}}, at(2), best=False, last=True, now=False)
    assert list(tmp_path.iterdir()) == []
    saver.flush()
    groups, facts = checkpoint.load(tmp_path / "best")
    assert (groups["model"]["w"].tolist(), facts) == ([1.0, 1.0], at(1))
    assert checkpoint.load(tmp_path / "last")[1] == at(2)
    saver.offer({"model": {"w": weights}}, at(3), best=True, last=False, now=True)
    saver.flush()
    assert checkpoint.load(tmp_path / "last")[1] == at(3), "the newest state comes along"


def test_training_goes_on_while_the_copy_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, may_write, written = checkpoint.save, threading.Event(), []

    def slow(
        folder: Path, groups: TensorGroups, facts: dict[str, Any], *also: Path, **more: Any
    ) -> None:
        assert may_write.wait(600)
        real(folder, groups, facts, *also, **more)
        written.append(facts["progress"]["step"])

    monkeypatch.setattr(checkpoint, "save", slow)
    saver, live = Saver(tmp_path, keep=1, interval=0), weights(1.0)
    saver.offer(live, at(1), best=True, last=True, now=True)
    live["model"]["w"].fill_(7.0)  # training has gone on
    assert (written, list(tmp_path.iterdir())) == ([], [])
    may_write.set()
    saver.offer(live, at(2), best=False, last=True, now=True)  # waits for the one under way
    assert written[0] == 1
    saver.flush()
    assert checkpoint.load(tmp_path / "best")[0]["model"]["w"].tolist() == [1.0] * 4
    assert checkpoint.load(tmp_path / "previous")[0]["model"]["w"].tolist() == [1.0] * 4
    assert checkpoint.load(tmp_path / "last")[0]["model"]["w"].tolist() == [7.0] * 4
    saver.close()


def test_memory_is_used_again_and_never_while_it_is_needed(tmp_path: Path) -> None:
    saver = Saver(tmp_path, keep=2, interval=3600)
    for step in range(1, 40):
        best = step in {3, 4, 11, 30}
        saver.offer(weights(float(step)), at(step), best=best, last=True, now=step % 5 == 0)
    saver.flush()
    for name, step in {"last": 39, "best": 30, "best-2": 11}.items():
        groups, facts = checkpoint.load(tmp_path / name)
        assert (facts, groups["model"]["w"].tolist()) == (at(step), [float(step)] * 4), name
    assert len(saver._memory) <= 2 * 2 + 3
    for step in range(40, 44):  # none is the best: what so many of these needed is given back
        saver.offer(weights(float(step)), at(step), best=False, last=True, now=True)
        saver.wait()
    assert len(saver._memory) <= 3
    saver.close()


@pytest.mark.parametrize("notice", ["offer", "check", "flush"])
def test_a_write_that_fails_is_never_swallowed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, notice: str
) -> None:
    saver = Saver(tmp_path, keep=1, interval=0)
    saver.offer(weights(1.0), at(1), best=False, last=True, now=True)
    saver.flush()
    monkeypatch.setattr(
        tensor_files,
        "save_file",
        lambda *_: (_ for _ in ()).throw(OSError(28, "No space left on device")),
    )
    saver.offer(weights(2.0), at(2), best=True, last=True, now=True)
    assert saver._flight is not None
    saver._flight.exception(timeout=600)  # it is over; nobody has asked yet
    act = getattr(saver, notice)
    if notice == "offer":
        act = partial(act, weights(3.0), at(3), best=False, last=True, now=False)
    with pytest.raises(CheckpointError, match=r"No space left on device.*needs .* bytes"):
        act()
    assert [path.name for path in tmp_path.iterdir() if path.is_dir()] == ["last"]
    assert checkpoint.load(tmp_path / "last")[1] == at(1)
    saver.close()


def test_a_start_tidies_up_after_a_process_that_was_killed(tmp_path: Path) -> None:
    folder = tmp_path / "checkpoints"
    folder.mkdir()
    for step in (1, 2):
        checkpoint.save(folder / "last", weights(1.0), at(step))
    checkpoint.save(folder / "best", weights(1.0), at(2))
    (folder / "best").rename(folder / ".best.old")
    (folder / ".last.123.tmp").mkdir()
    (folder / ".last.123.tmp" / "model.safetensors").write_bytes(b"half")
    (folder / "last" / "state.json").write_text("{}")
    saver = Saver(folder, keep=1, interval=0)
    saver.damaged = checkpoint.load_newest(folder).damaged
    saver.start()
    left = [".kept.json", "best", "last.damaged", "previous"]
    assert sorted(path.name for path in folder.iterdir()) == left
    saver.offer(weights(1.0), at(3), best=False, last=True, now=True)
    saver.flush()
    assert checkpoint.load(folder / "previous")[1] == at(1), "no damaged one took its place"
    saver.close()


def test_where_none_is_the_best_any_more_those_of_before_are_set_aside(tmp_path: Path) -> None:
    saver = Saver(tmp_path, keep=2, interval=0)
    saver.start()
    for step in (1, 2):
        saver.offer(weights(1.0), at(step), best=True, last=True, now=True)
    saver.flush()
    saver.close()
    (tmp_path / "best-2.bak").mkdir()
    saver = Saver(tmp_path, keep=0, interval=0)
    saver.start()
    saver.close()
    names = {path.name for path in tmp_path.iterdir() if path.name.startswith("best")}
    assert names == {"best.earlier", "best-2.earlier", "best-2.bak"}


@pytest.mark.parametrize("keep", [1, 2, 3])
def test_as_many_of_the_best_are_kept_as_asked_for_however_soon_they_come(
    tmp_path: Path, keep: int
) -> None:
    seconds = 0.0
    saver = Saver(tmp_path, keep=keep, interval=10, clock=lambda: seconds)
    for step in range(1, 6):
        seconds = step / 10
        saver.offer(weights(float(step)), at(step), best=True, last=True, now=False)
    assert list(tmp_path.iterdir()) == [], "nothing is due yet"
    seconds = 10.0
    saver.offer(weights(6.0), at(6), best=False, last=True, now=False)
    saver.wait()
    for rank, step in enumerate(range(5, 5 - keep, -1), start=1):
        groups, facts = checkpoint.load(tmp_path / ("best" if rank == 1 else f"best-{rank}"))
        assert (facts, groups["model"]["w"].tolist()) == (at(step), [float(step)] * 4)
    assert checkpoint.load(tmp_path / "last")[1] == at(6)
    assert len([path for path in tmp_path.iterdir() if path.is_dir()]) == keep + 1
    saver.close()


def test_a_kill_among_several_writes_leaves_whole_checkpoints_that_come_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def offers(saver: Saver, *steps: int) -> None:
        for step in steps:
            saver.offer(weights(float(step)), at(step), best=True, last=True, now=False)

    real = checkpoint.save
    first = Saver(tmp_path, keep=3, interval=3600)
    offers(first, 1)
    first.flush()

    def killed(
        folder: Path, groups: TensorGroups, facts: dict[str, Any], *also: Path, **more: Any
    ) -> None:
        if facts["progress"]["step"] == 4:
            raise CheckpointError("killed")
        real(folder, groups, facts, *also, **more)

    monkeypatch.setattr(checkpoint, "save", killed)
    offers(first, 2, 3, 4)
    with pytest.raises(CheckpointError, match="killed"):
        first.flush()
    first.close()
    monkeypatch.undo()
    newest = checkpoint.load_newest(tmp_path)
    assert (newest.facts, newest.damaged) == (at(1), []), "what is gone on from is no future"
    again = Saver(tmp_path, keep=3, interval=3600)
    offers(again, 2, 3, 4)
    again.flush()
    kept = {name: checkpoint.load(tmp_path / name)[1] for name in ("best", "best-2", "best-3", "last")}
    assert kept == {"best": at(4), "best-2": at(3), "best-3": at(2), "last": at(4)}
    again.close()


def test_what_was_told_of_a_step_is_on_the_disk_before_the_step_is_saved(tmp_path: Path) -> None:
    order, told, curves = Order(), tmp_path / "metrics.jsonl", tmp_path / "tensorboard"
    (curves / "run").mkdir(parents=True)
    saver = Saver(tmp_path / "checkpoints", keep=1, interval=0, records=(told, curves))
    saver.start()
    with order.watching():
        for step in (1, 2, 3):
            for path in (told, curves / "run" / "events"):
                with path.open("a") as file:
                    file.write(f"{step}\n")
            saver.offer(weights(1.0), at(step), best=True, last=True, now=True)
            saver.flush()
            order.check_synced(f"step {step}", tmp_path)
    saver.close()
    assert order.faults == []
    assert order.renames > 6
