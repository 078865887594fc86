import json
from pathlib import Path

import pytest
import torch

from bigmodel import checkpoint
from bigmodel.errors import CheckpointError

GROUPS = {
    "model": {"a.weight": torch.arange(6.0).reshape(2, 3), "a.bias": torch.zeros(2)},
    "optimizer": {"0.step": torch.tensor(3.0)},
    "metrics": {},
}
FACTS = {"progress": {"step": 3, "best": {"val/loss": 0.25}}, "none": None}


def test_comes_back_equal(tmp_path: Path) -> None:
    checkpoint.save(tmp_path / "last", GROUPS, FACTS)
    groups, facts = checkpoint.load(tmp_path / "last")
    assert facts == FACTS
    assert groups.keys() == GROUPS.keys()
    for name, tensors in GROUPS.items():
        assert groups[name].keys() == tensors.keys()
        assert all(torch.equal(groups[name][key], value) for key, value in tensors.items())


def test_shared_and_strided_tensors_are_saved_whole(tmp_path: Path) -> None:
    base = torch.arange(6.0).reshape(2, 3)
    tied = {"a": base, "b": base, "c": base.t()}
    checkpoint.save(tmp_path / "last", {"model": tied}, {})
    groups, _ = checkpoint.load(tmp_path / "last")
    assert all(torch.equal(groups["model"][name], value) for name, value in tied.items())


def test_the_one_before_stays_until_the_next_is_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoint.save(tmp_path / "last", GROUPS, {"step": 1})

    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoint, "save_file", fail)
    with pytest.raises(CheckpointError, match="No space left"):
        checkpoint.save(tmp_path / "last", GROUPS, {"step": 2})
    assert checkpoint.load_newest(tmp_path)[2] == {"step": 1}
    assert [path.name for path in tmp_path.iterdir()] == ["last"]


def test_previous_is_found_where_a_rename_was_cut_off(tmp_path: Path) -> None:
    for step in (1, 2):
        checkpoint.save(tmp_path / "last", GROUPS, {"step": step})
    assert checkpoint.load_newest(tmp_path)[2] == {"step": 2}
    (tmp_path / "last").rename(tmp_path / ".last.1.tmp")
    assert checkpoint.load_newest(tmp_path)[2] == {"step": 1}


def test_without_any_it_says_so(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no checkpoint to go on from"):
        checkpoint.load_newest(tmp_path)


@pytest.mark.parametrize("name", ["model.safetensors", "state.json", "manifest.json"])
@pytest.mark.parametrize("damage", ["truncate", "flip", "remove"])
def test_damage_is_found(tmp_path: Path, name: str, damage: str) -> None:
    checkpoint.save(tmp_path / "last", GROUPS, FACTS)
    path = tmp_path / "last" / name
    content = path.read_bytes()
    if damage == "truncate":
        path.write_bytes(content[: len(content) // 2])
    elif damage == "flip":
        position = content.index(b"{") if name == "manifest.json" else len(content) // 2
        path.write_bytes(content[:position] + bytes([content[position] ^ 1]) + content[position + 1 :])
    else:
        path.unlink()
    with pytest.raises(CheckpointError, match=r"damaged|no whole checkpoint"):
        checkpoint.load(tmp_path / "last")


def test_a_newer_schema_is_refused(tmp_path: Path) -> None:
    checkpoint.save(tmp_path / "last", GROUPS, FACTS)
    manifest = tmp_path / "last" / "manifest.json"
    manifest.write_text(json.dumps(json.loads(manifest.read_text()) | {"schema": 99}))
    with pytest.raises(CheckpointError, match="newer version"):
        checkpoint.load(tmp_path / "last")


def test_the_best_ones_are_kept_in_order(tmp_path: Path) -> None:
    for step in range(5):
        checkpoint.keep_best(tmp_path, keep=3)
        checkpoint.save(tmp_path / "best", GROUPS, {"step": step})
    kept = {path.name: checkpoint.load(path)[1]["step"] for path in tmp_path.iterdir()}
    assert kept == {"best": 4, "best-2": 3, "best-3": 2}


def test_a_damaged_newest_gives_way_to_the_one_before_with_a_warning(tmp_path: Path) -> None:
    for step in (1, 2):
        checkpoint.save(tmp_path / "last", GROUPS, {"step": step})
    (tmp_path / "last" / "state.json").write_text("{}")
    folder, _, facts, warning = checkpoint.load_newest(tmp_path)
    assert (folder.name, facts) == ("previous", {"step": 1})
    assert warning is not None
    assert "last: the checkpoint is damaged: state.json" in warning
    (tmp_path / "previous" / "manifest.json").unlink()
    with pytest.raises(CheckpointError, match="No whole checkpoint is left"):
        checkpoint.load_newest(tmp_path)


def test_the_best_is_found_in_the_middle_of_its_replacement(tmp_path: Path) -> None:
    checkpoint.save(tmp_path / "best", GROUPS, {"step": 1})
    (tmp_path / "best").rename(tmp_path / ".best.old")
    assert checkpoint.load_best(tmp_path)[1] == {"step": 1}
    with pytest.raises(CheckpointError, match="no best checkpoint"):
        checkpoint.load_best(tmp_path / "nowhere")


def test_what_is_held_back_is_written_by_flush_as_it_was(tmp_path: Path) -> None:
    saver = checkpoint.Saver(tmp_path, keep=1, interval=3600)
    weights = torch.ones(2)
    saver.offer({"model": {"w": weights}}, {"step": 1}, best=True, last=True, now=False)
    weights.zero_()
    saver.offer({"model": {"w": weights}}, {"step": 2}, best=False, last=True, now=False)
    assert list(tmp_path.iterdir()) == []
    saver.flush()
    groups, facts = checkpoint.load(tmp_path / "best")
    assert (groups["model"]["w"].tolist(), facts) == ([1.0, 1.0], {"step": 1})
    assert checkpoint.load(tmp_path / "last")[1] == {"step": 2}
    saver.offer({"model": {"w": weights}}, {"step": 3}, best=True, last=False, now=True)
    assert checkpoint.load(tmp_path / "last")[1] == {"step": 3}, "the newest state comes along"
