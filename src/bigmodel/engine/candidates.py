"""Builds a faster engine if that pays off, and verifies it before it is used."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bigmodel.data.base import Batch
from bigmodel.engine import cache
from bigmodel.engine import compiler as inductor
from bigmodel.engine.base import Interruptible, Log
from bigmodel.engine.cache import CacheEntry
from bigmodel.engine.compiled import Compiler, UnknownOperationError
from bigmodel.engine.cuda_graph import GraphEngine
from bigmodel.engine.fixed_shape import FixedShapeEngine, step_inputs
from bigmodel.engine.functional_step import FunctionalStep, UntraceableError
from bigmodel.engine.step import Step
from bigmodel.engine.verification import state_restored, verify
from bigmodel.errors import DeviceError, counted, first_line
from bigmodel.runtime import caches, torch_internals
from bigmodel.runtime.progress_messages import report_progress

_LOAD_SECONDS, _TRIAL_STEPS = 0.1, 7
"""The cost of a faster engine without compiling: seconds to load it, and steps to verify it."""

_OVERHEAD = 40e-6
"""Seconds of a step that torch's operations take for each weight tensor, whatever its size, as measured
on several networks: what a compiled step can save."""

_COMPILE_RISK, _TRIAL_RISK = 0.02, 0.1
"""The largest share of a run to spend on compiling a step whose gain is unknown, and on verifying one
that is compiled already. If it is not faster, the cache notes that."""

_MAX_RATIO = 0.95
"""A faster engine's step takes at most this share of the eager step's time."""


@dataclass(frozen=True)
class CompileCandidate:
    """A step, and what decides whether a faster engine for it pays off.

    Attributes:
        step: the step to make faster.
        example: a batch like those to come.
        eager_seconds: time of an eager step.
        remaining_steps: optimizer steps that are left.
        is_required: whether the user asked for this engine, so that it need not pay off.
        facts: see `cache.find_entry`.
        compiler: what compiled the run's steps before a resume; None: nothing, or that is not known.
    """

    step: Step
    example: Batch
    eager_seconds: float
    remaining_steps: int
    is_required: bool
    facts: dict[str, Any] | None
    compiler: str | None = None

    @property
    def is_worth_a_trial(self) -> bool:
        """Whether an engine that needs no compiling would pay off."""
        return self._pays(_LOAD_SECONDS + _TRIAL_STEPS * self.eager_seconds, _TRIAL_RISK)

    def is_worth_compiling(self, seconds: float, share: float = 0.0) -> bool:
        """Whether an engine that takes so many seconds to compile would pay off.

        Args:
            share: of an eager step's time that it saves at least.
        """
        return self._pays(seconds, _COMPILE_RISK, share)

    def _pays(self, cost: float, risk: float, share: float = 0.0) -> bool:
        weights = sum(len(group["params"]) for group in self.step.optimizer.param_groups)
        overhead = min(0.85 * self.eager_seconds, _OVERHEAD * weights)
        saved = self.remaining_steps * max(overhead, share * self.eager_seconds)
        affordable = risk * self.remaining_steps * self.eager_seconds
        return self.is_required or saved > 1.5 * cost or cost < affordable


def select_engine(
    candidate: CompileCandidate, kind: str, log: Log, interruptible: Interruptible
) -> FixedShapeEngine | None:
    """A faster engine than the eager one; None if there is none or it would not pay off.

    Args:
        kind: `compiled` or `graph`.
        log, interruptible: see `Engine.start`.
    """
    if not candidate.is_worth_a_trial:
        return None
    try:
        if len(candidate.example) > candidate.step.accumulation.micro_batch:
            raise UntraceableError("batches go through the model in pieces")
        function = FunctionalStep(candidate.step)
        is_known = candidate.facts is not None and cache.is_builtin(candidate.step)
        if not (candidate.is_required or is_known):
            raise UntraceableError(
                "the run uses parts of your own, whose Python control flow would be recorded once. Set "
                f"device.engine={kind} if they have none"
            )
        if kind == "graph":
            return _verified(_capture(candidate, function), candidate, function, None, log)
        return _compiled(candidate, function, log, interruptible)
    except DeviceError:  # the device cannot be used any more, by eager steps either
        raise
    except Exception as error:  # whatever a compiler or a driver raises: eager steps still work
        is_expected = isinstance(error, UntraceableError | torch_internals.MissingPartError)
        reason = first_line(error) if is_expected else f"{type(error).__name__}: {first_line(error)}"
        log(f"Steps run eagerly: {reason}.")
        return None


def _compiled(
    candidate: CompileCandidate, function: FunctionalStep, log: Log, interruptible: Interruptible
) -> FixedShapeEngine | None:
    """The step by the first of the compilers that can have it; None if it would not pay off."""
    example = step_inputs(candidate.example, candidate.step)
    compilers = [c for c in _compilers() if c.accepts(function, example)]
    # A resumed run goes on with the same code, to the same bits.
    compilers = [c for c in compilers if candidate.compiler == c.NAME] or compilers
    for compiler in compilers:
        entry = cache.find_entry(candidate.step, function, example, candidate.facts, compiler.NAME)
        is_last = compiler is compilers[-1]
        if entry is not None and entry.slow and not (candidate.is_required and is_last):
            if is_last:
                log(
                    f"Steps run eagerly; compiled before: {entry.slow}."
                    " device.engine=compiled tries again."
                )
            continue
        try:
            engine = _load_or_compile(compiler, candidate, function, entry, log, interruptible)
        except UnknownOperationError as error:
            if entry is not None:
                entry.note_slow(f"{error} is not known")
            continue
        except (DeviceError, UntraceableError, torch_internals.MissingPartError, OSError):
            raise  # the others would fail, too
        except Exception as error:  # such as a C++ compiler that does not take its flags
            if is_last:
                raise
            log(f"The {compiler.NAME} compiler failed ({first_line(error)}); another is tried.")
            continue
        instead = "Steps run eagerly" if is_last else "Another compiler may do better"
        if engine and (found := _verified(engine, candidate, function, entry, log, instead)):
            return found
    return None


def _compilers() -> tuple[Compiler, ...]:
    """The quick one first: what it does not know is left to the other."""
    from bigmodel.engine.native import compiler as native  # takes a fifth of a second

    return native, inductor


def _load_or_compile(
    compiler: Compiler,
    candidate: CompileCandidate,
    function: FunctionalStep,
    entry: CacheEntry | None,
    log: Log,
    interruptible: Interruptible,
) -> FixedShapeEngine | None:
    """An engine of the compiled step, from the cache or new; None if compiling would not pay off."""
    torch_internals.check_compiles()
    step, example = candidate.step, candidate.example
    if entry is not None and entry.is_complete:
        entry.touch()
        try:
            return compiler.load(entry.library, step, example)
        except (OSError, RuntimeError):  # linked against libraries that have changed since
            entry.remove()
    seconds = compiler.estimate(function)
    if not candidate.is_worth_compiling(seconds, compiler.share_saved(function)):
        return None
    if reason := inductor.missing_compiler():
        raise UntraceableError(reason)
    for refusal in caches.refusals():
        log(refusal)

    def begin() -> None:
        log(f"Compiling the step takes about {counted(round(seconds), 'second')}.")

    with tempfile.TemporaryDirectory() as folder, report_progress("Compiling the step"):
        library = Path(folder) / "step.so" if entry is None else entry.library
        compiler.compile_step(function, step_inputs(example, step), library, begin, interruptible)
        if entry is not None:
            entry.seal()
        return compiler.load(library, step, example)


def _capture(candidate: CompileCandidate, function: FunctionalStep) -> GraphEngine:
    engine = GraphEngine(candidate.step, candidate.example)
    with state_restored(candidate.step, function):
        engine.warm_up()
    engine.capture()
    return engine


def _verified(
    engine: FixedShapeEngine,
    candidate: CompileCandidate,
    function: FunctionalStep,
    entry: CacheEntry | None,
    log: Log,
    instead: str = "Steps run eagerly",
) -> FixedShapeEngine | None:
    """The engine if it computes what the eager step computes, and is faster; else None.

    Args:
        instead: what is said to come otherwise.
    """
    result = verify(engine, candidate.example, function)
    eager, fast = (f"{1000 * seconds:.3g} ms" for seconds in (result.eager_seconds, result.seconds))
    reason = result.fault
    is_faster = result.seconds <= _MAX_RATIO * result.eager_seconds
    if reason is None and not candidate.is_required and not is_faster:
        reason = f"{fast} per step, not faster than {eager}"
    if reason is None:
        log(f"A step takes {fast} ({engine.name}) instead of {eager}.")
        engine.set_step_time(result.seconds)
        return engine
    engine.release()
    if entry is not None:
        entry.note_slow(reason)
    log(f"{instead}; {engine.name}: {reason}.")
    return None
