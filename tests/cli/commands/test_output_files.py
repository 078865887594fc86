"""Tables and lines that are written: whole, or not at all."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow.csv as pa_csv
import pyarrow.parquet as pa_parquet
import pytest

from bigmodel.cli.commands.output_files import new_files, write_bytes, write_columns, write_lines
from bigmodel.errors import DataError

COLUMNS = {"name": ["a,b", 'say "x"', None], "x": np.array([0.1, 2, np.nan], np.float32)}


def test_csv_is_quoted_only_where_it_has_to_be(tmp_path: Path) -> None:
    plain = tmp_path / "plain.csv"
    write_columns({"label": ["cat", "dog"], "p": np.array([0.5, 0.25], np.float32)}, plain)
    assert plain.read_text() == "label,p\ncat,0.5\ndog,0.25\n"
    write_columns(COLUMNS, tmp_path / "o.csv")
    back = pa_csv.read_csv(
        tmp_path / "o.csv", convert_options=pa_csv.ConvertOptions(strings_can_be_null=True)
    )
    assert back.column("name").to_pylist() == COLUMNS["name"]


def test_other_kinds_of_tables(tmp_path: Path) -> None:
    for kind in ("tsv", "parquet", "jsonl"):
        write_columns(COLUMNS, tmp_path / f"o.{kind}")
    assert pa_parquet.read_table(tmp_path / "o.parquet").column("name").to_pylist() == COLUMNS["name"]
    rows = [json.loads(line) for line in (tmp_path / "o.jsonl").read_text().splitlines()]
    assert rows[0]["name"] == "a,b"
    assert [row["x"] is None for row in rows] == [False, False, True]
    assert (tmp_path / "o.tsv").read_text().startswith("name\tx\n")


def test_a_text_is_one_line(tmp_path: Path) -> None:
    write_lines(["a\nb", "c"], tmp_path / "o.txt")
    assert (tmp_path / "o.txt").read_text() == "a\\nb\nc\n"


def test_nothing_half_written_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "o.csv").write_text("old")

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(DataError, match=r"cannot be written: No space left on device"):
        write_bytes(b"new", tmp_path / "o.csv")
    assert [path.name for path in tmp_path.iterdir()] == ["o.csv"]
    assert (tmp_path / "o.csv").read_text() == "old"


def run_with(stdout: int, code: str) -> subprocess.CompletedProcess[str]:
    whole = (
        "import sys, bigmodel.cli.commands.main as main\nfrom bigmodel.cli.entry import bigmodel\n"
        "sys.argv = ['bigmodel', 'predict', 'x']\n"
        f"def run(*_):\n    {code}\n"
        "main._run = run\nbigmodel()"
    )
    return subprocess.run(
        [sys.executable, "-c", whole], stdout=stdout, stderr=subprocess.PIPE, text=True, check=False
    )


def test_a_reader_that_has_seen_enough_is_no_fault() -> None:
    read, write = os.pipe()
    os.close(read)
    done = run_with(
        write, "from bigmodel.cli.commands.output_files import write_lines; write_lines(['x'], None)"
    )
    os.close(write)
    assert (done.returncode, done.stderr) == (141, "")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_behind_the_output_is_told() -> None:
    with Path("/dev/full").open("w") as full:
        done = run_with(
            full.fileno(),
            "from bigmodel.cli.commands.output_files import write_lines; write_lines(['x'], None)",
        )
    assert done.returncode == 1
    assert done.stderr.startswith("bigmodel: The output cannot be written: No space left on device.")
    assert "Traceback" not in done.stderr


DATA = {  # escaped: Python would read a command line in the encoding of the terminal, too
    "table": r"output_files.write_columns({'x': ['\u732b', '\xe9']}, None)",
    "lines": r"output_files.write_lines(['\u732b', '\xe9'], None)",
    "stream": r"output_files.data_stream().write('\u732b\n\xe9\n')",
}


@pytest.mark.parametrize("data", DATA)
@pytest.mark.parametrize("encoding", ["latin-1", "ascii", "utf-16", "cp437"])
def test_data_is_utf_8_whatever_the_terminal_says(data: str, encoding: str) -> None:
    """As bytes: a `?` in place of a letter would be another text."""
    done = subprocess.run(
        [sys.executable, "-c", f"from bigmodel.cli.commands import output_files; {DATA[data]}"],
        capture_output=True,
        env=os.environ | {"PYTHONIOENCODING": encoding, "PYTHONUTF8": "0", "LC_ALL": "C"},
        check=True,
    )
    assert done.stdout.removeprefix(b"x\n") == "猫\né\n".encode()


def test_a_new_folder_is_there_whole_or_not_at_all(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="out: cannot be written: no"), new_files(tmp_path / "out", []):
        raise OSError("no")
    assert list(tmp_path.iterdir()) == []
    with new_files(tmp_path / "out", []) as folder:
        (folder / "a").write_text("1")
        assert not (tmp_path / "out").exists()
    assert [path.name for path in tmp_path.rglob("*")] == ["out", "a"]


def test_other_files_of_a_folder_stay(tmp_path: Path) -> None:
    for name in ("a", "b", "mine"):
        (tmp_path / name).write_text("old")
    with pytest.raises(DataError), new_files(tmp_path, ["a", "b"]) as folder:
        (folder / "a" / "b").write_text("new")  # in a folder that is not there
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == dict.fromkeys(
        ("a", "b", "mine"), "old"
    )
    with new_files(tmp_path, ["a", "b"]) as folder:
        (folder / "a").write_text("new")
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {"a": "new", "mine": "old"}
