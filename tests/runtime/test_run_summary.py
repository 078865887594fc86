"""How a run ended, as its folder says, whatever lies there."""

from __future__ import annotations

from pathlib import Path

import pytest

from bigmodel.runtime import run_summary


@pytest.mark.parametrize(
    ("text", "status"),
    [('{"status": "finished", "steps": 3}', "finished"), ("{}", None), ('{"status": [1]}', None)],
)
def test_what_it_says_is_not_checked(tmp_path: Path, text: str, status: str | None) -> None:
    (tmp_path / run_summary.NAME).write_text(text)
    assert run_summary.read(tmp_path) == run_summary.read_leniently(tmp_path)
    assert run_summary.status(tmp_path) == status


@pytest.mark.parametrize("text", [None, "", '{"status": "fini', "[]", "\x00", "[" * 1000])
def test_what_is_no_summary_says_nothing(tmp_path: Path, text: str | None) -> None:
    if text is not None:
        (tmp_path / run_summary.NAME).write_text(text)
    with pytest.raises((OSError, ValueError)):
        run_summary.read(tmp_path)
    assert run_summary.read_leniently(tmp_path) is None
    assert run_summary.status(tmp_path) is None
