"""The batches of an epoch: complete, repeatable, and the same wherever an epoch is taken up."""

import pytest
import torch

import bigmodel.data.batching.batches as batches_module
from bigmodel.data import counter_rng
from bigmodel.data.assemble import assemble
from bigmodel.data.augment import AugmentConfig
from bigmodel.data.base import DataConfig, Dataset, ImageConfig
from bigmodel.data.batching.batches import Batches, BucketedBatches, make_batches
from bigmodel.data.parts import Part, Texts
from bigmodel.errors import ConfigError, DataError
from bigmodel.spec import Classes, DataSpec, Features, Image, Tokens
from tests.small_runs import model_inputs

SAMPLES = 100  # 80 to train
AUGMENT = AugmentConfig(shift=2, flip=0.5, erase=0.5)


def image_data(config):
    images = torch.randint(0, 256, (SAMPLES, 1, 6, 6), dtype=torch.uint8)
    labels = torch.arange(SAMPLES)
    names = tuple(str(label) for label in range(SAMPLES))
    return assemble(config, DataSpec("made", Image(1, 6, 6), Classes(names, ())), Part(images, labels))


def feature_data(config):
    rows = torch.arange(SAMPLES).float()
    names = tuple(str(label) for label in range(SAMPLES))
    spec = DataSpec("made", Features(1), Classes(names, ()))
    return assemble(config, spec, Part(rows[:, None], rows.long()), normalize=False)


def config_of(**values):
    return ImageConfig(name="made", **{"batch_size": 8, **values})


@pytest.fixture(params=[1, 700, 1 << 20], ids=["block of 1 batch", "of a few", "of all"])
def _block(request, monkeypatch):
    monkeypatch.setitem(batches_module._BLOCK_BYTES, "cpu", request.param)


def gathered(batches, epoch, start=0):
    found = list(batches.epoch(epoch, start))
    return torch.cat([b.inputs for b in found]), torch.cat([b.targets for b in found])


@pytest.mark.usefixtures("_block")
@pytest.mark.parametrize("augment", [AugmentConfig(), AUGMENT], ids=["plain", "augmented"])
@pytest.mark.parametrize("group", [1, 3])
@pytest.mark.parametrize("drop_last", [False, True])
def test_an_epoch_can_be_taken_up_at_any_batch(augment, group, drop_last):
    config = config_of(augment=augment, drop_last=drop_last, batch_size=7)
    dataset = image_data(config)
    whole = list(make_batches(dataset, "train", config, seed=3, group=group).epoch(5))
    again = make_batches(dataset, "train", config, seed=3, group=group)
    list(again.epoch(4))
    torch.rand(11)
    for start in range(again.steps_per_epoch + 1):
        rest = list(again.epoch(5, start))
        assert len(rest) == again.steps_per_epoch - start
        for got, expected in zip(rest, whole[start:], strict=True):
            assert torch.equal(got.inputs, expected.inputs)
            assert torch.equal(got.targets, expected.targets)


@pytest.mark.usefixtures("_block")
def test_samples_do_not_depend_on_the_batch_size_or_the_grouping():
    config = config_of(augment=AUGMENT)
    dataset = image_data(config)
    inputs, targets = gathered(make_batches(dataset, "train", config, seed=1), 2)
    for size, group in [(1, 1), (7, 1), (8, 4), (80, 1), (200, 2)]:
        other = make_batches(dataset, "train", config, seed=1, batch_size=size, group=group)
        got_inputs, got_targets = gathered(other, 2)
        assert torch.equal(got_inputs, inputs)
        assert torch.equal(got_targets, targets)


@pytest.mark.usefixtures("_block")
@pytest.mark.parametrize("most_stored", [80, 79])
def test_every_sample_comes_once_in_an_order_of_the_epoch(monkeypatch, most_stored):
    monkeypatch.setattr(counter_rng, "MOST_STORED", most_stored)
    config = config_of()
    dataset = feature_data(config)
    batches = make_batches(dataset, "train", config, seed=0)
    orders = []
    for epoch in range(4):
        inputs, targets = gathered(batches, epoch)
        assert torch.equal(inputs[:, 0].long(), targets), "inputs and targets must stay together"
        assert torch.equal(targets.sort().values, dataset.train.targets.sort().values)
        orders.append(tuple(targets.tolist()))
    assert len(set(orders)) == 4
    assert [b.targets.tolist() for b in batches.epoch(0, 3)] == [
        b.targets.tolist() for b in batches.epoch(0)
    ][3:]
    other_seed = gathered(make_batches(dataset, "train", config, seed=1), 0)[1]
    assert tuple(other_seed.tolist()) not in orders


