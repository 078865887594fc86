"""New samples as arrays, for a source of any kind that arrays can hold."""

import json

import numpy as np
import pytest
import torch

from bigmodel.data.arrays.reader import ArraysReader
from bigmodel.data.reader import from_plain, to_plain
from bigmodel.data.sources.sklearn_sets import DigitsConfig, TableConfig, digits, iris
from bigmodel.errors import DataError
from bigmodel.spec import (
    Classes,
    DataSpec,
    Features,
    Flags,
    Image,
    NextTokens,
    Sequence,
    TokenPair,
    Tokens,
    Values,
)

TWO = Classes(("no", "yes"), counts=(1, 1))


def again(reader):
    """The reader as a checkpoint keeps it."""
    return from_plain(json.loads(json.dumps(to_plain(reader))))


def reader_of(kind, target=TWO, statistics=None, dtype=torch.float32):
    return again(ArraysReader.of(DataSpec("made", kind, target), statistics, dtype))


def read(folder, reader, with_targets=False, **content):
    np.savez(folder / "new.npz", **content)
    return reader.read(folder / "new.npz", with_targets=with_targets)


def refused(words, *args, **content):
    with pytest.raises(DataError) as caught:
        read(*args, **content)
    assert words in str(caught.value)


def test_digits_can_be_asked_about_new_ones(tmp_path):
    from sklearn.datasets import load_digits

    dataset = digits(DigitsConfig(name="digits"))
    own = load_digits()
    reader = again(dataset.reader)
    found = read(tmp_path, reader, True, inputs=own.images / 16, targets=own.target).part
    known = {row.numpy().tobytes(): int(label) for row, label in _rows(found)}
    for part in dataset.parts.values():
        assert all(known[row.numpy().tobytes()] == int(label) for row, label in _rows(part))


def test_a_table_is_standardised_as_in_training(tmp_path):
    from sklearn.datasets import load_iris

    dataset = iris(TableConfig(name="iris"))
    own = load_iris()
    names = own.target_names[own.target].astype(str)
    found = read(tmp_path, again(dataset.reader), True, inputs=own.data, targets=names).part
    known = {row.numpy().tobytes() for row in found.inputs}
    assert all(row.numpy().tobytes() in known for row in dataset.val.inputs)
    by_index = read(tmp_path, again(dataset.reader), True, inputs=own.data, targets=own.target).part
    assert torch.equal(by_index.targets, found.targets)


def _rows(part):
    return zip(part.inputs, part.targets, strict=True)


def test_without_answers_there_are_none(tmp_path):
    found = read(tmp_path, reader_of(Features(3)), inputs=np.ones((5, 3)))
    assert found.part.inputs.shape == (5, 3)
    assert found.part.targets.shape == (5,)
    assert found.columns == {"row": [0, 1, 2, 3, 4]}
    values = Values(("a", "b"), (0.0, 0.0), (1.0, 1.0))
    blank = read(tmp_path, reader_of(Features(3), values), inputs=np.ones((5, 3)))
    assert blank.part.targets.shape == (5, 2)
    refused("data.targets=targets: ", tmp_path, reader_of(Features(3)), True, inputs=np.ones((5, 3)))


def test_statistics_are_of_the_last_axis(tmp_path):
    statistics = torch.tensor([1.0, 2.0]).double(), torch.tensor([2.0, 4.0]).double()
    reader = reader_of(Sequence(3, 2), statistics=statistics)
    found = read(tmp_path, reader, inputs=np.full((4, 3, 2), 5)).part.inputs
    assert found.dtype == torch.float32
    assert torch.equal(found[0, 0], torch.tensor([2.0, 0.75]))


