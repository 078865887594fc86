"""What a run's first steps take, by the clock."""

from __future__ import annotations

import statistics

import torch

_WARM, _FEW, _PAIRS = 2, 3, 5
_CLEAR = 1.5
"""A ratio between two numbers of threads that leaves no doubt: no more steps are spent on it."""


class Trial:
    """Times steps; where threads are to be chosen, with all of them and with one in turns.

    Args:
        threads: whether to choose between torch's number of threads and one.

    Attributes:
        over: whether enough is known.
    """

    def __init__(self, threads: bool) -> None:
        many = torch.get_num_threads()
        self._counts = [many, 1] if threads and many > 1 else [many]
        self._seconds: dict[int, list[float]] = {count: [] for count in self._counts}
        self._noted = 0
        self.over = False

    @property
    def chooses(self) -> bool:
        """Whether there is more than one number of threads to choose from."""
        return len(self._counts) > 1

    def begin(self) -> None:
        """A step is about to be done."""
        if self.chooses:
            torch.set_num_threads(self._counts[self._noted % 2])

    def note(self, seconds: float) -> None:
        """It took so long."""
        count = self._counts[self._noted % len(self._counts)]
        if self._noted >= _WARM:
            self._seconds[count].append(seconds)
        self._noted += 1
        timed = [len(times) for times in self._seconds.values()]
        self.over = min(timed) >= _PAIRS or (min(timed) == max(timed) >= _FEW and self._is_clear())
        if self.over and self.chooses:
            torch.set_num_threads(self.threads)

    @property
    def threads(self) -> int:
        """The number of threads with which steps took less."""
        return min(self._counts, key=self._median) if self.chooses else self._counts[0]

    @property
    def seconds(self) -> float:
        """What a step takes with these."""
        return self._median(self.threads)

    def __str__(self) -> str:
        """The outcome in words; empty where there was no choice."""
        if not self.chooses:
            return ""
        times = {count: f"{1000 * self._median(count):.3g} ms" for count in self._counts}
        many, one = (times[count] for count in self._counts)
        used = "1 is" if self.threads == 1 else f"{self.threads} are"
        return f"A step takes {many} with {self._counts[0]} threads and {one} with 1: {used} used"

    def _median(self, count: int) -> float:
        return statistics.median(self._seconds[count])

    def _is_clear(self) -> bool:
        times = [self._median(count) for count in self._counts]
        return len(times) > 1 and max(times) > _CLEAR * min(times)
