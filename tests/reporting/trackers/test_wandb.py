"""W&B's own library: the file that it keeps of a run, and servers that do not answer."""

import json
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.reporting import facts
from tests.reporting.trackers.conftest import SilentServer, TrackedRun, named, until

pytest.importorskip("wandb", reason="needs wandb")
Make = Callable[..., TrackedRun]

_HEADER, _BLOCK = 7, 32768

_READ = """
import json, sys
from google.protobuf.json_format import MessageToDict
from wandb.proto.wandb_internal_pb2 import Record
for line in sys.stdin:
    record = Record()
    record.ParseFromString(bytes.fromhex(line))
    print(json.dumps(MessageToDict(record, preserving_proto_field_name=True)))
"""


def messages(content: bytes) -> Iterator[bytes]:
    """Those of a file of W&B, which is a log as LevelDB writes it, after a header of its own."""
    position, begun = _HEADER, b""
    while position < len(content):
        if (left := _BLOCK - position % _BLOCK) < _HEADER:
            position += left
            continue
        length, kind = struct.unpack("<4xHB", content[position : position + _HEADER])
        position += _HEADER
        begun += content[position : position + length]
        position += length
        if kind in (1, 4):  # whole, or the last part
            yield begun
            begun = b""


def written(folder: Path) -> list[dict[str, Any]]:
    """The records in a folder's file, of which each has one kind."""
    [path] = folder.glob("*.wandb")
    lines = "\n".join(message.hex() for message in messages(path.read_bytes()))
    read = subprocess.run(
        [sys.executable, "-c", _READ], input=lines, capture_output=True, text=True, check=True
    )
    return [json.loads(line) for line in read.stdout.splitlines()]


def of_kind(records: list[dict[str, Any]], kind: str) -> list[dict[str, Any]]:
    return [record[kind] for record in records if kind in record]


def items(record: dict[str, Any], kind: str = "item") -> dict[str, Any]:
    return {
        ".".join(item.get("nested_key", [])) or item["key"]: json.loads(item["value_json"])
        for item in record[kind]
    }


def test_without_a_network_a_run_is_in_files_to_send_later(
    tracked: Make, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    run = tracked("wandb")
    run.start(**named())
    run.record(1, 2)
    run.end("stopped")
    run = tracked("wandb")
    run.start(after=46, **named())
    run.record(3)
    run.end()
    assert capfd.readouterr() == ("", "")
    assert run.warnings() == []
    first, second = sorted((run.folder / "trackers" / "wandb").glob("offline-run-*"))
    assert run.said[-1][1] == f"wandb: to send it, type: wandb sync {first} {second}"
    records, resumed = written(first), written(second)
    [about] = of_kind(records, "run")[:1]
    assert (about["display_name"], about["tags"], about["notes"]) == (
        "the base line",
        ["paper", "small"],
        "to beat",
    )
    assert about["project"] == "bigmodel"
    assert of_kind(resumed, "run")[0]["run_id"] == about["run_id"]
    settings = {each["key"]: json.loads(each["value_json"]) for each in about["config"]["update"]}
    assert settings["optimizer"] == facts.CONFIG["optimizer"]
    figures = [items(each) for each in of_kind(records, "history")]
    assert [(each["step"], each["val/loss"]) for each in figures] == [(23, 0.0987), (46, 0.0987)]
    assert [items(each)["step"] for each in of_kind(resumed, "history")] == [69]
    ends = [items(each, "update") for each in of_kind(resumed, "summary") if "update" in each]
    end = {name: value for each in ends for name, value in each.items()}
    assert (end["status"], end["test/accuracy"], end["best/val/accuracy"]) == (
        "finished",
        0.9611,
        0.9833,
    )
    assert of_kind(resumed, "exit") == [{"runtime": 0}] or "exit_code" not in of_kind(resumed, "exit")[0]


def test_without_a_key_nobody_is_asked(
    tracked: Make, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:1")
    run = tracked("wandb")
    run.start()
    run.record(1)
    run.end()
    assert "UsageError: No API key configured." in run.warnings()[-1]


def test_a_server_that_never_answers_ends_with_the_run(
    tracked: Make, monkeypatch: pytest.MonkeyPatch, silent: SilentServer
) -> None:
    monkeypatch.setenv("WANDB_BASE_URL", silent.url)
    monkeypatch.setenv("WANDB_API_KEY", "a" * 40)
    run = tracked("wandb", wait=0.3)
    run.start()
    until(lambda: silent.connections)
    run.record(1)
    run.end()
    [told] = run.warnings()
    assert told.startswith("wandb: 1 record of the run was not sent: It did not answer in time. ")