def test_sizes_of_batches():
    config = config_of(batch_size=30)
    dataset = feature_data(config)

    def sizes(**options):
        batches = make_batches(dataset, "train", options.pop("config", config), **options)
        found = [len(batch) for batch in batches.epoch(0)]
        assert len(found) == batches.steps_per_epoch
        return found

    dropping = config_of(batch_size=30, drop_last=True)
    assert sizes() == [30, 30, 20]
    assert sizes(group=2) == [60, 20]
    assert sizes(config=dropping) == [30, 30]
    assert sizes(config=dropping, group=2) == [60]
    assert sizes(config=dropping, shuffle=False) == [30, 30, 20], "evaluation reads every sample"
    assert sizes(batch_size=1000) == [80]


def test_attributes():
    config = config_of(batch_size=30)
    dataset = feature_data(config)
    batches = make_batches(dataset, "train", config, group=2)
    assert len(batches) == len(batches.part) == 80
    assert batches.part is dataset.train
    assert batches.batch_size == 30
    assert batches.steps_per_epoch == 2


@pytest.mark.usefixtures("_block")
def test_held_out_parts_come_in_order_and_unchanged():
    config = config_of(augment=AUGMENT, drop_last=True, batch_size=3)
    dataset = image_data(config)
    for epoch in (0, 1):
        inputs, targets = gathered(make_batches(dataset, "val", config), epoch)
        assert torch.equal(targets, dataset.val.targets)
        assert torch.equal(inputs, model_inputs(dataset.preprocessing, dataset.val.inputs))


@pytest.mark.usefixtures("_block")
def test_images_become_float_and_standardised():
    config = config_of()
    dataset = image_data(config)
    inputs, targets = gathered(make_batches(dataset, "train", config), 0)
    assert inputs.dtype == torch.float32
    assert targets.dtype == torch.int64
    assert inputs.mean().item() == pytest.approx(0, abs=1e-5)
    assert inputs.std(correction=0).item() == pytest.approx(1, abs=1e-5)
    place = {label: row for row, label in enumerate(dataset.train.targets.tolist())}
    stored = dataset.train.inputs[[place[label] for label in targets.tolist()]]
    assert torch.equal(inputs, model_inputs(dataset.preprocessing, stored))


def test_augmentation_is_for_training_new_each_epoch_and_can_be_left_out():
    config = config_of(augment=AUGMENT)
    dataset = image_data(config)
    batches = make_batches(dataset, "train", config)

    def by_label(found):
        return found[0][found[1].argsort()]

    first, second = by_label(gathered(batches, 0)), by_label(gathered(batches, 1))
    plain = by_label(gathered(make_batches(dataset, "train", config, augment=False), 0))
    assert not torch.equal(first, second)
    assert not torch.equal(first, plain)
    assert torch.equal(
        plain,
        by_label((model_inputs(dataset.preprocessing, dataset.train.inputs), dataset.train.targets)),
    )
    black = -dataset.mean.item() / dataset.std.item()
    assert (first == black).float().mean() > (plain == black).float().mean() + 0.1
    in_order = make_batches(dataset, "train", config, shuffle=False)
    assert torch.equal(by_label(gathered(in_order, 0)), first), "by sample, not by place in the epoch"


def test_tokens_stay_integers():
    config = DataConfig(name="made")
    tokens = torch.randint(0, 5, (SAMPLES, 4))
    spec = DataSpec("made", Tokens(4, 5), Classes(("a", "b"), ()))
    dataset = assemble(config, spec, Part(tokens, torch.arange(SAMPLES) % 2))
    assert gathered(make_batches(dataset, "train", config), 0)[0].dtype == torch.int64


@pytest.mark.parametrize("augment", [AugmentConfig(), AUGMENT], ids=["plain", "augmented"])
def test_the_global_generator_is_never_touched(augment):
    config = config_of(augment=augment)
    before = torch.get_rng_state()
    dataset = image_data_without_draws(config)
    list(make_batches(dataset, "train", config, seed=1).epoch(1))
    assert torch.equal(torch.get_rng_state(), before)


def image_data_without_draws(config):
    images = torch.arange(SAMPLES * 36).remainder(251).to(torch.uint8).view(SAMPLES, 1, 6, 6)
    spec = DataSpec("made", Image(1, 6, 6), Classes(("a", "b"), ()))
    return assemble(config, spec, Part(images, torch.arange(SAMPLES) % 2))


def test_stored_data_is_not_changed():
    config = config_of(augment=AUGMENT)
    dataset = image_data(config)
    before = dataset.train.inputs.clone()
    list(make_batches(dataset, "train", config).epoch(0))
    assert torch.equal(dataset.train.inputs, before)


def test_nothing_left_is_refused():
    config = config_of(batch_size=81, drop_last=True)
    dataset = feature_data(config)
    with pytest.raises(ConfigError, match=r"data\.batch_size=81 is larger than the 80 training samples"):
        make_batches(dataset, "train", config)
    make_batches(dataset, "val", config)
    config = config_of(batch_size=30, drop_last=True)
    words = r"batch_size=30 times trainer\.accumulate=3 is larger .* data\.batch_size=26 or less"
    with pytest.raises(ConfigError, match=words):
        make_batches(dataset, "train", config, group=3)


