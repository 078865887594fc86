"""What is refused, and in what words."""

from dataclasses import replace

import pytest
import torch

from bigmodel.data.base import Dataset
from bigmodel.data.checks import check, check_part
from bigmodel.data.parts import Part, Windows
from bigmodel.errors import DataError
from bigmodel.runtime.peak_memory import PeakMemory
from bigmodel.spec import Classes, DataSpec, Features, Flags, Image, NextTokens, Tokens, Values


def dataset(kind=None, target=None, **parts):
    def part(samples):
        return Part(torch.randn(samples, 3), torch.arange(samples) % 2)

    held = {"train": part(6), "val": part(4), **parts}
    spec = DataSpec(
        "made",
        kind or Features(3, ("a", "b", "c")),
        target or Classes(("no", "yes"), (3, 3)),
        {name: len(part) for name, part in held.items()},
    )
    return Dataset(spec, **held)


def broken(value, row, column=1, samples=6):
    inputs = torch.randn(samples, 3)
    inputs[row, column] = value
    return Part(inputs, torch.arange(samples) % 2)


INPUTS, LABELS = torch.randn(4, 3), torch.tensor([0, 1, 0, 1])


@pytest.mark.parametrize(
    ("made", "words"),
    [
        (
            dataset(train=broken(torch.nan, 4)),
            r"training set: 1 of 18 inputs are not finite.* nan in row 4",
        ),
        (
            dataset(val=broken(torch.inf, [2, 5])),
            r"validation set: 2 of 18 .* inf in row 2 .*\[1\] \('b'\)",
        ),
        (dataset(test=broken(-torch.inf, 0)), r"test set: 1 of 18 .* -inf in row 0"),
        (dataset(val=Part(torch.zeros(0, 3), torch.zeros(0).long())), "validation set: it is empty"),
        (dataset(val=Part(INPUTS, LABELS[:3])), "validation set: 4 inputs, but 3 targets"),
        (
            dataset(val=Part(INPUTS, torch.tensor([0, 2, 5, 1]))),
            r"2 of 4 labels are .* 0 to 1 .* 2 in row 1",
        ),
        (dataset(val=Part(INPUTS, torch.tensor([0, 1, 1, -1]))), r"1 of 4 labels .* -1 in row 3"),
        (
            dataset(val=Part(INPUTS[:, :2], LABELS)),
            r"shape \(4, 2\), .*3 features\) says \(samples, 3\)",
        ),
        (
            dataset(val=Part(INPUTS, LABELS[:, None])),
            r"shape \(4, 1\), but the spec \(2 classes\) says \(samples,\)",
        ),
        (dataset(val=Part(INPUTS, LABELS.float())), r"labels must be int64, got torch\.float32"),
        (dataset(val=Part(INPUTS.long(), LABELS)), r"floating point or uint8, got torch\.int64"),
        (
            dataset(Tokens(3, 9), train=Part(torch.full((4, 3), 9), LABELS)),
            r"12 of 12 tokens are out of range: 0 to 8 .* for 9 words.* 9 in row 0",
        ),
        (dataset(Tokens(3, 9), train=Part(INPUTS, LABELS)), r"tokens must be int64, got torch\.float32"),
        (
            dataset(target=Values(("v",), (0.0,), (1.0,)), train=Part(INPUTS, torch.zeros(4))),
            r"shape \(4,\), but the spec \(1 real value\) says \(samples, 1\)",
        ),
        (
            dataset(
                target=Values(("v",), (0.0,), (1.0,)),
                train=Part(INPUTS, torch.tensor([[0], [1], [torch.nan], [2]])),
            ),
            r"1 of 4 targets are not finite.* nan in row 2 .*\('v'\)",
        ),
        (
            dataset(target=Flags(("f",)), train=Part(INPUTS, torch.tensor([[0], [0.5], [1], [2]]))),
            r"2 of 4 flags are neither 0 nor 1.* 0\.5 in row 1",
        ),
        (
            dataset(target=Flags(("f",)), train=Part(INPUTS, LABELS[:, None])),
            "targets must be floating point",
        ),
    ],
)
def test_what_is_wrong_is_said_with_part_count_and_first_row(made, words):
    with pytest.raises(DataError, match=words):
        check(made)


def test_what_is_right_passes():
    check(dataset())
    check(dataset(test=broken(1.0, 0)))
    huge = torch.full((6, 3), 3e38)  # finite, though their sum is not
    check(dataset(train=Part(huge, torch.arange(6) % 2)))


def test_sizes_must_be_those_of_the_parts():
    made = dataset()
    made.spec = replace(made.spec, sizes={"train": 6})
    with pytest.raises(DataError, match=r"spec\.sizes says .* but the sets hold .*'val': 4"):
        check(made)


@pytest.mark.parametrize(
    ("mean", "std", "words"),
    [(0.0, 0.0, "std must be above 0"), (torch.nan, 1.0, "its mean is not finite")],
)
def test_statistics_must_be_usable(mean, std, words):
    images = Part(torch.zeros(4, 1, 2, 2, dtype=torch.uint8), LABELS)
    made = dataset(Image(1, 2, 2), train=images, val=images)
    check(made)
    made.mean, made.std = torch.tensor([[[mean]]]), torch.tensor([[[std]]])
    with pytest.raises(DataError, match=words):
        check(made)


def test_tokens_of_two_bytes_are_checked() -> None:
    stream = torch.tensor([1, 60_000, 2] * 8).to(torch.uint16)
    part = Windows.side_by_side(stream, 4, whole=True)
    spec = DataSpec("toy", Tokens(4, 60_001), NextTokens(60_001), {"train": 6})
    check(Dataset(spec, part))
    spec = DataSpec("toy", Tokens(4, 60_000), NextTokens(60_000), {"train": 6})
    with pytest.raises(DataError, match="tokens are out of range"):
        check(Dataset(spec, part))


def test_tokens_in_memory_are_checked_without_as_much_memory_again() -> None:
    stream = torch.zeros(60_000_000, dtype=torch.uint8)
    memory = PeakMemory(torch.device("cpu"))
    memory.begin()
    check_part(Windows.side_by_side(stream, 8, whole=False), _text(5), "train")
    assert (memory.peak() or 0) < len(stream) / 2
    stream[-1] = 7
    with pytest.raises(
        DataError, match=r"1 of 60,000,000 tokens are out of range.*is 7 in row 59999999"
    ):
        check_part(Windows.side_by_side(stream, 8, whole=False), _text(5), "train")


def _text(vocab_size: int) -> DataSpec:
    return DataSpec("made", Tokens(8, vocab_size), NextTokens(vocab_size), {})
