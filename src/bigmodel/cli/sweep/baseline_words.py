"""What is said of a sweep's baselines: what they reached, and whether a network is better."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bigmodel.cli.sweep.models import BASELINES
from bigmodel.errors import counted
from bigmodel.reporting.formatting import duration, figure
from bigmodel.reporting.leaderboard_words import compared
from bigmodel.runtime import disk, nested_json
from bigmodel.sweeps.groups import by_fold, choice_bias, group, mean_of
from bigmodel.sweeps.jobs import in_one_line
from bigmodel.sweeps.leaderboard import JobResult, rank
from bigmodel.sweeps.refit import Winner, winners
from bigmodel.sweeps.statistics import compare


def verdict(folder: Path, results: Sequence[JobResult]) -> list[str]:
    """Lines that say what the baselines of a sweep reached, and whether a network is better.

    There are none without baselines, or before a job has finished.
    """
    known, found = _fitted(folder), winners(results)
    if known is None or not found:
        return []
    winner = found[0]
    sign, ranked = _ranked(known, winner)
    rows = [f"{each['name']:24}  {_shown(each, winner.metric)}" for each in ranked]
    folds = any(each.get("folds") for each in ranked)
    figures = f"folds, mean {winner.metric} and 95 % interval" if folds else f"samples, {winner.metric}"
    lines = ["", f"Baselines on the same {figures}", *rows]
    if math.isfinite(_value(ranked[0], winner.metric, sign)):
        best = ranked[0]
        if not folds:
            lines.append(_words(winner, best, sign, known["validation_samples"]))
        elif (said := _words_over_folds(winner, best, results)) is not None:
            lines.append(said)
    return lines


def better_baseline(folder: Path, winner: Winner) -> str | None:
    """A sentence on the best baseline of a sweep, if it is better than the best network or as good."""
    known = _fitted(folder)
    if known is None:
        return None
    sign, (best, *_) = _ranked(known, winner)
    value = _value(best, winner.metric, sign)
    if not math.isfinite(value) or sign * (winner.value - value) > 0:
        return None
    words = "better" if value != winner.value else "as good"
    return f"{best['name'].capitalize()} was {words}, without a network: {figure(value)}."


def _fitted(folder: Path) -> dict[str, Any] | None:
    try:
        known: dict[str, Any] = nested_json.loads(disk.read_text(folder / BASELINES))
    except (OSError, ValueError):
        return None
    return known


def _ranked(known: Mapping[str, Any], winner: Winner) -> tuple[float, list[Mapping[str, Any]]]:
    """1 if more of the winner's metric is better, -1 if less is; and the baselines, best first."""
    sign = -1.0 if winner.mode == "min" else 1.0
    return sign, sorted(known["baselines"], key=lambda each: -sign * _value(each, winner.metric, sign))


def _value(baseline: Mapping[str, Any], metric: str, sign: float) -> float:
    value = baseline["figures"].get(metric)
    return -sign * math.inf if value is None else float(value)


def _shown(baseline: Mapping[str, Any], metric: str) -> str:
    if baseline["error"] is not None:
        return f"failed: {baseline['error']}"
    value = baseline["figures"].get(metric)
    shown = "no figure" if value is None else figure(value)
    if value is not None and (folds := _folds_of(baseline, metric)):
        interval = mean_of(metric, list(folds.values())).interval
        shown += "" if interval is None else f"  {' to '.join(map(figure, interval))}"
    return f"{shown}  {duration(baseline['seconds'])}, {counted(baseline['samples'], 'sample')}"


def _folds_of(baseline: Mapping[str, Any], metric: str) -> dict[str, float]:
    """A baseline's figures by fold of a cross-validation."""
    return {fold: float(figures[metric]) for fold, figures in baseline.get("folds", {}).items()}


def _words_over_folds(
    winner: Winner, baseline: Mapping[str, Any], results: Sequence[JobResult]
) -> str | None:
    """Whether the best network is better than the best baseline in the folds that it has finished; None
    if those are too few to tell."""
    board = next(board for board in rank(results) if board.metric == winner.metric)
    grouping = group(board)
    ours = {} if grouping is None else by_fold(grouping, grouping.groups[0])
    theirs = {fold: v for fold, v in _folds_of(baseline, winner.metric).items() if fold in ours}
    found = compare(ours, theirs)
    if grouping is None or found is None:
        return None
    worth = found.difference > 0 if board.mode == "max" else found.difference < 0
    found = found if worth else found.reversed
    network = f"{in_one_line(winner.changed) or 'the default'} (the best of {winner.among})"
    name = str(baseline["name"])
    if not worth:
        said = compared(found, name, network, "folds", board.mode)
        return f"A network is not worth it here: {' '.join(said)}"
    said = compared(found, network, name, "folds", board.mode)
    bias = choice_bias(board, grouping) or 0.0
    if bias >= abs(found.difference):
        said.append(
            f"Having been picked flatters it by about {figure(bias)}, which is more than its lead: a"
            " network is hardly worth it here."
        )
    elif not found.significant:
        said.append("So a network may not be worth it here.")
    return " ".join(said)


def _words(winner: Winner, baseline: Mapping[str, Any], sign: float, samples: int) -> str:
    network = f"the best of {winner.among}, {in_one_line(winner.changed) or 'the default'}"
    name, best = baseline["name"], float(baseline["figures"][winner.metric])
    lead = sign * (winner.value - best)
    if lead <= 0:
        figures = f"{winner.metric} {figure(best)} against {figure(winner.value)}"
        better = f"better by {figure(-lead)} than" if lead else "as good as"
        words = f"A network is not worth it here: {name} is {better} {network} ({figures})."
    else:
        figures = f"{winner.metric} {figure(winner.value)} against {figure(best)}"
        words = f"T{network[1:]}, is better by {figure(lead)} than {name} ({figures})."
        if winner.metric == "val/accuracy" and lead < _spread(winner.value, best, samples):
            words += f" With {samples:,} validation samples this may well be luck."
    return words + _tested(winner, baseline)


def _tested(winner: Winner, baseline: Mapping[str, Any]) -> str:
    """What a test set says, in which the network was not picked."""
    metric = winner.metric.replace("val/", "test/")
    ours, theirs = winner.job.best.get(metric), baseline["figures"].get(metric)
    if ours is None or theirs is None or winner.runs > 1:
        return ""
    return (
        f" On the test set: {metric} {figure(ours)} for the network, {figure(theirs)} for the baseline."
    )


def _spread(first: float, second: float, samples: int) -> float:
    """Half the 95 % interval of a difference of two accuracies."""
    return 1.96 * math.sqrt(sum(p * (1 - p) for p in (first, second)) / samples)
