"""The folder for data that jobs share."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from bigmodel.sweeps.shared_folder import PREFIX, owned, remove_abandoned

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="forks")


def test_only_folders_that_nobody_holds_are_removed(tmp_path: Path) -> None:
    names = [f"{PREFIX}killed", f"{PREFIX}running", f"{PREFIX}unknown", "mine"]
    for name in names:
        (tmp_path / name).mkdir()
        (tmp_path / name / "data.pt").touch()
    (tmp_path / names[0] / "owner").touch()
    with owned(tmp_path / names[1]):
        remove_abandoned(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(names[1:])


def test_a_folder_is_in_use_as_long_as_a_forked_process_lives(tmp_path: Path) -> None:
    folder = tmp_path / f"{PREFIX}job"
    folder.mkdir()
    read, write = os.pipe()
    with owned(folder):
        child = os.fork()
        if not child:
            os.close(write)
            os.read(read, 1)  # until the other end is closed
            os._exit(0)
    os.close(read)
    remove_abandoned(tmp_path)
    assert folder.is_dir()
    os.close(write)
    os.waitpid(child, 0)
    remove_abandoned(tmp_path)
    assert not folder.exists()


def test_a_process_that_is_executed_does_not_hold_it(tmp_path: Path) -> None:
    folder = tmp_path / f"{PREFIX}other"
    folder.mkdir()
    with owned(folder):
        other = subprocess.Popen(["sleep", "300"])
    try:
        remove_abandoned(tmp_path)
        assert not folder.exists()
    finally:
        other.kill()
        other.wait()
