"""Checkpoints that several ranks write together, each its own part of the tensors."""

from __future__ import annotations

import itertools
import random
import re
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open

from bigmodel.checkpointing import checkpoint, manifest, tensor_files
from bigmodel.checkpointing.saver import Saver, ShardSaver
from bigmodel.checkpointing.serialization import TensorGroups
from bigmodel.checkpointing.tensor_files import Parts
from bigmodel.checkpointing.writers import ClosedError, Writers
from bigmodel.distributed.layout import Part
from bigmodel.distributed.ranks import Ranks
from bigmodel.errors import CheckpointError, DamagedError
from tests.distributed.test_layout import random_parts
from tests.distributed.thread_ranks import on_ranks
from tests.faults.durability import Order
from tests.faults.file_operations import Kill

SHAPES = {"weight": (7, 12), "bias": (5,), "scalar": ()}


def at(step: int) -> dict[str, Any]:
    return {"progress": {"step": step}}


def whole(step: int) -> TensorGroups:
    """The state of a step."""
    weights = {name: torch.full(shape, float(step)) for name, shape in SHAPES.items()}
    moments = {f"{name}.moment": value.bfloat16() for name, value in weights.items()}
    return {"model": weights, "optimizer": moments, "random": {"cpu": torch.arange(step)}}


def layout(size: int, seed: int = 0) -> list[Parts]:
    """Each rank's parts of that state."""
    chance = random.Random(seed)
    dealt = {name: random_parts(shape, size, chance) for name, shape in SHAPES.items()}
    return [
        {
            "model": {name: parts[rank] for name, parts in dealt.items()},
            "optimizer": {
                f"{name}.moment": parts[rank] for name, parts in dealt.items() if name != "bias"
            },
        }
        for rank in range(size)
    ]


def local(step: int, parts: Parts) -> TensorGroups:
    """What a rank holds of it."""
    return {
        group: {
            name: parts[group][name].cut(t) if name in parts.get(group, {}) else t
            for name, t in tensors.items()
        }
        for group, tensors in whole(step).items()
    }


def saver_of(folder: Path, ranks: Ranks, keep: int = 1, interval: float = 0) -> Saver:
    if ranks.is_first:
        return Saver(folder, keep, interval, ranks=ranks)
    return ShardSaver(folder, keep, interval, ranks)


def check(folder: Path, step: int) -> None:
    """Checks that a checkpoint is that of a step, and whole."""
    groups, facts = checkpoint.load(folder)
    assert facts == at(step)
    expected = whole(step)
    assert groups.keys() == expected.keys()
    for group, tensors in expected.items():
        assert groups[group].keys() == tensors.keys()
        for name, value in tensors.items():
            assert groups[group][name].dtype == value.dtype
            assert torch.equal(groups[group][name], value), (group, name)


@pytest.mark.parametrize("size", [2, 3, 4])
def test_ranks_save_together(tmp_path: Path, size: int) -> None:
    parts = layout(size)

    def train(ranks: Ranks) -> None:
        saver = saver_of(tmp_path, ranks, keep=2)
        saver.start()
        for step in range(1, 6):
            mine = parts[ranks.rank]
            saver.offer(
                local(step, mine),
                at(step),
                best=step in {2, 3, 4},
                last=step != 4,
                now=step == 3,
                parts=mine,
            )
        saver.flush()
        saver.close()

    assert on_ranks(size, train) == [None] * size
    for name, step in {"last": 5, "best": 4, "best-2": 3}.items():
        check(tmp_path / name, step)
    names = {path.name for path in (tmp_path / "last").iterdir()}
    shards = {tensor_files.shard_name(g, r, size) for g in ("model", "optimizer") for r in range(size)}
    assert names == {*shards, "random.safetensors", "state.json", "manifest.json"}
    assert {path.name for path in tmp_path.iterdir()} == {
        "last",
        "previous",
        "best",
        "best-2",
        ".kept.json",
    }
    assert manifest.verify(tmp_path / "last")[0] == manifest.SHARDED_SCHEMA


def save(ranks: Ranks, folder: Path, step: int, writers: Writers, parts: Parts) -> None:
    """One rank's share of saving `last`, and the same as `best`."""
    groups, last, best = local(step, parts), folder / "last", folder / "best"
    if ranks.is_first:
        checkpoint.save(last, groups, at(step), best, parts=parts, writers=writers)
    else:
        checkpoint.save_shards(last, groups, best, parts=parts, writers=writers)


