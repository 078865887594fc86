"""Parts, the way between stored and model inputs, and `assemble`."""

import pytest
import torch

from bigmodel.data.assemble import assemble, without_validation
from bigmodel.data.base import Batch, Dataset, RealConfig
from bigmodel.data.parts import Part, Windows
from bigmodel.errors import DataError
from bigmodel.spec import Classes, DataSpec, Features, Flags, Image, NextTokens, Sequence, Tokens, Values
from tests.small_runs import model_inputs

CONFIG = RealConfig(name="made", val_fraction=0.25)
TWO = Classes(("no", "yes"), counts=())


def labelled(inputs, kind):
    labels = torch.arange(len(inputs)) % 2
    return DataSpec("made", kind, TWO), Part(inputs, labels)


def test_a_batch_counts_samples():
    inputs, targets = batch = Batch(torch.zeros(5, 2), torch.zeros(5))
    assert len(batch) == 5
    assert inputs.shape == (5, 2)
    assert targets.shape == (5,)


def test_features_are_standardised_with_the_training_part_alone():
    inputs = torch.randn(40, 3).double() * 5 + 2
    dataset = assemble(CONFIG, *labelled(inputs, Features(3)))
    assert dataset.spec.sizes == {"train": 30, "val": 10}
    torch.testing.assert_close(dataset.train.inputs.mean(0), torch.zeros(3), atol=1e-6, rtol=0)
    torch.testing.assert_close(dataset.train.inputs.std(0, correction=0), torch.ones(3))
    assert dataset.val.inputs.mean(0).abs().min() > 1e-3
    assert dataset.train.inputs.dtype == dataset.val.inputs.dtype == torch.float32
    assert dataset.mean is None

    # Other validation samples, same training samples: the training set must not change by a bit.
    changed = inputs.clone()
    held_out = _held_out(dataset, inputs)
    changed[held_out] = changed[held_out] * 100 + 1000
    again = assemble(CONFIG, *labelled(changed, Features(3)))
    assert torch.equal(again.train.inputs, dataset.train.inputs)
    assert not torch.equal(again.val.inputs, dataset.val.inputs)


def _held_out(dataset, inputs):
    """Which rows the validation set has, found by their values before scaling."""
    raw = assemble(CONFIG, *labelled(inputs, Features(3)), normalize=False)
    same = (raw.val.inputs[:, None] == inputs.float()[None]).all(2)
    assert torch.equal(same.sum(1), torch.ones(len(dataset.val), dtype=torch.int64))
    return same.int().argmax(1)


def test_image_and_value_statistics_ignore_validation_samples():
    config = RealConfig(name="made", val_fraction=0.25)
    images = torch.randint(0, 256, (40, 1, 4, 4), dtype=torch.uint8)
    values = torch.randn(40, 1)
    spec = DataSpec("made", Image(1, 4, 4), Values(("value",), (), ()))
    dataset = assemble(config, spec, Part(images, values))
    held_out = [row for row in range(40) if (dataset.val.inputs == images[row]).all((1, 2, 3)).any()]
    assert len(held_out) == 10
    images[held_out], values[held_out] = 255, 1e6
    again = assemble(config, spec, Part(images, values))
    assert torch.equal(again.mean, dataset.mean)
    assert torch.equal(again.std, dataset.std)
    assert again.spec.target == dataset.spec.target
    assert torch.equal(again.train.targets, dataset.train.targets)


def test_sequences_are_standardised_per_feature():
    inputs = torch.randn(40, 6, 2) * torch.tensor([1.0, 50.0])
    train = assemble(CONFIG, *labelled(inputs, Sequence(6, 2))).train.inputs
    torch.testing.assert_close(train.std((0, 1), correction=0), torch.ones(2))


def test_a_feature_that_never_changes_stays_finite():
    inputs = torch.randn(40, 2)
    inputs[:, 1] = 3
    train = assemble(CONFIG, *labelled(inputs, Features(2))).train.inputs
    assert torch.equal(train[:, 1], torch.zeros(30))


def test_without_normalisation_inputs_are_only_stored():
    inputs = torch.randn(40, 2).double()
    dataset = assemble(CONFIG, *labelled(inputs, Features(2)), normalize=False)
    stored = torch.cat([dataset.train.inputs, dataset.val.inputs])
    assert torch.equal(stored.sort(0).values, inputs.float().sort(0).values)


