"""The folder for data that jobs share."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from bigmodel.sweeps import shared_folder
from bigmodel.sweeps.shared_folder import PREFIX, owned, remove_abandoned

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="forks")


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(shared_folder.tempfile, "gettempdir", lambda: str(tmp_path))
    return tmp_path


def test_only_folders_that_nobody_holds_are_removed(temporary: Path) -> None:
    names = [f"{PREFIX}killed", f"{PREFIX}running", f"{PREFIX}unknown", "mine"]
    for name in names:
        (temporary / name).mkdir()
        (temporary / name / "data.pt").touch()
    (temporary / names[0] / "owner").touch()
    with owned(temporary / names[1]):
        remove_abandoned()
    assert sorted(path.name for path in temporary.iterdir()) == sorted(names[1:])


def test_a_folder_is_in_use_as_long_as_a_forked_process_lives(temporary: Path) -> None:
    folder = temporary / f"{PREFIX}job"
    folder.mkdir()
    read, write = os.pipe()
    with owned(folder):
        child = os.fork()
        if not child:
            os.close(write)
            os.read(read, 1)  # until the other end is closed
            os._exit(0)
    os.close(read)
    remove_abandoned()
    assert folder.is_dir()
    os.close(write)
    os.waitpid(child, 0)
    remove_abandoned()
    assert not folder.exists()


def test_a_process_that_is_executed_does_not_hold_it(temporary: Path) -> None:
    folder = temporary / f"{PREFIX}other"
    folder.mkdir()
    with owned(folder):
        other = subprocess.Popen(["sleep", "300"])
    try:
        remove_abandoned()
        assert not folder.exists()
    finally:
        other.kill()
        other.wait()