def save_steps(folder: Path, *steps: int, size: int = 2, patience: float = 60.0) -> list[Any]:
    """Saves steps on so many ranks; returns what went wrong on each."""

    def act(ranks: Ranks) -> None:
        writers = Writers(ranks, patience)
        for step in steps:
            save(ranks, folder, step, writers, layout(size)[ranks.rank])

    return on_ranks(size, act)


def killed_save(folder: Path, victim: int, after: int) -> bool:
    """Kills all in the midst of saving step 2, after so many operations of one rank; returns whether it
    did as many."""
    waiting: list[Writers] = []
    kill = Kill(after, lambda: [writers.close() for writers in waiting])

    def act(ranks: Ranks) -> None:
        waiting.append(writers := Writers(ranks))
        ranks.barrier()
        if ranks.rank == victim:
            kill.aim()
        save(ranks, folder, 2, writers, layout(2)[ranks.rank])

    with kill.lurking():
        on_ranks(2, act)
    return kill.done


@pytest.mark.parametrize("victim", [0, 1])
def test_a_kill_at_any_moment_leaves_a_whole_checkpoint(tmp_path: Path, victim: int) -> None:
    found: list[int] = []
    for after in itertools.count():
        folder = tmp_path / str(after)
        folder.mkdir()
        assert save_steps(folder, 1) == [None, None]
        if not killed_save(folder, victim, after):
            break
        newest = checkpoint.load_newest(folder)
        assert newest.damaged == []
        found.append(newest.facts["progress"]["step"])
        check(newest.folder, found[-1])
        _, best = checkpoint.load_best(folder)
        assert best["progress"]["step"] in (1, 2)
        checkpoint.remove_unfinished(folder)
        assert {path.name for path in folder.iterdir()} <= {"last", "previous", "best"}
        assert save_steps(folder, 3) == [None, None]
        check(folder / "last", 3)
        check(folder / "best", 3)
    assert found == sorted(found)
    assert set(found) == ({1, 2} if victim == 0 else {1})
    assert len(found) > (20 if victim == 0 else 5)


@pytest.mark.parametrize("failing", [0, 1, 2])
def test_a_disk_error_of_any_rank_is_told_and_the_one_before_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing: int
) -> None:
    real, parts = tensor_files.save_file, layout(3)

    def full(tensors: Any, path: Path, header: Any) -> None:
        if path.name.startswith(f"optimizer-0000{failing + 1}"):
            raise OSError(28, "No space left on device")
        real(tensors, path, header)

    savers: list[Saver] = []

    def train(ranks: Ranks, step: int = 2) -> None:
        saver, mine = saver_of(tmp_path, ranks), parts[ranks.rank]
        savers.append(saver)
        saver.start()
        saver.offer(local(step, mine), at(step), best=True, last=True, now=True, parts=mine)
        try:
            saver.flush()
        except CheckpointError:
            if ranks.is_first:  # its process ends, and with it the others
                for other in savers:
                    other.close()
            raise

    assert on_ranks(3, partial(train, step=1)) == [None] * 3
    monkeypatch.setattr(tensor_files, "save_file", full)
    results = on_ranks(3, train)
    told = r"last: cannot be written: No space left on device.*needs .* bytes"
    for rank, result in enumerate(results):
        if rank in (0, failing):
            assert isinstance(result, CheckpointError)
            assert re.search(told, str(result))
        else:
            assert result is None or isinstance(result, ClosedError)
    assert {path.name for path in tmp_path.iterdir()} == {"last", "best", ".kept.json"}
    for name in ("last", "best"):
        check(tmp_path / name, 1)


@pytest.mark.parametrize("failing", [0, 1])
def test_a_full_disk_is_told_what_all_ranks_need(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing: int
) -> None:
    """They write to the same disk: room for one rank's part of the weight does not help."""
    real, weight = tensor_files.save_file, torch.zeros(1000, 3)

    def full(tensors: Any, path: Path, header: Any) -> None:
        if path.name == tensor_files.shard_name("model", failing, 2):
            raise OSError(28, "No space left on device")
        real(tensors, path, header)

    def act(ranks: Ranks) -> None:
        part = Part.rows((1000, 3), 500 * ranks.rank, 500 * ranks.rank + 500)
        groups, parts = {"model": {"weight": part.cut(weight)}}, {"model": {"weight": part}}
        writers = Writers(ranks, patience=2)  # if the first fails at once, the other finds no folder
        if ranks.is_first:
            checkpoint.save(tmp_path / "last", groups, at(1), parts=parts, writers=writers)
        else:
            checkpoint.save_shards(tmp_path / "last", groups, parts=parts, writers=writers)

    monkeypatch.setattr(tensor_files, "save_file", full)
    told = str(on_ranks(2, act)[failing])
    assert (needed := re.search(r"needs ([\d,]+) bytes", told))
    assert weight.nbytes <= int(needed[1].replace(",", "")) <= weight.nbytes + 100


