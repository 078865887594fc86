"""Packed documents: every token is asked for once, in its own document, and windows are nearly full."""

import random

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from bigmodel.data.batching.batches import FixedBatches
from bigmodel.data.batching.prefetch import Prefetcher
from bigmodel.data.packing import Documents, PackedDocuments, best_fit, pieces
from bigmodel.data.parts import GatherOptions
from bigmodel.spec import IGNORED

SIZES = [5, 3, 9, 2, 4, 12, 3, 2]


def documents(sizes=SIZES, length=8, learnt=None) -> Documents:
    """Documents of so many tokens, all different, cut into pieces of `length`."""
    starts, rows = pieces(torch.tensor(sizes), length)
    return Documents(torch.arange(100, 100 + sum(sizes)), starts, rows, 7, learnt)


def asked(part, key=0):
    """Every input and its target, row by row."""
    inputs, targets = part.take(slice(0, len(part)), GatherOptions(key))
    tokens = inputs[:, 0] if inputs.ndim == 3 else inputs
    kept = targets != IGNORED
    return sorted(zip(tokens[kept].tolist(), targets[kept].tolist(), strict=True))


def expected(sizes=SIZES):
    bounds = [100 + sum(sizes[:n]) for n in range(len(sizes) + 1)]
    return [(t, t + 1) for t in range(100, bounds[-1]) if t + 1 not in bounds]


@given(st.lists(st.integers(1, 40), min_size=1, max_size=80))
def test_windows_hold_what_fits_and_few_are_needed(sizes):
    chosen = best_fit(sizes, 40)
    loads = [0] * (max(chosen) + 1)
    for size, window in zip(sizes, chosen, strict=True):
        loads[window] += size
    assert max(loads) <= 40
    assert min(loads) > 0
    assert sum(load <= 20 for load in loads) <= 1  # two such windows would have been one


def test_best_fit_goes_where_the_least_room_is_left():
    # 6 and 7 open windows with room for 4 and 3; 3 fits exactly into the second.
    assert best_fit([6, 7, 3, 4], 10) == [1, 0, 0, 1]


def test_real_lengths_fill_windows():
    drawn = random.Random(0)
    sizes = [min(128, max(3, round(drawn.gauss(14, 5)))) for _ in range(2000)]
    windows = 1 + max(best_fit(sizes, 128))
    assert sum(sizes) / (windows * 128) > 0.99


def test_long_documents_are_cut_and_each_token_is_asked_for_once():
    starts, sizes = pieces(torch.tensor([2, 9, 10, 18]), 8)
    assert sizes.tolist() == [1, 8, 8, 1, 8, 8, 1]
    assert starts.tolist() == [0, 2, 11, 19, 21, 29, 37]


@pytest.mark.parametrize("key", [0, 3])
def test_every_token_but_each_documents_first_is_asked_for_once(key):
    part = documents()
    assert asked(part) == expected()
    assert asked(PackedDocuments.packed(part, 8), key) == expected()


def test_positions_start_anew_in_each_document_and_in_the_rest():
    part = PackedDocuments.packed(documents([6, 3, 4], 10), 11)
    inputs, targets = part.take(slice(0, 1))
    assert inputs[0, 1].tolist() == [0, 1, 2, 3, 4, 0, 1, 0, 1, 2, 0]
    assert inputs[0, 0].tolist() == [100, 101, 102, 103, 104, 106, 107, 109, 110, 111, 7]
    assert targets[0].tolist() == [101, 102, 103, 104, 105, 107, 108, 110, 111, 112, IGNORED]


def test_other_documents_of_equal_length_meet_in_each_epoch():
    part = PackedDocuments.packed(documents([4, 5] * 40), 10)
    rows = [part.take(slice(0, len(part)), GatherOptions(key))[0] for key in (0, 1, 1, 2)]
    assert torch.equal(rows[1], rows[2])
    assert not torch.equal(rows[0], rows[1])
    assert not torch.equal(rows[1], rows[3])
    assert all(torch.equal(row[:, 1], rows[0][:, 1]) for row in rows)


def test_a_window_is_the_same_whichever_are_taken_with_it():
    part = PackedDocuments.packed(documents(), 8)
    whole = part.take(slice(0, len(part)), GatherOptions(5))
    for index in range(len(part)):
        one = part.take(torch.tensor([index]), GatherOptions(5))
        assert torch.equal(one[0][0], whole[0][index])
        assert torch.equal(one[1][0], whole[1][index])


def test_selected_windows_keep_their_own_documents():
    part = PackedDocuments.packed(documents([4, 5] * 40), 10)
    index = torch.tensor([7, 2, 3])
    chosen = part.select(index)
    assert torch.equal(chosen.take(slice(0, 3))[0], part.take(index)[0])
    assert asked(chosen, 9) == asked(chosen)


def test_only_learnt_tokens_are_targets():
    learnt = torch.zeros(sum(SIZES), dtype=torch.bool)
    learnt[[1, 2, 6, 20]] = True
    part = documents(learnt=learnt)
    kept = [pair for pair in expected() if learnt[pair[1] - 100]]
    assert asked(part) == asked(PackedDocuments.packed(part, 8), 4) == kept


def test_unpacked_documents_are_those_that_were_packed():
    part = documents([4, 5, 3] * 9)
    assert asked(PackedDocuments.packed(part, 10).unpacked()) == asked(part)


def test_prompts_are_beginnings_spread_over_the_part():
    assert documents([6, 3, 9, 5]).prompts(2, 3) == [[100, 101], [109, 110, 111]]


def test_an_epoch_is_the_same_with_threads_and_from_any_batch():
    part = PackedDocuments.packed(documents([4, 5, 7] * 30), 10)
    whole = FixedBatches(part=part, batch_size=3, seed=4)
    threads = FixedBatches(part=part, batch_size=3, seed=4, prefetcher=Prefetcher(2))
    inputs = [batch.inputs for batch in whole.epoch(2)]
    assert all(map(torch.equal, inputs, (batch.inputs for batch in threads.epoch(2))))
    assert all(map(torch.equal, inputs[5:], (batch.inputs for batch in whole.epoch(2, start=5))))
    assert not torch.equal(inputs[0], next(whole.epoch(3)).inputs)
