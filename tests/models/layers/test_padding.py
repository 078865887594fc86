"""What lies between texts of different lengths: lengths, means, statistics, and both directions."""

import math

import pytest
import torch
from torch import nn

from bigmodel.models.cnn import make_pool, masked_pool
from bigmodel.models.layers.batch_norm import BatchNorm
from bigmodel.models.layers.padding import (
    last_position,
    length_mask,
    masked_mean,
    pad_to_length,
    text_lengths,
)
from bigmodel.models.layers.recurrent import Recurrent
from tests.models.cases import build, samples, spec

TORCH = {"rnn": nn.RNN, "lstm": nn.LSTM, "gru": nn.GRU}
TOKENS = torch.tensor([[5, 5, 0, 0], [0, 5, 0, 5], [0, 0, 0, 0], [5, 0, 0, 0]])
LENGTHS = [2, 4, 1, 1]


def test_a_text_ends_with_its_last_token_that_is_no_padding() -> None:
    lengths = text_lengths(TOKENS, 0)
    assert lengths.tolist() == LENGTHS
    assert length_mask(lengths, 4).sum(1).tolist() == LENGTHS
    assert pad_to_length(TOKENS[:, :2], 0, 4).tolist()[1] == [0, 5, 0, 0]


def test_means_and_last_states_are_those_of_the_text_alone() -> None:
    x, lengths = torch.randn(4, 4, 3), torch.tensor(LENGTHS)
    for sample, length in enumerate(LENGTHS):
        assert torch.allclose(masked_mean(x, lengths)[sample], x[sample, :length].mean(0), atol=1e-6)
        assert torch.equal(last_position(x, lengths)[sample], x[sample, length - 1])
    assert torch.equal(masked_mean(x, None), x.mean(1))
    assert torch.equal(last_position(x, None), x[:, -1])


@pytest.mark.parametrize("pooling", ["max", "avg"])
@pytest.mark.parametrize("width", [7, 8, 1])
def test_pools_see_no_padding(pooling: str, width: int) -> None:
    pool, x = make_pool(pooling, [8]), torch.randn(width, 3, width)
    lengths = torch.arange(1, width + 1)
    outputs, after = masked_pool(pool, x, length_mask(lengths, width).unsqueeze(1))
    for sample, length in enumerate(lengths.tolist()):
        size = math.ceil(length / 2)
        assert torch.allclose(outputs[sample, :, :size], pool(x[sample, :, :length]), atol=1e-6)
        assert not outputs[sample, :, size:].any()
        assert after[sample].sum() == size


def test_batch_statistics_are_those_of_the_real_values() -> None:
    ours, reference = BatchNorm(3), BatchNorm(3)
    real = length_mask(torch.tensor([4, 2, 1]), 4)
    for _ in range(2):
        x = (torch.randn(3, 3, 4) * 2 + 1).requires_grad_()
        rows = x.detach().mT[real].requires_grad_()  # (real values, channels)
        outputs, expected = ours(x, real.unsqueeze(1)).mT[real], reference(rows)
        assert torch.allclose(outputs, expected, atol=1e-5)
        upstream = torch.randn_like(expected)
        outputs.backward(upstream)
        expected.backward(upstream)
        assert torch.allclose(x.grad.mT[real], rows.grad, atol=1e-5)
        assert not x.grad.mT[~real].any()
    for mine, theirs in zip(ours.buffers(), reference.buffers(), strict=True):
        assert torch.allclose(mine, theirs, atol=1e-6)
    lone = length_mask(torch.tensor([1]), 4).unsqueeze(1)
    before = ours.running_mean.clone()
    expected = (x[:1] - before[:, None]) / (ours.running_var[:, None] + ours.eps).sqrt()
    assert torch.allclose(ours(x[:1], lone), expected, atol=1e-5)  # scale 1, shift 0
    assert torch.equal(ours.running_mean, before)


def test_training_a_cnn_does_not_depend_on_the_padding() -> None:
    of = spec("padded")
    wide, narrow = build("cnn", of, dropout=0.0), build("cnn", of, dropout=0.0)
    narrow.load_state_dict(wide.state_dict())
    inputs = samples(of.input, 5)
    inputs[:, 6:] = 0
    assert torch.allclose(wide(inputs), narrow(inputs[:, :6]), atol=1e-5)
    for mine, theirs in zip(wide.buffers(), narrow.buffers(), strict=True):
        assert torch.allclose(mine, theirs, atol=1e-6)


@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize("num_layers", [1, 2])
@pytest.mark.parametrize("cell", TORCH)
def test_both_directions_are_those_of_a_packed_sequence(cell: str, num_layers: int, fused: bool) -> None:
    reference = TORCH[cell](5, 7, num_layers, batch_first=True, bidirectional=True)
    ours = Recurrent(cell, 5, 7, num_layers, bidirectional=True, fused=fused)
    ours.load_state_dict(reference.state_dict())
    x, lengths = torch.randn(4, 6, 5), torch.tensor([6, 3, 1, 5])
    packed = nn.utils.rnn.pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
    expected, _ = nn.utils.rnn.pad_packed_sequence(reference(packed)[0], batch_first=True)
    real = length_mask(lengths, 6).unsqueeze(-1)
    outputs = ours(x, lengths)
    assert torch.allclose(outputs * real, expected, atol=1e-6)
    upstream = torch.randn(4, 6, 14) * real
    outputs.backward(upstream)
    expected.backward(upstream)
    for (key, mine), theirs in zip(ours.named_parameters(), reference.parameters(), strict=True):
        assert torch.allclose(mine.grad, theirs.grad, atol=1e-5), key


@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize("cell", TORCH)
def test_a_state_goes_on_where_it_was_left(cell: str, fused: bool) -> None:
    reference = TORCH[cell](5, 7, 2, batch_first=True)
    ours = Recurrent(cell, 5, 7, 2, fused=fused)
    ours.load_state_dict(reference.state_dict())
    x, lengths = torch.randn(3, 6, 5), torch.tensor([6, 2, 4])
    packed = nn.utils.rnn.pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
    expected = reference(packed)[1]
    state = ours.run(x, lengths=lengths)[1]
    for mine, theirs in zip(state, expected if cell == "lstm" else (expected,), strict=True):
        assert torch.allclose(mine, theirs, atol=1e-6)
    first, between = ours.run(x[:, :4])
    second, _ = ours.run(x[:, 4:], between)
    assert torch.allclose(torch.cat([first, second], 1), reference(x)[0], atol=1e-6)
