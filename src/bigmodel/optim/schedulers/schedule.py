"""The schedule of a run: a scheduler, and the number of steps it is planned for, which may change."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from bigmodel.errors import SpecError
from bigmodel.optim.schedulers.base import Scheduler
from bigmodel.registry import EntryConfig, schedulers


class Span(NamedTuple):
    """The part of a run that a scheduler was planned for, in steps or epochs as its `interval` says.

    Attributes:
        begin: its first update; 0, or where the schedule was started again.
        end: the update after its last.
        run: the planned length of the whole run. If it is beyond `end`, the last rate is held.
    """

    begin: int
    end: int
    run: int


class Change(NamedTuple):
    """How a schedule changed when a run was resumed with another length.

    Attributes:
        before, after: the multiplier of the next update by the old plan and by the new one.
        planned: the old length of the run, in optimizer steps.
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
        change: what the newest `load_state_dict` changed; None if the run's length is the same.
    """

    def __init__(self, config: EntryConfig, steps: int, steps_per_epoch: int) -> None:
        self._config = config
        self._steps_per_unit = steps_per_epoch if getattr(config, "interval", "step") == "epoch" else 1
        self._run = math.ceil(steps / self._steps_per_unit)
        self.change: Change | None = None
        self._build(self.planned(steps), {})

    def planned(self, steps: int) -> Span:
        """The span of a run of `steps` steps."""
        length = math.ceil(steps / self._steps_per_unit)
        return Span(0, length, length)

    def factor(self, step: int) -> float:
        """The multiplier after `step` steps; see `Scheduler.factor`."""
        return self.factors(step, 1)[0]

    def factors(self, step: int, count: int) -> list[float]:
        """The multipliers after `step` steps and those that follow, `count` in all."""
        unit, (begin, end, run) = self._steps_per_unit, self._span
        times: Iterable[int] = range(step, step + count)
        if unit > 1:
            times = (t // unit for t in times)
        if end < run:
            times = (min(t, end - 1) for t in times)
        factor: Any = self._scheduler.factor
        found = [factor(t - begin) for t in times]
        # A user's own scheduler may return a number of torch's or NumPy's.
        return [number.item() if hasattr(number, "item") else number for number in found]

    @property
    def follows_metric(self) -> bool:
        """Whether it depends on the outcomes of evaluations."""
        return type(self._scheduler).observe is not Scheduler.observe

    def observe(self, value: float, mode: str, step: int) -> None:
        """Called with the outcome of an evaluation after `step` steps; see `Scheduler.observe`.

        Evaluations during the warm-up do not count, nor do those after the end of a schedule whose last
        rate is held.
        """
        t, span = step // self._steps_per_unit, self._span
        is_held = span.end < span.run and t > span.end
        if t - span.begin >= self._scheduler.warmup and not is_held:
            self._scheduler.observe(value, mode)

    def state_dict(self) -> dict[str, Any]:
        """The scheduler's state, and its span."""
        return {**self._scheduler.state_dict(), "span": list(self._span)}

    def load_state_dict(self, state: Mapping[str, Any], step: int) -> None:
        """Loads what `state_dict` returned, after `step` steps.

        If the run has another length now, `extend` says what happens to the schedule: `stretch` makes it
        end with the run, `hold` leaves it as it was, `again` starts it again for the remaining steps.
        """
        scheduler_state = {key: value for key, value in state.items() if key != "span"}
        span = Span(*state.get("span", self._span))
        self._build(span, scheduler_state)
        self.change = None
        if span.run == self._run:
            return
        # A schedule has no rate after its last update: it would have continued with the last one.
        before = self.factor(min(step, span.end * self._steps_per_unit - 1))
        match getattr(self._config, "extend", "stretch"):
            case "hold":
                self._build(Span(span.begin, span.end, self._run), scheduler_state)
            case "again":
                self._build(Span(step // self._steps_per_unit, self._run, self._run), {})
            case _:
                self._build(Span(span.begin, self._run, self._run), scheduler_state)
        self.change = Change(before, self.factor(step), span.run * self._steps_per_unit)

    def _build(self, span: Span, state: dict[str, float | int]) -> None:
        scheduler = schedulers.build(self._config, max(1, span.end - span.begin))
        if not isinstance(scheduler, Scheduler):
            raise SpecError(
                f"scheduler={self._config.name}: it returned a {type(scheduler).__name__}. A schedule is"
                " a class that derives from bigmodel.schedulers.base.Scheduler and defines shape(t,"
                " total); those of torch.optim.lr_scheduler cannot be used."
            )
        if state:
            scheduler.load_state_dict(state)
        self._span, self._scheduler = span, scheduler
