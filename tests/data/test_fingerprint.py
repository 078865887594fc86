"""A fingerprint changes with anything that is stored, and with nothing else."""

import hashlib
from dataclasses import replace

import pytest
import torch

from bigmodel.checkpointing import exact_json
from bigmodel.data import assemble as assembling
from bigmodel.data.base import Dataset
from bigmodel.data.digest import DigestBuilder
from bigmodel.data.fingerprint import Compared, compare, describe_change, fingerprint
from bigmodel.data.parts import Part
from bigmodel.data.preprocessing import Preprocessing
from bigmodel.registry import data
from bigmodel.spec import Classes, DataSpec, Features, Image, Values


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


def earlier(made):
    """The fingerprint of earlier versions: of all that is stored, computed or not."""
    digest = hashlib.sha256()
    tensors = {f"{name} {what}": t for name, p in made.parts.items() for what, t in p.tensors().items()}
    for name, tensor in (tensors | {"mean": made.mean, "std": made.std}).items():
        if tensor is not None:
            digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
            digest.update(tensor.contiguous().numpy().tobytes())
    sizes = {name: len(part) for name, part in made.parts.items()}
    return {"sha256": digest.hexdigest(), "sizes": sizes}


def test_it_is_a_sha256_of_whole_numbers_and_sums_of_real_ones():
    made = dataset()
    expected = hashlib.sha256()
    for name, kind, shape, content in (
        ("train inputs", "torch.uint8", (4, 1, 2, 2), made.train.inputs.numpy().tobytes()),
        ("train targets", "torch.int64", (4,), made.train.targets.numpy().tobytes()),
        ("val inputs", "torch.uint8", (2, 1, 2, 2), made.val.inputs.numpy().tobytes()),
        ("val targets", "torch.int64", (2,), made.val.targets.numpy().tobytes()),
        ("mean", "torch.float32", (1, 1, 1), b""),
        ("std", "torch.float32", (1, 1, 1), b""),
    ):
        expected.update(f"{name} {kind} {shape}\n".encode() + content)
    found = fingerprint(made)
    sums = found.pop("sums")
    assert found == {"exact": expected.hexdigest(), "sizes": {"train": 4, "val": 2}}
    assert sums.keys() == {"mean", "std"}
    assert sums["mean"]["sizes"] == [0.5]
    assert exact_json.loads(exact_json.dumps(sums)) == sums


def test_what_was_read_is_all_where_a_source_says_it():
    read = DigestBuilder().word("a").read()
    found = fingerprint(dataset(read=read))
    assert found == {"read": read.digest, "sizes": {"train": 4, "val": 2}}
    assert fingerprint(dataset(read=read, mean=torch.ones(1, 1, 1))) == found


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
    made.mean = made.mean * 1.001


@pytest.mark.parametrize("change", [_pixel, _label, _kind, _shape, _swap, _moved])
def test_any_change_shows(change):
    changed = dataset()
    change(changed)
    words = describe_change(fingerprint(dataset()), fingerprint(changed))
    assert words == "as many samples in each set, but other content"


def test_other_sizes_are_named_part_by_part():
    old = {"sha256": "a", "sizes": {"train": 1437, "val": 360, "test": 10}}
    new = {"sha256": "b", "sizes": {"train": 1400, "val": 360, "test": 10}}
    assert describe_change(old, new) == "train has 1,400 samples instead of 1,437"
    assert describe_change(new, {"sha256": "c", "sizes": {"train": 1400, "val": 350}}) == (
        "val has 350 samples instead of 360, test is missing (had 10 samples)"
    )
    without = {"sha256": "c", "sizes": {"train": 1437, "val": 360}}
    assert describe_change(without, old) == "test is new (10 samples)"


def test_any_type_of_number_and_an_empty_tensor():
    kinds = (torch.bfloat16, torch.float64, torch.bool, torch.int64)
    seen = {fingerprint(dataset(mean=torch.zeros(3).to(kind)))["exact"] for kind in kinds}
    seen.add(fingerprint(dataset(mean=torch.zeros(0)))["exact"])
    seen.add(fingerprint(dataset(mean=torch.tensor(0.0)))["exact"])
    assert len(seen) == len(kinds) + 2


def computed(change=None, kind=torch.float32, columns=3):
    """A source that only gives parts, of real numbers that it has computed."""
    drawn = torch.Generator().manual_seed(1)
    inputs = torch.randn(5000, columns, generator=drawn, dtype=torch.float64).to(kind)
    targets = torch.randn(5000, 1, generator=drawn)
    if change is not None:
        inputs = change(inputs).to(kind)
    spec = DataSpec("computed", Features(columns), Values(("y",), (0.0,), (1.0,)))
    return Dataset(spec, Part(inputs[:4000], targets[:4000]), Part(inputs[4000:], targets[4000:]))


