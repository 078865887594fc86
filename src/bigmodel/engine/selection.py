"""Chooses engine, number of threads and precision by timing a run's first steps, once for the run."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import asdict
from enum import Enum, auto
from typing import Any, Literal

import torch

from bigmodel.data.base import Batch
from bigmodel.engine.base import Engine, Interruptible, Log
from bigmodel.engine.candidates import CompileCandidate, select_engine
from bigmodel.engine.functional_step import UntraceableError, has_state, needs_state
from bigmodel.engine.precision import TRIAL_PASSES, faster_precision
from bigmodel.engine.step import Step
from bigmodel.runtime.device import Choice

SHORT_RUN = 50
"""A run of no more steps is over before a choice could pay off."""

Requested = Literal["auto", "eager", "compiled", "graph"]

_WARM_UP_STEPS, _MIN_STEPS, _MAX_STEPS = 2, 3, 5
"""Steps that are not timed, and the fewest and most that are timed with each number of threads."""

_STEPS_PER_PASS = 20
"""A run has at least so many steps for each pass of a trial of bf16, which is then a twentieth of it."""

_CLEAR_RATIO = 1.5
"""Beyond this ratio between two numbers of threads no more steps are spent on the choice."""

_BY_DEVICE: dict[str, Requested] = {"cpu": "compiled", "cuda": "graph"}
"""The faster engine of a device; others, such as Apple's, have none yet."""


