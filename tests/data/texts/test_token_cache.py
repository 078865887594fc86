"""Tokens are made once, by one process; what is damaged is made again, and never trained on."""

import errno
import json
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch

from bigmodel.data.texts import token_cache
from bigmodel.data.texts.token_cache import (
    Create,
    entry_name,
    load,
    load_or_make,
    text_digests,
    unchanged,
)
from bigmodel.errors import DataError

NAME = entry_name({"unit": "byte"})
TOKENS = np.arange(300)


class Making:
    """Makes two parts, and counts how often."""

    def __init__(self, size: int = 300) -> None:
        self.times, self.size = 0, size

    def __call__(self, create: Create) -> dict[str, int]:
        self.times += 1
        train = create("train", self.size)
        train.write(TOKENS[:100])
        train.write(TOKENS[100:])
        create("val", self.size)
        return {"bad": 3}


@pytest.mark.parametrize(
    ("size", "dtype"), [(300, torch.uint16), (1 << 16, torch.uint16), ((1 << 16) + 1, torch.uint32)]
)
@pytest.mark.parametrize("cached", [True, False])
def test_tokens_come_back_in_the_smallest_type(
    tmp_path: Path, size: int, dtype: torch.dtype, cached: bool
) -> None:
    making = Making(size)
    folder = tmp_path / "new/cache" if cached else None
    for _ in range(2):
        made = load_or_make(folder, NAME, making)
        assert made.streams["train"].dtype == dtype
        assert made.streams["train"].tolist() == TOKENS.tolist()
        assert made.streams["val"].tolist() == []
        assert (made.facts, made.mapped, made.trouble) == ({"bad": 3}, cached, "")
    assert making.times == (1 if cached else 2)
    assert made.sums == load_or_make(None, NAME, making).sums


def test_processes_that_begin_together_make_it_once(tmp_path: Path) -> None:
    making = Making()
    with ThreadPoolExecutor(4) as pool:
        made = list(pool.map(lambda _: load_or_make(tmp_path, NAME, making), range(4)))
    assert making.times == 1
    assert all(one.streams["train"].tolist() == TOKENS.tolist() for one in made)


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def change_fact(path: Path) -> None:
    path.write_text(path.read_text().replace('"bad": 3', '"bad": 4'))


DAMAGE: dict[str, tuple[str, Callable[[Path], object]]] = {
    "a bit": ("train", flip),
    "cut short": ("train", lambda path: os.truncate(path, 10)),
    "longer": ("train", lambda path: path.write_bytes(path.read_bytes() + b"x")),
    "no file": ("val", Path.unlink),
    "no description": ("about.json", Path.unlink),
    "another description": ("about.json", change_fact),
    "no JSON": ("about.json", lambda path: os.truncate(path, 20)),
}


@pytest.mark.parametrize(("file", "damage"), DAMAGE.values(), ids=DAMAGE)
@pytest.mark.parametrize("small", [1 << 26, 0])
def test_what_is_damaged_is_made_again(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    file: str,
    damage: Callable[[Path], object],
    small: int,
) -> None:
    monkeypatch.setattr(token_cache, "_SMALL", small)
    making = Making()
    load_or_make(tmp_path, NAME, making)
    damage(tmp_path / NAME / file)
    assert load(tmp_path, NAME) is None
    made = load_or_make(tmp_path, NAME, making)
    assert made.streams["train"].tolist() == TOKENS.tolist()
    assert made.facts == {"bad": 3}
    assert made.trouble == f"{tmp_path / NAME} was damaged: made again"
    assert making.times == 2
    assert load_or_make(tmp_path, NAME, making).trouble == ""


def test_a_damaged_entry_that_stays_is_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    load_or_make(tmp_path, NAME, Making())
    flip(tmp_path / NAME / "train")
    monkeypatch.setattr(token_cache.shutil, "rmtree", lambda *_, **__: None)  # it is somebody else's
    made = load_or_make(tmp_path, NAME, Making())
    assert made.streams["train"].tolist() == TOKENS.tolist()
    assert "(a damaged entry cannot be removed): tokens are kept in memory only" in made.trouble


