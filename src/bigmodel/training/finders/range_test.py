"""The learning rate range test (Smith 2017, arXiv:1506.01186): a few steps at rates from far too small
to far too large, and which rate to take from their losses."""

from __future__ import annotations

import math
from collections.abc import Generator, Sequence
from contextlib import closing
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from bigmodel.data.base import Batch
from bigmodel.engine.base import Engine
from bigmodel.errors import ConfigError, NonFiniteError, counted
from bigmodel.runtime.progress_messages import report_progress
from bigmodel.training.finders.kept_state import state_kept
from bigmodel.training.recovery import use_less_memory
from bigmodel.training.run import Run

LOWEST, HIGHEST, PER_DECADE = 1e-6, 10.0, 15
"""The rates of the test, evenly spaced on a logarithmic scale."""

_WIDTH = 0.2
"""Deviation of the Gaussian that smooths the losses, in decades: some three points to each side."""

_DIVERGED = 0.5
"""Losses that have risen above the first ones by this share of them, or of what was gained before, end
the test."""

_FEW, _ROW = 5, 3
"""Losses that make up the first ones, and the last ones; and how many in a row have to be NaN."""

_FELL = 0.02
"""The share of its first value by which the loss has to fall for a rate to be suggested."""

_SAFETY, _REACHED = 2.0, 0.9
"""How far to stay below the rate of the lowest loss, and the share of the fall that is most of it; see
`suggest`."""

_ONCE = 1e-3
"""The rate with which it is found out which groups follow `optimizer.lr`."""


@dataclass(frozen=True)
class RangeTest:
    """The outcome of a range test.

    Attributes:
        rates: of each step, increasing.
        losses: of the batch after each of these steps, so that it tells what the rate did.
        smoothed: the same without most of the batches' noise.
        rate: the suggested one, to two digits; None if the loss did not fall.
        diverged: whether the test ended because the loss had risen.
    """

    rates: list[float]
    losses: list[float]
    smoothed: list[float]
    rate: float | None
    diverged: bool

    def __str__(self) -> str:
        """What was done, as a sentence without full stop."""
        first, last = self.rates[0], self.rates[-1]
        done = f"{counted(len(self.rates), 'step')} at rates from {first:.1g} to {last:.2g}"
        lowest = self.rates[int(np.argmin(self.smoothed))]
        end = ", where it diverged" if self.diverged else ""
        return f"{done}{end}; the loss was lowest at {lowest:.2g}"


def range_test(run: Run) -> RangeTest:
    """Raises the learning rate from step to step, eagerly, until the loss diverges.

    Nothing of the run is changed. Batches are those of the run's first epochs, over and over if they are
    few. Of several ranks all call this at the same time, and get the same.

    Raises:
        ConfigError: the optimizer has no learning rate that `optimizer.lr` sets.
        DeviceError: memory ran out, and no less can be used.
        NonFiniteError: the loss is NaN or infinite at the lowest rates already.
        Stopped: the process was asked to stop.
    """
    rates = _rates()
    groups = _Groups(run)
    losses: list[float] = []
    doing = lambda: f"Range test of the learning rate, step {len(losses):,} of {len(rates):,}"  # noqa: E731
    with report_progress(doing), state_kept(run.step), closing(_batches(run)) as batches:
        for rate in rates:
            groups.set(rate)
            losses.append(_loss_of_step(run, next(batches)))
            if has_diverged(losses):
                break
    diverged = len(losses) < len(rates)
    # A loss is that of the weights before its step: it belongs to the rate of the step before.
    pairs = [(rate, loss) for rate, loss in zip(rates, losses[1:], strict=False) if math.isfinite(loss)]
    if len(pairs) < 2:
        raise NonFiniteError(
            f"The loss is NaN or infinite from the first steps on, at a learning rate of {LOWEST:g}: the"
            " data or the loss is at fault, and not the rate.",
            1,
        )
    used, after = map(list, zip(*pairs, strict=True))
    smoothed = smooth(used, after)
    return run.ranks.from_first(RangeTest(used, after, smoothed, suggest(used, smoothed), diverged))


def choose_rate(run: Run) -> None:
    """Finds the learning rate of a run that is about to start, and keeps it in its progress.

    Raises:
        ConfigError, DeviceError, Stopped: see `range_test`.
    """
    test = range_test(run)
    run.watch.resume()  # or the first record's speed would count it
    progress, key = run.state.progress, "optimizer.lr=auto"
    if test.rate is None:
        progress.learning_rate = run.default_rate
        use_rate(run, run.default_rate)
        run.sinks.message(
            f"{key}: no rate can be suggested, since the loss did not fall ({test}). The default,"
            f" {progress.learning_rate:g}, is used.",
            "warning",
        )
        return
    progress.learning_rate = test.rate
    before = _decay(run)
    use_rate(run, test.rate)
    decay = f", weight decay {_decay(run):.3g}" if _decay(run) != before else ""
    run.sinks.message(f"{key}: {test.rate:g}{decay}, by a range test ({test}).")


