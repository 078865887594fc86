"""`profile=true`: a few steps of a run under torch's profiler, and where their time went.

The run goes on as it would without: its steps are looked at, and nothing of what they compute changes.
"""

from __future__ import annotations

import contextlib
import functools
import statistics
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, NamedTuple

import torch
from torch.autograd.profiler import record_function

from bigmodel.data.base import Batch
from bigmodel.engine.base import Engine
from bigmodel.reporting.lines import shown_path
from bigmodel.training.plan import Plan
from bigmodel.training.run import Run
from bigmodel.training.trace import CALL, STEP, Breakdown, breakdown, silent, table, written

FOLDER, NAME = "profile", "trace.json.gz"

WARM_UP = 20
"""Steps before anything is looked at: the first ones take memory, and choose kernels and an engine."""

SETTLING = 2
"""Steps under the profiler that are not counted: it has a start of its own."""

STEPS = 20
"""Steps that are looked at; fewer where something is due before, such as an evaluation."""

LEAST = 5
"""Steps of a run, or between two evaluations, that are worth a look."""

MARKED = {"_forward": "forward", "_backward": "backward", "_update": "optimizer"}
"""Methods of a step, and the phase that each of them is. One that a step lacks has no mark."""


class Window(NamedTuple):
    """The steps to look at: how many are done before the first of them, and how many they are."""

    begin: int
    size: int


