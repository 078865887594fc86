"""Where the user's data is and how it is split: nothing leaks, and each mistake has its message."""

import re

import pytest
import torch

from bigmodel.data.custom_data import (
    CustomDataConfig,
    check_classes,
    check_trained_classes,
    resolve_path,
    separate_parts,
    split_samples,
)
from bigmodel.errors import ConfigError, DataError


def config(**options) -> CustomDataConfig:
    return CustomDataConfig(name="own", **options)


def whole(parts: dict[str, torch.Tensor]) -> list[int]:
    return sorted(torch.cat(list(parts.values())).tolist())


def test_fractions_are_of_what_is_left():
    parts = split_samples(config(val_fraction=0.25, test_fraction=0.2), 100)
    assert {name: len(part) for name, part in parts.items()} == {"train": 60, "val": 20, "test": 20}
    assert whole(parts) == list(range(100))


def test_each_class_is_shared_out_in_proportion():
    labels = torch.tensor([0] * 80 + [1] * 20)
    parts = split_samples(config(val_fraction=0.25, test_fraction=0.2), 100, labels=labels)
    for part in parts.values():
        assert int(labels[part].sum()) == len(part) // 5


@pytest.mark.parametrize("seed", range(5))
def test_a_group_is_never_on_two_sides(seed):
    groups = [f"patient {i % 13}" for i in range(100)]
    parts = split_samples(config(split_seed=seed, test_fraction=0.2), 100, groups=groups)
    sides = [{groups[i] for i in part.tolist()} for part in parts.values()]
    assert all(not a & b for i, a in enumerate(sides) for b in sides[i + 1 :])
    assert whole(parts) == list(range(100))
    assert 10 <= len(parts["val"]) <= 25


def test_one_group_cannot_be_parted():
    with pytest.raises(DataError, match=r"all 10 samples belong to one group, 'x'.*data\.val_path"):
        split_samples(config(), 10, groups=["x"] * 10)


def test_marks_decide_and_what_is_not_marked_is_held_out():
    assigned_parts = ["train"] * 8 + ["Test", "dev"]
    parts = split_samples(config(), 10, assigned_parts=assigned_parts)
    assert parts["test"].tolist() == [8]
    assert parts["val"].tolist() == [9]
    parts = split_samples(config(), 10, assigned_parts=["train"] * 9 + ["test"])
    assert len(parts["val"]) == 2
    assert 9 not in parts["val"]


@pytest.mark.parametrize(
    ("assigned_parts", "message"),
    [
        (["train", "tset"], r"data\.split: 'tset' in row 1 .* names no set. Allowed are train"),
        (["train", ""], r"data\.split: is empty in row 1 \(counted from 0\)\. Allowed are train"),
        (["train", None], r"data\.split: is empty in row 1 \(counted from 0\)\. Allowed are train"),
        (["val", "test"], r"no row is marked train"),
    ],
)
def test_wrong_marks(assigned_parts, message):
    with pytest.raises(DataError, match=message):
        split_samples(config(), 2, assigned_parts=assigned_parts)


def test_a_part_with_a_file_of_its_own_takes_nothing():
    parts = split_samples(config(val_path="val.csv", test_path="test.csv", test_fraction=0.5), 10)
    assert list(parts) == ["train"]


def test_a_path_is_asked_for_and_has_to_be_there(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "houses.csv").touch()
    assert resolve_path(config(path="houses.csv")).name == "houses.csv"
    with pytest.raises(ConfigError, match=r"data\.path: is required. Set data.path"):
        resolve_path(config())
    with pytest.raises(
        DataError, match=r"data\.path=house\.csv: there is no such .*[Dd]id you mean 'houses\.csv'"
    ):
        resolve_path(config(path="house.csv"))


def test_one_class_is_nothing_to_tell_apart():
    with pytest.raises(DataError, match=r"data\.target=x: all samples have the same label, 'a'"):
        check_classes(["a"], "data.target=x")
    check_classes(["a", "b"], "data.target=x")


