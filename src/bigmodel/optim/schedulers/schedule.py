"""The schedule of a run: a scheduler, and the steps that it was planned for, which may become others."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

from bigmodel.optim.schedulers.base import Scheduler
from bigmodel.registry import EntryConfig, schedulers


class Span(NamedTuple):
    """What of a run a scheduler was planned for, in steps or epochs as its `interval` says.

    Attributes:
        begin: the first update that it counts; 0, or where it was begun again.
        end: the update that would come after its last.
        run: how long the whole run was to be. Where that is beyond `end`, the last rate is held.
    """

    begin: int
    end: int
    run: int


class Change(NamedTuple):
    """What became of a schedule when a run of another length went on.

    Attributes:
        before, after: the multiplier that the next update would have had, and the one that it has.
        planned: the run's length as it was, in optimizer steps.
    """

    before: float
    after: float
    planned: int


class Schedule:
    """Multipliers of the learning rate, by optimizer steps done.

    Args:
        config: of the scheduler.
        steps: length of the run.
        steps_per_epoch: optimizer steps in an epoch.

    Attributes:
        change: what the newest `load` has changed; None: the run is as long as it was.
    """

    def __init__(self, config: EntryConfig, steps: int, steps_per_epoch: int) -> None:
        self._config = config
        self._per = steps_per_epoch if getattr(config, "interval", "step") == "epoch" else 1
        self._run = math.ceil(steps / self._per)
        self.change: Change | None = None
        self._put(self.planned(steps), {})

    def planned(self, steps: int) -> Span:
        """The span of a run of so many steps."""
        length = math.ceil(steps / self._per)
        return Span(0, length, length)

    def factor(self, step: int) -> float:
        """The multiplier after `step` steps; see `Scheduler.factor`."""
        t = step // self._per
        if self._span.end < self._span.run:
            t = min(t, self._span.end - 1)
        given: Any = self._scheduler.factor(t - self._span.begin)
        number: float = given.item() if hasattr(given, "item") else given  # torch's and NumPy's
        return number

    def observe(self, value: float, mode: str, step: int) -> None:
        """Hears of an evaluation after `step` steps; see `Scheduler.observe`.

        One during the warm-up does not count, since the rate is not what it will be, nor does one after
        the end of a schedule that is held: as if the scheduler were there for its own time alone.
        """
        t, span = step // self._per, self._span
        is_held = span.end < span.run and t > span.end
        if t - span.begin >= self._scheduler.warmup and not is_held:
            self._scheduler.observe(value, mode)

    def state_dict(self) -> dict[str, Any]:
        """What the scheduler keeps, and its span."""
        return {**self._scheduler.state_dict(), "span": list(self._span)}

    def load_state_dict(self, state: Mapping[str, Any], step: int) -> None:
        """Takes over what `state_dict` gave, after `step` steps; without a span the one there is stays.

        Where the run is of another length now, `extend` says what becomes of the schedule: `stretch` has
        it end with the run; `hold` leaves it as it was; `again` begins it anew, for the steps that are
        left.
        """
        kept = {key: value for key, value in state.items() if key != "span"}
        span = Span(*state.get("span", self._span))
        self._put(span, kept)
        self.change = None
        if span.run == self._run:
            return
        # The update after a schedule's last would have none: what it would go on with is the last one's.
        before = self.factor(min(step, span.end * self._per - 1))
        match getattr(self._config, "extend", "stretch"):
            case "hold":
                self._put(Span(span.begin, span.end, self._run), kept)
            case "again":
                self._put(Span(step // self._per, self._run, self._run), {})
            case _:
                self._put(Span(span.begin, self._run, self._run), kept)
        self.change = Change(before, self.factor(step), span.run * self._per)

    def _put(self, span: Span, state: dict[str, float | int]) -> None:
        scheduler: Scheduler = schedulers.build(self._config, max(1, span.end - span.begin))
        if state:
            scheduler.load_state_dict(state)
        self._span, self._scheduler = span, scheduler
