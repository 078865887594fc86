"""Measures the speed of training, without evaluations and saves, and times the progress bar."""

from __future__ import annotations

import time

UPDATE_INTERVAL = 0.2
"""Seconds between two updates of the progress bar; each waits for the device to get the loss."""


class Stopwatch:
    """Counts samples and seconds."""

    def __init__(self) -> None:
        self._lap = self._began = self._ticked = time.perf_counter()
        self._samples = 0

    def count(self, samples: int) -> None:
        """Adds trained samples."""
        self._samples += samples

    def tick(self) -> bool:
        """Whether the progress bar is due to be updated."""
        now = time.perf_counter()
        if now - self._ticked < UPDATE_INTERVAL:
            return False
        self._ticked = now
        return True

    def speed(self) -> float:
        """Samples per second since `resume`."""
        return self._samples / max(time.perf_counter() - self._began, 1e-9)

    def resume(self) -> None:
        """Starts to measure the speed again, after an evaluation or a save."""
        self._began, self._samples = time.perf_counter(), 0

    @property
    def since_lap(self) -> float:
        """Seconds since the last call of `lap`."""
        return time.perf_counter() - self._lap

    def lap(self) -> float:
        """Seconds since the last call, whatever was done."""
        now = time.perf_counter()
        seconds, self._lap = now - self._lap, now
        return seconds
