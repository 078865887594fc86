"""Measures the speed of training, without evaluations and saves, and times the progress bar."""

from __future__ import annotations

import time

from bigmodel.distributed.ranks import Ranks
from bigmodel.runtime.energy import EnergyMeter
from bigmodel.runtime.signals import Signals

UPDATE_INTERVAL = 0.2
"""Seconds between two updates of the progress bar; each waits for the device to get the loss."""


class Stopwatch:
    """Counts samples, seconds and joules.

    Args:
        meter: of the energy; None: it is not counted.
    """

    def __init__(self, meter: EnergyMeter | None = None) -> None:
        self._meter = meter
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
        if self._meter is not None:
            self._meter.sample()
        return True

    def agree(self) -> None:
        """Has several processes that train together hear of each other's signals."""

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

    @property
    def joules_since_lap(self) -> dict[str, float]:
        """Joules since the last call of `joules`."""
        return {} if self._meter is None else self._meter.since_lap

    def joules(self) -> dict[str, float]:
        """Joules since the last call, as `EnergyMeter.lap` has them."""
        return {} if self._meter is None else self._meter.lap()


class SharedStopwatch(Stopwatch):
    """A stopwatch of several ranks. They look at the time after the same step, about as often as one
    alone, by the first one's clock; a signal to one of them is heard by all from then on.

    Args:
        ranks: all of them.
        signals: this rank's, which have to be `shared`.
    """

    def __init__(self, ranks: Ranks, signals: Signals) -> None:
        super().__init__()
        self._ranks, self._signals = ranks, signals
        self._calls, self._every = 0, 1

    def tick(self) -> bool:
        self._calls += 1
        if self._calls < self._every:
            return False
        self.agree()
        now = time.perf_counter()
        affordable = int(self._calls * UPDATE_INTERVAL / max(now - self._ticked, 1e-9))
        self._every = self._ranks.from_first(max(1, min(affordable, 2 * self._every)))
        self._ticked, self._calls = now, 0
        return True

    def agree(self) -> None:
        self._signals.hear(self._ranks.max(self._signals.tell()))
