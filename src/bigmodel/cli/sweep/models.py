"""`sweep=models`: a few models that suit the data, and whether they are better than plain baselines."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from hydra.core.override_parser.types import Override
from hydra.types import HydraContext
from omegaconf import DictConfig

from bigmodel.cli.sweep.grid import Grid
from bigmodel.cli.sweep.kinds import Begun
from bigmodel.cli.sweep.resume import key_of
from bigmodel.errors import ConfigError, counted
from bigmodel.reporting.formatting import duration, figure
from bigmodel.reporting.leaderboard_words import compared
from bigmodel.reporting.summary import jsonable
from bigmodel.runtime import disk, nested_json, progress_messages
from bigmodel.sweeps.config import ModelsConfig
from bigmodel.sweeps.jobs import Job, in_one_line
from bigmodel.sweeps.leaderboard import FOLD, JobResult, by_fold, choice_bias, group, mean_of, rank
from bigmodel.sweeps.manifest import Manifest
from bigmodel.sweeps.process import call
from bigmodel.sweeps.refit import Winner, winners
from bigmodel.sweeps.statistics import compare

BASELINES = "baselines.json"

_LISTS = {"Features": "tables", "Image": "images", "Sequence": "sequences", "Tokens": "texts"}
"""The list of models for each kind of inputs."""


class Models(Grid):
    """Each combination of what is typed with each model for the kind of data, and baselines beside them.

    For arguments and errors see `Grid`.
    """

    _settings: ModelsConfig

    def _listed(self, overrides: Sequence[Override]) -> list[tuple[str, ...]]:
        return with_models(self._settings, super()._listed(overrides), self._context, self._master)

    def begin(self, folder: Path, resumed: Manifest | None) -> Begun:
        begun = super().begin(folder, resumed)
        if self._settings.baselines:
            fit_baselines(folder, _one_for_each_fold(self.jobs), self._context, self._master)
        return begun

    def _check_folds(self, jobs: Sequence[Job]) -> None:
        """They were, when the kind of data was looked at."""


def _one_for_each_fold(jobs: Sequence[Job]) -> list[Sequence[str]]:
    """The overrides of one job of each fold of a cross-validation, else those of one job."""
    first: dict[str, Sequence[str]] = {}
    for job in jobs:
        fold = next((word for word in job.overrides if key_of(word) == FOLD), "")
        first.setdefault(fold, job.overrides)
    return list(first.values())


def with_models(
    settings: ModelsConfig, typed: Sequence[tuple[str, ...]], context: HydraContext, master: DictConfig
) -> list[tuple[str, ...]]:
    """Each of the typed combinations with each model for the kind of data; what is typed counts.

    Raises:
        ConfigError: something is typed that this sweep chooses itself, or no list is meant for the data.
    """
    several = {key_of(w) for words in typed for w in words if w not in typed[0]}
    for key in sorted({key_of(word) for words in typed for word in words}):
        if key == "model":
            raise ConfigError(
                "sweep=models: chooses the models itself. Leave out model=, or name the settings to try,"
                ' such as sweep.tables=\'["model=fnn","model=attention"]\'.'
            )
        if key.partition(".")[0] == "data" and key in several and key != FOLD:
            raise ConfigError(
                f"sweep=models: {key} has several values, and models are compared on the same data. Give"
                " it one value."
            )
    from bigmodel.cli.sweep import baselines  # brings torch

    kind = call(partial(baselines.kind_of, context, master, typed[0]))
    if kind.inputs not in _LISTS or kind.target not in ("Classes", "Values"):
        raise ConfigError(
            f"sweep=models: compares models that predict classes or real values from tables, images,"
            f" sequences or texts; this data is {kind.described}. Name models instead:"
            " -m model=fnn,transformer."
        )
    listed: list[str] = getattr(settings, _LISTS[kind.inputs])
    if not listed:
        raise ConfigError(f"sweep.{_LISTS[kind.inputs]}=[]: names no settings to try.")
    return [(*words, *_others(entry, words)) for words in typed for entry in listed]


def _others(entry: str, words: Sequence[str]) -> Iterator[str]:
    keys = {key_of(word) for word in words}
    return (word for word in entry.split() if key_of(word) not in keys)


def fit_baselines(
    folder: Path, jobs: Sequence[Sequence[str]], context: HydraContext, master: DictConfig
) -> None:
    """Fits the baselines in a process of their own and writes them into the sweep's folder, unless they
    are there. For arguments see `baselines.fit_baselines`.

    Raises:
        ConfigError, DataError, CheckpointError: the data cannot be read, or the file not written.
    """
    if (folder / BASELINES).is_file():
        return
    from bigmodel.cli.sweep import baselines  # brings torch

    with progress_messages.report_progress("Fitting baselines"):
        found, samples = call(partial(baselines.fit_baselines, context, master, jobs))
    listed = [jsonable(asdict(each)) for each in found]
    text = json.dumps({"validation_samples": samples, "baselines": listed}, indent=2)
    disk.write_text(folder / BASELINES, f"{text}\n")


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
    network, name = f"{_settings_of(winner)} (the best of {winner.among})", str(baseline["name"])
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


def _settings_of(winner: Winner) -> str:
    changed = {k: v for k, v in winner.job.changed.items() if k not in winner.repeats}
    return in_one_line(changed) or "the default"


def _words(winner: Winner, baseline: Mapping[str, Any], sign: float, samples: int) -> str:
    network = f"the best of {winner.among}, {_settings_of(winner)}"
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
