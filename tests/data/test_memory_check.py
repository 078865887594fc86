"""How much memory a process can still have, as a container's files tell it."""

from pathlib import Path

import pytest

from bigmodel.data import memory_check


def container(folder: Path, most: str, used: int, **stat: int) -> None:
    (folder / "memory.max").write_text(f"{most}\n")
    (folder / "memory.current").write_text(f"{used}\n")
    (folder / "memory.stat").write_text("".join(f"{name} {size}\n" for name, size in stat.items()))


@pytest.fixture(autouse=True)
def group(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory_check, "_GROUP", tmp_path)


def test_what_a_container_may_use_counts(tmp_path: Path) -> None:
    whole = memory_check.free_memory()
    container(tmp_path, "10000", 9000, anon=9000, inactive_file=0, active_file=0)
    assert memory_check.free_memory() == 1000 < whole


def test_files_that_the_system_keeps_in_memory_make_room(tmp_path: Path) -> None:
    container(tmp_path, "10000", 9000, anon=1000, inactive_file=5000, active_file=3000)
    assert memory_check.free_memory() == 9000


def test_a_container_without_a_bound_has_what_the_machine_has(tmp_path: Path) -> None:
    container(tmp_path, "max", 9000, anon=9000)
    assert memory_check.free_memory() > 10000
