"""The frame of a record in TensorBoard's files (TFRecord): its length, the record, and a sum of each.

TensorBoard's own writer does the same, byte by byte, and imports a stub of TensorFlow for it.
"""

from __future__ import annotations

import functools

import numpy as np

_POLYNOMIAL = 0x82F63B78  # CRC-32C (Castagnoli 1993), bits reversed
_AT_ONCE = 512
"""Bytes that are looked up at once; the table has a row of 256 for each."""


def frame_record(record: bytes) -> bytes:
    """A record as it stands in a file."""
    length = len(record).to_bytes(8, "little")
    return length + _masked(length) + record + _masked(record)


def crc32c(content: bytes) -> int:
    """The CRC-32C of `content`; zlib's `crc32` has another polynomial.

    A byte's part in the sum depends on its value and on how many bytes follow, and parts add up by
    exclusive or; so that whole rows of a table are looked up at once.
    """
    table, register = _table(), 0xFFFFFFFF
    for start in range(0, len(content), _AT_ONCE):
        block = np.frombuffer(content, np.uint8, min(_AT_ONCE, len(content) - start), start)
        head = np.zeros(len(block), np.uint8)  # the sum so far acts like four bytes before all others
        size = min(4, len(block))
        head[:size] = np.frombuffer(register.to_bytes(4, "little"), np.uint8)[:size]
        parts = table[np.arange(len(block) - 1, -1, -1), block ^ head]
        register = (register >> 8 * size) ^ int(np.bitwise_xor.reduce(parts))
    return register ^ 0xFFFFFFFF


def _masked(content: bytes) -> bytes:
    """A sum as the format stores it: rotated, and moved, since sums of sums would be of little use."""
    crc = crc32c(content)
    return (((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF).to_bytes(4, "little")


@functools.cache
def _table() -> np.ndarray[tuple[int, int], np.dtype[np.uint32]]:
    """(following bytes, value) → that byte's part in the sum."""
    row = np.arange(256, dtype=np.uint32)
    for _ in range(8):
        row = np.where(row & 1, row >> 1 ^ np.uint32(_POLYNOMIAL), row >> 1)
    table = np.empty((_AT_ONCE, 256), np.uint32)
    table[0] = row
    for following in range(1, _AT_ONCE):
        before = table[following - 1]
        table[following] = row[before & 0xFF] ^ (before >> 8)
    return table
