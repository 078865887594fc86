"""Counter-based random numbers: each depends on its key and index, never on what was drawn before.

A number is the hash of a key, made of a seed and an epoch, and of a counter, a sample's index. So a
resume in the middle of an epoch, another batch size or another device gives the same numbers, and
torch's own generators are never touched. The hash is SplitMix64 (Steele, Lea and Flood, "Fast
splittable pseudorandom number generators", 2014).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

_MASK = (1 << 64) - 1
_INCREMENT, _FIRST, _SECOND = 0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB


def key_of(*numbers: int) -> int:
    """One 64-bit key for several integers, such as a seed and an epoch, in this order."""
    key = 0
    for number in numbers:
        key = _mixed(((key ^ (number & _MASK)) + _INCREMENT) & _MASK)
    return key


def generator_of(*numbers: int) -> torch.Generator:
    """A new generator on the CPU, seeded with `key_of(*numbers)`."""
    return torch.Generator().manual_seed(key_of(*numbers))


MOST_STORED = 1 << 22
"""Numbers of an order that is stored: that of more would take more memory than a small run needs."""


def shuffled(count: int, generator: torch.Generator, key: int) -> Tensor | Permutation:
    """The numbers from 0 to `count - 1` in a random order: drawn from `generator` or, if there are more
    than `MOST_STORED`, computed from `key` where they are asked for."""
    if count > MOST_STORED:
        return Permutation(count, key)
    return torch.randperm(count, generator=generator)


@dataclass(frozen=True)
class Permutation:
    """The numbers from 0 to `count - 1` in a random order, of which any part can be computed by itself.

    A Feistel network permutes the numbers of as many bits as `count - 1` has. What is too large is
    permuted again, until it is not (Black and Rogaway, "Ciphers with arbitrary finite domains", 2002).

    Attributes:
        count: how many numbers; at least 1.
        key: from `key_of`.
    """

    count: int
    key: int

    _ROUNDS = 6  # four make it indistinguishable from random, with a function that is (Luby and Rackoff)

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, places: slice) -> Tensor:
        """The numbers at some places, (places,) int64."""
        numbers = self._permuted(torch.arange(*places.indices(self.count)))
        while bool((large := numbers >= self.count).any()):
            numbers[large] = self._permuted(numbers[large])
        return numbers

    def _permuted(self, numbers: Tensor) -> Tensor:
        bits = max(2, (self.count - 1).bit_length())
        widths = (bits // 2, bits - bits // 2)  # of the low half and of the high half
        halves = [numbers & ((1 << widths[0]) - 1), numbers >> widths[0]]
        for turn in range(self._ROUNDS):
            changed = turn % 2
            mixed = _mixed_tensor(halves[1 - changed], key_of(self.key, turn))
            halves[changed] = halves[changed] ^ (mixed & ((1 << widths[changed]) - 1))
        return halves[0] | (halves[1] << widths[0])


def uniforms(key: int, index: Tensor, count: int) -> Tensor:
    """Numbers in [0, 1) that depend on `key`, the sample's index and the column alone.

    Args:
        key: from `key_of`.
        index: (batch,) int64 indices of samples.
        count: how many numbers each sample gets.

    Returns:
        (batch, count) float32 on the device of `index`.
    """
    column = torch.arange(count, device=index.device)
    bits = _mixed_tensor(index[:, None] * count + column, key)
    return _shifted(bits, 40).to(torch.float32) * 2.0**-24  # a float32 has 24 bits


def _mixed(bits: int) -> int:
    bits = ((bits ^ (bits >> 30)) * _FIRST) & _MASK
    bits = ((bits ^ (bits >> 27)) * _SECOND) & _MASK
    return bits ^ (bits >> 31)


def _mixed_tensor(counters: Tensor, key: int) -> Tensor:
    """The hash of each counter, int64 of any 64 bits."""
    bits = (counters + 1) * _signed(_INCREMENT) + _signed(key)
    bits = (bits ^ _shifted(bits, 30)) * _signed(_FIRST)
    bits = (bits ^ _shifted(bits, 27)) * _signed(_SECOND)
    return bits ^ _shifted(bits, 31)


def _signed(bits: int) -> int:
    """The int64 with the bits of an unsigned 64-bit number: torch multiplies modulo 2^64 in it."""
    return bits - (1 << 64) if bits >= 1 << 63 else bits


def _shifted(bits: Tensor, by: int) -> Tensor:
    """`bits` shifted right and filled with zeros; `>>` alone would repeat the sign."""
    return (bits >> by) & ((1 << (64 - by)) - 1)
