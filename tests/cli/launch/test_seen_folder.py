"""A folder that only one of several machines sees."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from bigmodel.cli.launch import run_folder, seen_folder
from bigmodel.cli.launch.seen_folder import check_seen
from bigmodel.distributed.ranks import ALONE, Ranks
from bigmodel.errors import CheckpointError, ConfigError


class Pair(Ranks):
    """One of two ranks; what the other says is made up.

    Args:
        told: what the first has told this one; None if this is the first.
        other: whether the other rank sees the file.
    """

    size = 2

    def __init__(self, told: tuple[str, str] | None = None, *, other: bool = True) -> None:
        self.rank, self._told, self._other = int(told is not None), told, other
        self.saw: bool | None = None

    def from_first(self, value: Any) -> Any:
        return value if self._told is None else self._told

    def gather(self, value: Any) -> list[Any]:
        self.saw = value[0]
        both = [value, (self._other, "elsewhere")]
        return both if self.is_first else both[::-1]


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(seen_folder, "_PATIENCE", 0.0)


def test_one_rank_alone_looks_for_nothing(tmp_path: Path) -> None:
    check_seen(tmp_path / "nowhere", ALONE)


def test_the_first_shows_a_file_and_removes_it(tmp_path: Path) -> None:
    first = Pair()
    check_seen(tmp_path, first)
    assert first.saw
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("content", [None, "of another run"])
def test_what_a_rank_does_not_see_is_told_with_its_machine(tmp_path: Path, content: str | None) -> None:
    if content is not None:
        (tmp_path / "shown").write_text(content)
    blind = Pair(("shown", "token"))
    with pytest.raises(ConfigError, match=r"cannot see\. Name one on a disk that all"):
        check_seen(tmp_path, blind)
    assert blind.saw is False
    with pytest.raises(ConfigError, match="which elsewhere cannot see"):
        check_seen(tmp_path, Pair(other=False))
    assert [path.name for path in tmp_path.iterdir()] == ([] if content is None else ["shown"])


def test_a_rank_that_sees_it_goes_on(tmp_path: Path) -> None:
    (tmp_path / "shown").write_text("token")
    check_seen(tmp_path, Pair(("shown", "token")))


def test_a_folder_that_the_first_cannot_write_to(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="gone"):
        check_seen(tmp_path / "gone", Pair())


def test_a_killed_process_s_file_is_removed_by_the_next(tmp_path: Path) -> None:
    (tmp_path / f".{seen_folder.NAME}.12.tmp").write_text("token")
    run_folder.remove_leftovers(tmp_path)
    assert not list(tmp_path.iterdir())