def _rounded_otherwise(inputs):
    """Each number a few units of its last place away, as another processor computes it."""
    drawn = torch.Generator().manual_seed(2)
    units = torch.randint(-4, 5, inputs.shape, generator=drawn).double()
    return inputs.double() * (1 + units * torch.finfo(inputs.dtype).eps / 2)


@pytest.mark.parametrize("columns", [1, 3, 200])
@pytest.mark.parametrize("kind", [torch.float32, torch.float64, torch.bfloat16], ids=str)
def test_computed_numbers_may_be_rounded_otherwise(kind, columns):
    here, there = computed(None, kind, columns), computed(_rounded_otherwise, kind, columns)
    assert not torch.equal(here.train.inputs, there.train.inputs)
    assert describe_change(fingerprint(here), fingerprint(there)) is None


def _one_number(inputs):
    inputs[7, 1] += 0.5
    return inputs


def _two_rows(inputs):
    inputs[[3, 4]] = inputs[[4, 3]]
    return inputs


def _two_columns(inputs):
    return inputs.flip(1)


def _scaled(inputs):
    return inputs * 1.001


@pytest.mark.parametrize("columns", [3, 200])
@pytest.mark.parametrize("change", [_one_number, _two_rows, _two_columns, _scaled])
def test_computed_numbers_that_are_others_show(change, columns):
    words = describe_change(
        fingerprint(computed(None, columns=columns)), fingerprint(computed(change, columns=columns))
    )
    assert words == "as many samples in each set, but other content"


SOURCES = ["digits", "iris", "wine", "breast_cancer", "diabetes", "synthetic"]


def read_anew(name, learnt=None, **values):
    return data.build(data.parse({"name": name, **values}).resuming(learnt))


@pytest.mark.parametrize("name", SOURCES)
def test_a_fingerprint_is_of_what_was_read_not_of_what_was_computed(name, monkeypatch):
    """Another processor's statistics, and with them all inputs, differ in their last bits."""
    here = read_anew(name)
    _shift_statistics(monkeypatch)
    there = read_anew(name)
    assert earlier(here) != earlier(there)
    assert fingerprint(here) == fingerprint(there)


def _shift_statistics(monkeypatch):
    for name in ("image_statistics", "value_statistics"):
        original = getattr(assembling, name)

        def shifted(values, original=original):
            return tuple(s * (1 + 4 * torch.finfo(torch.float32).eps) for s in original(values))

        monkeypatch.setattr(assembling, name, shifted)


@pytest.mark.parametrize("name", SOURCES)
def test_what_was_learnt_is_not_computed_again(name, monkeypatch):
    here = read_anew(name)
    kept = Preprocessing.from_facts(exact_json.loads(exact_json.dumps(here.preprocessing.to_facts())))
    _shift_statistics(monkeypatch)
    there = read_anew(name, kept)
    assert earlier(there) == earlier(here)
    assert there.preprocessing.to_facts() == here.preprocessing.to_facts()


def never():
    raise AssertionError


def test_an_earlier_fingerprint_that_is_equal_is_enough():
    made = read_anew("iris")
    assert compare(earlier(made), made, None, never) == Compared()


def test_an_earlier_fingerprint_of_other_sizes_is_a_change():
    fewer = read_anew("iris", val_fraction=0.5)
    found = compare(earlier(read_anew("iris")), fewer, None, never)
    assert found == Compared("train has 75 samples instead of 120, val has 75 samples instead of 30")


def test_an_earlier_fingerprint_tells_changed_data_where_statistics_were_kept():
    old = read_anew("iris")
    learnt = old.preprocessing
    there = read_anew("iris", learnt)
    there.train.targets[0] = 1 - there.train.targets[0].clamp(max=1)
    found = compare(earlier(old), there, learnt.to_facts(), never)
    assert found == Compared("as many samples in each set, but other content")


def test_an_earlier_fingerprint_without_statistics_cannot_tell(monkeypatch):
    old = read_anew("iris")
    _shift_statistics(monkeypatch)
    assert compare(earlier(old), read_anew("iris"), None, never) == Compared(unsure=True)


def test_an_earlier_fingerprint_of_computed_data_is_told_by_what_was_learnt():
    old, learnt = earlier(computed()), computed().preprocessing.to_facts()
    there = computed(_rounded_otherwise)
    assert compare(old, there, learnt, lambda: there) == Compared(unsure=True)
    other = replace(there, mean=torch.tensor([0.5]))
    found = compare(old, there, learnt, lambda: other)
    assert found == Compared("as many samples in each set, but other content")


def test_a_source_read_twice_has_the_same():
    def read(**values):
        return fingerprint(data.build(data.parse({"name": "digits", **values})))

    assert read() == read()
    assert describe_change(read(), read(split_seed=1)) == (
        "as many samples in each set, but other content"
    )
    assert describe_change(read(), read(val_fraction=0.5)) == (
        "train has 899 samples instead of 1,438, val has 898 samples instead of 359"
    )
