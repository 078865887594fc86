"""Names with control characters in them, from wherever names come, through whole commands: whatever is
printed or logged shows them."""

from __future__ import annotations

import csv
import os
import re
from pathlib import Path

import pytest

from tests.cli.commands.cli import caller
from tests.end_to_end import conftest
from tests.end_to_end.conftest import Command, Result

command = conftest.command
QUICK = ("debug=fast", "device=cpu", "device.threads=1")
NASTY = "n\x1b[31m\x1b]0;title\x07\x9b2J\u202e\b"
OBEYED = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]")
QUOTED = f"'{NASTY}'"  # as Hydra's grammar takes it


def check(text: str, *, names: bool = True) -> None:
    assert not OBEYED.search(text), repr(text[-2000:])
    assert not names or r"\x1b[31m" in text, repr(text[-2000:])


def write_table(path: Path, label: str = f"{NASTY}\nFORGED") -> None:
    with path.open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow([f"{NASTY}x", "kind", "y"])
        rows.writerows(
            [number % 5, f"{NASTY}{number % 2}", ("b", label)[number % 2]] for number in range(60)
        )


@pytest.fixture
def run(command: Command, tmp_path: Path) -> Path:
    """A run that has learnt nasty names, in a folder of such a name."""
    path = tmp_path / f"{NASTY}.csv"
    write_table(path)
    data = ("data=table", f"data.path='{path}'", "data.target=y")
    done = command(*QUICK, *data, f"hydra.run.dir='{tmp_path}/{NASTY}-run'")
    assert done.status == 0, done.err
    assert done.folder is not None
    assert done.folder.name == f"{NASTY}-run"
    check(done.out + done.err)
    check((done.folder / "train.log").read_text())
    return done.folder


def test_runs_and_verbs(
    run: Path,
    command: Command,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    [named] = (run / "tensorboard").iterdir()
    assert re.fullmatch(r"[\w.=,+-]+", named.name)
    events = b"".join(path.read_bytes() for path in named.iterdir())
    assert b"\x1b[31m" not in events
    assert rb"x1b" in events

    bigmodel = caller(monkeypatch, capsys)
    judged = bigmodel("eval", run)
    assert judged.status == 0, judged.err
    check(judged.out)
    (tmp_path / f"{NASTY}.csv.new").write_text("x\n1\n")
    for words in (
        ("predict", run, "--input", f"{NASTY}.csv.new", "--output", "out.csv"),
        ("eval", f"{NASTY}-nowhere"),
    ):
        refused = bigmodel(*words)
        assert refused.status == 1
        check(refused.err)
    again = command(f"resume={run}", f"optimizer.name={QUOTED}")
    assert again.status == 1
    check(again.out + again.err)


@pytest.mark.parametrize(
    "words",
    [
        ["data=table", f"data.path='{NASTY}.csv'", "data.target=y"],
        ["data=table", "data.path=mine.csv", f"data.target={QUOTED}"],
        ["data=table", "data.path=mine.csv", "data.target=missing"],
        [f"plugins=[{QUOTED}]"],
        [f"model={NASTY}"],
        [f"{NASTY}=3"],
        [f"trainer.epochs={QUOTED}"],
        [f"--{NASTY}"],
        ["--config-dir", NASTY],
        ["--config-dir", "own", "experiment=broken"],
        [f"resume={NASTY}"],
        [f"output_dir='/dev/null/{NASTY}'"],
        ["data=images", "data.path=pictures"],
        ["data=text_labels", "data.path=texts.jsonl", "data.text=a", "data.target=b"],
    ],
    ids=lambda words: "-".join(OBEYED.sub("", word) for word in words),
)
def test_mistakes(command: Command, tmp_path: Path, words: list[str]) -> None:
    write_table(tmp_path / "mine.csv")
    (tmp_path / "own" / "experiment").mkdir(parents=True)
    (tmp_path / "own" / "experiment" / "broken.yaml").write_text(f'a: "{NASTY}\n  b: [\n', "utf-8")
    (tmp_path / "pictures" / f"{NASTY}-class").mkdir(parents=True)
    (tmp_path / "pictures" / f"{NASTY}-class" / f"{NASTY}.png").write_bytes(b"no picture")
    (tmp_path / "texts.jsonl").write_text('{"\\u001b[31m": 1}\n')
    done: Result = command(*QUICK, *words)
    assert done.status == 1
    check(done.out + done.err, names=words[-1] not in ("experiment=broken", "--n\x1b[31m"))
    assert "Traceback" not in done.err


def test_a_sweep_and_its_leaderboard(command: Command, tmp_path: Path) -> None:
    write_table(tmp_path / "mine.csv")
    done = command("-m", *QUICK, "data=table", f"data.path=mine.csv,{QUOTED}", "data.target=y")
    assert done.status == 1
    check(done.out + done.err)
    board = next(tmp_path.rglob("leaderboard.csv"))
    assert NASTY in board.read_text(), "a file keeps values as they are"


def test_what_a_shell_completes(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "own" / "model").mkdir(parents=True)
    (tmp_path / "own" / "model" / f"mine{NASTY}.yaml").write_text("# Mine\nname: fnn\n")
    monkeypatch.setenv("COMP_LINE", "bigmodel-train --config-dir own model=")
    done = command("--config-dir", "own", "-sc", "query=bash")
    assert done.status == 0, done.err
    check(done.out, names=False)
    assert "model=fnn" in done.out
    assert "mine" not in done.out, "as it is shown nothing of that name could be chosen"


@pytest.mark.parametrize("source", ["data=images", "data=text_labels", "data=audio"])
def test_names_that_are_no_text(command: Command, tmp_path: Path, source: str) -> None:
    for number, name in enumerate((b"old\xff", b"new")):
        folder = tmp_path / "named" / os.fsdecode(name)
        try:
            folder.mkdir(parents=True)
        except OSError:
            pytest.skip("this file system takes no such names")
        for suffix in ("png", "txt", "wav"):
            (folder / f"{number}.{suffix}").write_bytes(b"content")
    done = command(*QUICK, source, "data.path=named")
    assert done.status == 1
    assert "the name old\\udcff/0." in done.err
    assert "UTF-8" in done.err
    assert "Traceback" not in done.err