class StepTimer:
    """Times a run's first steps, with all threads and with one in turns if there is a choice.

    Args:
        choose_threads: whether to choose between torch's number of threads and one.

    Attributes:
        done: whether enough steps were timed.
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
        return max(times) > _CLEAR_RATIO * min(times)


class Phase(Enum):
    """What `AutoEngine` does at the next step."""

    UNDECIDED = auto()
    """An eager step: the run is too short for a choice."""
    TIMING = auto()
    """A timed eager step, until enough is known to choose."""
    OPTIMIZER_INIT = auto()
    """One eager step, in which the optimizer creates its state; then `CHOSEN`."""
    CHOSEN = auto()
    """A step by the chosen engine, which is made before it if it is not there yet."""


class AutoEngine(Engine):
    """Eager at first; then the fastest engine, or the one that was chosen before a resume.

    Args:
        step: does one update.
        choice: the run's; part of its state.
        requested: `device.engine`.
        choose_threads, choose_precision: whether to choose the number of threads, or the precision, too.
        facts: see `cache.find_entry`.
        batch_size: samples in each batch but an epoch's last; None if batches have many shapes.
    """

    def __init__(
        self,
        step: Step,
        choice: Choice,
        requested: Requested,
        choose_threads: bool,
        facts: dict[str, Any] | None,
        batch_size: int | None,
        choose_precision: bool = False,
    ) -> None:
        super().__init__(step)
        self._choice = choice
        self._requested = requested
        self._choose_threads = choose_threads
        self._choose_precision = choose_precision
        self._facts = facts
        self._batch_size = batch_size
        self._engine = Engine(step)
        self._phase, self._timer = Phase.UNDECIDED, StepTimer(False)
        self._remaining_steps = 0
        self._log: Log = lambda _: None
        self._interruptible: Interruptible = nullcontext
        # A rewind loads an older state, with an older choice: this one is restored then.
        self._newest_choice = asdict(choice)

    def start(self, remaining_steps: int, log: Log, interruptible: Interruptible) -> None:
        """See `Engine.start`."""
        self._remaining_steps, self._log, self._interruptible = remaining_steps, log, interruptible
        self._newest_choice = asdict(self._choice)
        if self._choose_threads and self._choice.threads is not None:
            torch.set_num_threads(self._choice.threads)
        if self._choice.precision is not None:
            self.step.use_precision(self._choice.precision)
        if self._choice.engine is not None:
            self._phase = Phase.CHOSEN if self._optimizer_has_state else Phase.OPTIMIZER_INIT
        elif remaining_steps > SHORT_RUN or self._is_fast_requested:
            self._timer = StepTimer(self._choose_threads and self._choice.threads is None)
            self._phase = Phase.TIMING

    def __call__(self, batches: Sequence[Batch], factors: Sequence[float], measure: bool) -> int:
        """See `Engine.__call__`. Slow work that may be interrupted comes before the step."""
        is_full = self._batch_size in (None, len(batches[0]))
        if self._phase is Phase.TIMING:
            if self._choose_precision and self._choice.precision is None and is_full:
                self._try_precision(batches[0])
            if not (is_full and self._is_timing_over):
                return self._timed_step(batches, factors, measure)
            self._choose(batches[0])
        elif self._phase is Phase.OPTIMIZER_INIT:
            done = super().__call__(batches, factors, measure)
            if done:
                self._phase = Phase.CHOSEN
                self._rebind_engine()
            return done
        elif self._phase is Phase.CHOSEN and is_full and self._choice.engine != self.name:
            self._make(str(self._choice.engine), batches[0], math.inf)  # chosen before a resume
        done = self._engine(batches, factors, measure)
        self.steps_per_call = self._engine.steps_per_call
        return done

    def rebind(self) -> None:
        """See `Engine.rebind`; the state may be older than the choice."""
        vars(self._choice).update(self._newest_choice)
        if self._phase in (Phase.CHOSEN, Phase.OPTIMIZER_INIT):
            self._phase = Phase.CHOSEN if self._optimizer_has_state else Phase.OPTIMIZER_INIT
        if self._phase is Phase.CHOSEN:
            self._rebind_engine()

    def retrain(self) -> None:
        """See `Engine.retrain`. The same engine is made again, after a step in which the optimizer
        creates the state of new parameters."""
        self._engine.release()
        self._use(Engine(self.step))
        if self._phase in (Phase.CHOSEN, Phase.OPTIMIZER_INIT):
            known = self.step.optimizer.state
            trained = (p for p in self.step.model.parameters() if p.requires_grad)
            lacks = needs_state(self.step.optimizer) and any(not known.get(p) for p in trained)
            self._phase = Phase.OPTIMIZER_INIT if lacks else Phase.CHOSEN

    def release(self) -> bool:
        """See `Engine.release`; no engine is chosen again."""
        if not self._engine.release():
            return False
        self._use(Engine(self.step))
        self._remember_choice()
        return True

    @property
    def _is_fast_requested(self) -> bool:
        return self._requested in ("compiled", "graph")

    @property
    def _optimizer_has_state(self) -> bool:
        """Whether an update has been done with this optimizer, or a state loaded."""
        has_rates = all("initial_lr" in group for group in self.step.optimizer.param_groups)
        return has_rates and has_state(self.step.optimizer)

    @property
    def _is_timing_over(self) -> bool:
        # A requested engine is used without timing, so that a resumed run stays bit-identical; only the
        # step that creates the optimizer's state has to be eager.
        skips_timing = self._is_fast_requested and not self._timer.compares_threads
        return self._timer.done or (skips_timing and self._optimizer_has_state)

    def _timed_step(self, batches: Sequence[Batch], factors: Sequence[float], measure: bool) -> int:
        self._timer.begin_step()
        began = time.perf_counter()
        done = super().__call__(batches, factors, measure)
        if batches[0].inputs.is_cuda:
            torch.cuda.synchronize()
        self._remaining_steps -= done
        if done:
            self._timer.end_step(time.perf_counter() - began)
        return done

    def _try_precision(self, example: Batch) -> None:
        """Chooses between fp32 and bf16, if the run is long enough for a trial."""
        if self._remaining_steps < _STEPS_PER_PASS * TRIAL_PASSES:
            self._choose_precision = False
            return
        self._choice.precision, reason = faster_precision(self.step, example)
        self.step.use_precision(self._choice.precision)
        self._newest_choice = asdict(self._choice)
        self._log(f"{reason}.")

    def _choose(self, example: Batch) -> None:
        timer = self._timer
        if self._choose_threads and self._choice.threads is None:
            self._choice.threads = timer.threads
        if message := str(timer):
            self._log(f"{message}.")
        kind = self._requested
        if kind == "auto":
            kind = _BY_DEVICE.get(example.inputs.device.type, "eager")
        self._make(kind, example, timer.seconds if timer.done else math.inf)
        self._phase = Phase.CHOSEN

    def _make(self, kind: str, example: Batch, eager_seconds: float) -> None:
        """Uses an engine of that kind if there is one and it pays off; else steps stay eager."""
        is_required = self._requested != "auto" or self._choice.engine is not None
        if kind != "eager" and self._batch_size is not None:
            left, facts = self._remaining_steps, self._facts
            before = self._choice.compiler
            candidate = CompileCandidate(
                self.step, example, eager_seconds, left, is_required, facts, before
            )
            engine = select_engine(candidate, kind, self._log, self._interruptible)
            if engine is not None:
                self._use(engine)
        elif kind != "eager" and is_required:
            self._log("Steps run eagerly: batches have many shapes.")
        self._remember_choice()

    def _use(self, engine: Engine) -> None:
        self._engine, self.name, self.steps_per_call = engine, engine.name, engine.steps_per_call

    def _remember_choice(self) -> None:
        self._choice.engine, self._choice.compiler = self.name, self._engine.compiler
        self._newest_choice = asdict(self._choice)

    def _rebind_engine(self) -> None:
        try:
            self._engine.rebind()
        except UntraceableError:  # a CUDA graph cannot; a new one is captured when it is needed
            self._engine.release()
            self._use(Engine(self.step))
