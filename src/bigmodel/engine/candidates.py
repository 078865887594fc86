"""Faster engines: made where they pay, tried before they are trusted."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bigmodel.data.base import Batch
from bigmodel.engine import cache
from bigmodel.engine.base import Interruptible, Say
from bigmodel.engine.cache import Place
from bigmodel.engine.compiled import Code, Compiled
from bigmodel.engine.cuda_graph import Graphed
from bigmodel.engine.fixed_shape import Pieces, given
from bigmodel.engine.functional_step import Given, UntraceableError, Whole
from bigmodel.engine.step import Step
from bigmodel.engine.verification import judged, unchanged
from bigmodel.errors import DeviceError
from bigmodel.runtime import activity, caches

_LOADING, _TRIED = 0.1, 7
"""What a faster engine costs that need not be compiled: seconds, and steps of its trial."""

_OVERHEAD = 40e-6
"""Seconds a step that torch's operations take for each weight, whatever its size, as seen on several
networks: what a compiled step can spare."""

_RISK, _SMALL_RISK = 0.02, 0.1
"""Share of a run that may be spent on a step whose gain is not known beforehand: to compile it; and to
try what is there already. Where it was for nothing, that is noted."""

_GAIN = 0.95
"""Share of the eager step's time that a faster one may take at most."""


@dataclass
class Prospect:
    """A run's steps, as far as they bear on whether a faster engine pays.

    Attributes:
        step: what is to be done faster.
        like: a batch like those to come.
        seconds: what an eager step takes.
        left: steps that are still to be done.
        asked: whether the user has asked for this engine, so that it need not pay.
        facts: see `cache.place_of`.
    """

    step: Step
    like: Batch
    seconds: float
    left: int
    asked: bool
    facts: dict[str, Any] | None

    @property
    def example(self) -> Given:
        """What such a step is given."""
        return given(self.like, self.step)

    @property
    def worth_a_trial(self) -> bool:
        """Whether a faster engine would pay that is there already, or as good as there."""
        return self._pays(_LOADING + _TRIED * self.seconds, _SMALL_RISK)

    def worth_compiling(self, price: float) -> bool:
        """Whether it would pay if it has to be compiled, which takes so many seconds."""
        return self._pays(price, _RISK)

    def _pays(self, price: float, risk: float) -> bool:
        weights = sum(len(group["params"]) for group in self.step.optimizer.param_groups)
        spared = self.left * min(0.85 * self.seconds, _OVERHEAD * weights)
        return self.asked or spared > 1.5 * price or price < risk * self.left * self.seconds


def faster(prospect: Prospect, kind: str, say: Say, interruptible: Interruptible) -> Pieces | None:
    """A faster engine than the eager one; None where there is none, or it would not pay.

    Args:
        kind: `compiled` or `graph`.
        say, interruptible: see `Engine.begin`.
    """
    if not prospect.worth_a_trial:
        return None
    try:
        if len(prospect.like) > prospect.step.accumulation.micro_batch:
            raise UntraceableError("batches go through the model in pieces")
        whole = Whole(prospect.step)
        if not (prospect.asked or (prospect.facts is not None and cache.is_ours(prospect.step))):
            raise UntraceableError(
                "parts of it are your own, and what they decide in Python would be decided once for"
                f" all. Say device.engine={kind} if they decide nothing"
            )
        if kind == "graph":
            return _trusted(_captured(prospect, whole), prospect, whole, None, say)
        place = cache.place_of(prospect.step, whole, prospect.example, prospect.facts)
        if place is not None and place.slow and not prospect.asked:
            say(
                f"Steps are done one by one: when they were compiled before, they gave {place.slow}."
                " device.engine=compiled tries again."
            )
            return None
        code = _code(prospect, whole, place, say, interruptible)
        if code is None:
            return None
        engine = Compiled(prospect.step, whole, code, prospect.like)
        return _trusted(engine, prospect, whole, place, say)
    except DeviceError:  # one that cannot be used any more
        raise
    except Exception as error:  # whatever a compiler or a driver says: the run goes on without
        lines = str(error).strip().splitlines() or [""]
        told = lines[0] if isinstance(error, UntraceableError) else f"{type(error).__name__}: {lines[0]}"
        say(f"Steps are done one by one by torch's operations: {told}.")
        return None


def _code(
    prospect: Prospect, whole: Whole, place: Place | None, say: Say, interruptible: Interruptible
) -> Code | None:
    """The compiled step, from the cache or new; None where making it would not pay."""
    from bigmodel.engine.compiler import compile_whole, lacking, load

    device = prospect.like.inputs.device
    if place is not None and place.found:
        place.touch()
        try:
            return load(place.code, device)
        except RuntimeError:  # made with other libraries than there are now
            place.remove()
    price = _price(whole)
    if not prospect.worth_compiling(price):
        return None
    if why := lacking():
        raise UntraceableError(why)
    for refusal in caches.refusals():
        say(refusal)
    say(f"Compiling the step, which takes some {price:.0f} seconds.")
    with tempfile.TemporaryDirectory() as folder, activity.report_progress("Compiling the step"):
        library = Path(folder) / "step.so" if place is None else place.code
        compile_whole(whole, prospect.example, library, interruptible)
        if place is not None:
            place.seal()
        return load(library, device)


def _captured(prospect: Prospect, whole: Whole) -> Graphed:
    """The step as a CUDA graph, which leaves everything as it was."""
    graphed = Graphed(prospect.step, prospect.like)
    with unchanged(prospect.step, whole):
        graphed.warm_up()
    graphed.capture()
    return graphed


def _trusted(
    engine: Pieces, prospect: Prospect, whole: Whole, place: Place | None, say: Say
) -> Pieces | None:
    """The engine, where it does what it should, and is faster."""
    verdict = judged(engine, prospect.like, whole)
    eager, fast = (f"{1000 * seconds:.3g} ms" for seconds in (verdict.eager, verdict.seconds))
    why = verdict.fault
    if why is None and not prospect.asked and verdict.seconds > _GAIN * verdict.eager:
        why = f"{fast} a step, which is no gain over {eager}"
    if why is None:
        say(f"A step takes {fast} ({engine.name}) instead of {eager}.")
        engine.pace(verdict.seconds)
        return engine
    engine.release()
    if place is not None:
        place.note_slow(why)
    say(f"Steps are done one by one by torch's operations: {engine.name}, they gave {why}.")
    return None


def _price(whole: Whole) -> float:
    """Seconds that compiling takes, by what was seen with networks of 4 to 60 weights."""
    return 10.0 + 0.5 * len(whole.weights)
