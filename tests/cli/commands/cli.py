"""`bigmodel` as a user calls it, in this process."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass

import pytest

from bigmodel.cli.commands import main as entry


@dataclass(frozen=True)
class Said:
    """Exit status, and what was printed."""

    status: int
    out: str
    err: str


Bigmodel = Callable[..., Said]


def caller(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Bigmodel:
    """A function that calls `bigmodel` with its arguments."""
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.delenv("HYDRA_FULL_ERROR", raising=False)

    def call(*argv: object) -> Said:
        monkeypatch.setattr(sys, "argv", ["bigmodel", *map(str, argv)])
        capsys.readouterr()
        try:
            entry.main()
            status = 0
        except SystemExit as end:
            status = end.code if isinstance(end.code, int) else 0
        printed = capsys.readouterr()
        return Said(status, printed.out, printed.err)

    return call
