"""Damaged checkpoints and disks that take no more: detected, named, and gone on from the one before."""

import random
import shutil
from pathlib import Path

import pytest

from bigmodel.checkpointing import checkpoint
from bigmodel.errors import CheckpointError
from tests.faults import damage, trials


@pytest.fixture(scope="module")
def stopped(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return damage.stopped_run(tmp_path_factory.mktemp("stopped") / "run")


@pytest.mark.parametrize("kind", damage.KINDS)
def test_the_one_before_is_gone_on_from(tmp_path: Path, stopped: Path, expected: str, kind: str) -> None:
    assert damage.resume_damaged(stopped, tmp_path, expected, kind, seed=1) == []


@pytest.mark.parametrize(
    "name", ["model.safetensors", "state.json", "manifest.json", "random.safetensors"]
)
def test_every_byte_is_looked_at(tmp_path: Path, stopped: Path, name: str) -> None:
    """Each in turn would take minutes: a hundred of each file, the first and the last among them."""
    folder = Path(shutil.copytree(stopped / "checkpoints" / "last", tmp_path / "last"))
    content, chance = (folder / name).read_bytes(), random.Random(0)
    places = {0, len(content) - 1, *(chance.randrange(len(content)) for _ in range(98))}
    for place in places:
        for bits in (1, 0x80, chance.randrange(1, 256)):
            changed = content[:place] + bytes([content[place] ^ bits]) + content[place + 1 :]
            (folder / name).write_bytes(changed)
            with pytest.raises(CheckpointError, match=r"damaged|newer version"):
                checkpoint.load(folder)


def test_without_a_whole_one_it_is_an_error_and_never_a_new_start(tmp_path: Path, stopped: Path) -> None:
    folder = tmp_path / "outputs" / "day" / "time"
    shutil.copytree(stopped, folder)
    for manifest in (folder / "checkpoints").rglob("manifest.json"):
        manifest.unlink()
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    attempt = trials.launch(tmp_path, f"resume={folder}")
    assert attempt.wait() == 1
    assert "No intact checkpoint is left to resume from." in attempt.log
    assert "Traceback" not in attempt.log
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before


def test_a_full_disk(tmp_path: Path, expected: str) -> None:
    try:
        with damage.small_disk(tmp_path / "disk") as disk:
            assert damage.fill_the_disk(disk, expected, after=5) == []
    except PermissionError as error:
        pytest.skip(str(error))


@pytest.mark.parametrize("pages", [0, 1, 2, 4, 8, 16, 32])
def test_a_disk_that_is_full_before_the_first_save(tmp_path: Path, pages: int) -> None:
    """The lock, the record, or the first checkpoint does not fit: the folder is free or goes on."""
    try:
        with damage.small_disk(tmp_path / "disk") as disk:
            assert damage.start_on_a_full_disk(disk, disk / "a" / "run", pages) == []
    except PermissionError as error:
        pytest.skip(str(error))


def test_a_folder_that_nobody_can_write_to(tmp_path: Path, stopped: Path) -> None:
    try:
        with damage.small_disk(tmp_path / "disk") as disk:
            shutil.copytree(stopped, disk / "run")
            damage.read_only(disk)
            attempt = trials.launch(tmp_path, f"resume={disk / 'run'}")
            assert attempt.wait() == 1
            assert str(disk / "run") in attempt.log.replace("\n", "")
            assert "Read-only file system" in attempt.log or "cannot be written" in attempt.log
            assert "Traceback" not in attempt.log
            assert checkpoint.load(disk / "run" / "checkpoints" / "last")
    except PermissionError as error:
        pytest.skip(str(error))


def test_a_folder_that_is_deleted_under_the_run(tmp_path: Path) -> None:
    attempt = trials.launch(tmp_path, *trials.RECIPE, hold="step 6")
    damage.until_step(attempt, 5)
    folder = trials.run_folder(tmp_path)
    assert folder is not None
    shutil.rmtree(folder)
    attempt.release()
    assert attempt.wait() == 1
    assert "is gone: it was moved or deleted" in " ".join(attempt.log.split())
    assert str(folder.relative_to(tmp_path)) in attempt.log.replace("\n", "")
    assert "Traceback" not in attempt.log
    assert not folder.exists()
