import os
import stat
from pathlib import Path

import pytest

from bigmodel.errors import CheckpointError
from bigmodel.runtime import disk
from tests.faults.durability import Order


def test_a_file_is_synced_before_it_has_its_name_and_the_name_after(tmp_path: Path) -> None:
    order = Order()
    with order.watching():
        disk.make_folder(tmp_path / "a" / "b")
        for content in ("one", "another"):
            disk.write_text(tmp_path / "a" / "b" / "file", content)
            order.check_synced(content, tmp_path)
    assert order.faults == []
    assert order.renames == 2
    assert [path.name for path in (tmp_path / "a" / "b").iterdir()] == ["file"]


@pytest.mark.parametrize("careless", ["no sync", "no sync of the folder", "changed after its sync"])
def test_the_order_s_test_sees_what_is_wrong(tmp_path: Path, careless: str) -> None:
    order = Order()
    with order.watching():
        with (tmp_path / "new").open("w") as file:
            file.write("x")
            file.flush()
            if careless != "no sync":
                os.fsync(file.fileno())
            if careless == "changed after its sync":
                file.write("y")
        (tmp_path / "new").replace(tmp_path / "file")
        if careless != "no sync of the folder":
            disk.sync(tmp_path)
        order.check_synced("the end", tmp_path)
    assert order.faults != []


def test_what_is_there_already_is_not_written_again(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("same")
    before, order = path.stat(), Order()
    with order.watching():
        disk.write_text(path, "same")
        order.check_synced("the end", path)
    assert order.faults == []
    assert order.renames == 0
    assert (path.stat().st_ino, path.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)


@pytest.mark.parametrize("mode", [0o600, 0o640, 0o664])
def test_the_mode_of_the_old_file_stays(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "file"
    path.write_text("old")
    path.chmod(mode)
    disk.write_text(path, "new")
    assert (path.read_text(), stat.S_IMODE(path.stat().st_mode)) == ("new", mode)


def test_a_link_is_replaced_and_not_followed(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").write_text("text")
    (tmp_path / "file").symlink_to(tmp_path / "elsewhere")
    disk.write_text(tmp_path / "file", "text")
    assert not (tmp_path / "file").is_symlink()
    assert (tmp_path / "elsewhere").read_text() == "text"


@pytest.mark.parametrize("call", ["os.fsync", "os.replace"])
def test_the_old_file_stays_where_the_new_one_does_not_fit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    (tmp_path / "file").write_text("old")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(call, full)
    with pytest.raises(CheckpointError, match=r"file: cannot be written: No space left.*needs 3 bytes"):
        disk.write_text(tmp_path / "file", "new")
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("file", "old")]


def test_a_folder_that_cannot_be_synced_is_no_fault(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.fsync

    def without_folders(handle: int) -> None:
        if stat.S_ISDIR(os.fstat(handle).st_mode):
            raise OSError(22, "Invalid argument")
        real(handle)

    monkeypatch.setattr(os, "fsync", without_folders)
    disk.write_text(tmp_path / "file", "new")
    assert (tmp_path / "file").read_text() == "new"


def test_a_file_s_name_that_is_no_text_can_be_told(tmp_path: Path) -> None:
    disk.write_text(tmp_path / "file", "caf\udce9")
    assert (tmp_path / "file").read_text() == "caf\\udce9"


def test_a_pipe_is_written_to_and_stays(tmp_path: Path) -> None:
    pipe, link = tmp_path / "pipe", tmp_path / "link"
    os.mkfifo(pipe)
    link.symlink_to(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)  # so that a writer need not wait for one
    try:
        disk.write_bytes(pipe, b"one ")
        disk.write_bytes(link, b"two")
        assert os.read(reader, 100) == b"one two"
    finally:
        os.close(reader)
    assert disk.is_special(pipe)
    assert link.is_symlink()


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="open files have no paths")
@pytest.mark.parametrize("folder", ["/dev/fd", "/proc/self/fd"])
def test_an_open_file_is_appended_to(tmp_path: Path, folder: str) -> None:
    """As /dev/stdout is one if a shell redirects it to a file."""
    with (tmp_path / "out").open("wb") as file:
        file.write(b"one ")
        file.flush()
        path = Path(folder, str(file.fileno()))
        assert disk.is_special(path)
        disk.write_bytes(path, b"two")
    assert (tmp_path / "out").read_bytes() == b"one two"
