"""Tab completion, in the shells themselves where they are installed."""

import fcntl
import os
import pty
import re
import select
import shutil
import subprocess
import sys
import termios
import time
from pathlib import Path

import pytest

from bigmodel.cli.launch.completion import complete, split
from bigmodel.errors import ConfigError

REAL = Path(__file__).parents[3] / "configs"
PROGRAM = Path(sys.executable).with_name("bigmodel-train")
BREAKS = " \t\n\"'><=;|&(:"
SHELLS = {
    "bash": (["bash", "--norc", "-i"], 'eval "$(bigmodel-train -sc install=bash)"'),
    "zsh": (["zsh", "-f", "-i"], 'eval "$(bigmodel-train -sc install=zsh)"'),
    "fish": (["fish", "--no-config", "-i"], "bigmodel-train -sc install=fish | source"),
}


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("houses.csv", "my data.csv", "odd(1).csv", "sub/in.csv", "outputs/2026/x"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def offered(here: Path, monkeypatch: pytest.MonkeyPatch):
    """What is offered to a shell for a line with the cursor at its end, in a folder with files."""
    assert here == Path.cwd()

    def ask(line: str, shell: str = "bash") -> list[str]:
        monkeypatch.setenv("COMP_LINE", f"bigmodel-train {line}")
        monkeypatch.setenv("COMP_POINT", str(len(line) + 15))
        monkeypatch.setenv("BIGMODEL_BREAKS", BREAKS if shell == "bash" else "")
        return complete(["-sc", f"query={shell}"], REAL).splitlines()

    return ask


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("data.path=hou", ["houses.csv "]),
        ("data=table data.path=my", ["'my data.csv' "]),
        ("data.path=odd", ["'\"odd(1).csv\"' "]),
        ("data.path=su", ["sub/"]),
        ("data.path=sub/", ["sub/in.csv "]),
        ("resume=out", ["outputs/"]),
        ("resume=a", ["auto "]),
        ("--config-d", ["--config-dir "]),
        ("--config-dir su", ["sub/"]),
        ("--config-dir=su", ["sub/"]),
        ("--cfg j", ["job "]),
        ("--vers", ["--version "]),
        ("mod", ["model.", "model="]),
        ("model=c", ["cnn "]),
        ("-m model=fnn,c", ["fnn,cnn "]),
        ("trainer.epo", ["trainer.epochs="]),
        ("trainer.early_s", ["trainer.early_stopping."]),
        ("trainer.tensorboard=t", ["true "]),
        ("model=rnn model.cel", ["model.cell="]),
        ("+model.cel", []),
        ("nothing=at_all", []),
        ("--config-dir nowhere model=c", []),
    ],
)
def test_what_is_offered(offered, line: str, found: list[str]) -> None:
    assert offered(line) == found


def test_other_shells_quote_by_themselves(offered) -> None:
    assert offered("data.path=my", "zsh") == ["data.path=my data.csv "]
    assert offered("data.path=odd", "fish") == ['data.path="odd(1).csv"']


def test_what_several_have_in_common_keeps_its_form(offered) -> None:
    assert set(offered("data.path=")) >= {"houses.csv ", r"my\ data.csv ", r"odd\(1\).csv ", "sub/"}


def test_words_of_a_line() -> None:
    line = split("""a 'b c' "d e"f g\\ h 'i""")
    assert [word.text for word in line] == ["a", "b c", "d ef", "g h", "i"]
    assert line[-1].quote == "'"
    assert split("a ")[-1].text == ""


@pytest.mark.parametrize("word", ["install=tcsh", "query", "remove=bash"])
def test_another_word_is_told(word: str) -> None:
    with pytest.raises(
        ConfigError, match="expected install=, uninstall= or query= with a shell: bash, zsh"
    ):
        complete(["-sc", word], REAL)


def at_a_prompt(shell: str, here: Path, typed: str) -> list[str]:
    """What a program gets that is called by what somebody types in a shell, tab keys included."""
    command, install = SHELLS[shell]
    if shutil.which(command[0]) is None:
        pytest.skip(f"{shell} is not installed")
    bin_folder = here / "bin"
    bin_folder.mkdir()
    got = here / "got"
    (bin_folder / "bigmodel-train").write_text(
        f'#!/bin/sh\ncase "$1" in -sc) exec "{PROGRAM}" "$@";; esac\n'
        f'printf "%s\\n" "$@" > "{got}.part"; mv "{got}.part" "{got}"\n'
    )
    (bin_folder / "bigmodel-train").chmod(0o755)
    path = f"{bin_folder}{os.pathsep}{os.environ['PATH']}"
    environment = {
        **os.environ,
        "PATH": path,
        "HOME": str(here),
        "TERM": "dumb",
        "XDG_CONFIG_HOME": str(here),
    }
    controller, user = pty.openpty()
    process = subprocess.Popen(
        command,
        stdin=user,
        stdout=user,
        stderr=user,
        env=environment,
        cwd=here,
        start_new_session=True,
        preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
    )
    os.close(user)
    seen = ""
    try:
        os.write(controller, f"{install}; echo rea''dy\n".encode())
        seen = read_until(controller, lambda text: "\nready" in text.replace("\r", ""))
        os.write(controller, f"bigmodel-train {typed}".encode())
        expected = re.sub(r"\t", "", typed)
        seen += read_until(controller, lambda text: len(text) > len(expected) + 3, 20)
        os.write(controller, b"\n")
        read_until(controller, lambda _: got.exists())
    finally:
        process.kill()
        process.wait()
        os.close(controller)
    assert got.exists(), seen
    return got.read_text().splitlines()


def read_until(controller: int, done, seconds: float = 60) -> str:
    """Reads what a terminal shows until it is as it should be, or time is up."""
    text, end = "", time.monotonic() + seconds
    while not done(text) and time.monotonic() < end:
        if select.select([controller], [], [], 0.05)[0]:
            text += os.read(controller, 4096).decode(errors="replace")
    return text


@pytest.mark.parametrize("shell", SHELLS)
@pytest.mark.parametrize(
    ("typed", "arrives"),
    [
        ("data.path=hou\t", "data.path=houses.csv"),
        ("data.path=my\t", "data.path=my data.csv"),
        ("data.path=odd\t", 'data.path="odd(1).csv"'),
        ("resume=out\t", "resume=outputs/"),
        ("--config-d\t", "--config-dir"),
    ],
)
def test_a_tab_key_in_a_real_shell(shell: str, here: Path, typed: str, arrives: str) -> None:
    assert at_a_prompt(shell, here, typed) == [arrives]