def _decay(run: Run) -> float:
    return max(float(g.get("weight_decay", 0.0)) for g in run.step.optimizer.param_groups)


def use_rate(run: Run, rate: float) -> None:
    """Gives the optimizer's groups the learning rate that they have with `optimizer.lr` of that value,
    and what follows from it. All else stays: a user's own optimizer may count in its groups."""
    groups = zip(
        run.step.optimizer.param_groups, run.options_at(rate), run.options_at(2 * rate), strict=True
    )
    for group, own, other in groups:
        base = float(own.pop("lr"))
        # A decay may follow from the length of a resumed run as well.
        group.update({k: v for k, v in own.items() if k == "weight_decay" or v != other[k]})
        if group.get("initial_lr", group["lr"]) != base:
            _set(group, base)
            if "initial_lr" in group:
                group["initial_lr"] = base


def smooth(rates: Sequence[float], losses: Sequence[float]) -> list[float]:
    """Means of the losses around each rate, weighted by a Gaussian over the rate's logarithm: unlike a
    running mean, it lags behind in neither direction."""
    x = np.log10(rates)
    weights = np.exp(-0.5 * ((x[:, None] - x[None, :]) / _WIDTH) ** 2)
    # A loss of 1e28 at the end would reach far into the rest.
    clipped = np.minimum(losses, _limit(losses))
    found: list[float] = (weights @ clipped / weights.sum(axis=1)).tolist()
    return found


def suggest(rates: Sequence[float], smoothed: Sequence[float]) -> float | None:
    """The rate to train with, to two digits; None if the loss did not fall.

    It is half of that of the lowest loss, beyond which the loss rises; or, if that is less, the one at
    which most of the fall is behind: a long flat valley says little about where in it to be. On a dozen
    combinations of model, data and optimizer, runs with such rates became better than with the rate of
    the steepest fall, with a tenth of the lowest loss's, or with fastai's `valley`, which are all lower.
    """
    s: NDArray[np.float64] = np.asarray(smoothed)
    lowest = int(np.argmin(s))
    fall = s[0] - s[lowest]
    if fall <= _FELL * abs(s[0]):
        return None
    reached = int(np.argmax(s[: lowest + 1] <= s[0] - _REACHED * fall))
    return float(f"{min(rates[reached], rates[lowest] / _SAFETY):.2g}")


def has_diverged(losses: Sequence[float]) -> bool:
    """Whether the last few losses are far above the first ones, which weights at the start have, or not
    finite. A single one may be a bad batch, which a run can skip."""
    if len(losses) >= _ROW and not any(map(math.isfinite, losses[-_ROW:])):
        return True
    losses = [loss for loss in losses if math.isfinite(loss)]
    return len(losses) >= 3 * _FEW and float(np.median(losses[-_FEW:])) > _limit(losses)


def _limit(losses: Sequence[float]) -> float:
    first = float(np.mean(losses[:_FEW]))
    return first + _DIVERGED * max(abs(first), first - min(losses))


def _rates() -> list[float]:
    count = round(PER_DECADE * math.log10(HIGHEST / LOWEST)) + 1
    rates: list[float] = np.geomspace(LOWEST, HIGHEST, count).tolist()
    return rates


def _batches(run: Run) -> Generator[Batch]:
    epoch = 0
    while True:
        with closing(run.train.epoch(epoch, between=run.signals.check)) as batches:
            yield from batches
        epoch += 1


def _loss_of_step(run: Run, batch: Batch) -> float:
    while True:
        try:
            done = run.step(batch)
        except RuntimeError as error:
            run.sinks.message(use_less_memory(Engine(run.step), error, run.config.on_oom), "warning")
            continue
        run.watch.agree()
        run.signals.check()
        if done:
            (metrics,) = run.step.drain()
            # In fp16 a gradient overflows now and then without harm: the loss tells.
            return metrics.loss if metrics.updated or run.step.scaler is not None else math.inf


class _Groups:
    """The optimizer's parameter groups, of which some follow `optimizer.lr`, and others need not.

    Raises:
        ConfigError: none does.
    """

    def __init__(self, run: Run) -> None:
        self._groups = run.step.optimizer.param_groups
        self._once, twice = (
            [float(options["lr"]) for options in run.options_at(rate)] for rate in (_ONCE, 2 * _ONCE)
        )
        self._follows = [a != b for a, b in zip(self._once, twice, strict=True)]
        if not any(self._follows):
            name = run.settings["optimizer"]["name"]
            raise ConfigError(
                f"optimizer.lr: optimizer={name} has no learning rate that this setting changes. Set its"
                " own rate instead."
            )

    def set(self, rate: float) -> None:
        """Sets the rates that the groups have with `optimizer.lr` of that value."""
        for group, once, follows in zip(self._groups, self._once, self._follows, strict=True):
            _set(group, once * rate / _ONCE if follows else once)


def _set(group: dict[str, object], rate: float) -> None:
    if isinstance(held := group["lr"], Tensor):
        held.fill_(rate)
    else:
        group["lr"] = rate
