"""The measurement of kinds of data: a set whose prices need them all, and a line for each choice."""

from __future__ import annotations

import csv
import gzip
import re
from pathlib import Path

import modalities
import numpy as np
import pytest
from modalities import BASE, CONDITIONS, USED, main, row, write_adverts


@pytest.fixture
def clothes(tmp_path: Path) -> Path:
    """Few pictures in the files of Fashion-MNIST, as bright as their class."""
    folder = tmp_path / "clothes"
    folder.mkdir()
    for part, count in (("train", 60), ("t10k", 30)):
        labels = np.arange(count, dtype=np.uint8) % 10
        images = np.repeat(25 * labels, 28 * 28).reshape(count, 28, 28)
        for kind, values in (("images-idx3", images), ("labels-idx1", labels)):
            head = bytes([0, 0, 8, values.ndim]) + np.array(values.shape, ">u4").tobytes()
            packed = gzip.compress(head + values.astype(np.uint8).tobytes())
            (folder / f"{part}-{kind}-ubyte.gz").write_bytes(packed)
    return folder


def test_prices_follow_from_picture_text_and_age(clothes: Path, tmp_path: Path) -> None:
    table = write_adverts(clothes, tmp_path / "adverts", 40)
    with table.open(newline="", encoding="utf-8") as file:
        adverts = list(csv.DictReader(file))
    assert [advert["split"] for advert in adverts] == ["train"] * 40 + ["test"] * 20
    words = {text: share for share, texts in CONDITIONS for text in texts}
    for advert in adverts:
        if advert["photo"] and advert["text"]:
            assert (table.parent / advert["photo"]).is_file()
            [share] = [share for text, share in words.items() if text in advert["text"]]
            shares = [
                float(advert["price"]) / (base * share * (1 - 0.05 * int(advert["age"])))
                for base in BASE
            ]
            assert min(abs(np.log(shares))) < 0.5  # five deviations of the noise
    for column in ("photo", "text"):
        with (table.parent / f"without-{column}.csv").open(newline="", encoding="utf-8") as file:
            assert {advert[column] for advert in csv.DictReader(file)} == {""}


def test_each_choice_of_columns_is_measured(
    clothes: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(modalities, "USED", [USED[0], USED[-1]])
    monkeypatch.setattr(modalities, "DROPOUTS", [0.1])
    main([str(clothes), "--rows", "40", "--seeds", "1", "--epochs", "1"])
    _, _, *lines = capsys.readouterr().out.strip().splitlines()
    assert [line.split(" | ")[0] for line in lines[:2]] == ["| age", "| photo, text, age"]
    assert len(lines) == 4
    assert all(re.match(r"\| .+ \| -?[\d.]+ \| [\d.]+ \|$", line) for line in lines)


def test_a_line_has_means_and_deviations() -> None:
    assert row("x", [{"r2": 0.5, "mae": 3.0}, {"r2": 0.7, "mae": 4.0}]) == (
        "| x | 0.600 ± 0.141 | 3.50 ± 0.71 |"
    )