@pytest.mark.parametrize("empty", [None, " "])
def test_what_belongs_to_no_group_is_refused(empty):
    groups = ["a", "b", empty, "c", empty]
    message = r"data\.group: is empty for 2 of 5 samples, the first in line 2 \(counted from 0\)"
    with pytest.raises(DataError, match=message):
        split_samples(config(), 5, groups=groups, named="line {}".format)
    split_samples(config(), 4, groups=[0, 1, 2, 3])  # 0 is a group as others are


def test_a_part_that_is_there_twice_is_refused(tmp_path):
    (tmp_path / "a.csv").touch()
    path, again, other = str(tmp_path / "a.csv"), str(tmp_path / "." / "a.csv"), str(tmp_path / "b.csv")
    assert separate_parts(config(path=path)) == []
    assert separate_parts(config(path=path, val_path=other, test_path="c"), ["train"]) == ["val", "test"]
    with pytest.raises(ConfigError, match=r"data\.test_path=.*: data\.path has a test set of its own"):
        separate_parts(config(path=path, test_path=other), ["train", "test"])
    with pytest.raises(DataError, match=r"data\.test_path=.*: it is data\.path as well"):
        separate_parts(config(path=path, test_path=again))
    with pytest.raises(DataError, match=r"data\.test_path=.*: it is data\.val_path as well"):
        separate_parts(config(path=path, val_path=other, test_path=other))


def test_a_class_needs_something_to_learn_from():
    check_trained_classes(["a", "b"], torch.tensor([0, 1]), "x.csv", "rows")
    with pytest.raises(DataError, match=r"x\.csv: no rows of label 'b' are in the training set"):
        check_trained_classes(["a", "b", "c"], torch.tensor([0, 2]), "x.csv", "rows")


def test_the_fraction_that_holds_out_none_is_named():
    with pytest.raises(DataError, match=r"data\.test_fraction=0\.001 of 60 samples .* for the test"):
        split_samples(config(test_fraction=0.001), 60)


@pytest.mark.parametrize("counts", [(3, 2), (2, 2), (30, 1, 2), (500, 3, 3)])
def test_a_share_that_leaves_a_class_nothing_is_refused_with_one_that_works(
    counts: tuple[int, ...],
) -> None:
    labels = torch.cat([torch.full((count,), resolve_path) for resolve_path, count in enumerate(counts)])
    fraction = 1 - 0.9 / len(labels)
    with pytest.raises(DataError, match="leaves a class without a training sample") as refused:
        split_samples(config(val_fraction=fraction), len(labels), labels=labels)
    advised = re.search(r"at most (0\.\d+)", str(refused.value))
    assert advised is not None
    parts = split_samples(config(val_fraction=float(advised[1])), len(labels), labels=labels)
    assert labels[parts["train"]].unique().tolist() == list(range(len(counts)))


def test_classes_of_a_single_sample_cannot_be_parted_by_any_share() -> None:
    with pytest.raises(DataError, match="Provide two samples of each class"):
        split_samples(config(val_fraction=0.5), 3, labels=torch.arange(3))


def test_folds_leave_the_test_set_as_it_is():
    parts = [split_samples(config(test_fraction=0.2, folds=4, val_fold=i), 100) for i in range(4)]
    assert all(torch.equal(each["test"], parts[0]["test"]) for each in parts)
    assert all(whole(each) == list(range(100)) for each in parts)
    assert len(set(torch.cat([each["val"] for each in parts]).tolist())) == 80


def test_folds_of_data_with_its_own_validation_set_are_refused():
    words = r"data\.folds=2: the data has a validation set of its own"
    with pytest.raises(ConfigError, match=words):
        split_samples(config(folds=2, val_fold=0, val_path="val.csv"), 10)
    with pytest.raises(ConfigError, match=words):
        split_samples(config(folds=2, val_fold=0), 10, assigned_parts=["train"] * 8 + ["val"] * 2)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"folds": 3}, "Set both, or neither"),
        ({"val_fold": 0}, "Set both, or neither"),
        ({"folds": 3, "val_fold": 3}, "are counted from 0 to 2"),
    ],
)
def test_a_fold_must_be_one_of_the_folds(options, message):
    with pytest.raises(ValueError, match=message):
        config(**options)
