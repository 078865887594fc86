"""The TFRecord format of TensorBoard's files: length, its checksum, content, its checksum.

TensorBoard's own writer gives the same bytes, but importing it loads a stub of TensorFlow, which takes a
quarter of a second, and its checksum is a Python loop over every byte.
"""

from __future__ import annotations

import functools

import numpy as np

_POLYNOMIAL = 0x82F63B78  # CRC-32C (Castagnoli 1993), bits reversed
_AT_ONCE = 512
"""Bytes looked up at once; the table has a row of 256 for each."""


def frame_record(record: bytes) -> bytes:
    """The bytes of a record in a file."""
    length = len(record).to_bytes(8, "little")
    return length + _masked(length) + record + _masked(record)


def crc32c(content: bytes) -> int:
    """The CRC-32C of `content`; zlib's `crc32` uses another polynomial.

    What a byte contributes depends on its value and on how many bytes follow it, and contributions
    combine by exclusive or. So whole blocks are looked up in a table at once.
    """
    table, register = _table(), 0xFFFFFFFF
    for start in range(0, len(content), _AT_ONCE):
        block = np.frombuffer(content, np.uint8, min(_AT_ONCE, len(content) - start), start)
        head = np.zeros(len(block), np.uint8)  # the register acts like four bytes before the rest
        size = min(4, len(block))
        head[:size] = np.frombuffer(register.to_bytes(4, "little"), np.uint8)[:size]
        parts = table[np.arange(len(block) - 1, -1, -1), block ^ head]
        register = (register >> 8 * size) ^ int(np.bitwise_xor.reduce(parts))
    return register ^ 0xFFFFFFFF


def _masked(content: bytes) -> bytes:
    """A checksum as the format stores it: rotated and shifted, since a CRC of data that holds CRCs is
    of little use."""
    crc = crc32c(content)
    return (((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF).to_bytes(4, "little")


@functools.cache
def _table() -> np.ndarray[tuple[int, int], np.dtype[np.uint32]]:
    """(number of bytes that follow, value) → what that byte contributes."""
    row = np.arange(256, dtype=np.uint32)
    for _ in range(8):
        row = np.where(row & 1, row >> 1 ^ np.uint32(_POLYNOMIAL), row >> 1)
    table = np.empty((_AT_ONCE, 256), np.uint32)
    table[0] = row
    for following in range(1, _AT_ONCE):
        before = table[following - 1]
        table[following] = row[before & 0xFF] ^ (before >> 8)
    return table