@pytest.mark.parametrize("slow", [0, 1])
def test_a_slow_rank_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, slow: int) -> None:
    """The other one is two saves ahead, and keeps out of the folder of the save under way."""
    real, held, may_write = tensor_files.write, threading.Event(), threading.Event()

    def write(folder: Path, groups: Any, parts: Any, rank: int, size: int) -> list[Path]:
        if rank == slow:
            held.set()
            assert may_write.wait(60)
        return real(folder, groups, parts, rank, size)

    def act(ranks: Ranks) -> None:
        writers = Writers(ranks)
        for step in (1, 2, 3):
            save(ranks, tmp_path, step, writers, layout(2)[ranks.rank])

    def release() -> None:
        assert held.wait(60)
        try:
            until(lambda: len(list(tmp_path.glob(".*.tmp/*-of-*.safetensors"))) >= 2)
            assert {path.name.split(".")[3] for path in tmp_path.iterdir()} == {"1"}
        finally:
            may_write.set()

    monkeypatch.setattr(tensor_files, "write", write)
    with ThreadPoolExecutor(1) as thread:
        released = thread.submit(release)
        assert on_ranks(2, act) == [None, None]
        released.result()
    for name, step in {"last": 3, "previous": 2, "best": 3}.items():
        check(tmp_path / name, step)


def until(there: Callable[[], bool]) -> None:
    """Waits for a state of the disk."""
    for _ in range(6000):
        if there():
            return
        time.sleep(0.01)
    raise AssertionError


@pytest.mark.parametrize("missing", [0, 1])
def test_a_rank_that_never_comes_is_given_up(tmp_path: Path, missing: int) -> None:
    def act(ranks: Ranks) -> None:
        writers = Writers(ranks, patience=0.1)
        if ranks.rank != missing:
            save(ranks, tmp_path, 2, writers, layout(2)[ranks.rank])

    assert save_steps(tmp_path, 1) == [None, None]
    result = on_ranks(2, act)[1 - missing]
    assert isinstance(result, CheckpointError)
    assert f"rank {1 - missing} of 2 has seen nothing of another rank there for 0.1 seconds" in str(
        result
    )
    assert {path.name for path in tmp_path.iterdir()} == {"last", "best"}
    check(tmp_path / "last", 1)


def test_a_rank_that_writes_for_long_is_not_given_up(tmp_path: Path) -> None:
    def act(ranks: Ranks) -> None:
        writers, mine = Writers(ranks, patience=0.5), layout(2)[ranks.rank]
        if ranks.is_first:
            save(ranks, tmp_path, 1, writers, mine)
            return
        folders = writers.next_folders([tmp_path / "last", tmp_path / "best"])
        writers.wait_for(folders)
        for number in range(10):  # twice as long as a silence would be borne
            (folders[0] / "growing.tmp").write_text("x" * number)
            time.sleep(0.1)
        (folders[0] / "growing.tmp").unlink()
        writers._saves -= 1
        save(ranks, tmp_path, 1, writers, mine)

    assert on_ranks(2, act) == [None, None]
    check(tmp_path / "last", 1)


@pytest.mark.parametrize("waiting", [0, 1])
def test_closing_ends_the_wait_for_another_rank(tmp_path: Path, waiting: int) -> None:
    parts = layout(2)

    def act(ranks: Ranks) -> None:
        saver, mine = saver_of(tmp_path, ranks), parts[ranks.rank]
        saver.start()
        ranks.barrier()
        if ranks.rank != waiting:
            ranks.from_first(True)  # it agrees to a save, and is killed
            return
        saver.offer(local(1, mine), at(1), best=False, last=True, now=True, parts=mine)
        saver.close()

    assert on_ranks(2, act) == [None, None]
    assert [path.name for path in tmp_path.iterdir()] == [".kept.json"]


