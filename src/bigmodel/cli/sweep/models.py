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
from bigmodel.reporting.summary import jsonable
from bigmodel.runtime import disk, nested_json, progress_messages
from bigmodel.sweeps.config import ModelsConfig
from bigmodel.sweeps.leaderboard import JobResult
from bigmodel.sweeps.manifest import Manifest
from bigmodel.sweeps.process import call
from bigmodel.sweeps.refit import Winner, winners

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
            fit_baselines(folder, self.jobs[0].overrides, self._context, self._master)
        return begun


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
        if key.partition(".")[0] == "data" and key in several:
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
    folder: Path, overrides: Sequence[str], context: HydraContext, master: DictConfig
) -> None:
    """Fits the baselines in a process of their own and writes them into the sweep's folder, unless they
    are there.

    Raises:
        ConfigError, DataError, CheckpointError: the data cannot be read, or the file not written.
    """
    if (folder / BASELINES).is_file():
        return
    from bigmodel.cli.sweep import baselines  # brings torch

    with progress_messages.report_progress("Fitting baselines"):
        found, samples = call(partial(baselines.fit_baselines, context, master, overrides))
    listed = [asdict(each) | {"figures": jsonable(dict(each.figures))} for each in found]
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
    lines = ["", f"Baselines on the same samples, {winner.metric}", *rows]
    if math.isfinite(_value(ranked[0], winner.metric, sign)):
        lines.append(_words(winner, ranked[0], sign, known["validation_samples"]))
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
    return f"{shown}  {duration(baseline['seconds'])}, {counted(baseline['samples'], 'sample')}"


def _words(winner: Winner, baseline: Mapping[str, Any], sign: float, samples: int) -> str:
    changed = {k: v for k, v in winner.job.changed.items() if k not in winner.repeats}
    network = " ".join([f"the best of {winner.among},", *(f"{k}={v}" for k, v in changed.items())])
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
