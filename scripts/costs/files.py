"""Data of any size, made once: random letters, and a table as users have it."""

from __future__ import annotations

from pathlib import Path

import numpy as np

LETTERS = bytes(range(33, 97)) + b" \n"
_PIECE = 100_000
_NUMBERS = 17
_HEAD = [*(f"x{number}" for number in range(_NUMBERS)), "colour", "town", "day", "y"]


def text(folder: Path, characters: int) -> Path:
    """A text of random letters, an eighth of them blanks and ends of lines."""
    path = folder / f"{characters}.txt"
    if not path.is_file():
        draw, letters = np.random.default_rng(0), np.frombuffer(LETTERS[:-2] + b" " * 8 + b"\n", "u1")
        with path.open("wb") as file:
            for begin in range(0, characters, 100 * _PIECE):
                count = min(100 * _PIECE, characters - begin)
                file.write(letters[draw.integers(0, len(letters), count)].tobytes())
    return path


def table(folder: Path, rows: int) -> Path:
    """A CSV file of 17 numbers, a colour, a town, a day, and the target `y`, the mean of the numbers."""
    path = folder / f"{rows}.csv"
    if not path.is_file():
        draw = np.random.default_rng(0)
        with path.open("wb") as file:
            file.write(f"{','.join(_HEAD)}\n".encode())
            for begin in range(0, rows, _PIECE):
                file.write(_rows(draw, min(_PIECE, rows - begin)))
    return path


def _rows(draw: np.random.Generator, count: int) -> bytes:
    """So many lines, all of the same length."""
    numbers = np.clip(draw.standard_normal((count, _NUMBERS)), -9, 9)
    colours = np.array([b"red  ,", b"green,", b"blue ,"])[draw.integers(0, 3, count)]
    towns = np.array([f"town{number:03},".encode() for number in range(500)])
    days = np.datetime64("2020-01-01") + draw.integers(0, 2000, count)
    parts = [
        _decimals(numbers),
        _letters(colours),
        _letters(towns[draw.integers(0, len(towns), count)]),
        _letters(days.astype("S10")),
        np.full((count, 1), ord(","), np.uint8),
        _decimals(numbers.mean(1, keepdims=True))[:, :-1],
        np.full((count, 1), ord("\n"), np.uint8),
    ]
    return np.concatenate(parts, axis=1).tobytes()


def _letters(words: np.ndarray) -> np.ndarray:
    return words.view(np.uint8).reshape(len(words), -1)


def _decimals(numbers: np.ndarray) -> np.ndarray:
    """Numbers below 10 as ` 1.2345,` or `-1.2345,`: (rows, 8 × columns) letters."""
    scaled = np.rint(numbers * 10_000).astype(int)
    cells = np.empty((*numbers.shape, 8), np.uint8)
    cells[..., 0] = np.where(scaled < 0, ord("-"), ord(" "))
    cells[..., 2], cells[..., 7] = ord("."), ord(",")
    for place, ten in zip((1, 3, 4, 5, 6), (10_000, 1000, 100, 10, 1), strict=True):
        cells[..., place] = np.abs(scaled) // ten % 10 + ord("0")
    return cells.reshape(len(numbers), -1)
