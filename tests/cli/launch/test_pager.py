"""Long pages: through a pager on a terminal, as they are in a pipe."""

import fcntl
import os
import pty
import struct
import subprocess
import sys
import termios
from pathlib import Path

import pytest

SHOW = "from bigmodel.cli.launch.pager import show; show('\\n'.join(map(str, range(60))))"


def shown(folder: Path, rows: int, **environment: str) -> str:
    """What a terminal of so many rows shows."""
    controller, user = pty.openpty()
    fcntl.ioctl(user, termios.TIOCSWINSZ, struct.pack("HHHH", rows, 80, 0, 0))
    kept = {key: value for key, value in os.environ.items() if key not in ("LINES", "COLUMNS", "LESS")}
    process = subprocess.Popen(
        [sys.executable, "-c", SHOW],
        stdin=user,
        stdout=user,
        stderr=user,
        cwd=folder,
        env=kept | {"TERM": "xterm"} | environment,
    )
    os.close(user)
    told = b""
    try:
        while block := os.read(controller, 4096):
            told += block
    except OSError:  # how a terminal says that nobody is there any more
        pass
    os.close(controller)
    assert process.wait(60) == 0, told
    return told.decode().replace("\r\n", "\n")


@pytest.fixture
def pager(tmp_path: Path) -> str:
    """One that marks each line, and notes how less would behave."""
    path = tmp_path / "pager"
    path.write_text('#!/bin/sh\necho "LESS=$LESS $1"\nsed "s/^/> /"\n')
    path.chmod(0o755)
    return f"{path} -x"


def test_a_long_page_is_paged(tmp_path: Path, pager: str) -> None:
    told = shown(tmp_path, 24, PAGER=pager)
    assert told.startswith("LESS=FRX -x\n> 0\n> 1\n")
    assert told.rstrip().endswith("> 59")
    assert shown(tmp_path, 24, PAGER=pager, LESS="S").startswith("LESS=S -x\n")


@pytest.mark.parametrize(
    ("rows", "environment"),
    [
        (24, {"PAGER": "'unclosed"}),
        (80, {}),
        (24, {"TERM": "dumb"}),
        (24, {"PAGER": ""}),
        (24, {"PAGER": "cat"}),
        (24, {"PAGER": "no-such-pager"}),
    ],
    ids=str,
)
def test_what_needs_no_pager_is_printed(
    tmp_path: Path, pager: str, rows: int, environment: dict[str, str]
) -> None:
    assert shown(tmp_path, rows, **{"PAGER": pager, **environment}).startswith("0\n1\n")


def test_a_pipe_is_never_paged(tmp_path: Path, pager: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", SHOW],
        env=os.environ | {"PAGER": pager, "LINES": "24"},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.startswith("0\n1\n")
