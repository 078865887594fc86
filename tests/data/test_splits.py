"""Which samples go where."""

import re
import time

import pytest
import torch
from sklearn.model_selection import StratifiedKFold

from bigmodel.data.splits import fold_split, group_split, plain_split, stratified_split
from bigmodel.errors import DataError


def labels_of(*counts):
    labels = torch.cat([torch.full((count,), label) for label, count in enumerate(counts)])
    return labels[torch.randperm(len(labels))]


def assert_partition(train, val, samples):
    assert torch.equal(torch.cat([train, val]).sort().values, torch.arange(samples))


@pytest.mark.parametrize("samples", [2, 3, 10, 101])
@pytest.mark.parametrize("fraction", [0.3, 0.5])
def test_plain_split_is_a_partition_of_the_asked_sizes(samples, fraction):
    train, val = plain_split(samples, fraction, seed=0)
    assert len(val) == round(samples * fraction)
    assert_partition(train, val, samples)


@pytest.mark.parametrize("fraction", [0.05, 0.1, 0.2, 1 / 3, 0.5, 0.9])
@pytest.mark.parametrize(
    "counts", [(50, 50, 50), (97, 2, 31, 5), (100, 1, 2, 0, 40), (2, 2, 300), (60, 59, 61)]
)
def test_stratified_split_shares_each_class_in_proportion(counts, fraction):
    labels = labels_of(*counts)
    train, val = stratified_split(labels, fraction, seed=0)
    samples = len(labels)
    assert len(val) == round(samples * fraction)
    assert_partition(train, val, samples)
    held_out = torch.bincount(labels[val], minlength=len(counts)).tolist()
    short = 0
    for count, chosen in zip(counts, held_out, strict=True):
        if count >= 2:
            assert 1 <= chosen <= count - 1
        else:
            assert chosen == 0
        short += abs(chosen - count * fraction)
    # Beyond rounding, only what the one sample each of small classes takes away.
    assert short <= len(counts) + 2


def test_largest_remainders_get_what_is_left_over():
    train, val = stratified_split(labels_of(10, 14, 16), 0.25, seed=0)
    assert len(train) == 30
    assert len(val) == 10  # ideal: 2.5, 3.5, 4.0


def test_too_few_places_for_all_classes_still_gives_the_exact_size():
    labels = labels_of(*[2] * 40)
    train, val = stratified_split(labels, 0.1, seed=0)
    assert (len(train), len(val)) == (72, 8)
    train, val = stratified_split(labels, 0.9, seed=0)
    assert (len(train), len(val)) == (8, 72)


def test_only_single_samples():
    train, val = stratified_split(torch.arange(10), 0.2, seed=0)
    assert_partition(train, val, 10)
    assert len(val) == 2


@pytest.mark.parametrize("split", ["plain", "stratified"])
def test_the_seed_alone_decides(split):
    labels = labels_of(30, 30)

    def drawn(seed):
        parts = plain_split(60, 0.2, seed) if split == "plain" else stratified_split(labels, 0.2, seed)
        return torch.cat(parts)

    state = torch.get_rng_state()
    first = drawn(3)
    torch.manual_seed(99)
    assert torch.equal(first, drawn(3))
    assert not torch.equal(first, drawn(4))
    torch.set_rng_state(state)


def test_parts_are_in_random_order():
    labels = torch.arange(3).repeat_interleave(40)
    for part in stratified_split(labels, 0.5, seed=0):
        assert len(labels[part][:30].unique()) == 3


@pytest.mark.parametrize(
    ("samples", "fraction", "words"),
    [
        (30, 0.01, r"val_fraction=0\.01 of 30 samples leaves no samples for .*at least 0\.033"),
        (4, 0.95, r"val_fraction=0\.95 of 4 samples leaves no training samples.*at most 0\.75"),
        (1, 0.5, "has 1 sample: at least 2 are needed"),
    ],
)
def test_empty_parts_are_refused(samples, fraction, words):
    with pytest.raises(DataError, match=words):
        plain_split(samples, fraction, seed=0)
    with pytest.raises(DataError, match=words):
        stratified_split(torch.zeros(samples, dtype=torch.int64), fraction, seed=0)


