"""Random numbers by counter against a plain integer SplitMix64."""

import pytest
import torch

from bigmodel.data import counter_rng
from bigmodel.data.counter_rng import Permutation, generator_of, key_of, shuffled, uniforms

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


@pytest.mark.parametrize("count", [1, 2, 3, 5, 64, 65, 1000, 4097])
def test_a_permutation_has_every_number_once_in_any_parts(count):
    permutation = Permutation(count, key_of(1, 2))
    whole = permutation[:]
    assert sorted(whole.tolist()) == list(range(count))
    parts = [permutation[first : first + 7] for first in range(0, count, 7)]
    assert torch.equal(torch.cat(parts), whole)
    assert len(permutation) == count


def test_permutations_are_as_random_as_drawn_ones():
    """Places of numbers, and steps between neighbours, are spread evenly; keys are independent."""
    count, keys = 1000, 400
    drawn = torch.stack([Permutation(count, key_of(7, key))[:] for key in range(keys)])
    for column in (drawn[:, 0], drawn[:, 1], drawn[:, 500], (drawn[:, 1] - drawn[:, 0]) % count):
        tenths = torch.bincount(column * 10 // count, minlength=10).double()
        chi_square = float(((tenths - keys / 10) ** 2 / (keys / 10)).sum())
        assert chi_square < 28  # 9 degrees of freedom: exceeded once in a thousand
    fixed = (drawn == torch.arange(count)).double().sum(1).mean()
    torch.testing.assert_close(fixed, torch.tensor(1.0, dtype=torch.float64), atol=0.2, rtol=0)
    between_keys = torch.corrcoef(drawn[:50].double()) - torch.eye(50)
    assert between_keys.abs().max() < 0.15


def test_only_long_orders_are_computed(monkeypatch):
    monkeypatch.setattr(counter_rng, "MOST_STORED", 50)
    drawn = shuffled(50, generator_of(1), key_of(1))
    assert torch.equal(drawn, torch.randperm(50, generator=generator_of(1)))
    assert shuffled(51, generator_of(1), key_of(1)) == Permutation(51, key_of(1))