def test_after_an_error_of_one_rank_nothing_is_begun_that_needs_the_others(tmp_path: Path) -> None:
    parts = layout(2)

    def act(ranks: Ranks) -> None:
        saver, mine = saver_of(tmp_path, ranks, interval=3600), parts[ranks.rank]
        saver.start()
        saver.offer(local(1, mine), at(1), best=False, last=True, now=True, parts=mine)
        saver.offer(local(2, mine), at(2), best=False, last=True, now=False, parts=mine)
        if ranks.rank == 1:
            saver.rescue(ValueError())
        else:
            saver.wait()
        saver.close()

    assert on_ranks(2, act) == [None, None]
    check(tmp_path / "last", 1)


def test_each_rank_copies_only_what_it_writes(tmp_path: Path) -> None:
    rows = [Part.rows((4,), 0, 2), Part.rows((4,), 2, 4), Part.rows((4,), 0, 2, kept=False)]

    def act(ranks: Ranks) -> dict[str, list[str]]:
        saver, parts = saver_of(tmp_path, ranks, interval=3600), {"model": {"w": rows[ranks.rank]}}
        groups = {
            "model": {"w": torch.ones(2), "whole": torch.ones(3)},
            "random": {"cpu": torch.ones(1)},
        }
        saver.offer(groups, at(1), best=False, last=True, now=False, parts=parts)
        assert saver._last is not None
        return {group: list(tensors) for group, tensors in saver._last.groups.items()}

    assert on_ranks(3, act) == [
        {"model": ["w", "whole"], "random": ["cpu"]},
        {"model": ["w"], "random": []},
        {"model": [], "random": []},
    ]


def test_all_is_on_the_disk_before_it_has_its_name(tmp_path: Path) -> None:
    order = Order()
    with order.watching():
        assert save_steps(tmp_path, 1, 2) == [None, None]
    order.check_synced("two saves", *(tmp_path / name for name in ("last", "previous", "best")))
    assert order.faults == []
    assert order.renames > 6


@pytest.mark.parametrize("name", ["model-00002-of-00002.safetensors", "state.json", "manifest.json"])
@pytest.mark.parametrize("damage", ["flip", "remove"])
def test_ranks_agree_on_the_one_before_a_damaged_one(tmp_path: Path, name: str, damage: str) -> None:
    assert save_steps(tmp_path, 1, 2) == [None, None]
    path = tmp_path / "last" / name
    if damage == "flip":
        content = path.read_bytes()
        path.write_bytes(content[:-3] + bytes([content[-3] ^ 1]) + content[-2:])
    else:
        path.unlink()

    def act(ranks: Ranks) -> tuple[Path, dict[str, Any], str | None]:
        newest = checkpoint.load_newest(tmp_path, ranks)
        assert torch.equal(newest.groups["model"]["weight"], whole(1)["model"]["weight"])
        return newest.folder, newest.facts, newest.warning

    first, *others = on_ranks(3, act)
    assert isinstance(first, tuple), first
    assert others == [first, first]
    assert first[:2] == (tmp_path / "previous", at(1))
    assert name in str(first[2])
    with pytest.raises(DamagedError, match=re.escape(name)):
        checkpoint.load(tmp_path / "last")


@pytest.mark.parametrize("sharded", [True, False])
def test_ranks_that_load_read_each_file_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sharded: bool
) -> None:
    if sharded:
        assert save_steps(tmp_path, 1) == [None, None]
    else:
        checkpoint.save(tmp_path / "last", dict(whole(1)), at(1), tmp_path / "best")
    real, read = manifest.fingerprint, []

    def counted(path: Path) -> dict[str, Any]:
        read.append(path.name)
        return real(path)

    monkeypatch.setattr(manifest, "fingerprint", counted)
    results = on_ranks(3, lambda ranks: checkpoint.load_best(tmp_path, ranks)[1])
    assert results == [at(1)] * 3
    files = {path.name for path in (tmp_path / "best").iterdir()} - {"manifest.json"}
    assert sorted(read) == sorted(files)


def test_without_parts_a_checkpoint_is_as_it_always_was(tmp_path: Path) -> None:
    checkpoint.save(tmp_path / "last", dict(whole(1)), at(1))
    names = {path.name for path in (tmp_path / "last").iterdir()}
    tensors = {f"{group}.safetensors" for group in whole(1)}
    assert names == {*tensors, "state.json", "manifest.json"}
    assert manifest.verify(tmp_path / "last")[0] == manifest.SCHEMA
    with safe_open(tmp_path / "last" / "model.safetensors", "pt") as file:
        assert file.metadata() is None
    check(tmp_path / "last", 1)
