"""Tables with pictures, texts and recordings: what is learnt of them, and how new rows are read."""

import shutil
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from bigmodel.data.media import images
from bigmodel.data.preprocessing import Preprocessing
from bigmodel.errors import DataError
from bigmodel.registry import data
from bigmodel.spec import Features, Image, Multimodal, Tokens
from tests.data.multimodal.adverts import COLUMNS, adverts, built, read_rows, write

HEAD = ["photo", "text", "age", "price"]


@pytest.fixture
def table(tmp_path: Path) -> Path:
    return adverts(tmp_path / "shop")


def test_each_kind_is_a_part_and_who_is_missing_is_told(table: Path) -> None:
    dataset = built(table)
    kind, reader = dataset.spec.input, dataset.reader
    assert isinstance(kind, Multimodal)
    assert kind.names == ("features", "photo", "text")
    assert kind.parts[:2] == (Features(1, ("age",)), Image(1, 10, 8))
    text = reader.media[1]
    assert kind.parts[2] == Tokens(text.length, text.vocabulary.size, text.vocabulary.pad)
    present = torch.cat([dataset.train.present, dataset.val.present])
    assert present.sum(0).tolist() == [48, 40, 39]
    assert ("Pictures", "photo: 40 files, 8×10 in grey; 8 missing") in dataset.header_rows


def test_inputs_are_what_the_rows_say(table: Path) -> None:
    dataset, rows = built(table), read_rows(table)
    kind, reader = dataset.spec.input, dataset.reader
    inputs, _ = dataset.val.take(slice(0, len(dataset.val)))
    photo, text = reader.media
    for sample, row in zip(inputs, dataset.val_rows.tolist(), strict=True):
        path, words, _, _ = rows[row]
        assert sample[:3].tolist() == [1, bool(path), bool(words)]
        if path:
            pixels = torch.empty(1, 10, 8, dtype=torch.uint8)
            images.decode(table.parent / path, pixels, photo.settings)
            mean, std = torch.tensor([*photo.mean, *photo.std]).view(2, 1, 1, 1)
            expected = (pixels / 255 - mean) / std
            assert torch.allclose(sample[kind.slices[1]].view(1, 10, 8), expected, atol=1e-5)
        tokens = text.vocabulary.encode(words).tolist()[: text.length]
        padding = [text.vocabulary.pad] * (text.length - len(tokens))
        assert sample[kind.slices[2]].tolist() == tokens + padding


def test_pictures_are_standardised_by_those_of_training_that_are_there(table: Path) -> None:
    train = built(table).train
    inputs, _ = train.take(slice(0, len(train)))
    pixels = inputs[train.present[:, 1], built(table).spec.input.slices[1]]
    assert pixels.mean().item() == pytest.approx(0, abs=1e-4)
    assert pixels.std(correction=0).item() == pytest.approx(1, abs=1e-4)
    raw = built(table, normalize=False).train.take(slice(0, len(train)))[0]
    shown = raw[:, built(table).spec.input.slices[1]]
    assert 0 <= shown.min() < shown.max() <= 1


def test_what_is_held_out_teaches_nothing(table: Path) -> None:
    before, rows = built(table), read_rows(table)
    for row in before.val_rows.tolist():
        rows[row][:2] = ["files/0.png", "entirely other words " * 40]
    write(table, HEAD, rows)
    after = built(table)
    assert after.reader == before.reader
    assert torch.equal(after.train.take(slice(0, 9))[0], before.train.take(slice(0, 9))[0])


def test_recordings_become_spectrograms(tmp_path: Path) -> None:
    table = adverts(tmp_path / "shop", sounds=True)
    dataset = built(table, {"sound": "audio", "photo": "ignore", "text": "ignore"}, sample_rate=8000)
    kind = dataset.spec.input
    assert kind.names == ("features", "sound")
    assert kind.parts[1] == Image(1, 16, 64)  # frames of 25 ms each 10 ms, a multiple of 8
    train = dataset.train
    inputs, _ = train.take(slice(0, len(train)))
    heard = inputs[train.present[:, 1], kind.slices[1]].view(-1, 16, 64)
    assert heard.mean((0, 1)).abs().max() < 1e-3
    assert not train.present[:, 1].all()
    assert dataset.read is not None
    assert not dataset.read.exact


def test_a_reader_comes_back_from_a_checkpoint_and_reads_the_same(table: Path) -> None:
    dataset = built(table)
    again = Preprocessing.from_facts(dataset.preprocessing.to_facts())
    assert again.spec == dataset.spec
    assert again.reader == dataset.reader
    samples = again.reader.read(table, with_targets=True)
    for place, row in enumerate(dataset.val_rows.tolist()):
        new = samples.part.take(slice(row, row + 1))
        assert all(map(torch.equal, new, dataset.val.take(slice(place, place + 1))))


