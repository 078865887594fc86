import json
from pathlib import Path

import pytest

from bigmodel.checkpointing import manifest
from bigmodel.errors import CheckpointError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "a.bin").write_bytes(b"content")
    (tmp_path / "manifest.json").write_text(manifest.build_manifest(tmp_path))
    return tmp_path


def test_what_was_written_is_whole(folder: Path) -> None:
    assert manifest.verify(folder) == (manifest.SCHEMA, ["a.bin"])


def test_any_other_byte_in_it_shows(folder: Path) -> None:
    path = folder / "manifest.json"
    content = path.read_bytes()
    for place in range(len(content)):
        for bits in (1, 2, 4, 8, 16, 32, 64, 128, 0x2A):  # 0x2A turns a blank into a line break
            changed = content[:place] + bytes([content[place] ^ bits]) + content[place + 1 :]
            path.write_bytes(changed)
            with pytest.raises(CheckpointError):
                manifest.verify(folder)


@pytest.mark.parametrize("name", ["../secret", "/etc/hostname", "link"])
def test_nothing_outside_is_read(folder: Path, name: str) -> None:
    inside = folder / "checkpoint"
    inside.mkdir()
    (folder / "secret").write_bytes(b"content")
    (inside / "link").symlink_to(folder / "secret")
    entry = {name: json.loads((folder / "manifest.json").read_text())["files"]["a.bin"]}
    (inside / "manifest.json").write_text(manifest._text(manifest.SCHEMA, entry))
    with pytest.raises(CheckpointError, match="points outside the checkpoint"):
        manifest.verify(inside)


def test_a_newer_schema_turned_into_the_first_is_found(folder: Path) -> None:
    path = folder / "manifest.json"
    path.write_text(path.read_text().replace('"schema":2', '"schema":1'))
    with pytest.raises(CheckpointError, match="has changed"):
        manifest.verify(folder)
