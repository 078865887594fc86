"""Arrays: what they mean by type and shape, parts, values that are not finite, never a pickle."""

import pickle
import shutil

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from bigmodel.data.arrays.inference import ArraysConfig
from bigmodel.data.checks import check
from bigmodel.data.sources.arrays import arrays
from bigmodel.errors import ConfigError, DataError
from bigmodel.registry import validate
from bigmodel.spec import Classes, Features, Flags, Image, Sequence, Tokens, Values
from tests.small_runs import model_inputs

COUNT = 40
DRAWN = np.random.default_rng(1)


def saved(folder, name="my.npz", **content):
    np.savez(folder / name, **content)
    return folder / name


def built(path, **values):
    values = {"name": "arrays", "path": str(path), "val_fraction": 0.25, **values}
    return arrays(validate(ArraysConfig, values, "data"))


def real(*shape):
    return DRAWN.normal(5, 3, (COUNT, *shape))


def whole(most, *shape, kind=np.int64):
    return DRAWN.integers(0, most, (COUNT, *shape)).astype(kind)


LABELS = np.arange(COUNT) % 3

INPUTS = {
    "features": (real(4), {}, Features(4)),
    "a column": (real(), {}, Features(1)),
    "truth values": (real(4) > 5, {}, Features(4)),
    "whole features": (whole(9, 4), {"input": "features"}, Features(4)),
    "sequence": (real(6, 2).astype(np.float32), {}, Sequence(6, 2)),
    "flat sequence": (real(6), {"input": "sequence"}, Sequence(6, 1)),
    "image": (real(3, 5, 6), {}, Image(3, 5, 6)),
    "channels last": (real(5, 6, 3), {}, Image(3, 5, 6)),
    "bytes": (whole(256, 1, 5, 6, kind=np.uint8), {}, Image(1, 5, 6)),
    "grey bytes": (whole(256, 5, 6, kind=np.uint8), {}, Image(1, 5, 6)),
    "whole image": (whole(256, 3, 5, 6), {}, Image(3, 5, 6)),
    "tokens": (whole(7, 9), {"input": "tokens", "vocab_size": 8}, Tokens(9, 8)),
    "16-bit tokens": (
        whole(7, 9, kind=np.uint16),
        {"input": "tokens", "vocab_size": 8},
        Tokens(9, 8),
    ),
    "big-endian": (real(4).astype(">f4"), {}, Features(4)),
    "half": (real(4).astype(np.float16), {}, Features(4)),
}


@pytest.mark.parametrize(("inputs", "values", "kind"), INPUTS.values(), ids=INPUTS)
@pytest.mark.parametrize("normalize", [True, False])
def test_inputs_and_a_reader_that_reads_what_training_read(tmp_path, inputs, values, kind, normalize):
    path = saved(tmp_path, inputs=inputs, targets=LABELS)
    dataset = built(path, normalize=normalize, **values)
    check(dataset)
    assert dataset.spec.input == kind
    assert dataset.spec.sizes == {"train": 30, "val": 10}
    found = dataset.reader.read(path, with_targets=True).part
    assert found.inputs.dtype == dataset.train.inputs.dtype
    known = sorted(zip(map(_bytes, found.inputs), found.targets.tolist(), strict=True))
    seen = [pair for part in (dataset.train, dataset.val) for pair in _pairs(part)]
    assert sorted(seen) == known
    ready = model_inputs(dataset.preprocessing, dataset.train.inputs)
    if normalize and not isinstance(kind, Tokens):
        assert abs(float(ready.mean())) < 1e-3
        assert float(ready.std()) == pytest.approx(1, abs=0.05)


def _bytes(row):
    return row.contiguous().numpy().tobytes()


def _pairs(part):
    return zip(map(_bytes, part.inputs), part.targets.tolist(), strict=True)


