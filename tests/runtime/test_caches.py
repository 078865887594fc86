"""Machine code lies where nobody else can put any: in a folder of the user's own, or in a fresh one."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from bigmodel.runtime import caches

pytestmark = pytest.mark.skipif(os.name == "nt", reason="permissions are others there")


@pytest.fixture(autouse=True)
def _anew(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """As a process begins, with a user who has nothing yet."""
    monkeypatch.setattr(caches, "_refused", {})
    monkeypatch.setattr(caches, "_ours", {})
    for name in (*caches.OF_COMPILERS, "BIGMODEL_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    (tmp_path / "home").mkdir(mode=0o755)


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def is_fresh(folder: Path, tmp_path: Path) -> bool:
    """Whether it is another folder, one that only this user can enter."""
    return not folder.is_relative_to(tmp_path) and mode_of(folder.parent) == 0o700


def test_what_is_missing_is_made_private(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        folder = caches.code_folder("steps")
    finally:
        os.umask(before)
    assert folder == tmp_path / "home" / ".cache" / "bigmodel" / "steps"
    assert {mode_of(place) for place in (folder, folder.parent, folder.parents[1])} == {0o700}
    assert caches.refusals() == []


@pytest.mark.parametrize(
    ("name", "value", "where"),
    [
        ("BIGMODEL_CACHE", "{0}/own", "own/steps"),
        ("XDG_CACHE_HOME", "{0}/xdg", "xdg/bigmodel/steps"),
        ("XDG_CACHE_HOME", "relative", "home/.cache/bigmodel/steps"),
    ],
)
def test_the_user_may_say_where(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, value: str, where: str
) -> None:
    monkeypatch.setenv(name, value.format(tmp_path))
    assert caches.code_folder("steps") == tmp_path / where


def test_a_folder_that_others_could_but_read_is_closed(tmp_path: Path) -> None:
    folder = tmp_path / "home" / ".cache" / "bigmodel" / "steps"
    folder.mkdir(parents=True)
    folder.chmod(0o755)
    assert caches.code_folder("steps") == folder
    assert mode_of(folder) == 0o700


@pytest.mark.parametrize("depth", [0, 1, 2, 3], ids=["itself", "bigmodel", ".cache", "home"])
def test_what_others_could_write_to_or_replace_is_not_used(tmp_path: Path, depth: int) -> None:
    folder = tmp_path / "home" / ".cache" / "bigmodel" / "steps"
    folder.mkdir(parents=True)
    planted = folder / "planted.so"
    planted.touch()
    (folder, *folder.parents)[depth].chmod(0o777)
    found = caches.code_folder("steps")
    assert is_fresh(found, tmp_path)
    assert planted.exists(), "it is not ours to remove"
    (told,) = caches.refusals()
    assert f"{(folder, *folder.parents)[depth]}: can be written by others" in told
    assert caches.code_folder("steps") == found, "one for the whole process"


def test_a_folder_for_all_as_tmp_is_may_lie_on_the_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "tmp").mkdir()
    (tmp_path / "tmp").chmod(0o1777)
    monkeypatch.setenv("BIGMODEL_CACHE", str(tmp_path / "tmp" / "mine"))
    assert caches.code_folder("steps") == tmp_path / "tmp" / "mine" / "steps"


def test_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A user's own may lead to a larger disk; but one in the folder's place is none of ours."""
    (tmp_path / "large").mkdir()
    (tmp_path / "home" / ".cache").symlink_to(tmp_path / "large")
    assert caches.code_folder("steps") == tmp_path / "large" / "bigmodel" / "steps"
    (tmp_path / "home" / ".cache" / "bigmodel" / "torch").symlink_to(tmp_path / "large")
    assert is_fresh(caches.code_folder("torch"), tmp_path)
    assert "is a link" in caches.refusals()[0]
    (tmp_path / "home" / ".cache" / "bigmodel" / "torch").unlink()
    assert caches.code_folder("torch") == tmp_path / "large" / "bigmodel" / "torch"
    assert caches.refusals() == []
    (tmp_path / "large").chmod(0o777)
    assert is_fresh(caches.code_folder("steps"), tmp_path)
    (tmp_path / "around").symlink_to("around")
    monkeypatch.setenv("BIGMODEL_CACHE", str(tmp_path / "around" / "cache"))
    assert is_fresh(caches.code_folder("steps"), tmp_path)


def test_another_user_s_home_as_sudo_leaves_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before, me = caches.code_folder("steps"), os.geteuid()
    monkeypatch.setattr(os, "geteuid", lambda: me + 1)
    found = caches.code_folder("steps")
    assert is_fresh(found, tmp_path)
    assert "belongs to user" in caches.refusals()[0]
    monkeypatch.setattr(caches, "_nameless", lambda: me)  # the same, where a container names nobody
    assert is_fresh(caches.code_folder("steps"), tmp_path), "on the way alone"
    monkeypatch.undo()
    assert before.is_dir()


def test_a_user_without_a_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    for home in (str(tmp_path / "file" / "home"), "/proc/nowhere", "/dev/null"):
        monkeypatch.setenv("HOME", home)
        assert is_fresh(caches.code_folder("steps"), tmp_path)
        assert f": {home}" in caches.refusals()[0] or "is not a folder" in caches.refusals()[0]

    def nobody() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", nobody)
    assert caches.user_cache() is None
    assert is_fresh(caches.code_folder("steps"), tmp_path)


def test_compilers_are_told_and_a_user_s_own_choice_is_checked_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for folder, mode in (("good", 0o700), ("bad", 0o777)):
        (tmp_path / folder).mkdir()
        (tmp_path / folder).chmod(mode)
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "good"))
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path / "bad"))
    caches.use_private_folders()
    assert os.environ["TORCHINDUCTOR_CACHE_DIR"] == str(tmp_path / "good")
    assert is_fresh(Path(os.environ["TRITON_CACHE_DIR"]), tmp_path)
    monkeypatch.delenv("TORCHINDUCTOR_CACHE_DIR")
    caches.use_private_folders()
    own = str(tmp_path / "home" / ".cache" / "bigmodel" / "torch")
    assert os.environ["TORCHINDUCTOR_CACHE_DIR"] == own
    monkeypatch.setenv("BIGMODEL_CACHE", str(tmp_path / "other"))
    caches.use_private_folders()
    assert os.environ["TORCHINDUCTOR_CACHE_DIR"] == str(tmp_path / "other" / "torch")


def test_a_fresh_folder_ends_with_the_process() -> None:
    code = "from bigmodel.runtime import caches; print(caches.code_folder('steps'))"
    environment = {**os.environ, "HOME": os.devnull}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    assert Path(done.stdout.strip()).name == "steps"
    assert not Path(done.stdout.strip()).parent.exists()
