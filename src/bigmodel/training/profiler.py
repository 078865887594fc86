"""`profile=true`: a few steps of a run under torch's profiler, and where their time went.

Profiled steps compute the same as any others.
"""

from __future__ import annotations

import os
import statistics
import sys
import time
from collections import deque
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile, record_function, schedule

from bigmodel.data.base import Block
from bigmodel.engine.step import unmarked
from bigmodel.reporting.formatting import shown_path
from bigmodel.training.plan import Plan
from bigmodel.training.run import Run
from bigmodel.training.trace import breakdown, table

FOLDER, NAME = "profile", "trace.json.gz"

WARM_UP = 20
"""Steps before the recording: the first ones allocate memory, and choose kernels and an engine."""

SETTLING = 2
"""Steps under the profiler that are not recorded: its start takes time."""

STEPS = 20
"""Steps that are recorded; fewer if something is due before, such as an evaluation."""

LEAST = 5
"""Steps of a run, or between two evaluations, that are worth recording."""


def window(plan: Plan, done: int) -> range | None:
    """Chooses the steps to record: without an evaluation or a save among them, if possible.

    Args:
        plan: of the run.
        done: steps that are done already.

    Returns:
        The steps, from 0; None if too few are left.
    """
    left = plan.steps - done
    if left < LEAST:
        return None
    if left <= WARM_UP + STEPS:
        return range(done + left // 2, plan.steps - 1)  # the last step ends with an evaluation
    begin = done + WARM_UP
    following = plan.next_event(begin)
    for start in (begin, following):
        quiet = plan.next_event(start) - start - 1
        if quiet >= STEPS or (start == following and quiet >= LEAST):
            return range(start, start + min(quiet, STEPS))
    return range(begin, begin + STEPS)


class Profiler:
    """What the loop reports its steps to. This one profiles nothing.

    Attributes:
        steps_per_call: how many steps an engine may do before the next call of `step`.
    """

    steps_per_call = sys.maxsize

    def data(self, blocks: Iterator[Block]) -> Iterator[Block]:
        """The same batches; the time that it takes to get them is the phase `data`."""
        return blocks

    def step(self) -> None:
        """Called after steps, and after whatever was due after them."""

    def discard(self) -> None:
        """Ends the recording and writes nothing."""


@contextmanager
def profiling(run: Run) -> Iterator[Profiler]:
    """Records a few of the steps taken within if the run is to be profiled, and reports on them.

    If an error ends the steps, the recording is discarded: saving comes first.
    """
    if not run.profiled or run.over:
        yield Profiler()
        return
    chosen = window(run.plan, run.state.progress.step)
    if chosen is None:
        run.sinks.message(f"profile=true: fewer than {LEAST} steps are left, too few to profile.")
        yield Profiler()
        return
    profiler = _TorchProfiler(run, chosen)
    run.step.phase = profiler.phase
    try:
        yield profiler
    except BaseException:
        profiler.discard()
        raise
    else:
        profiler.finish()
    finally:
        run.step.phase = unmarked


class _TorchProfiler(Profiler):
    """Records the steps of a window, and reports as soon as they are done."""

    def __init__(self, run: Run, chosen: range) -> None:
        self._run = run
        self._begin, self._end = chosen.start, chosen.stop
        self._settle_at = chosen.start - SETTLING
        self._done = run.state.progress.step  # at the newest call of `step`
        self._over = False
        self._data_wait = 0.0  # seconds
        self._engine_name, self._since = run.engine.name, time.perf_counter()
        self._paces: deque[float] = deque(maxlen=9)  # seconds of a step without the profiler
        activities = [ProfilerActivity.CPU]
        if run.runtime.device.type == "cuda":
            activities.append(ProfilerActivity.CUDA)
        wait = self._settle_at - self._done
        steps = schedule(wait=wait, warmup=SETTLING, active=len(chosen), repeat=1)
        self._profile = profile(activities=activities, schedule=steps)
        with _silenced():
            self._profile.start()

    @property
    def steps_per_call(self) -> int:  # type: ignore[override]
        """See `Profiler`: a call of an engine ends where the recording begins or ends."""
        ahead = [at - self._done for at in (self._settle_at, self._begin, self._end)]
        return min((steps for steps in ahead if steps > 0), default=sys.maxsize)

    def phase(self, name: str) -> AbstractContextManager[Any]:
        """A mark in the trace; none before it begins, so that steps keep their pace until then."""
        recording = not self._over and self._run.state.progress.step >= self._settle_at
        return record_function(name) if recording else nullcontext()

    def data(self, blocks: Iterator[Block]) -> Iterator[Block]:
        """See `Profiler`. Also adds up how long this thread slept: it was waiting for batches then."""
        while True:
            with self.phase("data"):
                began, busy = time.perf_counter(), time.thread_time()
                block = next(blocks, None)
                busy = time.thread_time() - busy
                if self._begin <= self._run.state.progress.step < self._end:
                    self._data_wait += max(0.0, time.perf_counter() - began - busy)
            if block is None:
                return
            yield block

    def step(self) -> None:
        """See `Profiler`."""
        before, self._done = self._done, self._run.state.progress.step
        if self._over or self._done == before:
            return
        if self._done <= self._settle_at:
            self._measure_pace(before)
        changes = any(before < at <= self._done for at in (self._settle_at, self._begin, self._end))
        if changes:
            self._synchronize()
        with _silenced() if changes else nullcontext():
            for _ in range(self._done - before):
                self._profile.step()
        if self._done >= self._end:
            self._report()
        self._since = time.perf_counter()

    def finish(self) -> None:
        """Reports what was recorded if training ended within the window."""
        if self._over:
            return
        self._synchronize()
        self._stop()
        if self._run.state.progress.step > self._begin:
            self._report()
        else:
            self._run.sinks.message("profile=true: training ended before the steps to profile.")

    def discard(self) -> None:
        """See `Profiler`."""
        if not self._over:
            self._stop()
            self._run.sinks.message("profile=true: no trace was written, as training was interrupted.")

    def _stop(self) -> None:
        self._over = True
        with _silenced():
            self._profile.stop()

    def _measure_pace(self, before: int) -> None:
        if self._run.engine.name != self._engine_name:  # another engine was chosen
            self._engine_name = self._run.engine.name
            self._paces.clear()
        elif self._run.plan.next_event(before) > self._done:  # or an evaluation would count as well
            self._paces.append((time.perf_counter() - self._since) / (self._done - before))

    def _synchronize(self) -> None:
        """Waits for the device, so that each kernel falls into the step that launched it."""
        if self._run.runtime.device.type == "cuda":
            torch.cuda.synchronize()

    def _report(self) -> None:
        """Writes the trace and prints the table."""
        self._over = True
        sinks, path = self._run.sinks, self._run.info.folder / FOLDER / NAME
        steps = min(self._run.state.progress.step, self._end) - self._begin
        if self._run.saver.place is not None:
            self._run.saver.place.check()  # or a folder that was moved away would be created again
        partial = path.with_name(f".{os.getpid()}.{NAME}")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with _silenced():
                self._profile.export_chrome_trace(str(partial))
            partial.replace(path)
        except (OSError, RuntimeError) as error:
            sinks.message(f"profile=true: no trace was written: {error}", "warning")
            return
        finally:
            with suppress(OSError):
                partial.unlink()
            self._run.watch.resume()  # the profiler's own work does not count for the speed of training
        events = self._profile.events()  # type: ignore[no-untyped-call]
        result = breakdown(events, self._profile.key_averages(), steps, self._data_wait)
        del self._profile  # frees the memory of its events
        if result is not None:
            pace = f"{result.ms:.3f} ms each{self._pace_without()}"
            heading = f"Profile of steps {self._begin + 1:,} to {self._begin + steps:,}, {pace}:"
            sinks.message(f"{heading}\n{table(result)}")
        sinks.message(f"Trace: {shown_path(path)} (for Perfetto or chrome://tracing)")

    def _pace_without(self) -> str:
        """How long a step took without the profiler, which itself takes time.

        Empty for a GPU, which may still work on one step when the host starts the next.
        """
        if not self._paces or self._run.runtime.device.type != "cpu":
            return ""
        return f" ({1e3 * statistics.median(self._paces):.3f} ms without the profiler)"


@contextmanager
def _silenced() -> Iterator[None]:
    """Keeps torch's profiler from writing lines of its own to standard error, over the progress bar."""
    try:
        stderr = os.dup(2)
    except OSError:  # there is no standard error
        yield
        return
    try:
        with Path(os.devnull).open("wb") as nothing:
            os.dup2(nothing.fileno(), 2)
        yield
    finally:
        os.dup2(stderr, 2)
        os.close(stderr)
