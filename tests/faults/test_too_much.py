"""What would take for ever, or all memory, is refused by number, in one message, before it is tried."""

import io
import os
import socket
import zipfile
from pathlib import Path

import numpy as np
import pytest

from bigmodel.data import memory_check
from tests.end_to_end import conftest
from tests.end_to_end.conftest import Command

command = conftest.command
QUICK = ("device=cpu", "trainer.tensorboard=false", "trainer.epochs=1")
HEAD = "# @package _global_\n"
ALIASES = "a0: &a0 [x,x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"a{level}: &a{level} [{','.join([f'*a{level - 1}'] * 10)}]\n" for level in range(1, 9)
)
TABLE = ("data=table", "data.target=y")
ROWS = '{"a":1,"y":0}\n{"a":2,"y":1}\n' * 20
DEEP = 30_000


def refused(command: Command, *argv: str) -> str:
    result = command(*QUICK, *argv)
    assert result.status == 1, result.out
    assert "Traceback" not in result.err
    assert len(result.err) < 1000, "a message is read by somebody"
    return result.err


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            ALIASES,
            r"mine\.yaml: line 6: more than 20,000 values in one file, counting those that aliases",
        ),
        (f"x: [{'8,' * 30_000}8]\n", "line 2: more than 20,000 values in one file"),
        (f"x: {'[' * DEEP}{']' * DEEP}\n", "line 2: values are nested more than 100 deep"),
        (f"x: {'{a: ' * DEEP}1{'}' * DEEP}\n", "line 2: values are nested more than 100 deep"),
        ("x: &a [1, *a]\n", "line 2: it contains itself: the alias \\*a is inside its anchor"),
        (f"\nseed: {'1' * 5001}\n", "line 3: a number of 5,001 digits; 1,000 are read at most"),
    ],
    ids=["aliases", "values", "lists", "mappings", "itself", "digits"],
)
def test_a_configuration_file(command: Command, tmp_path: Path, content: str, message: str) -> None:
    folder = tmp_path / "configs" / "experiment"
    folder.mkdir(parents=True)
    (folder / "mine.yaml").write_text(HEAD + content)
    text = refused(command, f"--config-dir={folder.parent}", "experiment=mine")
    assert_matches(message, text)


def assert_matches(message: str, text: str) -> None:
    with pytest.raises(AssertionError, match=message):
        raise AssertionError(text)


@pytest.mark.parametrize(
    "content", [ALIASES, f"x: {'[' * DEEP}{']' * DEEP}\n"], ids=["aliases", "lists"]
)
def test_a_stranger_s_run(command: Command, content: str) -> None:
    run = command(*QUICK, "debug=fast").folder
    assert run is not None
    path = run / ".hydra" / "config.yaml"
    path.write_text(path.read_text() + content)
    result = command(f"resume={run}")
    assert result.status == 0, result.err
    assert "configuration is damaged: line" in result.out
    assert "it is restored from the newest checkpoint" in result.out
    assert content not in path.read_text()


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        (
            "seed=range(0,1e8)",
            r"The sweep has 100,000,000 jobs \(100,000,000 of seed\); 10,000 are run at",
        ),
        ("seed=shuffle(range(0,1e8))", "100,000,000 jobs"),
        (
            "seed=range(5,0,-0.001) trainer.max_steps=range(1,1e6)",
            "5,000 of seed × 999,999 of trainer.max",
        ),
        ("seed=range(0,inf)", "a range needs a finite start, stop and step"),
        ("seed=range(0,5,0)", "and a step other than 0"),
        ("seed=glob(*)", "seed: the sweep has no values, so there is no job to run"),
        (f"seed={','.join(['1'] * 5000)}", "seed: 5,000 values; 2,000 are read at most in one argument"),
        (f"seed=choice({','.join(['1'] * 5000)})", "seed: 5,000 values; 2,000 are read at most"),
    ],
)
def test_a_sweep(command: Command, tmp_path: Path, argument: str, message: str) -> None:
    assert_matches(message, refused(command, "-m", *argument.split()))
    assert list(tmp_path.iterdir()) == []


def test_a_sweep_that_a_file_asks_for(command: Command, tmp_path: Path) -> None:
    folder = tmp_path / "configs" / "experiment"
    folder.mkdir(parents=True)
    (folder / "mine.yaml").write_text(
        f"{HEAD}hydra:\n  mode: MULTIRUN\n  sweeper:\n    params:\n      seed: range(0,1e8)\n"
    )
    assert "100,000,000 jobs" in refused(command, f"--config-dir={folder.parent}", "experiment=mine")


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        (f"model.hidden_sizes=[{','.join(['8'] * DEEP)}]", "30,000 values; 2,000 are read at most"),
        (f"model.hidden_sizes={'[' * DEEP}", "brackets are nested 30,000 deep; 100 are read at most"),
        (f"model.hidden_sizes={'[' * 3000}{']' * 3000}", "brackets are nested 3,000 deep"),
        (f"seed={'1' * 5001}", "seed: a number of 5,001 digits; 1,000 are read at most"),
        (f"seed={'1' * 400}", r"seed=1+… \(400 characters\): should be within 64 bits"),
        (f"trainer.epochs={'1' * 400}", "should be within 64 bits"),
        (f"optimizer.lr={'1' * 400}", "should be within 64 bits"),
        (
            "model.hidden_sizes=[8,9223372036854775808]",
            "hidden_sizes=9223372036854775808: should be within",
        ),
        ("optimizer.lr=1e400", "should be a finite number"),
    ],
    ids=lambda text: text[:24],
)
def test_a_value(command: Command, argument: str, message: str) -> None:
    assert_matches(message, refused(command, argument))


