import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from bigmodel.checkpointing import checkpoint, manifest, retention
from bigmodel.checkpointing.saver import Saver

GROUPS = {"model": {"w": torch.zeros(2)}}


def at(step: int, keep: int = 1) -> dict[str, Any]:
    settings = {"trainer": {"checkpoint": {"keep": keep}}}
    return {"progress": {"step": step}, "settings": settings}


def save_best(folder: Path, keep: int, *steps: int) -> None:
    for step in steps:
        retention.rotate(folder, keep, step)
        checkpoint.save(folder / "best", GROUPS, at(step, keep))


def steps(folder: Path) -> dict[str, float]:
    return {path.name: manifest.peek_step(path) for path in folder.iterdir() if path.is_dir()}


def content(folder: Path) -> dict[str, bytes]:
    files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    retention.initialize(tmp_path)
    return tmp_path


def test_the_best_ones_are_kept_in_order(folder: Path) -> None:
    save_best(folder, 3, 0, 1, 2, 3, 4, 3, 4)  # killed after step 4, and resumed after step 2
    assert steps(folder) == {"best": 4, "best-2": 3, "best-3": 2}
    save_best(folder, 2, 5)
    assert steps(folder) == {"best": 5, "best-2": 4}
    save_best(folder, 1, 6)
    assert steps(folder) == {"best": 6}


@pytest.mark.parametrize("keep", [1, 3])
@pytest.mark.parametrize(
    "name", ["best-20261128", "best-2", "best-3", "best-2.bak", "best-old", "best-1", "best-02", "best-"]
)
def test_a_copy_of_the_user_s_is_left_alone(folder: Path, name: str, keep: int) -> None:
    save_best(folder, keep, 1)
    shutil.copytree(folder / "best", folder / name)
    before = content(folder / name)
    save_best(folder, keep, 2, 3, 4)
    assert content(folder / name) == before
    ours = [folder / "best", *retention.kept_checkpoints(folder)]
    assert [manifest.peek_step(place) for place in ours] == [4, 3, 2][:keep]
    assert folder / name not in ours


@pytest.mark.parametrize("kind", ["file", "link", "empty folder"])
def test_whatever_has_a_name_keeps_it(folder: Path, kind: str) -> None:
    place = folder / "best-2"
    if kind == "file":
        place.write_text("notes")
    elif kind == "link":
        place.symlink_to(folder / "nowhere")
    else:
        place.mkdir()
    save_best(folder, 3, 1, 2, 3)
    assert steps(folder).items() >= {"best": 3, "best-3": 2, "best-4": 1}.items()
    assert place.is_symlink() == (kind == "link")
    assert not place.is_file() or place.read_text() == "notes"


def test_a_folder_put_in_the_place_of_ours_is_not_ours(folder: Path) -> None:
    save_best(folder, 3, 1, 2, 3)
    shutil.rmtree(folder / "best-2")
    shutil.copytree(folder / "best", folder / "best-2")
    save_best(folder, 3, 4, 5)
    assert manifest.peek_step(folder / "best-2") == 3
    assert steps(folder) == {"best": 5, "best-2": 3, "best-3": 4, "best-4": 3}


def test_what_somebody_put_into_ours_stays(folder: Path) -> None:
    save_best(folder, 1, 1)
    (folder / "best" / "notes.txt").write_text("a good one")
    save_best(folder, 1, 2)
    assert (folder / ".best.old.left" / "notes.txt").read_text() == "a good one"
    assert manifest.peek_step(folder / "best") == 2


