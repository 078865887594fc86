"""Parts that keep less than they give: windows of a text, texts and pairs of their own lengths."""

import pytest
import torch

from bigmodel.data import parts
from bigmodel.data.parts import GatherOptions, MultimodalPart, Part, TextPairs, Texts, Windows
from bigmodel.spec import IGNORED

STREAM = torch.arange(23, dtype=torch.uint8)


def texts(*sizes: int) -> Texts:
    """Texts of these sizes, whose tokens count on from 1; 0 fills up."""
    lengths = torch.tensor(sizes)
    starts = lengths.cumsum(0) - lengths
    return Texts(torch.arange(1, sum(sizes) + 1), starts, lengths, torch.arange(len(sizes)), pad=0)


def pairs(*sizes: tuple[int, int]) -> TextPairs:
    """Pairs of these sizes, whose tokens count on from 10; 0 fills up and 1 starts."""
    lengths = torch.tensor(sizes)
    starts = (lengths.flatten().cumsum(0) - lengths.flatten()).view(-1, 2)
    return TextPairs(torch.arange(10, 10 + int(lengths.sum())), starts, lengths, pad=0, start=1)


def several() -> MultimodalPart:
    """Three samples of a picture, a text and numbers; the second has no picture."""
    return MultimodalPart(
        {
            "numbers": torch.tensor([[0.5], [1.5], [2.5]]),
            "photo": torch.tensor([[[[0, 255]]], [[[7, 7]]], [[[51, 102]]]], dtype=torch.uint8),
            "title": torch.tensor([[1, 2, 9], [3, 9, 9], [300, 5, 6]], dtype=torch.int16),
        },
        torch.tensor([[True, True, True], [True, False, True], [True, True, True]]),
        torch.tensor([0, 1, 2]),
        {"photo": (torch.tensor(1 / 255), torch.tensor(-1.0))},
    )


def test_several_kinds_are_gathered_side_by_side():
    inputs, targets = several().take(torch.tensor([2, 0]))
    expected = [[1, 1, 1, 2.5, -0.8, -0.6, 300, 5, 6], [1, 1, 1, 0.5, -1.0, 0.0, 1, 2, 9]]
    assert torch.allclose(inputs, torch.tensor(expected), atol=1e-6)
    assert targets.tolist() == [2, 0]
    assert several().take(slice(1, 2))[0][0, :3].tolist() == [1, 0, 1]


def test_several_kinds_are_selected_split_joined_and_moved_together():
    whole, part = several().take(slice(0, 3)), several()
    first, rest = part.split([1, 2])
    assert (len(first), len(rest)) == (1, 2)
    assert rest.stored["photo"].data_ptr() == part.stored["photo"][1:].data_ptr()
    for same in (first.joined(rest), part.select(torch.arange(3)), part.to(torch.device("cpu"))):
        assert all(map(torch.equal, same.take(slice(0, 3)), whole))
    assert first.joined(texts(1)) is None
    assert part.nbytes == 3 * (4 + 2 + 6 + 3 + 8)
    assert part.to(torch.device("meta")).take(slice(0, 2))[0].shape == (2, 9)


def test_windows_ask_for_each_token_once():
    part = Windows.side_by_side(STREAM, 4, whole=True)
    inputs, targets = part.take(slice(0, len(part)))
    assert inputs.dtype == targets.dtype == torch.int64
    assert targets[targets != IGNORED].tolist() == list(range(1, 23))
    asked = targets != IGNORED
    assert torch.equal(inputs[asked] + 1, targets[asked])


def test_a_window_that_the_text_does_not_fill_is_left_out_of_training():
    part = Windows.side_by_side(STREAM, 4, whole=False)
    _, targets = part.take(slice(0, len(part)))
    assert targets.flatten().tolist() == list(range(1, 21))


@pytest.mark.parametrize("length", [1, 2, 11, 22])
def test_windows_that_fit_ask_for_nothing_beyond(length):
    part = Windows.side_by_side(STREAM, length, whole=True)
    assert not part.ragged
    assert bool((part.take(slice(0, len(part)))[1] != IGNORED).all())


def test_a_text_shorter_than_a_window():
    assert len(Windows.side_by_side(STREAM[:3], 8, whole=False)) == 0
    part = Windows.side_by_side(STREAM[:3], 8, whole=True)
    assert part.take(slice(0, 1))[1].tolist() == [[1, 2] + [IGNORED] * 6]


def test_windows_move_with_the_key_and_stay_within_the_text():
    part = Windows.side_by_side(STREAM, 4, whole=False)
    everything = slice(0, len(part))
    for key in range(1, 9):
        inputs, targets = part.take(everything, GatherOptions(key))
        assert inputs[0, 0] == key % 4
        assert torch.equal(inputs + 1, targets)
        assert int(targets.max()) <= 22


def test_chosen_windows_come_in_the_order_asked_for():
    part = Windows.side_by_side(STREAM, 4, whole=True)
    index = torch.tensor([5, 0, 3])
    assert torch.equal(part.take(index)[0], part.take(slice(0, 6))[0][index])
    assert torch.equal(part.select(index).take(slice(0, 3))[0], part.take(index)[0])


def test_texts_are_as_wide_as_the_longest_taken():
    part = texts(3, 1, 5)
    inputs, targets = part.take(torch.tensor([1, 0]))
    assert inputs.tolist() == [[4, 0, 0], [1, 2, 3]]
    assert targets.tolist() == [1, 0]
    assert part.take(slice(0, 3))[0].shape == (3, 5)
    assert part.select(torch.tensor([2])).take(slice(0, 1))[0].tolist() == [[5, 6, 7, 8, 9]]


def test_a_pair_knows_its_target_one_token_later():
    part = pairs((2, 3), (4, 1))
    inputs, targets = part.take(slice(0, 2))
    assert inputs.tolist() == [
        [[10, 11, 0, 0], [1, 12, 13, 0]],
        [[15, 16, 17, 18], [1, 0, 0, 0]],
    ]
    assert targets.tolist() == [[12, 13, 14, IGNORED], [19] + [IGNORED] * 3]
    assert part.lengths.tolist() == [3, 4]


@pytest.mark.parametrize(
    "part",
    [
        Part(torch.rand(6, 2), torch.arange(6)),
        Windows.side_by_side(STREAM, 4, whole=True),
        texts(3, 1, 5),
        pairs((2, 3), (4, 1)),
    ],
    ids=lambda part: type(part).__name__,
)
def test_a_part_moves_with_all_it_holds(part):
    moved = part.to(torch.device("meta"))
    assert {t.device.type for t in moved.tensors().values()} == {"meta"}
    assert len(moved) == len(part)
    assert part.nbytes == sum(t.nbytes for t in part.tensors().values())


def test_plugins_may_use_the_names_of_before():
    assert parts.Stored is parts.SplitData
    assert parts.Giving is GatherOptions