def test_tokens_stay_as_they_are():
    tokens = torch.randint(0, 9, (40, 5))
    dataset = assemble(CONFIG, *labelled(tokens, Tokens(5, 9)))
    assert dataset.train.inputs.dtype == torch.int64
    assert dataset.mean is None
    assert torch.equal(model_inputs(dataset.preprocessing, tokens), tokens)


def test_values_are_standardised_and_come_back():
    targets = torch.randn(40, 2).double() * torch.tensor([1000.0, 0.01]) + torch.tensor([5000.0, 0.0])
    spec = DataSpec("made", Features(1), Values(("a", "b"), (), ()))
    dataset = assemble(CONFIG, spec, Part(torch.randn(40, 1), targets))
    target = dataset.spec.target
    torch.testing.assert_close(dataset.train.targets.mean(0), torch.zeros(2), atol=1e-6, rtol=0)
    torch.testing.assert_close(dataset.train.targets.std(0, correction=0), torch.ones(2))
    own = dataset.val.targets * torch.tensor(target.std) + torch.tensor(target.mean)
    away = (own[:, None] - targets.float()[None]).abs() / torch.tensor(target.std)
    assert away.amax(2).amin(1).max() < 1e-5, "each must be one of the targets given"


def test_classes_are_counted_in_the_training_part():
    dataset = assemble(CONFIG, *labelled(torch.randn(40, 1), Features(1)))
    assert dataset.spec.target.counts == (15, 15)
    assert torch.bincount(dataset.val.targets).tolist() == [5, 5]


def test_flags_are_float32():
    spec = DataSpec("made", Features(1), Flags(("a", "b")))
    flags = torch.randint(0, 2, (40, 2)).double()
    dataset = assemble(CONFIG, spec, Part(torch.randn(40, 1), flags))
    assert dataset.train.targets.dtype == torch.float32
    assert torch.equal(dataset.train.targets.unique(), torch.tensor([0.0, 1.0]))


def test_a_test_part_is_scaled_by_the_training_part():
    spec, samples = labelled(torch.randn(40, 2).double(), Features(2))
    test = Part(samples.inputs[:7] * 3, samples.targets[:7])
    dataset = assemble(CONFIG, spec, samples, test)
    assert dataset.spec.sizes == {"train": 30, "val": 10, "test": 7}
    raw = assemble(CONFIG, spec, samples, test, normalize=False)
    mean, std = raw.train.inputs.mean(0), raw.train.inputs.std(0, correction=0)
    torch.testing.assert_close(dataset.test.inputs, (raw.test.inputs - mean) / std)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
@pytest.mark.parametrize("normalize", [True, False])
def test_images_to_model_inputs_and_back(dtype, normalize):
    unit = 255 if dtype == torch.uint8 else 1
    images = (torch.rand(40, 3, 4, 5) * unit).to(dtype)
    dataset = assemble(CONFIG, *labelled(images, Image(3, 4, 5)), normalize=normalize)
    assert dataset.train.inputs.dtype == dtype
    light = images.float() / unit
    inputs = model_inputs(dataset.preprocessing, images)
    expected = (light - dataset.mean) / dataset.std if normalize else light
    torch.testing.assert_close(inputs, expected, atol=1e-5, rtol=1e-5)
    shown = dataset.preprocessing.denormalize(inputs)
    torch.testing.assert_close(shown, light, atol=1e-6, rtol=0)
    assert shown.min() >= 0
    assert shown.max() <= 1


def test_what_a_source_gives_is_checked_before_it_is_scaled():
    inputs = torch.randn(40, 2)
    inputs[17, 1] = torch.nan
    with pytest.raises(DataError, match=r"1 of 80 inputs are not finite.* row 17 .*\('width'\)"):
        assemble(CONFIG, *labelled(inputs, Features(2, ("length", "width"))))


def test_parts_by_name():
    part = Part(torch.zeros(2, 1), torch.zeros(2, dtype=torch.int64))
    dataset = Dataset(DataSpec("made", Features(1), TWO), part, part)
    assert dataset.part("val") is part
    with pytest.raises(DataError, match="data 'made' has no test set"):
        dataset.part("test")


def test_a_validation_set_that_cannot_be_joined_is_refused():
    windows = Windows.side_by_side(torch.arange(30), 5, whole=True)
    spec = DataSpec("mine", Tokens(5, 30), NextTokens(30, None), {"train": 6, "val": 6})
    with pytest.raises(DataError, match="data 'mine' has a validation set of its own, which cannot be"):
        without_validation(Dataset(spec, windows, windows))