@pytest.mark.parametrize("killed_after", [0, 1, 2])
def test_where_it_is_killed_all_are_ours_still(
    folder: Path, monkeypatch: pytest.MonkeyPatch, killed_after: int
) -> None:
    """None is forgotten, the best is found, and what is too many goes in the end."""
    save_best(folder, 3, 1, 2, 3)
    real, renames = Path.rename, 0

    def rename(self: Path, target: Path) -> Path:
        nonlocal renames
        if renames == killed_after:
            raise KeyboardInterrupt
        renames += 1
        return real(self, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", rename)
        with pytest.raises(KeyboardInterrupt):
            save_best(folder, 3, 4)
    checkpoint.remove_unfinished(folder)
    assert checkpoint.load_best(folder)[1]["progress"]["step"] == 3
    ours = [place for place in checkpoint.best_candidates(folder) if place.is_dir()]
    assert {place.name for place in ours} == set(steps(folder))
    save_best(folder, 3, 4)
    assert steps(folder) == {"best": 4, "best-2": 3, "best-3": 2}


@pytest.mark.parametrize("keep", [1, 2, 3])
def test_a_run_without_a_list_has_kept_as_many_as_it_was_told(tmp_path: Path, keep: int) -> None:
    for name, step in {"best": 9, "best-2": 7, "best-3": 5, "best-4": 3, "best-5": 9}.items():
        checkpoint.save(tmp_path / name, GROUPS, at(step, keep))
    retention.initialize(tmp_path)
    assert [place.name for place in retention.kept_checkpoints(tmp_path)] == ["best-2", "best-3"][
        : keep - 1
    ]
    save_best(tmp_path, keep, 10)
    others = {"best-4": 3, "best-5": 9}
    assert steps(tmp_path).items() >= others.items()
    assert [manifest.peek_step(place) for place in retention.kept_checkpoints(tmp_path)] == [9, 7][
        : keep - 1
    ]


def test_a_copy_of_the_best_in_a_run_without_a_list_is_no_second_best(tmp_path: Path) -> None:
    for name in ("best", "best-2"):
        checkpoint.save(tmp_path / name, GROUPS, at(9, keep=3))
    retention.initialize(tmp_path)
    assert retention.kept_checkpoints(tmp_path) == []


@pytest.mark.parametrize("text", ["", "{", "[]", '{"saved": 1}', '{"kept": {"best-2": 3}}', "[" * 99999])
def test_a_damaged_list_lets_nothing_be_removed(folder: Path, text: str) -> None:
    save_best(folder, 2, 1, 2)
    (folder / retention.NAME).write_text(text)
    save_best(folder, 2, 3)
    assert steps(folder) == {"best": 3, "best-2": 1, "best-3": 2}


def test_the_list_says_whether_anything_was_ever_saved(tmp_path: Path) -> None:
    saver = Saver(tmp_path / "checkpoints", keep=1, interval=0)
    saver.start()
    assert not retention.has_saved(tmp_path / "checkpoints")
    saver.offer(GROUPS, at(1), best=False, last=True, now=True)
    saver.flush()
    assert retention.has_saved(tmp_path / "checkpoints")
    assert json.loads((tmp_path / "checkpoints" / retention.NAME).read_text()) == {
        "saved": True,
        "kept": {},
    }
    saver.close()


def test_copies_of_the_newest_are_left_alone(tmp_path: Path) -> None:
    saver = Saver(tmp_path, keep=1, interval=0)
    saver.start()
    for step in (1, 2):
        saver.offer(GROUPS, at(step), best=True, last=True, now=True)
        saver.flush()
    names = (
        "last.old",
        "last.damaged",
        "last-1",
        "previous-run",
        ".notes.tmp",
        ".last.old.tmp",
        "a.tmp",
    )
    for name in names:
        shutil.copytree(tmp_path / "last", tmp_path / name)
        (tmp_path / name / "notes.txt").write_text("mine")
    before = {name: content(tmp_path / name) for name in names}
    (tmp_path / "last" / "state.json").write_text("{}")
    saver.close()
    again = Saver(tmp_path, keep=1, interval=0)
    again.damaged = checkpoint.load_newest(tmp_path).damaged
    again.start()
    for step in (2, 3):
        again.offer(GROUPS, at(step), best=True, last=True, now=True)
        again.flush()
    again.close()
    assert {name: content(tmp_path / name) for name in names} == before
    assert (tmp_path / "last.damaged-2" / "state.json").read_text() == "{}"
