"""Data that jobs share is read once, and is the same however a run gets it."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch

from bigmodel.build import shared_data
from bigmodel.build.shared_data import SharedData
from bigmodel.config import RunConfig
from bigmodel.data.base import Dataset
from tests import small_runs


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The data sources that were read, one entry each time."""
    read, names = shared_data.read_dataset, list[str]()

    def counting(config: RunConfig, *rest: Any) -> Dataset:
        names.append(config.data.name)
        return read(config, *rest)

    monkeypatch.setattr(shared_data, "read_dataset", counting)
    return names


SOURCES: dict[str, dict[str, Any]] = {
    "synthetic": small_runs.VALUES["data"],
    "digits": {"name": "digits"},
    "table": {"name": "table", "path": "rows.csv", "target": "y"},
    "text": {"name": "text", "path": "long.txt", "context": 8, "cache": None},
    "pairs": {"name": "pairs", "path": "pairs.tsv", "source": "de", "target": "en"},
}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    rows = [f"{i},{i % 7},{'abc'[i % 3]},{i % 2}" for i in range(60)]
    Path("rows.csv").write_text("a,b,c,y\n" + "\n".join(rows) + "\n")
    Path("long.txt").write_text("to be or not to be, that is the question. " * 40)
    Path("pairs.tsv").write_text(
        "de\ten\n" + "".join(f"eins zwei {i}\tone two {i}\n" for i in range(60))
    )
    shared = tmp_path / "shared"
    shared.mkdir()
    return shared


@pytest.mark.parametrize("source", SOURCES)
def test_one_reads_and_the_others_map_the_same(source: str, folder: Path, reads: list[str]) -> None:
    config = small_runs.config({"data": SOURCES[source]})

    first, second = SharedData(folder).read(config), SharedData(folder).read(config)

    assert len(reads) == 1
    assert second.spec == first.spec
    assert second.header_rows == first.header_rows
    for name, part in first.parts.items():
        mapped = second.parts[name]
        assert len(mapped) == len(part)
        everything = slice(0, len(part))
        assert all(map(torch.equal, mapped.take(everything), part.take(everything)))


def test_other_settings_are_other_data(folder: Path, reads: list[str]) -> None:
    shared = SharedData(folder)

    shared.read(small_runs.config())
    shared.read(small_runs.config({"data.split_seed": 1}))
    shared.read(small_runs.config({"trainer.limit.train": 2}))

    assert len(reads) == 3


def test_runs_that_begin_together_read_once(folder: Path, reads: list[str]) -> None:
    config = small_runs.config()

    with ThreadPoolExecutor(4) as pool:
        lengths = list(pool.map(lambda _: len(SharedData(folder).read(config).train), range(4)))

    assert len(set(lengths)) == 1
    assert len(reads) == 1


def test_data_that_cannot_be_stored_is_read_by_each(
    folder: Path, reads: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any) -> None:
        raise TypeError("cannot pickle")

    monkeypatch.setattr(torch, "save", refuse)
    shared, config = SharedData(folder), small_runs.config()

    assert len(shared.read(config).train) == len(shared.read(config).train)
    assert len(reads) == 2
    assert not list(folder.glob("*.tmp"))


def test_a_full_disk_stores_nothing(
    folder: Path, reads: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = type("Usage", (), {"free": 0})
    monkeypatch.setattr(shared_data.shutil, "disk_usage", lambda _: usage)
    shared, config = SharedData(folder), small_runs.config()

    shared.read(config)
    shared.read(config)

    assert len(reads) == 2


def test_a_text_in_the_cache_is_not_stored_again(folder: Path, reads: list[str], tmp_path: Path) -> None:
    config = small_runs.config({"data": SOURCES["text"] | {"cache": str(tmp_path / "cache")}})

    first, second = SharedData(folder).read(config), SharedData(folder).read(config)

    assert len(reads) == 2
    assert torch.equal(second.train.take(slice(0, 9))[0], first.train.take(slice(0, 9))[0])
    assert not list(folder.glob("*.pt"))
