"""A fingerprint changes with anything that is stored, and with nothing else."""

import hashlib
import json

import pytest
import torch

from bigmodel.data.base import Dataset
from bigmodel.data.fingerprint import describe_change, fingerprint
from bigmodel.data.parts import Part
from bigmodel.registry import data
from bigmodel.spec import Classes, DataSpec, Image


def dataset(**changes):
    images = torch.arange(6 * 4, dtype=torch.uint8).view(6, 1, 2, 2)
    labels = torch.arange(6) % 2
    parts = {
        "train": Part(images[:4].clone(), labels[:4].clone()),
        "val": Part(images[4:].clone(), labels[4:].clone()),
        "mean": torch.tensor([[[0.5]]]),
        "std": torch.tensor([[[0.25]]]),
        **changes,
    }
    return Dataset(DataSpec("made", Image(1, 2, 2), Classes(("a", "b"), (2, 2))), **parts)


def test_it_is_a_sha256_of_what_is_stored_and_the_sizes():
    made = dataset()
    expected = hashlib.sha256()
    for name, kind, shape, content in (
        ("train inputs", "torch.uint8", (4, 1, 2, 2), made.train.inputs.numpy().tobytes()),
        ("train targets", "torch.int64", (4,), made.train.targets.numpy().tobytes()),
        ("val inputs", "torch.uint8", (2, 1, 2, 2), made.val.inputs.numpy().tobytes()),
        ("val targets", "torch.int64", (2,), made.val.targets.numpy().tobytes()),
        ("mean", "torch.float32", (1, 1, 1), made.mean.numpy().tobytes()),
        ("std", "torch.float32", (1, 1, 1), made.std.numpy().tobytes()),
    ):
        expected.update(f"{name} {kind} {shape}\n".encode() + content)
    found = fingerprint(made)
    assert found == {"sha256": expected.hexdigest(), "sizes": {"train": 4, "val": 2}}
    assert json.loads(json.dumps(found)) == found


def test_equal_data_has_the_same_wherever_it_lies_in_memory():
    made, strided = dataset(), dataset()
    strided.train.inputs = strided.train.inputs.transpose(2, 3).contiguous().transpose(2, 3)
    assert not strided.train.inputs.is_contiguous()
    assert fingerprint(made) == fingerprint(strided)
    assert describe_change(fingerprint(made), fingerprint(strided)) is None


def _pixel(made):
    made.val.inputs[1, 0, 1, 1] += 1


def _label(made):
    made.train.targets[3] = 0


def _kind(made):
    made.train.inputs = made.train.inputs.to(torch.int8)


def _shape(made):
    made.train.inputs = made.train.inputs.view(4, 1, 4, 1)


def _swap(made):
    made.train.inputs = made.train.inputs.flip(0)


def _moved(made):
    made.mean = made.mean + 1e-6


@pytest.mark.parametrize("change", [_pixel, _label, _kind, _shape, _swap, _moved])
def test_any_change_shows(change):
    changed = dataset()
    change(changed)
    words = describe_change(fingerprint(dataset()), fingerprint(changed))
    assert words == "as many samples in each part, but other content"


def test_other_sizes_are_named_part_by_part():
    old = {"sha256": "a", "sizes": {"train": 1437, "val": 360, "test": 10}}
    new = {"sha256": "b", "sizes": {"train": 1400, "val": 360, "test": 10}}
    assert describe_change(old, new) == "train has 1,400 samples, was 1,437"
    assert describe_change(new, {"sha256": "c", "sizes": {"train": 1400, "val": 350}}) == (
        "val has 350 samples, was 360, test is gone, had 10 samples"
    )
    without = {"sha256": "c", "sizes": {"train": 1437, "val": 360}}
    assert describe_change(without, old) == "test is new, with 10 samples"


def test_any_type_of_number_and_an_empty_tensor():
    kinds = (torch.bfloat16, torch.float64, torch.bool, torch.int64)
    seen = {fingerprint(dataset(mean=torch.zeros(3).to(kind)))["sha256"] for kind in kinds}
    seen.add(fingerprint(dataset(mean=torch.zeros(0)))["sha256"])
    seen.add(fingerprint(dataset(mean=torch.tensor(0.0)))["sha256"])
    assert len(seen) == len(kinds) + 2


def test_a_source_read_twice_has_the_same():
    def read(**values):
        return fingerprint(data.build(data.parse({"name": "digits", **values})))

    assert read() == read()
    assert describe_change(read(), read(split_seed=1)) == (
        "as many samples in each part, but other content"
    )
    assert describe_change(read(), read(val_fraction=0.5)) == (
        "train has 899 samples, was 1,438, val has 898 samples, was 359"
    )
