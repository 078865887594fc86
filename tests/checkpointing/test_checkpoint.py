import json
from pathlib import Path
from typing import Any

import pytest
import torch

from bigmodel.checkpointing import checkpoint, manifest, tensor_files
from bigmodel.errors import CheckpointError

GROUPS = {
    "model": {"a.weight": torch.arange(6.0).reshape(2, 3), "a.bias": torch.zeros(2)},
    "optimizer": {"0.step": torch.tensor(3.0)},
    "metrics": {},
}
FACTS = {
    "progress": {"step": 3, "best": {"val/loss": 0.25}},
    "none": None,
    "milestones": {10: 0.1, 20: (0.01, float("inf"))},
}


def at(step: int) -> dict[str, Any]:
    return {"progress": {"step": step}}


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
    checkpoint.save(tmp_path / "last", GROUPS, at(1))

    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(tensor_files, "save_file", fail)
    with pytest.raises(CheckpointError, match="No space left"):
        checkpoint.save(tmp_path / "last", GROUPS, at(2))
    assert checkpoint.load_newest(tmp_path).facts == at(1)
    assert [path.name for path in tmp_path.iterdir()] == ["last"]


def test_previous_is_found_where_a_rename_was_cut_off(tmp_path: Path) -> None:
    for step in (1, 2):
        checkpoint.save(tmp_path / "last", GROUPS, at(step))
    assert checkpoint.load_newest(tmp_path).facts == at(2)
    (tmp_path / "last").rename(tmp_path / ".last.1.tmp")
    assert checkpoint.load_newest(tmp_path).facts == at(1)


def test_without_any_it_says_so(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no checkpoint to resume from"):
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
    with pytest.raises(CheckpointError, match=r"damaged|incomplete checkpoint"):
        checkpoint.load(tmp_path / "last")


def test_a_newer_schema_is_refused(tmp_path: Path) -> None:
    checkpoint.save(tmp_path / "last", GROUPS, FACTS)
    checkpoint.save(tmp_path / "last", GROUPS, FACTS)
    newer(tmp_path / "last")
    with pytest.raises(CheckpointError, match="newer version"):
        checkpoint.load(tmp_path / "last")
    with pytest.raises(CheckpointError, match="newer version"):  # `previous` would be a way back
        checkpoint.load_newest(tmp_path)


def newer(folder: Path) -> None:
    """Turns a checkpoint into one of the next version's."""
    path = folder / "manifest.json"
    files = json.loads(path.read_text())["files"]
    path.write_text(manifest._text(manifest.SHARDED_SCHEMA + 1, files))


@pytest.mark.parametrize("kind", ["file", "link"])
@pytest.mark.parametrize("name", ["last", "previous", "best"])
def test_what_is_no_folder_is_not_replaced(tmp_path: Path, name: str, kind: str) -> None:
    if kind == "file":
        (tmp_path / name).touch()
    else:
        (tmp_path / name).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(CheckpointError, match=f"{name}: expected a checkpoint folder, found a file"):
        checkpoint.remove_unfinished(tmp_path)


def test_a_damaged_newest_gives_way_to_the_one_before_with_a_warning(tmp_path: Path) -> None:
    for step in (1, 2):
        checkpoint.save(tmp_path / "last", GROUPS, at(step))
    (tmp_path / "last" / "state.json").write_text("{}")
    newest = checkpoint.load_newest(tmp_path)
    assert (newest.folder.name, newest.facts) == ("previous", at(1))
    assert newest.damaged == [tmp_path / "last"]
    assert newest.warning is not None
    assert "last: the checkpoint is damaged: state.json" in newest.warning
    assert "previous" in newest.warning
    (tmp_path / "previous" / "manifest.json").unlink()
    with pytest.raises(CheckpointError, match="No intact checkpoint is left"):
        checkpoint.load_newest(tmp_path)


def test_the_best_is_found_in_the_middle_of_its_replacement(tmp_path: Path) -> None:
    checkpoint.save(tmp_path / "best", GROUPS, at(1))
    (tmp_path / "best").rename(tmp_path / ".best.old")
    assert checkpoint.load_best(tmp_path)[1] == at(1)
    with pytest.raises(CheckpointError, match="no best checkpoint"):
        checkpoint.load_best(tmp_path / "nowhere")