def test_texts_in_quotation_marks_may_be_long(command: Command) -> None:
    columns = ", ".join(f"column {place}: number" for place in range(3000))
    text = refused(command, *TABLE, "data.path=none.csv", f'data.columns="{{{columns}}}"')
    assert "none.csv: there is no such file" in text


@pytest.mark.parametrize("deep", ["[" * DEEP + "]" * DEEP, '{"b":' * DEEP + "1" + "}" * DEEP])
def test_json_lines_nested_deep(command: Command, tmp_path: Path, deep: str) -> None:
    (tmp_path / "t.jsonl").write_text(f'{ROWS}{{"a":{deep},"y":1}}\n{ROWS}')
    text = refused(command, *TABLE, "data.path=t.jsonl")
    assert "t.jsonl: line 40 (counted from 0) is nested more than 100 levels deep" in text
    assert command(*QUICK, *TABLE, "data.path=t.jsonl", "data.max_bad=1").status == 0


def test_brackets_within_words_are_no_levels(command: Command, tmp_path: Path) -> None:
    (tmp_path / "t.jsonl").write_text(ROWS + '{"a":3,"y":1,"c":"\\"%s"}\n' % ("[" * 500))
    assert command(*QUICK, *TABLE, "data.path=t.jsonl").status == 0


PIPES = [
    (*TABLE, "data.path=pipe.csv"),
    (*TABLE, "data.path=pipe.jsonl"),
    (*TABLE, "data.path=pipe.parquet"),
    ("data=arrays", "data.path=pipe.npz"),
    ("data=arrays", "data.path=pipe.safetensors"),
    ("data=text", "model=transformer", "data.path=pipe.txt"),
    ("data=text", "model=transformer", "data.path=words.txt", "data.tokenizer=pipe.json"),
    ("data=text_labels", "model=transformer", "data.path=pipe.csv", "data.text=a", "data.target=y"),
    ("data=pairs", "model=transformer", "data.source=words.txt", "data.target=pipe.txt"),
    ("data=images", "data.path=pipe.png"),
    ("data=images", "data.path=pipe.csv"),
    ("data=audio", "data.path=pipe.wav"),
]


@pytest.mark.parametrize("argv", PIPES, ids=lambda argv: " ".join(argv))
def test_a_named_pipe_never_hangs(command: Command, tmp_path: Path, argv: tuple[str, ...]) -> None:
    (tmp_path / "words.txt").write_text("some words\n" * 100)
    os.mkfifo(tmp_path / next(word for word in argv if "pipe" in word).partition("=")[2])
    assert "is a named pipe, not a regular file" in refused(command, *argv)


def test_devices_and_sockets(command: Command) -> None:
    text = ("data=text", "model=transformer")
    assert "/dev/zero: is a device, not a regular file" in refused(command, *text, "data.path=/dev/zero")
    with socket.socket(socket.AF_UNIX) as end:
        end.bind("socket.txt")
        assert "is a socket, not a regular file" in refused(command, *text, "data.path=socket.txt")


def test_named_pipes_among_the_files_of_a_folder(command: Command, tmp_path: Path) -> None:
    from PIL import Image

    for name in ("a/1.png", "a/2.png", "a/3.png", "b/1.png", "b/2.png", "b/3.png"):
        (tmp_path / "pictures" / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (8, 8), ord(name[0])).save(tmp_path / "pictures" / name)
    os.mkfifo(tmp_path / "pictures" / "a" / "4.png")
    text = refused(command, "data=images", "data.path=pictures", "data.cache=null")
    assert "1 of 7 pictures cannot be read: a/4.png (is a named pipe, not a regular file)" in text


@pytest.mark.parametrize(
    "name", ["summary.json", "metrics.jsonl", "train.log", ".hydra/config.yaml", ".hydra/overrides.yaml"]
)
def test_a_named_pipe_in_a_run_s_folder(command: Command, name: str) -> None:
    run = command(*QUICK, "debug=fast").folder
    assert run is not None
    (run / name).unlink()
    os.mkfifo(run / name)
    text = refused(command, f"resume={run}", "trainer.epochs=2")
    assert "named pipe" in text or "not a run's folder" in text


def npz(path: Path, shape: tuple[int, ...], data: bytes) -> None:
    """A file of arrays whose inputs promise a shape, whatever is there."""
    header, targets = io.BytesIO(), io.BytesIO()
    facts = {"descr": "<f4", "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(header, facts)
    np.save(targets, np.arange(64) % 2)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("inputs.npy", header.getvalue() + data if shape else b"")
        file.writestr("targets.npy", targets.getvalue())


@pytest.mark.parametrize(
    ("shape", "size", "message"),
    [
        (
            (10**12, 4),
            64,
            "its header says 16,000,000,000,000 bytes of float32 in shape .* but it holds 64",
        ),
        ((), 0, "array 'inputs' is empty or was not written by numpy.savez"),
        (
            (64, 250_000),
            64_000_000,
            "holds 64,000,000 bytes when it is unpacked, but only 10,000,000 bytes",
        ),
    ],
    ids=["promised", "empty", "bomb"],
)
def test_arrays(
    command: Command,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    shape: tuple[int, ...],
    size: int,
    message: str,
) -> None:
    monkeypatch.setattr(memory_check, "free_memory", lambda: 10_000_000)
    npz(tmp_path / "t.npz", shape, bytes(size))
    assert_matches(message, refused(command, "data=arrays", "data.path=t.npz"))