def test_other_refusals():
    config = config_of(augment=AugmentConfig(shift=6))
    with pytest.raises(ConfigError, match=r"data\.augment\.shift=6"):
        make_batches(image_data(config), "train", config)
    with pytest.raises(DataError, match="has no test set"):
        make_batches(feature_data(config), "test", config)


@pytest.mark.gpu
@pytest.mark.usefixtures("_block")
@pytest.mark.parametrize("on_device", [True, False, None])
@pytest.mark.parametrize("part", ["train", "val"])
def test_the_gpu_gives_the_same_batches(on_device, part, monkeypatch):
    monkeypatch.setitem(batches_module._BLOCK_BYTES, "cuda", batches_module._BLOCK_BYTES["cpu"])
    config = config_of(augment=AugmentConfig(shift=2, flip=0.5), on_device=on_device)
    dataset = image_data(config)
    expected = gathered(make_batches(dataset, part, config, "cpu", seed=1), 2, start=1)
    inputs, targets = gathered(make_batches(dataset, part, config, "cuda", seed=1), 2, start=1)
    assert inputs.is_cuda
    assert targets.is_cuda
    torch.testing.assert_close(inputs.cpu(), expected[0])
    assert torch.equal(targets.cpu(), expected[1])


def texts(count: int, seed: int = 0) -> Texts:
    """Texts of 1 to 30 tokens whose target is their number."""
    sizes = torch.randint(1, 31, (count,), generator=torch.Generator().manual_seed(seed))
    return Texts(
        torch.ones(int(sizes.sum()), dtype=torch.int64),
        sizes.cumsum(0) - sizes,
        sizes,
        torch.arange(count),
        0,
    )


def buckets(part: Texts, samples: int = 1000, tokens: int | None = 120, **options) -> BucketedBatches:
    options = {"seed": 3} | options
    return BucketedBatches(part=part, batch_size=samples, max_tokens=tokens, **options)


def numbers_of(batches: Batches, epoch: int, start: int = 0) -> list[list[int]]:
    return [targets.tolist() for _, targets in batches.epoch(epoch, start)]


@pytest.mark.parametrize("shuffle", [True, False])
def test_every_sample_comes_once(shuffle):
    batches = buckets(texts(97), shuffle=shuffle)
    assert sorted(number for batch in numbers_of(batches, 0) for number in batch) == list(range(97))


def test_no_batch_is_larger_than_its_bounds():
    batches = buckets(texts(200), samples=9)
    for inputs, targets in batches.epoch(1):
        assert len(targets) <= 9
        assert inputs.numel() <= 120


def test_a_text_longer_than_the_bound_has_a_batch_of_its_own():
    batches = buckets(texts(40), tokens=7)
    sizes = [inputs.shape for inputs, _ in batches.epoch(0)]
    assert all(count == 1 for count, width in sizes if width > 7)


def test_little_is_spent_on_filling_up():
    part = texts(500)
    spent = sum(inputs.numel() for inputs, _ in buckets(part, tokens=300).epoch(0))
    assert spent < 1.1 * int(part.sizes.sum())


def test_epochs_have_as_many_batches_of_the_same_sizes_in_another_order():
    batches = buckets(texts(200))
    first, second = numbers_of(batches, 0), numbers_of(batches, 1)
    assert len(first) == len(second) == batches.steps_per_epoch
    assert sorted(map(len, first)) == sorted(map(len, second))
    assert first != second
    assert first == numbers_of(buckets(texts(200)), 0)
    assert first != numbers_of(buckets(texts(200), seed=4), 0)


def test_an_epoch_is_taken_up_at_any_batch():
    batches = buckets(texts(60))
    assert numbers_of(batches, 2, start=3) == numbers_of(batches, 2)[3:]


def test_without_a_bound_on_tokens_batches_are_of_one_size():
    batches = buckets(texts(50), samples=8, tokens=None)
    assert sorted(map(len, numbers_of(batches, 0))) == [2] + [8] * 6
    dropped = buckets(texts(50), samples=8, tokens=None, drop_last=True)
    assert sorted(map(len, numbers_of(dropped, 0))) == [8] * 6


class PairConfig(DataConfig):
    batch_tokens: int = 64


def text_data(part: Texts) -> Dataset:
    spec = DataSpec("toy", Tokens(30, 2, pad=0), Classes(tuple(map(str, range(len(part)))), ()))
    return Dataset(spec, part, part)


def test_accumulation_allows_as_many_tokens_more():
    one = make_batches(text_data(texts(200)), "train", PairConfig(name="toy"))
    four = make_batches(text_data(texts(200)), "train", PairConfig(name="toy"), group=4)
    assert 3 <= one.steps_per_epoch / four.steps_per_epoch <= 5
    assert max(batch.inputs.numel() for batch in four.epoch(0)) <= 4 * 64


def test_held_out_texts_come_as_they_are_stored():
    """So that the samples that a report shows are not just the shortest."""
    held_out = buckets(texts(20), shuffle=False, tokens=None, samples=8)
    assert [number for batch in numbers_of(held_out, 0) for number in batch] == list(range(20))