def test_a_large_file_is_read_for_its_checksum_only_after_a_change(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(token_cache, "_SMALL", 0)
    monkeypatch.setattr(token_cache, "_SETTLED", 3600.0)
    load_or_make(tmp_path, NAME, Making())
    read, compute = [], token_cache.hashlib.file_digest
    monkeypatch.setattr(
        token_cache.hashlib,
        "file_digest",
        lambda file, kind: read.append(file.name) or compute(file, kind),
    )

    def files_read() -> list[str]:
        read.clear()
        assert load(tmp_path, NAME) is not None
        return [Path(name).name for name in read]

    assert files_read() == files_read() == ["train", "val"], "they may change again unseen"
    monkeypatch.setattr(token_cache, "_SETTLED", -3600.0)
    assert files_read() == ["train", "val"]
    assert files_read() == []
    os.utime(tmp_path / NAME / "train", ns=(1, 1))
    assert files_read() == ["train"]
    assert files_read() == []


def test_what_a_killed_process_left_is_removed(tmp_path: Path) -> None:
    (tmp_path / f".{NAME}-abandoned").mkdir()
    (tmp_path / f".{NAME}-abandoned/train").write_bytes(b"half")
    load_or_make(tmp_path, NAME, Making())
    assert {path.name for path in tmp_path.iterdir()} == {NAME, f".{NAME}.lock"}


def test_what_fails_leaves_nothing_behind(tmp_path: Path) -> None:
    def fail(create: Create) -> dict[str, int]:
        create("train", 300).write(TOKENS)
        raise DataError("no token")

    with pytest.raises(DataError, match="no token"):
        load_or_make(tmp_path, NAME, fail)
    assert {path.name for path in tmp_path.iterdir()} == {f".{NAME}.lock"}


def test_a_cache_that_cannot_be_written_is_done_without(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    made = load_or_make(tmp_path / "file", NAME, Making())
    assert (
        made.trouble
        == f"{tmp_path / 'file'} cannot be written (File exists): tokens are kept in memory only"
    )
    assert made.streams["train"].tolist() == TOKENS.tolist()
    assert not made.mapped

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    made = load_or_make(tmp_path, NAME, Making())
    assert made.trouble.endswith(
        "cannot be written (No space left on device): tokens are kept in memory only"
    )
    assert not list(tmp_path.glob(f"*{NAME}-*"))
    monkeypatch.setattr(token_cache, "free_memory", lambda: 1000)
    words = r"take more than 500 bytes, half of .*No space left .*set data.cache=<another folder>"
    with pytest.raises(DataError, match=words):
        load_or_make(tmp_path, NAME, Making())


def test_digests_of_large_texts_are_kept_until_the_text_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(token_cache, "_SMALL", 0)
    monkeypatch.setattr(token_cache, "_SETTLED", -3600.0)
    read, compute = [], token_cache.file_digests
    monkeypatch.setattr(token_cache, "file_digests", lambda files: read.append(files) or compute(files))
    file, cache = tmp_path / "a.txt", tmp_path / "cache"
    file.write_text("one")
    first = text_digests(cache, [file])
    assert text_digests(cache, [file]) == first
    assert len(read) == 1
    file.write_text("two")
    changed = text_digests(cache, [file])
    assert changed != first
    assert len(read) == 2
    for kept in cache.glob("texts-*.json"):
        kept.write_text(json.dumps(["x", "y"]))
    assert text_digests(cache, [file]) == changed
    monkeypatch.setattr(token_cache, "_SETTLED", 3600.0)
    file.write_text("three")
    assert text_digests(cache, [file]) != text_digests(None, [tmp_path / "cache"])
    assert len(list(cache.glob("texts-*.json"))) == 2, "what was just written may change again unseen"


def test_a_text_must_not_change_while_it_is_read(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("one")
    with unchanged([tmp_path / "a.txt"]):
        pass
    with (
        pytest.raises(DataError, match=r"a.txt: it changed while it was read"),
        unchanged([tmp_path / "a.txt"]),
    ):
        (tmp_path / "a.txt").write_text("another")