TARGETS = {
    "classes": (LABELS, {}, ("0", "1", "2")),
    "a column": (LABELS[:, None], {}, ("0", "1", "2")),
    "other numbers": (LABELS * 10 - 5, {}, ("-5", "5", "15")),
    "named": (LABELS, {"names": ["a", "b", "c"]}, ("a", "b", "c")),
    "words": (np.array(["cat", "dog", "eel"])[LABELS], {}, ("cat", "dog", "eel")),
    "words in order": (
        np.array(["low", "mid", "top"])[LABELS],
        {"names": ["top", "mid", "low"]},
        ("top", "mid", "low"),
    ),
    "truth values": (LABELS > 0, {}, ("0", "1")),
    "one-hot": (np.eye(3)[LABELS], {"task": "classes"}, ("0", "1", "2")),
    "real": (LABELS.astype(float), {"task": "classes"}, ("0", "1", "2")),
}


@pytest.mark.parametrize(("targets", "values", "names"), TARGETS.values(), ids=TARGETS)
def test_classes(tmp_path, targets, values, names):
    path = saved(tmp_path, inputs=real(4), targets=targets)
    dataset = built(path, **values)
    check(dataset)
    assert isinstance(dataset.spec.target, Classes)
    assert dataset.spec.target.names == names
    found = dataset.reader.read(path, with_targets=True).part
    own = targets.argmax(1) if targets.ndim == 2 and targets.shape[1] > 1 else targets.flatten()
    first = dict(zip(own.tolist(), found.targets.tolist(), strict=True))
    assert len(first) == len(names)
    for value, label in zip(own.tolist(), found.targets.tolist(), strict=True):
        assert first[value] == label
    learnt = dict(_pairs(dataset.train))
    reread = dict(_pairs(found))
    assert all(reread[row] == label for row, label in learnt.items())


def test_values_and_flags(tmp_path):
    answers = real(2)
    path = saved(tmp_path, inputs=real(4), targets=answers)
    dataset = built(path, names=["height", "weight"])
    check(dataset)
    target = dataset.spec.target
    assert isinstance(target, Values)
    assert target.names == ("height", "weight")
    found = dataset.reader.read(path, with_targets=True).part
    own = found.targets * torch.tensor(target.std) + torch.tensor(target.mean)
    torch.testing.assert_close(own, torch.from_numpy(answers).float())
    assert built(saved(tmp_path, inputs=real(4), targets=real())).spec.target.names == ("targets",)
    whole_ones = saved(tmp_path, inputs=real(4), targets=LABELS)
    assert isinstance(built(whole_ones, task="values").spec.target, Values)
    flags = DRAWN.integers(0, 2, (COUNT, 3))
    dataset = built(saved(tmp_path, inputs=real(4), targets=flags))
    check(dataset)
    assert dataset.spec.target == Flags(("flag 0", "flag 1", "flag 2"))


def test_safetensors_and_names_of_arrays(tmp_path):
    path = tmp_path / "my.safetensors"
    inputs = torch.randn(COUNT, 4).bfloat16()
    save_file({"x": inputs, "y": torch.from_numpy(LABELS)}, path)
    dataset = built(path, inputs="x", targets="y")
    check(dataset)
    found = dataset.reader.read(path, with_targets=True).part
    assert sorted(_pairs(found)) == sorted([*_pairs(dataset.train), *_pairs(dataset.val)])


