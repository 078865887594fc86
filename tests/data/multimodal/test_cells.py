"""Files that cells name: where they are, each decoded once, and what is wrong with one."""

from pathlib import Path

import pytest

from bigmodel.data.media import images
from bigmodel.errors import DataError
from tests.data.multimodal.adverts import adverts, built, read_rows, write

HEAD = ["photo", "text", "age", "price"]


@pytest.fixture
def table(tmp_path: Path) -> Path:
    return adverts(tmp_path / "shop")


def changed(table: Path, row: int, cell: str) -> None:
    rows = read_rows(table)
    rows[row][0] = cell
    write(table, HEAD, rows)


def test_a_path_may_be_absolute(table: Path) -> None:
    before = built(table)
    changed(table, 0, str(table.parent.resolve() / "files/0.png"))
    after = built(table)
    assert after.reader == before.reader


def test_a_picture_that_is_not_there(table: Path) -> None:
    changed(table, 7, "files/none.png")
    words = (
        r"adverts\.csv: column 'photo', row 7 \(counted from 0\): files/none\.png cannot be read: there"
        r" is no such file\. A cell holds a path of pictures .*relative to .*shop, or nothing.*max_bad=1"
    )
    with pytest.raises(DataError, match=words):
        built(table)


def test_a_picture_that_cannot_be_read(table: Path) -> None:
    (table.parent / "files/8.png").write_bytes(b"no picture")
    (table.parent / "files/9.png").write_bytes(b"")
    with pytest.raises(DataError, match=r"row [89] .*cannot be read.* So is 1 other of 40"):
        built(table)
    dataset = built(table, max_bad=2)
    assert dataset.train.present[:, 1].sum() + dataset.val.present[:, 1].sum() == 38
    [warning] = [text for label, text in dataset.header_rows if label == "Warning"]
    assert "column 'photo': 2 pictures that cannot be read, taken for missing" in warning
    with pytest.raises(DataError, match="cannot be read"):
        dataset.reader.read(table, with_targets=False)
    assert dataset.reader.read(table, with_targets=False, max_bad=2).part.present[:, 1].sum() == 38


def test_a_file_of_several_rows_is_decoded_once(table: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(table, HEAD, [["files/0.png" if row[0] else "", *row[1:]] for row in read_rows(table)])
    decoded, decode = [], images.decode
    monkeypatch.setattr(
        images, "decode", lambda path, *rest, **more: decoded.append(path) or decode(path, *rest, **more)
    )
    dataset = built(table)
    assert decoded == [table.parent / "files/0.png"]
    assert dataset.train.present[:, 1].sum() + dataset.val.present[:, 1].sum() == 40


def test_decoded_files_are_kept_in_the_cache(
    table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = built(table, cache=str(tmp_path / "cache"))
    monkeypatch.setattr(images, "decode", lambda *_, **__: pytest.fail("decoded again"))
    assert built(table, cache=str(tmp_path / "cache")).reader == before.reader
