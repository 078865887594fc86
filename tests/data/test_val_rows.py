"""Where validation samples come from: each source tells their rows, and the names of files."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from PIL import Image as Picture

from bigmodel.data.base import Dataset
from bigmodel.data.checks import check
from bigmodel.data.reader import TextReader
from bigmodel.errors import DataError
from bigmodel.registry import data

FOLDS, SAMPLES = 3, 12
Write = Callable[[Path], dict[str, Any]]


def folds(**settings: Any) -> list[Dataset]:
    built = [
        data.build(data.parse({**settings, "folds": FOLDS, "val_fold": fold})) for fold in range(FOLDS)
    ]
    for dataset in built:
        check(dataset)
    return built


def rows_of(datasets: list[Dataset]) -> list[int]:
    rows = [dataset.val_rows for dataset in datasets]
    assert all(each is not None for each in rows)
    return sorted(torch.cat([each for each in rows if each is not None]).tolist())


def table(folder: Path) -> dict[str, Any]:
    """Row 5 has no target."""
    lines = [f"{n},{n % 4},{'' if n == 5 else 10 * n}" for n in range(SAMPLES + 1)]
    (folder / "a.csv").write_text("\n".join(["id,x,y", *lines]))
    named = {"path": "a.csv", "target": "y", "ignore": ["id"], "task": "values"}
    return {"name": "table", **named}


def arrays(folder: Path) -> dict[str, Any]:
    """Row 5 is not finite."""
    inputs = np.random.default_rng(0).normal(size=(SAMPLES + 1, 3)).astype(np.float32)
    inputs[5, 0] = np.nan
    np.savez(folder / "a.npz", inputs=inputs, targets=10.0 * np.arange(SAMPLES + 1))
    return {"name": "arrays", "path": "a.npz", "max_bad": 1}


def text_labels(folder: Path) -> dict[str, Any]:
    """Row 5 has no text."""
    lines = [f"{'' if n == 5 else f'text {n}'},{10 * n + 0.5}" for n in range(SAMPLES + 1)]
    (folder / "a.csv").write_text("\n".join(["text,label", *lines]))
    named = {"path": "a.csv", "unit": "character", "max_bad": 1, "task": "values"}
    return {"name": "text_labels", **named}


@pytest.mark.parametrize("write", [table, arrays, text_labels])
def test_rows_are_those_of_the_file(
    write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    datasets = folds(**write(tmp_path))
    assert rows_of(datasets) == [row for row in range(SAMPLES + 1) if row != 5]
    for dataset in datasets:
        target: Any = dataset.spec.target
        values = (
            dataset.part("val").take(slice(0, len(dataset.part("val"))))[1][:, 0] * target.std[0]
            + target.mean[0]
        )
        assert dataset.val_rows is not None
        assert (values / 10).round().int().tolist() == dataset.val_rows.tolist()
        assert not dataset.val_files


def images(folder: Path, name: str) -> None:
    Picture.fromarray(np.full((8, 8, 3), 9, np.uint8)).save(folder / f"{name}.png")


def audio(folder: Path, name: str) -> None:
    soundfile.write(folder / f"{name}.wav", np.full(400, 0.1), 8000)


def texts(folder: Path, name: str) -> None:
    (folder / f"{name}.txt").write_text(name)


@pytest.mark.parametrize(
    ("source", "write", "settings"),
    [
        ("images", images, {"size": 8, "cache": None}),
        ("audio", audio, {"rate": 8000, "seconds": 0.05, "cache": None}),
        ("text_labels", texts, {"unit": "character"}),
    ],
)
def test_files_are_named(
    source: str, write: Callable[[Path, str], None], settings: dict[str, Any], tmp_path: Path
) -> None:
    for label in ("cat", "dog"):
        (tmp_path / label).mkdir()
        for n in range(6):
            write(tmp_path / label, str(n))
    (tmp_path / "cat" / next((tmp_path / "cat").glob("3.*")).name).write_bytes(b"")
    datasets = folds(name=source, path=str(tmp_path), max_bad=1, **settings)
    assert rows_of(datasets) == [row for row in range(SAMPLES) if row != 3]
    names = sorted(Path(name).with_suffix("").as_posix() for each in datasets for name in each.val_files)
    assert names == sorted([f"cat/{n}" for n in range(6) if n != 3] + [f"dog/{n}" for n in range(6)])
    for dataset in datasets:
        labels = dataset.part("val").take(slice(0, len(dataset.part("val"))))[1].tolist()
        assert [["cat", "dog"][label] for label in labels] == [
            n.split("/")[0] for n in dataset.val_files
        ]


def test_pairs_and_sets_of_a_fixed_order(tmp_path: Path) -> None:
    lines = [f"one {n}\tun {n}" for n in range(SAMPLES)]
    (tmp_path / "a.tsv").write_text("\n".join(["en\tfr", *lines]))
    pairs = folds(name="pairs", path=str(tmp_path / "a.tsv"), source="en", target="fr", vocab_size=270)
    assert rows_of(pairs) == list(range(SAMPLES))
    reader = pairs[0].reader
    assert isinstance(reader, TextReader)
    assert pairs[0].val_rows is not None
    first = pairs[0].part("val").take(slice(0, 1))[0][0, 0].tolist()
    assert reader.decode(first).startswith(f"one {int(pairs[0].val_rows[0])}")
    assert rows_of(folds(name="iris")) == list(range(150))


def test_rows_of_other_samples_are_refused() -> None:
    dataset = data.build(data.parse({"name": "iris"}))
    dataset.val_rows = torch.arange(3)
    with pytest.raises(DataError, match="val_rows has 3 entries for 30 samples of the validation set"):
        check(dataset)
