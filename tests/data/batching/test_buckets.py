"""Batches of texts of like lengths: every sample once, within bounds, in the order of the seed."""

import pytest
import torch

from bigmodel.data.base import DataConfig, Dataset
from bigmodel.data.batching.batches import Batches
from bigmodel.data.batching.buckets import Buckets
from bigmodel.data.parts import Texts
from bigmodel.errors import ConfigError
from bigmodel.spec import Classes, DataSpec, Tokens

CPU = torch.device("cpu")


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


def buckets(part: Texts, samples: int = 1000, tokens: int | None = 120, **options) -> Buckets:
    return Buckets(part, CPU, **{"seed": 3, "shuffle": True} | options, samples=samples, tokens=tokens)


def seen(made: Buckets, epoch: int, start: int = 0) -> list[list[int]]:
    return [targets.tolist() for _, targets in made.epoch(epoch, start)]


@pytest.mark.parametrize("shuffle", [True, False])
def test_every_sample_comes_once(shuffle):
    made = buckets(texts(97), shuffle=shuffle)
    assert sorted(number for batch in seen(made, 0) for number in batch) == list(range(97))


def test_no_batch_is_larger_than_its_bounds():
    made = buckets(texts(200), samples=9)
    for inputs, targets in made.epoch(1, 0):
        assert len(targets) <= 9
        assert inputs.numel() <= 120


def test_a_text_longer_than_the_bound_has_a_batch_of_its_own():
    made = buckets(texts(40), tokens=7)
    sizes = [inputs.shape for inputs, _ in made.epoch(0, 0)]
    assert all(count == 1 for count, width in sizes if width > 7)


def test_little_is_spent_on_filling_up():
    part = texts(500)
    spent = sum(inputs.numel() for inputs, _ in buckets(part, tokens=300).epoch(0, 0))
    assert spent < 1.1 * int(part.sizes.sum())


def test_epochs_have_as_many_batches_of_the_same_sizes_in_another_order():
    made = buckets(texts(200))
    first, second = seen(made, 0), seen(made, 1)
    assert len(first) == len(second) == len(made)
    assert sorted(map(len, first)) == sorted(map(len, second))
    assert first != second
    assert first == seen(buckets(texts(200)), 0)
    assert first != seen(buckets(texts(200), seed=4), 0)


def test_an_epoch_is_taken_up_at_any_batch():
    made = buckets(texts(60))
    assert seen(made, 2, start=3) == seen(made, 2)[3:]


def test_without_a_bound_on_tokens_batches_are_of_one_size():
    made = buckets(texts(50), samples=8, tokens=None)
    assert sorted(map(len, seen(made, 0))) == [2] + [8] * 6
    dropped = buckets(texts(50), samples=8, tokens=None, keep_rest=False)
    assert sorted(map(len, seen(dropped, 0))) == [8] * 6


class PairConfig(DataConfig):
    batch_tokens: int = 64


def dataset(part: Texts) -> Dataset:
    spec = DataSpec("toy", Tokens(30, 2, pad=0), Classes(tuple(map(str, range(len(part)))), ()))
    return Dataset(spec, part, part)


def test_accumulation_allows_as_many_tokens_more():
    one = Batches(dataset(texts(200)), "train", PairConfig(name="toy"))
    four = Batches(dataset(texts(200)), "train", PairConfig(name="toy"), group=4)
    assert 3 <= one.steps_per_epoch / four.steps_per_epoch <= 5
    assert max(batch.inputs.numel() for batch in four.epoch(0)) <= 4 * 64


def test_workers_are_refused_in_words():
    with pytest.raises(
        ConfigError, match=r"data\.workers=2: texts of different lengths .* data\.workers=0"
    ):
        Batches(dataset(texts(20)), "train", DataConfig(name="toy", workers=2))


def test_held_out_texts_come_as_they_are_stored():
    """So that the samples that a report shows are not just the shortest."""
    held_out = buckets(texts(20), shuffle=False, tokens=None, samples=8)
    assert [number for batch in seen(held_out, 0) for number in batch] == list(range(20))
