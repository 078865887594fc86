"""Counter-based random numbers: each depends on its key and index, never on what was drawn before.

A number is the hash of a key, made of a seed and an epoch, and of a counter, a sample's index. So a
resume in the middle of an epoch, another batch size or another device gives the same numbers, and
torch's own generators are never touched. The hash is SplitMix64 (Steele, Lea and Flood, "Fast
splittable pseudorandom number generators", 2014).
"""

from __future__ import annotations

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
    bits = (index[:, None] * count + column + 1) * _signed(_INCREMENT) + _signed(key)
    bits = (bits ^ _shifted(bits, 30)) * _signed(_FIRST)
    bits = (bits ^ _shifted(bits, 27)) * _signed(_SECOND)
    bits = bits ^ _shifted(bits, 31)
    return _shifted(bits, 40).to(torch.float32) * 2.0**-24  # a float32 has 24 bits


def _mixed(bits: int) -> int:
    bits = ((bits ^ (bits >> 30)) * _FIRST) & _MASK
    bits = ((bits ^ (bits >> 27)) * _SECOND) & _MASK
    return bits ^ (bits >> 31)


def _signed(bits: int) -> int:
    """The int64 with the bits of an unsigned 64-bit number: torch multiplies modulo 2^64 in it."""
    return bits - (1 << 64) if bits >= 1 << 63 else bits


def _shifted(bits: Tensor, by: int) -> Tensor:
    """`bits` shifted right and filled with zeros; `>>` alone would repeat the sign."""
    return (bits >> by) & ((1 << (64 - by)) - 1)