def window(plan: Plan, done: int) -> Window | None:
    """Chooses the steps to look at: without an evaluation or a save among them, if that can be.

    Args:
        plan: of the run.
        done: steps that are done already.

    Returns:
        None where too few are left.
    """
    left = plan.steps - done
    if left < LEAST:
        return None
    if left <= WARM_UP + STEPS:
        return Window(done + left // 2, left - left // 2 - 1)  # the last step ends with an evaluation
    begin = done + WARM_UP
    following = plan.next_event(begin)
    for start in (begin, following):
        quiet = plan.next_event(start) - start - 1
        if quiet >= STEPS or (start == following and quiet >= LEAST):
            return Window(start, min(quiet, STEPS))
    return Window(begin, STEPS)


@contextlib.contextmanager
def profiling(run: Run) -> Iterator[None]:
    """Looks at a few of the steps that are taken within, where the run wants it, and tells the user.

    Where an error ends them, what was seen is thrown away: saving comes first.
    """
    if not run.profiled or run.over:
        yield
        return
    chosen = window(run.plan, run.state.progress.step)
    if chosen is None:
        run.sinks.message(f"profile=true: fewer than {LEAST} steps are left, too few for a look.")
        yield
        return
    look, feed, engine = _Look(run, chosen), run.feed, run.engine
    run.feed, run.engine = look.feed, _Watched(engine, look)
    try:
        yield
    except BaseException:
        look.discard()
        raise
    else:
        look.end()
    finally:
        run.feed, run.engine = feed, engine


class _Watched(Engine):
    """A run's engine, in calls that end where a look begins and where it ends."""

    def __init__(self, engine: Engine, look: _Look) -> None:
        super().__init__(engine.step)
        self._engine, self._look = engine, look

    @property
    def reach(self) -> int:  # type: ignore[override]
        """See `Engine`."""
        return min(self._engine.reach, self._look.steps_to_change())

    def __call__(self, batches: Sequence[Batch], factors: Sequence[float], measure: bool) -> int:
        """See `Engine.__call__`."""
        self._look.turn()
        with self._look.mark(CALL):
            return self._engine(batches, factors, measure)

    def release(self) -> bool:
        """See `Engine.release`."""
        return self._engine.release()

    def renew(self) -> None:
        """See `Engine.renew`."""
        self._engine.renew()


class _Look:
    """One look at a run's steps: waits for them, records them, and reports.

    Args:
        run: its step gets marks while it is recorded, and loses them afterwards.
        chosen: the steps to look at.
    """

    def __init__(self, run: Run, chosen: Window) -> None:
        self._run, self._engine = run, run.engine
        self._kind = run.engine.name
        self._first, self._last = chosen.begin, chosen.begin + chosen.size
        self._open_at = max(run.state.progress.step, chosen.begin - SETTLING)
        self._profiler: Any = None
        self._over = False
        self._seen: list[int] = []  # steps done at the beginning and at the end of what was recorded
        self._mark: AbstractContextManager[Any] | None = None  # around what is under way
        self._waited = 0.0
        self._at, self._began = -1, 0.0  # steps done, and the time, at the newest turn
        self._paces: deque[float] = deque(maxlen=9)  # seconds of a step without the profiler

    def feed(self, blocks: Iterator[list[Batch]]) -> Iterator[list[Batch]]:
        """The same batches, with a mark around what it takes to get them."""
        blocks = iter(blocks)
        while True:
            self.turn()
            try:
                block = self._next(blocks)
            except StopIteration:
                return
            yield block

    def turn(self) -> None:
        """Between two steps: begins to record, to count, and ends, each when its time has come."""
        if self._over or self._done == self._at:
            return
        self._leave()
        now, before, self._at = time.perf_counter(), self._at, self._done
        if self._kind != self._engine.name:  # another one was chosen
            self._kind = self._engine.name
            self._paces.clear()
        elif self._profiler is None and before >= 0 and self._at < self._run.plan.next_event(before):
            self._paces.append((now - self._began) / (self._at - before))
        if self._at >= self._last:
            self.end()
            return
        if self._profiler is None and self._at >= self._open_at:
            self._open()
        if not self._seen and self._at >= self._first:
            self._wait()
            self._seen = [self._at, self._at]
        if self._seen:
            self._mark = record_function(STEP)
            self._mark.__enter__()  # type: ignore[no-untyped-call]
        self._began = time.perf_counter()

    def steps_to_change(self) -> int:
        """After how many steps there is something to do; without end once the look is over."""
        ahead = [at - self._done for at in (self._open_at, self._first, self._last)]
        return min((steps for steps in ahead if steps > 0), default=sys.maxsize)

    def mark(self, name: str) -> AbstractContextManager[Any]:
        """A mark in the trace, where there is one."""
        return record_function(name) if self._seen and not self._over else nullcontext()

    def end(self) -> None:
        """Ends the recording, writes the trace and tells what it says; once."""
        if self._over:
            return
        self._leave()
        self._over = True
        if not self._close():
            self._run.sinks.message("profile=true: training ended before the steps to look at.")
            return
        try:
            self._report()
        except (OSError, RuntimeError, ValueError) as error:
            self._run.sinks.message(f"profile=true: no trace was written: {error}", "warning")
        finally:
            self._profiler = None
            self._run.watch.resume()  # the speed of training is without all this

    def discard(self) -> None:
        """Ends the recording and keeps nothing of it."""
        if not self._over:
            self._leave()
            self._over = True
            self._close()
            self._run.sinks.message("profile=true: no trace was written, as the steps were broken off.")

    @property
    def _done(self) -> int:
        return self._run.state.progress.step

    def _leave(self) -> None:
        """Ends the mark around what was done since the newest turn, and counts its steps."""
        if self._mark is None:
            return
        self._seen[1] = self._done
        if self._done >= self._last or self._run.over:
            self._wait()
        self._mark.__exit__(None, None, None)
        self._mark = None

    def _open(self) -> None:
        from torch.profiler import ProfilerActivity, profile

        activities = [ProfilerActivity.CPU]
        if self._run.runtime.device.type == "cuda":
            activities.append(ProfilerActivity.CUDA)
        self._profiler = profile(activities=activities)
        with silent():
            self._profiler.start()
        for method, name in MARKED.items():
            if hasattr(self._run.step, method):
                setattr(self._run.step, method, _marked(getattr(self._run.step, method), name))

    def _close(self) -> bool:
        """Ends the recording and takes the marks away; whether there was anything to look at."""
        if self._profiler is None:
            return False
        for method in MARKED:
            vars(self._run.step).pop(method, None)
        with silent():
            self._profiler.stop()
        return bool(self._seen) and self._seen[1] > self._seen[0]

    def _next(self, blocks: Iterator[list[Batch]]) -> list[Batch]:
        """More batches; counts the time in which the process did nothing but wait for them."""
        if not self._seen or self._over:
            return next(blocks)
        with record_function("data"):
            began, busy = time.perf_counter(), time.thread_time()
            try:
                return next(blocks)
            finally:
                busy = time.thread_time() - busy
                self._waited += max(0.0, time.perf_counter() - began - busy)

    def _wait(self) -> None:
        """For a device to do all that it was given, so that each kernel falls into its own step."""
        if self._run.runtime.device.type == "cuda":
            torch.cuda.synchronize()

    def _report(self) -> None:
        path = self._run.info.folder / FOLDER / NAME
        first, last = self._seen
        if self._run.saver.place is not None:
            self._run.saver.place.check()  # or the folder would be made anew
        found = breakdown(written(self._profiler, path), last - first, self._waited)
        if found is not None:
            told = f"Profile of steps {first + 1:,} to {last:,}, {self._pace(found)}:"
            self._run.sinks.message(f"{told}\n{table(found)}")
        self._run.sinks.message(f"Trace: {shown_path(path)} (for Perfetto or chrome://tracing)")

    def _pace(self, found: Breakdown) -> str:
        """How long a step took; beside it, how long without the profiler, which itself takes time.

        Not on a device, which works on when the host has gone on to the next step.
        """
        told = f"{found.ms:.3f} ms each"
        if not self._paces or self._run.runtime.device.type != "cpu":
            return told
        return f"{told} ({1e3 * statistics.median(self._paces):.3f} ms without the profiler)"


def _marked(method: Callable[..., Any], name: str) -> Callable[..., Any]:
    @functools.wraps(method)
    def within(*args: Any, **kwargs: Any) -> Any:
        with record_function(name):
            return method(*args, **kwargs)

    return within
