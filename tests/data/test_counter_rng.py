"""Random numbers by counter against a plain integer SplitMix64."""

import pytest
import torch

from bigmodel.data.counter_rng import generator_of, key_of, uniforms

MASK = (1 << 64) - 1


def splitmix64(bits: int) -> int:
    bits = ((bits ^ (bits >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    bits = ((bits ^ (bits >> 27)) * 0x94D049BB133111EB) & MASK
    return bits ^ (bits >> 31)


@pytest.mark.parametrize("key", [0, 5, key_of(3, 4), MASK])
def test_uniforms_equal_the_integer_reference(key):
    index = torch.tensor([0, 1, 7, 59_999, 2**40])
    got = uniforms(key, index, 3)
    for row, sample in enumerate(index.tolist()):
        for column in range(3):
            counter = (sample * 3 + column + 1) * 0x9E3779B97F4A7C15 + key
            assert got[row, column].item() == (splitmix64(counter & MASK) >> 40) / 2**24


def test_uniforms_are_spread_evenly_and_independent():
    numbers = uniforms(key_of(0, 1), torch.arange(20_000), 4)
    assert numbers.dtype == torch.float32
    assert 0 <= numbers.min() < 0.001
    assert 0.999 < numbers.max() < 1
    torch.testing.assert_close(numbers.mean(0), torch.full((4,), 0.5), atol=0.01, rtol=0)
    torch.testing.assert_close(numbers.std(0), torch.full((4,), 12**-0.5), atol=0.01, rtol=0)
    apart = torch.cat([numbers[1:], numbers[:-1]], dim=1)  # columns, and neighbouring samples
    correlation = torch.corrcoef(apart.T) - torch.eye(8)
    assert correlation.abs().max() < 0.03


def test_keys_depend_on_every_number_and_on_their_order():
    keys = {key_of(a, b) for a in range(20) for b in range(20)}
    assert len(keys) == 400
    assert key_of(1) != key_of(1, 0)


def test_generators_repeat_and_differ():
    first = torch.randperm(50, generator=generator_of(1, 2))
    assert torch.equal(first, torch.randperm(50, generator=generator_of(1, 2)))
    assert not torch.equal(first, torch.randperm(50, generator=generator_of(2, 1)))
