"""Which engine and how many threads: chosen by measuring a run's first steps, once, and then kept."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import asdict
from typing import Any, Literal

import torch

from bigmodel.data.base import Batch
from bigmodel.engine.base import Engine, Interruptible, Say
from bigmodel.engine.candidates import Prospect, faster
from bigmodel.engine.functional_step import UntraceableError, has_begun
from bigmodel.engine.step import Step
from bigmodel.engine.trial import Trial
from bigmodel.runtime.device import Choice

FEW = 50
"""Steps of a run that is over before anything chosen could pay."""

Wanted = Literal["auto", "eager", "compiled", "graph"]

_BY_DEVICE: dict[str, Wanted] = {"cpu": "compiled", "cuda": "graph"}
"""The faster engine of a device; of others, such as Apple's, there is none yet."""


class Choosing(Engine):
    """Eager at first; then what was found to be the quickest, or what was chosen before a resume.

    Args:
        step: what every engine does its updates by.
        choice: of the run; part of its state.
        wanted: `device.engine`.
        threads: whether the number of threads is to be chosen.
        facts: see `cache.place_of`.
        samples: how many a batch has, but for an epoch's last; None: batches have many shapes.
    """

    def __init__(
        self,
        step: Step,
        choice: Choice,
        wanted: Wanted,
        threads: bool,
        facts: dict[str, Any] | None,
        samples: int | None,
    ) -> None:
        super().__init__(step)
        self._choice = choice
        self._wanted = wanted
        self._threads = threads
        self._facts = facts
        self._samples = samples
        self._kept = asdict(choice)
        self._anew = False
        self._told = False
        self._engine = Engine(step)
        self._trial: Trial | None = None
        self._left = 0
        self._say: Say = _unheard
        self._interruptible: Interruptible = nullcontext

    def begin(self, left: int, say: Say, interruptible: Interruptible) -> None:
        """See `Engine.begin`."""
        self._left, self._say, self._interruptible = left, say, interruptible
        self._kept = asdict(self._choice)
        if self._threads and self._choice.threads is not None:
            torch.set_num_threads(self._choice.threads)
        asked = self._wanted in ("compiled", "graph")
        if self._choice.engine is None and (left > FEW or asked):
            self._trial = Trial(self._threads and self._choice.threads is None)
        # Without the clock, so that a run which was stopped goes on as it would have gone on. One step
        # has to be done, in which the optimizer makes what it keeps.
        self._told = asked and not (self._trial and self._trial.chooses)
        self._anew = self._choice.engine is not None and not self._has_begun

    def __call__(self, batches: Sequence[Batch], factors: Sequence[float], measure: bool) -> int:
        """See `Engine.__call__`. What takes long, and may be left, comes before the step."""
        full = self._samples in (None, len(batches[0]))
        if self._trial is not None:
            due = self._trial.over or (self._told and self._has_begun)
            if not (full and due):
                return self._try(self._trial, batches, factors, measure)
            self._choose(self._trial, batches[0])
        elif self._anew:
            return self._go_on(batches, factors, measure)
        elif full and self._choice.engine not in (None, self.name):
            self._make(str(self._choice.engine), batches[0], math.inf)  # as it was before a resume
        done = self._engine(batches, factors, measure)
        self.reach = self._engine.reach
        return done

    def renew(self) -> None:
        """See `Engine.renew`; the state may be from before the choice."""
        vars(self._choice).update(self._kept)
        self._anew = not self._has_begun
        if not self._anew:
            self._follow()

    def release(self) -> bool:
        """See `Engine.release`; the engine is not chosen again."""
        if not self._engine.release():
            return False
        self._one_by_one()
        self._choice.engine = self.name
        self._kept = asdict(self._choice)
        return True

    @property
    def _has_begun(self) -> bool:
        """Whether an update has been done with this optimizer, or a state loaded."""
        rated = all("initial_lr" in group for group in self.step.optimizer.param_groups)
        return rated and has_begun(self.step.optimizer)

    def _try(
        self, trial: Trial, batches: Sequence[Batch], factors: Sequence[float], measure: bool
    ) -> int:
        """An eager step, timed."""
        trial.begin()
        began = time.perf_counter()
        done = super().__call__(batches, factors, measure)
        if batches[0].inputs.is_cuda:
            torch.cuda.synchronize()
        self._left -= done
        if done:
            trial.note(time.perf_counter() - began)
        return done

    def _go_on(self, batches: Sequence[Batch], factors: Sequence[float], measure: bool) -> int:
        """An eager step, in which the optimizer makes what it keeps."""
        done = super().__call__(batches, factors, measure)
        if done:
            self._anew = False
            self._follow()
        return done

    def _follow(self) -> None:
        """Has the engine work on the state that was loaded; one that cannot is made anew when it is next
        needed."""
        try:
            self._engine.renew()
        except UntraceableError:
            self._engine.release()
            self._one_by_one()

    def _one_by_one(self) -> None:
        self._engine, self.name, self.reach = Engine(self.step), Engine.name, Engine.reach

    def _choose(self, trial: Trial, like: Batch) -> None:
        if self._threads and self._choice.threads is None:
            self._choice.threads = trial.threads
        if told := str(trial):
            self._say(f"{told}.")
        kind = self._wanted
        if kind == "auto":
            kind = _BY_DEVICE.get(like.inputs.device.type, "eager")
        self._make(kind, like, trial.seconds if trial.over else math.inf)
        self._trial = None

    def _make(self, kind: str, like: Batch, seconds: float) -> None:
        """Takes another engine, where there is one that pays."""
        asked = self._wanted != "auto" or self._choice.engine is not None
        found = None
        if kind != "eager" and self._samples is not None:
            prospect = Prospect(self.step, like, seconds, self._left, asked, self._facts)
            found = faster(prospect, kind, self._say, self._interruptible)
        elif kind != "eager" and asked:
            self._say("Steps are done one by one by torch's operations: batches have many shapes.")
        if found is not None:
            self._engine, self.name = found, found.name
        self._choice.engine = self.name
        self._kept = asdict(self._choice)


def _unheard(_: str) -> None:
    pass
