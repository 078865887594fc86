"""Times a run's first steps, with several numbers of threads where they are to be chosen."""

from __future__ import annotations

import statistics

import torch

_WARM_UP_STEPS, _MIN_STEPS, _MAX_STEPS = 2, 3, 5
_CLEAR_RATIO = 1.5
"""Beyond this ratio between two numbers of threads no more steps are spent on the choice."""


class Trial:
    """Times steps; where threads are to be chosen, with all of them and with one in turns.

    Args:
        choose_threads: whether to choose between torch's number of threads and one.

    Attributes:
        done: whether enough is known.
    """

    def __init__(self, choose_threads: bool) -> None:
        default = torch.get_num_threads()
        self._counts = [default, 1] if choose_threads and default > 1 else [default]
        self._seconds: dict[int, list[float]] = {count: [] for count in self._counts}
        self._steps = 0
        self.done = False

    @property
    def compares_threads(self) -> bool:
        """Whether there is more than one number of threads to choose from."""
        return len(self._counts) > 1

    def begin_step(self) -> None:
        """Sets the number of threads for the next step."""
        if self.compares_threads:
            torch.set_num_threads(self._counts[self._steps % 2])

    def end_step(self, seconds: float) -> None:
        """Records how long that step took."""
        count = self._counts[self._steps % len(self._counts)]
        if self._steps >= _WARM_UP_STEPS:
            self._seconds[count].append(seconds)
        self._steps += 1
        timed = [len(times) for times in self._seconds.values()]
        # In turns: equal lengths mean that both counts have been tried as often.
        is_early_end = min(timed) == max(timed) >= _MIN_STEPS and self._is_clear()
        self.done = min(timed) >= _MAX_STEPS or is_early_end
        if self.done and self.compares_threads:
            torch.set_num_threads(self.threads)

    @property
    def threads(self) -> int:
        """The number of threads with which steps took less time."""
        return min(self._counts, key=self._median) if self.compares_threads else self._counts[0]

    @property
    def seconds(self) -> float:
        """The time of a step with that number of threads."""
        return self._median(self.threads)

    def __str__(self) -> str:
        """The outcome as a sentence without full stop; empty if there was nothing to choose."""
        if not self.compares_threads:
            return ""
        default, one = (f"{1000 * self._median(count):.3g} ms" for count in self._counts)
        used = "1 is" if self.threads == 1 else f"{self.threads} are"
        return f"A step takes {default} with {self._counts[0]} threads and {one} with 1: {used} used"

    def _median(self, count: int) -> float:
        return statistics.median(self._seconds[count])

    def _is_clear(self) -> bool:
        times = [self._median(count) for count in self._counts]
        return len(times) > 1 and max(times) > _CLEAR_RATIO * min(times)