ADVICE = re.compile(r"(?:at least|at most) (\d[\d.e-]*\d|\d)")


@pytest.mark.parametrize("fraction", [1e-9, 0.999999999])
@pytest.mark.parametrize("samples", [2, 3, 7, 66, 150, 199, 200, 201, 1000, 12345, 10**6])
def test_the_share_that_is_advised_is_one_that_works(samples, fraction):
    with pytest.raises(DataError) as refused:
        plain_split(samples, fraction, seed=0)
    advised = float(ADVICE.search(str(refused.value))[1])
    assert 0 < advised < 1  # as data.val_fraction has to be
    kept, out = plain_split(samples, advised, seed=0)
    assert len(kept) + len(out) == samples
    assert min(len(kept), len(out)) == 1


def folds_of(samples, folds, **options):
    """The validation set of each fold; the training set must be the rest."""
    parts = [fold_split(samples, folds, fold, 3, **options) for fold in range(folds)]
    for train, val in parts:
        assert_partition(train, val, samples)
    return [val for _, val in parts]


@pytest.mark.parametrize("folds", [2, 3, 7])
def test_every_sample_is_held_out_by_exactly_one_fold(folds):
    held_out = folds_of(23, folds)
    assert torch.equal(torch.cat(held_out).sort().values, torch.arange(23))
    assert {len(val) for val in held_out} <= {23 // folds, 23 // folds + 1}


@pytest.mark.parametrize("folds", [2, 3, 5])
def test_folds_have_each_class_in_proportion_as_those_of_scikit_learn(folds):
    labels = labels_of(41, 5, 0, 12)
    held_out = folds_of(58, folds, labels=labels)
    assert torch.equal(torch.cat(held_out).sort().values, torch.arange(58))
    ours = torch.stack([torch.bincount(labels[val], minlength=4) for val in held_out])
    reference = StratifiedKFold(folds).split(labels, labels)
    theirs = torch.stack([torch.bincount(labels[val], minlength=4) for _, val in reference])
    assert torch.equal(ours.sort(0).values, theirs.sort(0).values)
    assert int(ours.sum(1).max() - ours.sum(1).min()) <= 1


def test_a_group_is_whole_in_one_fold():
    groups = [f"patient {i % 11}" for i in range(60)]
    held_out = folds_of(60, 4, groups=groups)
    assert torch.equal(torch.cat(held_out).sort().values, torch.arange(60))
    members = [{groups[i] for i in val.tolist()} for val in held_out]
    assert sum(map(len, members)) == 11
    assert max(map(len, held_out)) - min(map(len, held_out)) <= 6


def test_folds_depend_on_the_seed_alone():
    first, again, other = (fold_split(30, 3, 0, seed)[1] for seed in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"labels": torch.tensor([0] * 3 + [1] * 4 + [3] * 2), "class_names": ("a", "b", "-", "yes")},
            r"data\.folds=4: class 'yes' has 2 samples for training, fewer than folds\. Use at most 2",
        ),
        ({"groups": ["a", "b", "b"] * 3}, r"data\.folds=4: the training set has 2 groups"),
        (
            {"groups": [*"aabbccddd"], "labels": torch.tensor([0] * 6 + [1] * 3)},
            r"class '1' has 3 samples for training, all in 1 group of one fold: .*Provide more groups",
        ),
        (
            {"groups": [*"abcdddddd"], "labels": torch.tensor([0] * 3 + [1] * 6)},
            r"data\.folds=4: class '1' has 6 samples",
        ),
    ],
)
def test_fewer_than_folds_is_refused(options, message):
    with pytest.raises(DataError, match=message):
        fold_split(9, 4, 0, 0, **options)
    with pytest.raises(DataError, match=r"data\.folds=4: the training set has 3 samples"):
        fold_split(3, 4, 0, 0)


def test_ten_times_the_groups_take_no_more_than_some_ten_times_as_long() -> None:
    def seconds(count: int) -> float:
        began = time.process_time()
        group_split(range(count), 0.2, 0)
        return time.process_time() - began

    seconds(20_000)
    assert seconds(200_000) < 25 * seconds(20_000)