def test_images_keep_their_scale(tmp_path):
    stored = np.arange(48).reshape(1, 3, 4, 4)
    reader = reader_of(Image(3, 4, 4), dtype=torch.uint8)
    found = read(tmp_path, reader, inputs=stored).part.inputs
    assert found.dtype == torch.uint8
    turned = read(tmp_path, reader, inputs=stored.transpose(0, 2, 3, 1)).part.inputs
    assert torch.equal(found, turned)
    refused("from 0 to 255", tmp_path, reader, inputs=stored / 255)
    real = reader_of(Image(3, 4, 4))
    assert read(tmp_path, real, inputs=stored / 48).part.inputs.dtype == torch.float32
    refused("are real numbers", tmp_path, real, inputs=stored.astype(np.uint8))


def test_tokens_are_those_that_are_known(tmp_path):
    reader = reader_of(Tokens(4, 10, pad=0))
    found = read(tmp_path, reader, inputs=np.array([[1, 2, 3]], dtype=np.int32)).part.inputs
    assert found.tolist() == [[1, 2, 3, 0]]
    refused("token 10 in row 1", tmp_path, reader, inputs=np.array([[1] * 4, [10] * 4]))
    refused("tokens must be whole numbers", tmp_path, reader, inputs=np.ones((2, 4)))
    refused("has shape (1, 3)", tmp_path, reader_of(Tokens(4, 10)), inputs=np.array([[1, 2, 3]]))


def test_categories_are_those_that_are_known(tmp_path):
    reader = reader_of(Features(2, ("age", "kind"), (0, 3)))
    read(tmp_path, reader, inputs=np.array([[0.5, 2.0]]))
    refused("column 1 holds categories: 0 to 2", tmp_path, reader, inputs=np.array([[0.5, 3.0]]))


@pytest.mark.parametrize(
    ("kind", "shape", "wanted"),
    [
        (Features(3), (4, 2), "(samples, features) = (any, 3)"),
        (Sequence(3, 2), (4, 2, 3), "(samples, steps, features) = (any, 3, 2)"),
        (Image(1, 4, 4), (4, 1, 5, 4), "(samples, channels, height, width) = (any, 1, 4, 4)"),
    ],
)
def test_shapes_are_those_that_the_model_reads(tmp_path, kind, shape, wanted):
    refused(wanted, tmp_path, reader_of(kind), inputs=np.zeros(shape))


@pytest.mark.parametrize(
    ("target", "targets", "words"),
    [
        (TWO, [0, 2], "label 2 is out of range: 0 to 1"),
        (TWO, ["no", "yse"], "Did you mean 'yes'?"),
        (TWO, [0.5, 1.0], "labels of classes are whole numbers"),
        (TWO, [0], "holds 1 targets for 2 inputs"),
        (Flags(("a", "b")), [[0, 2], [0, 1]], "flags must be 0 or 1"),
        (Values(("a", "b"), (0.0, 0.0), (1.0, 1.0)), [0.5, 1.0], "expected (samples, 2) for a, b"),
        (NextTokens(5), [0, 1], "cannot be read from arrays"),
    ],
)
def test_answers_are_of_the_kind_that_was_learnt(tmp_path, target, targets, words):
    reader = reader_of(Features(1), target)
    refused(words, tmp_path, reader, True, inputs=np.zeros((2, 1)), targets=np.array(targets))


def test_values_are_standardised_as_in_training(tmp_path):
    reader = reader_of(Features(1), Values(("a",), (10.0,), (4.0,)))
    found = read(tmp_path, reader, True, inputs=np.zeros((2, 1)), targets=np.array([10, 18]))
    assert found.part.targets.tolist() == [[0.0], [2.0]]


def test_what_arrays_cannot_hold_is_refused(tmp_path):
    reader = reader_of(TokenPair(4, 10, 0, 1, 2), NextTokens(10))
    refused("was not trained on arrays", tmp_path, reader, inputs=np.zeros((2, 4)))


def test_nothing_to_read_is_said(tmp_path):
    refused("holds no samples", tmp_path, reader_of(Features(3)), inputs=np.zeros((0, 3)))
    refused("2 of 2 samples hold NaN", tmp_path, reader_of(Features(1)), inputs=np.full((2, 1), np.nan))
