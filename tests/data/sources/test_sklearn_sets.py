"""The small data sets against scikit-learn itself."""

import gzip

import numpy as np
import pytest
import sklearn.datasets
import torch

from bigmodel.data.checks import check
from bigmodel.data.sources import sklearn_sets
from bigmodel.registry import data
from bigmodel.spec import Classes, Features, Image


def built(name, **values):
    return data.build(data.parse({"name": name, **values}))


@pytest.mark.parametrize("name", ["digits", "iris", "wine", "breast_cancer", "diabetes"])
def test_passes_the_checks_and_holds_every_sample(name):
    dataset = built(name)
    check(dataset)
    assert dataset.spec.name == name
    assert dataset.test is None
    found = getattr(sklearn.datasets, f"load_{name}")()
    assert sum(dataset.spec.sizes.values()) == len(found.target)


@pytest.mark.parametrize("name", ["digits", "iris", "wine", "breast_cancer"])
def test_classes_are_stratified_and_named(name):
    dataset = built(name)
    found = getattr(sklearn.datasets, f"load_{name}")()
    target = dataset.spec.target
    assert isinstance(target, Classes)
    assert target.names == tuple(str(word) for word in found.target_names)
    counts = np.bincount(found.target)
    held_out = torch.bincount(dataset.val.targets, minlength=len(counts)).numpy()
    np.testing.assert_allclose(held_out, counts * 0.2, atol=1)
    np.testing.assert_array_equal(np.array(target.counts) + held_out, counts)


def test_digits_are_the_images():
    dataset = built("digits", normalize=False)
    assert dataset.spec.input == Image(1, 8, 8)
    found = sklearn.datasets.load_digits()
    images = {(image / 16).astype(np.float32).tobytes(): label for image, label in _pairs(found)}
    for image, label in zip(dataset.val.inputs, dataset.val.targets, strict=True):
        assert images[image[0].numpy().tobytes()] == label


def test_digits_are_read_alike_without_scikit_learns_file(monkeypatch):
    by_file = sklearn_sets._digits()
    monkeypatch.setattr(gzip, "decompress", lambda _: b"no,numbers")
    by_loader = sklearn_sets._digits()
    assert by_file.shape == (1797, 65)
    assert (by_file.dtype, by_loader.dtype) == (np.float64, np.float64)
    np.testing.assert_array_equal(by_file, by_loader)


def _pairs(found):
    return zip(found.images, found.target, strict=True)


def test_rows_keep_their_label():
    dataset = built("wine", normalize=False)
    found = sklearn.datasets.load_wine()
    rows = {
        row.astype(np.float32).tobytes(): label
        for row, label in zip(found.data, found.target, strict=True)
    }
    for row, label in zip(dataset.train.inputs, dataset.train.targets, strict=True):
        assert rows[row.numpy().tobytes()] == label
    assert dataset.spec.input == Features(13, tuple(found.feature_names))


def test_diabetes_values_are_in_their_own_unit_again():
    dataset = built("diabetes")
    target = dataset.spec.target
    assert dataset.spec.input.names[2] == "bmi"
    own = torch.cat([dataset.train.targets, dataset.val.targets]) * target.std[0] + target.mean[0]
    found = np.sort(sklearn.datasets.load_diabetes().target)
    np.testing.assert_allclose(own.flatten().sort().values.numpy(), found, rtol=1e-5)
    assert dataset.train.targets.mean().item() == pytest.approx(0, abs=1e-6)


def test_the_split_seed_changes_the_split():
    first, again, other = (built("iris", split_seed=seed).val.inputs for seed in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