def test_parts_groups_and_other_files(tmp_path):
    marks = np.array(["train", "test", "train", "dev"])[np.arange(COUNT) % 4]
    patients = np.arange(COUNT) // 4
    content = {"inputs": np.arange(COUNT)[:, None] * 1.0, "targets": LABELS}
    path = saved(tmp_path, **content, marks=marks, who=patients)
    dataset = built(path, split="marks", normalize=False)
    assert dataset.spec.sizes == {"train": 20, "val": 10, "test": 10}
    assert (dataset.test.inputs.flatten() % 4 == 1).all()
    dataset = built(path, group="who", normalize=False)
    held_out, learnt = (set((p.inputs.flatten() // 4).tolist()) for p in (dataset.val, dataset.train))
    assert held_out
    assert not held_out & learnt
    copies = {
        f"{part}_path": str(shutil.copy(path, tmp_path / f"{part}.npz")) for part in ("val", "test")
    }
    whole_part = built(path, **copies)
    check(whole_part)
    assert whole_part.spec.sizes == {"train": 40, "val": 40, "test": 40}
    lookup = dict(_pairs(whole_part.val))
    assert all(lookup[row] == label for row, label in _pairs(whole_part.train))
    with pytest.raises(ConfigError, match=r"data\.test_path=.*data\.split=marks names a test set"):
        built(path, split="marks", test_path=copies["test_path"])
    with pytest.raises(DataError, match=r"data\.val_path=.*it is data\.path as well"):
        built(path, val_path=str(path))


def test_samples_that_are_not_finite(tmp_path):
    inputs, targets = real(4), real()
    inputs[3, 2], targets[7] = np.nan, np.inf
    path = saved(tmp_path, inputs=inputs, targets=targets)
    with pytest.raises(DataError) as caught:
        built(path)
    assert "2 of 40 samples hold NaN or infinity, in rows 3, 7" in str(caught.value)
    assert "set data.max_bad=2" in str(caught.value)
    dataset = built(path, max_bad=2)
    check(dataset)
    assert sum(dataset.spec.sizes.values()) == 38
    assert dataset.left_out == {"samples that are not finite": 2}
    found = dataset.reader.read(path, with_targets=True, max_bad=2)
    assert len(found.part) == len(found.columns["row"]) == 38
    assert 3 not in found.columns["row"]


WRONG = {
    "no such array": ({"input": real(4), "targets": LABELS}, {}, "Did you mean data.inputs=input?"),
    "other length": (
        {"inputs": real(4), "targets": LABELS[:9]},
        {},
        "samples, but 'targets' 9",
    ),
    "objects": (
        {"inputs": np.array([{}] * COUNT), "targets": LABELS},
        {},
        "array 'inputs' holds Python objects, which may be code and are never read",
    ),
    "complex": ({"inputs": real(4) * 1j, "targets": LABELS}, {}, "is of type complex128"),
    "tokens or features": (
        {"inputs": whole(9, 4), "targets": LABELS},
        {},
        "Set data.input=tokens or data.input=features",
    ),
    "five axes": ({"inputs": real(1, 2, 3, 4), "targets": LABELS}, {}, "has shape (40, 1, 2, 3, 4)"),
    "flat image": (
        {"inputs": real(4), "targets": LABELS},
        {"input": "image"},
        "data.input=image: array 'inputs' has shape (40, 4), expected (samples, channels,",
    ),
    "real tokens": ({"inputs": real(4), "targets": LABELS}, {"input": "tokens"}, "It is torch.float64"),
    "few words": (
        {"inputs": whole(9, 30), "targets": LABELS},
        {"input": "tokens", "vocab_size": 5},
        "data.vocab_size=5: array 'inputs' holds token 8. Raise it to 9",
    ),
    "one class": (
        {"inputs": real(4), "targets": LABELS * 0},
        {},
        "have the same label, '0'",
    ),
    "one-hot": ({"inputs": real(4), "targets": np.eye(3)[LABELS]}, {}, "Set data.task=classes or"),
    "fractions": ({"inputs": real(4), "targets": real()}, {"task": "classes"}, "are whole numbers, but"),
    "no flags": ({"inputs": real(4), "targets": real(2)}, {"task": "flags"}, "flags are 0 or 1"),
    "names": ({"inputs": real(4), "targets": LABELS}, {"names": ["a", "b"]}, "label 2 is out of range"),
    "many names": ({"inputs": real(4), "targets": real(2)}, {"names": ["a"]}, "1 names for 2 columns"),
    "words": ({"inputs": np.array(["a"] * COUNT), "targets": LABELS}, {}, "holds words"),
    "bytes": (
        {"inputs": whole(900, 3, 5, 6), "targets": LABELS},
        {},
        "images must be whole numbers from 0 to 255",
    ),
}


@pytest.mark.parametrize(("content", "values", "words"), WRONG.values(), ids=WRONG)
def test_what_is_wrong_is_said(tmp_path, content, values, words):
    with pytest.raises((DataError, ConfigError)) as caught:
        built(saved(tmp_path, **content), **values)
    assert words in str(caught.value)


class Bomb:
    def __reduce__(self):
        return (pytest.fail, ("a pickle was run",))


@pytest.mark.parametrize("content", [pickle.dumps(Bomb()), b"", b"PK\x03\x04 cut", b"\x00" * 50])
@pytest.mark.parametrize("ending", ["npz", "safetensors"])
def test_damaged_files_and_pickles(tmp_path, content, ending):
    path = tmp_path / f"my.{ending}"
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"data\.path=.*my\..*: cannot be read"):
        built(path)


def test_an_array_of_bombs_never_goes_off(tmp_path):
    bombs = np.empty(COUNT, dtype=object)
    bombs[:] = [Bomb() for _ in range(COUNT)]
    with pytest.raises(DataError, match="never read"):
        built(saved(tmp_path, inputs=real(4), targets=bombs))


def test_other_files_are_refused(tmp_path):
    np.save(tmp_path / "my.npy", real(4))
    with pytest.raises(DataError, match="is not a file of arrays"):
        built(tmp_path / "my.npy")
    with pytest.raises(DataError, match="is not a file of arrays"):
        built(tmp_path)
    (tmp_path / "my.npy").rename(tmp_path / "my.npz")
    with pytest.raises(DataError, match="holds a single array without a name"):
        built(tmp_path / "my.npz")


def test_numbers_that_cannot_be_learnt_from_are_refused(tmp_path):
    path = saved(tmp_path, inputs=real(4) * 1e300, targets=LABELS)
    with pytest.raises(DataError, match=r"numbers as large as \d\S*e\+301, .* Use another unit"):
        built(path)
    path = saved(tmp_path, inputs=np.zeros((COUNT, 0)), targets=LABELS)
    with pytest.raises(DataError, match=r"array 'inputs' has shape \(40, 0\): it holds no numbers"):
        built(path)


def test_a_class_that_only_held_out_samples_have_is_refused(tmp_path):
    marks = np.array(["train", "val"])[np.arange(COUNT) % 4 // 3]
    labels = np.where(marks == "val", 2, np.arange(COUNT) % 2)
    path = saved(tmp_path, inputs=real(4), targets=labels, marks=marks)
    with pytest.raises(DataError, match=r"no samples of label '2' are in the training set"):
        built(path, split="marks")


def test_classes_are_listed_with_their_counts_and_features_that_never_change(tmp_path):
    inputs = real(4)
    inputs[:, 1], inputs[:, 3] = 7.0, 0.0
    labels = np.array(["no", "yes"] * (COUNT // 2))
    labels[0] = "No"
    dataset = built(saved(tmp_path, inputs=inputs, targets=labels))
    assert dict(dataset.header_rows)["Classes"] == "No 1, no 19, yes 20"
    warnings = [line for label, line in dataset.header_rows if label == "Warning"]
    assert warnings == [
        "1 class has a single sample, which is too few to evaluate: No",
        "classes that differ only in case are distinguished: No, no",
        "nothing can be learnt from 2 of 4 features, which are constant (counted from 0): 1, 3",
    ]
    plain = built(saved(tmp_path, "b.npz", inputs=real(4), targets=real()))
    assert [label for label, _ in plain.header_rows] == ["Arrays"]
