"""`sweep.refit=`: the command line that trains the best settings of a sweep again."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError  # type: ignore[import-untyped]

from bigmodel.cli.launch.config_index import read_index
from bigmodel.cli.launch.flags import parse_flags
from bigmodel.cli.launch.help import own_folders
from bigmodel.cli.launch.safe_loader import named_plugins
from bigmodel.cli.sweep.compose import put
from bigmodel.cli.sweep.refit_on_all import with_all_data
from bigmodel.cli.sweep.refit_report import announcement
from bigmodel.cli.sweep.resume import (
    check_typed_again,
    key_of,
    replaced,
    resume_words,
    return_to_start,
)
from bigmodel.errors import (
    CheckpointError,
    ConfigError,
    did_you_mean,
    shell_quoted,
)
from bigmodel.sweeps import manifest as manifests
from bigmodel.sweeps.jobs import FOLD
from bigmodel.sweeps.leaderboard import JobResult, metric_names
from bigmodel.sweeps.manifest import Manifest
from bigmodel.sweeps.refit import Refit, Winner, winners
from bigmodel.sweeps.results import collect

_KEY, _ON, _METRIC, _NAME = "sweep.refit", "sweep.refit_on", "sweep.refit_metric", "sweep.refit_name"
_DEFAULT_NAME = "winner"
_NOT_IN_EXPERIMENT = ("plugins", "output_dir")
"""A file may not name plugins, and where runs are kept is no setting of a run."""


def expand_refit(argv: list[str], config_dir: Path) -> tuple[list[str], Refit | None]:
    """Turns `sweep.refit=FOLDER` into the words that train the sweep's best settings.

    Words that are typed beside it take the place of those with the same key.

    Args:
        argv: the command line without the program's name.
        config_dir: the shipped configurations.

    Returns:
        The words for Hydra, and what is known of the settings; None if there is nothing to refit.

    Raises:
        ConfigError, CheckpointError: it is not a sweep's folder, or no settings are best in it; a
            word that may run code is not typed again.
    """
    own = {key_of(word): word.partition("=")[2].strip("'\"") for word in argv}
    keys = (_KEY, _ON, _METRIC, _NAME)
    if _KEY not in own or own[_KEY] == "null":
        if alone := next((key for key in keys[1:] if key in own), None):
            raise ConfigError(f"{alone}={own[alone]}: goes with {_KEY}=<folder of a sweep>. Add it.")
        return argv, None
    _check_words(own, argv)
    folder, here = Path(own[_KEY]), Path.cwd()
    manifest = _manifest(folder)
    winner = _winner(manifest, own.get(_METRIC))
    typed = [word for word in argv if key_of(word) not in keys]
    chosen = manifest.states[int(winner.job.job)].job.overrides
    before = parse_flags(manifest.words, config_dir)
    paths = [word for word in before.overrides if key_of(word) == "hydra.searchpath"]
    check_typed_again(f"{_KEY}={folder}", manifest, [*paths, *chosen], typed)
    return_to_start(manifest)
    folder = manifest.folder
    left_out = {*winner.repeats, "plugins"}
    settings = [word for word in chosen if key_of(word) not in left_out]
    if FOLD in left_out:
        settings = _without_folds(settings)
    how = ""
    if own.get(_ON) == "all":
        settings, how = with_all_data(folder, winner, settings, typed)
    words = replaced([*_flags(before), *paths, *settings], typed)
    now = parse_flags(words, config_dir)
    groups = read_index([config_dir, *own_folders(words)]).groups
    title = f"The best settings of {folder}. Relative paths start from {Path.cwd()}."
    return words, Refit(
        winner,
        announcement(folder, manifest, winner, how),
        own.get(_NAME, _DEFAULT_NAME),
        _experiment(now.overrides, groups, title),
        flags=_flags(now),
        search_path=_search_path(now.overrides),
        plugins=sorted(named_plugins(typed)),
        moved_to=None if here == Path.cwd() else Path.cwd(),
    )


def _check_words(own: dict[str, str], argv: Sequence[str]) -> None:
    folder, name, data = own[_KEY], own.get(_NAME, _DEFAULT_NAME), own.get(_ON, "train")
    if not folder:
        raise ConfigError(f"{_KEY}=: is empty. Name the folder of a sweep.")
    if {"-m", "--multirun"} & set(argv):
        raise ConfigError(f"{_KEY}={folder}: trains one run. Leave out -m.")
    if not re.fullmatch(r"[\w-]+", name):
        raise ConfigError(f"{_NAME}={name}: may consist of letters, digits, _ and - only.")
    if data not in ("train", "all"):
        raise ConfigError(
            f"{_ON}={data}: is train, or all, which is the training and the validation set together."
        )


def _manifest(folder: Path) -> Manifest:
    if not folder.is_dir():
        raise CheckpointError(f"{_KEY}={folder}: there is no such folder. Name the folder of a sweep.")
    if (folder / "leaderboard.csv").is_file() and not (folder / manifests.NAME).is_file():
        raise CheckpointError(
            f"{_KEY}={folder}: an older version ran this sweep and kept no record of what was typed"
            f" ({manifests.NAME}). `bigmodel compare {folder}` lists its jobs: type the settings of the"
            " best one."
        )
    return Manifest.read(folder)


def _winner(manifest: Manifest, metric: str | None) -> Winner:
    where, results = f"{_KEY}={manifest.folder}", collect(manifest)
    metric = _deciding(where, metric, _objectives(manifest.folder), results)
    found = winners(results, metric)
    if not found and any(result.status == "finished" for result in results):
        raise CheckpointError(f"{where}: no finished job has a validation figure, so none is best.")
    if not found:
        raise CheckpointError(
            f"{where}: no job of this sweep has finished with a figure, so none is best. Go on with it:"
            f" bigmodel-train {resume_words(manifest)}"
        )
    if len(found) > 1:
        metrics = ", ".join(dict.fromkeys(winner.metric for winner in found))
        raise ConfigError(
            f"{where}: its jobs differ in what they are ranked by ({metrics}), so none is the best of"
            f" all. {_way_to_choose(manifest, found)}"
        )
    return found[0]


def _way_to_choose(manifest: Manifest, found: Sequence[Winner]) -> str:
    """How to choose among settings that are ranked apart: by a figure that all have, or by hand."""
    shared = set.intersection(*(set(winner.job.best) for winner in found))
    names = (name for name in _validated([winner.job for winner in found]) if name in shared)
    if (metric := next((name for name in names if not name.endswith("/loss")), None)) is not None:
        return f"Name one that decides: {_METRIC}={metric}"
    words = " ".join(map(shell_quoted, manifest.states[int(found[0].job.job)].job.overrides))
    return f"Train the one that you choose, such as: bigmodel-train {words}"


def _deciding(
    where: str, typed: str | None, objectives: Sequence[str], results: Sequence[JobResult]
) -> str | None:
    """The metric that decides; None: the one that each job monitors."""
    known = _validated(results)
    if typed is not None and typed != "null":
        if typed in known or not known:
            return typed
        why = f"no such metric.{did_you_mean(typed, known)}"
        if typed.startswith("test/"):
            why = "the test set takes no part in the choice, or its figure would be optimistic too."
        raise ConfigError(f"{_METRIC}={typed}: {why} Allowed are: {', '.join(known)}.")
    if len(objectives) > 1 or (objectives and objectives[0] not in known and known):
        named = " and ".join(objectives)
        why = "of which none decides alone" if len(objectives) > 1 else "which is no figure of a model"
        example = next((name for name in objectives if name in known), next(iter(known), "val/loss"))
        raise ConfigError(
            f"{where}: its search optimized {named}, {why}. Name the metric that decides:"
            f" {_METRIC}={example}"
        )
    return objectives[0] if objectives else None


def _validated(results: Sequence[JobResult]) -> list[str]:
    """The metrics that settings may be chosen by."""
    names = metric_names(results)
    part = "val/" if any(name.startswith("val/") for name in names) else "train/"
    return [name for name in names if name.startswith(part)]


def _objectives(folder: Path) -> list[str]:
    """What a search optimized, if that was said."""
    try:
        plan: Any = OmegaConf.to_container(OmegaConf.load(folder / "multirun.yaml"), resolve=False)
        metrics = plan["sweep"]["metrics"]
    except (OSError, ValueError, KeyError, TypeError, YAMLError, OmegaConfBaseException):
        return []
    return [str(metric) for metric in metrics or ()]


def _without_folds(settings: Sequence[str]) -> list[str]:
    """The settings without folds, which may be in an experiment too."""
    left = [word for word in settings if key_of(word) != "data.folds"]
    return left if len(left) < len(settings) else [*left, "++data.folds=null", f"++{FOLD}=null"]


def _flags(arguments: Any) -> list[str]:
    """The flags that say where configurations are."""
    return [
        f"--{flag.replace('_', '-')}={value}"
        for flag in ("config_dir", "config_path", "config_name")
        if (value := getattr(arguments, flag)) is not None
    ]


def _search_path(overrides: Sequence[str]) -> list[str]:
    parser = OverridesParser.create()
    found: list[str] = []
    for word in overrides:
        if key_of(word) == "hydra.searchpath":
            value: Any = parser.parse_override(word).value()
            found = [str(entry) for entry in value or ()]
    return found


def _experiment(words: Sequence[str], groups: Any, title: str) -> str:
    """An experiment that sets what the words of a command line set.

    Raises:
        ConfigError: a word removes a setting.
    """
    parser = OverridesParser.create()
    defaults: list[str | dict[str, str]] = []
    values: dict[str, Any] = {}
    for word in words:
        key = key_of(word)
        if key in _NOT_IN_EXPERIMENT or key.startswith("hydra"):
            continue
        override = parser.parse_override(word)
        if override.is_delete():
            raise ConfigError(
                f"{word}: removes a setting, which an experiment cannot do. Train the best job by typing"
                " its settings instead."
            )
        if key == "experiment":
            defaults.insert(0, str(override.value()))
        elif key in groups:
            defaults.append({f"override /{key}": str(override.value())})
        else:
            put(values, key, override.value())
    text = OmegaConf.to_yaml(OmegaConf.create({"defaults": [*defaults, "_self_"], **values}))
    return f"# @package _global_\n# {title}\n{text}"
