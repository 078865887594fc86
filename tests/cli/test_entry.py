"""What is typed before the settings or the verb."""

import sys
from importlib.metadata import version
from typing import NoReturn

import pytest

from bigmodel.cli import entry


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """The program that would have run, with its arguments."""
    runs: list[list[str]] = []

    def run(program: str, _: str) -> NoReturn:
        runs.append([program, *sys.argv[1:]])
        raise SystemExit(0)

    monkeypatch.setattr(entry, "_run", run)
    return runs


@pytest.mark.parametrize(
    ("typed", "program"),
    [
        ([], "bigmodel-train"),
        (["model=cnn", "seed=1"], "bigmodel-train"),
        (["-m", "seed=1,2"], "bigmodel-train"),
        (["--help"], "bigmodel-train"),
        (["~loss"], "bigmodel-train"),
        (["+a=1"], "bigmodel-train"),
        (["eval", "run"], "bigmodel"),
        (["evl", "run"], "bigmodel"),
    ],
    ids=" ".join,
)
def test_python_m_takes_settings_or_a_verb(
    monkeypatch: pytest.MonkeyPatch, started: list[list[str]], typed: list[str], program: str
) -> None:
    monkeypatch.setattr(sys, "argv", ["bigmodel", *typed])
    with pytest.raises(SystemExit):
        entry.python_m()
    assert started == [[program, *typed]]


@pytest.mark.parametrize("call", [entry.bigmodel, entry.python_m])
def test_train_is_a_verb(
    monkeypatch: pytest.MonkeyPatch, started: list[list[str]], call: object
) -> None:
    monkeypatch.setattr(sys, "argv", ["bigmodel", "train", "model=cnn"])
    with pytest.raises(SystemExit):
        call()  # type: ignore[operator]
    assert started == [["bigmodel-train", "model=cnn"]]


def test_the_version_is_ours(capsys: pytest.CaptureFixture[str]) -> None:
    from bigmodel.cli.commands.arguments import parse

    with pytest.raises(SystemExit) as end:
        parse(["--version"])
    assert end.value.code == 0
    printed = capsys.readouterr()
    assert printed.out == f"bigmodel {version('bigmodel-train')}\n"
