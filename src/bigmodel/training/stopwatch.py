"""The time that training takes, evaluations and saves left out, and when a sign of life is due."""

from __future__ import annotations

import time

SIGN_OF_LIFE = 0.2
"""Seconds between two looks at the training loss for the progress bar; each waits for the device."""


class Stopwatch:
    """Counts samples and seconds."""

    def __init__(self) -> None:
        self._lap = self._began = self._ticked = time.perf_counter()
        self._samples = 0

    def count(self, samples: int) -> None:
        """Adds trained samples."""
        self._samples += samples

    def tick(self) -> bool:
        """Whether a sign of life is due."""
        now = time.perf_counter()
        if now - self._ticked < SIGN_OF_LIFE:
            return False
        self._ticked = now
        return True

    def speed(self) -> float:
        """Samples per second since training went on last."""
        return self._samples / max(time.perf_counter() - self._began, 1e-9)

    def resume(self) -> None:
        """Begins the next stretch."""
        self._began, self._samples = time.perf_counter(), 0

    def lap(self) -> float:
        """Seconds of any work since the last call."""
        now = time.perf_counter()
        seconds, self._lap = now - self._lap, now
        return seconds
