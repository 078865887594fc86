"""How much sound a recording's header promises, which a file that was cut short does not hold."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import BinaryIO

_UNKNOWN = 0x7FFF0000  # bytes from which on a WAV was written without knowing how long it would be
_TRIMMED = 4  # frames of an MP3 that readers leave out at its two ends, at most
_HEAD = 1 << 16  # bytes of an MP3 within which its first frame begins


def promised_frames(path: Path) -> int:
    """Samples in each channel by the header; 0 where it does not say.

    FLAC is not looked at: its reader knows.
    """
    with path.open("rb") as file:
        head = file.read(12)
        if head[:4] == b"RIFF" and head[8:] == b"WAVE":
            return _of_wav(file)
        file.seek(0)
        return _of_mp3(file) if path.suffix.lower() == ".mp3" else 0


def _of_wav(file: BinaryIO) -> int:
    """By the size of the chunk `data` (Microsoft and IBM, "Multimedia programming interface", 1991)."""
    block = 0
    while len(chunk := file.read(8)) == 8:
        size = struct.unpack("<I", chunk[4:])[0]
        if chunk[:4] == b"data":
            return 0 if size >= _UNKNOWN or not block else size // block
        if chunk[:4] == b"fmt " and size >= 16:
            form = file.read(16)
            plain = len(form) == 16 and struct.unpack("<H", form[:2])[0] in (1, 3, 6, 7, 0xFFFE)
            block = struct.unpack("<H", form[12:14])[0] if plain else 0
            size -= 16
        file.seek(size + size % 2, 1)
    return 0


def _of_mp3(file: BinaryIO) -> int:
    """By the frames that a `Xing` or `Info` header counts, which most encoders write."""
    head = file.read(10)
    start = 0
    if head[:3] == b"ID3" and len(head) == 10:
        start = 10 + sum((byte & 0x7F) << 7 * (3 - place) for place, byte in enumerate(head[6:]))
    file.seek(start)
    first = file.read(_HEAD)
    places = [place for mark in (b"Xing", b"Info") if 0 <= (place := first.find(mark)) <= 64]
    if not places or len(first) < places[0] + 12 or first[0] != 0xFF:
        return 0
    flags, frames = struct.unpack(">II", first[places[0] + 4 : places[0] + 12])
    of_mpeg1 = (first[1] >> 3) & 3 == 3
    frames = max(0, frames - _TRIMMED)
    return frames * (1152 if of_mpeg1 else 576) if flags & 1 else 0