def test_new_rows_without_targets_and_in_memory(table: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reader = built(table).reader
    rows = pa.table({"photo": ["files/1.png", None], "text": ["a chair", ""], "age": [3, 4]})
    monkeypatch.chdir(table.parent)
    samples = reader.read_table(rows, with_targets=False)
    assert samples.part.present.tolist() == [[True, True, True], [True, False, False]]
    cells = reader.cells(samples.part.take(slice(0, 2))[0][0])
    assert cells == {"age": "3", "photo": "(file)", "text": "a chair"}
    assert reader.cells(samples.part.take(slice(0, 2))[0][1])["text"] == "(missing)"
    with pytest.raises(
        DataError, match=r"no column 'photo', which the run was trained on.*age, photo, text"
    ):
        reader.read_table(rows.drop_columns(["photo"]), with_targets=False)


def test_a_row_without_a_target_is_left_out(table: Path) -> None:
    rows = read_rows(table)
    rows[2][3] = ""
    write(table, HEAD, rows)
    samples = built(table).reader.read(table, with_targets=True)
    assert len(samples.part) == 47
    assert samples.left_out == {"no target": 1}
    assert samples.columns["age"].to_pylist() == [row[2] for row in rows if row[3]]


def test_a_resumed_run_keeps_what_it_has_learnt(table: Path) -> None:
    before = built(table)
    shutil.copy(table.parent / "files/1.png", table.parent / "files/0.png")
    options = {"name": "table", "path": str(table), "target": "price", "cache": None, "columns": COLUMNS}
    resumed = data.build(data.parse(options).resuming(before.preprocessing))
    assert resumed.reader == before.reader
    assert resumed.read.digest != before.read.digest  # which says that a picture has changed


def test_a_table_of_pictures_alone(table: Path) -> None:
    dataset = built(table, {"photo": "image", "text": "ignore", "age": "ignore"})
    assert dataset.spec.input == Multimodal(("photo",), (Image(1, 10, 8),))


def test_a_column_called_features(table: Path) -> None:
    write(table, ["features", "text", "age", "price"], read_rows(table))
    dataset = built(table, {"features": "image", "text": "text"})
    assert dataset.spec.input.names == ("features_", "features", "text")


def test_without_validation_its_rows_are_trained_on(table: Path) -> None:
    other = table.with_name("val.csv")
    write(other, HEAD, read_rows(table)[:6])
    assert built(table, validation=False).spec.sizes == {"train": 48}
    assert built(table, val_path=str(other)).spec.sizes == {"train": 48, "val": 6}


@pytest.mark.parametrize(
    ("columns", "words"),
    [
        (
            {"age": "text"},
            "column 'age' holds numbers, such as 0, but data.columns.age=text needs texts",
        ),
        ({"age": "image"}, r"column 'age', row \d+ \(counted from 0\): \d cannot be read: its ending"),
        (
            {"text": "image"},
            r"column 'text', row \d+ \(counted from 0\): a.* cannot be read: its ending is none of .jpg",
        ),
        (
            {"photo": "audio"},
            r"column 'photo', row \d+.*\.png cannot be read: its ending is none of .wav",
        ),
    ],
)
def test_columns_that_hold_something_else(table: Path, columns: dict[str, str], words: str) -> None:
    with pytest.raises(DataError, match=words):
        built(table, columns)


def test_numbers_of_another_kind_of_file_are_no_paths(table: Path) -> None:
    words = {"photo": [1.5, 2.5], "text": ["a chair", "3 chairs"], "age": [3, 4], "price": [1, 2]}
    rows = pa.table({name: cells * 10 for name, cells in words.items()})
    parquet = table.with_suffix(".parquet")
    pq.write_table(rows, parquet)
    with pytest.raises(
        DataError, match=r"column 'photo' holds numbers, such as 1.5, .* needs paths of image"
    ):
        built(parquet)


def test_words_with_numbers_are_texts_and_paths(table: Path) -> None:
    rows = [[r[0].removeprefix("files/"), f"{n} chairs", *r[2:]] for n, r in enumerate(read_rows(table))]
    beside = table.parent / "files" / "adverts.csv"
    write(beside, HEAD, rows)
    assert built(beside).spec.input.names == ("features", "photo", "text")


def test_an_empty_column(table: Path) -> None:
    write(table, HEAD, [["", *row[1:]] for row in read_rows(table)])
    with pytest.raises(
        DataError, match="column 'photo': all of its cells in the training set are empty"
    ):
        built(table)
