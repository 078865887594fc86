"""`sweep.refit=`: the command line that trains the best settings of a sweep again."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf

from bigmodel.cli.launch.config_index import read_index
from bigmodel.cli.launch.flags import parse_flags
from bigmodel.cli.launch.help import own_folders
from bigmodel.cli.launch.safe_loader import named_plugins
from bigmodel.cli.sweep.compose import put
from bigmodel.cli.sweep.resume import key_of, replaced, return_to_start
from bigmodel.errors import CheckpointError, ConfigError, counted, setting, shell_quoted
from bigmodel.reporting.formatting import figure
from bigmodel.sweeps.jobs import in_one_line
from bigmodel.sweeps.manifest import Manifest
from bigmodel.sweeps.refit import Refit, Winner, winners
from bigmodel.sweeps.results import collect

_KEY, _NAME = "sweep.refit", "sweep.refit_name"
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
        ConfigError, CheckpointError: it is not a sweep's folder, or no settings are best in it; its
            plugins are not named again.
    """
    own = {key_of(word): word.partition("=")[2].strip("'\"") for word in argv}
    if not own.get(_KEY) or own[_KEY] == "null":
        return argv, None
    if {"-m", "--multirun"} & set(argv):
        raise ConfigError(f"{_KEY}={own[_KEY]}: trains one run. Leave out -m.")
    folder, name = Path(own[_KEY]), own.get(_NAME, _DEFAULT_NAME)
    if not re.fullmatch(r"[\w-]+", name):
        raise ConfigError(f"{_NAME}={name}: may consist of letters, digits, _ and - only.")
    if not folder.is_dir():
        raise CheckpointError(f"{_KEY}={folder}: there is no such folder. Name the folder of a sweep.")
    manifest = Manifest.read(folder)
    return_to_start(manifest)
    folder = manifest.folder
    winner = _winner(manifest)
    typed = [word for word in argv if key_of(word) not in (_KEY, _NAME)]
    chosen = manifest.states[int(winner.job.job)].job.overrides
    left_out = {*winner.repeats, "plugins"}
    if "data.val_fold" in left_out:
        left_out.add("data.folds")
    settings = [word for word in chosen if key_of(word) not in left_out]
    _check_plugins(folder, named_plugins(chosen), typed)
    before = parse_flags(manifest.words, config_dir)
    flags = [
        f"--{flag.replace('_', '-')}={value}"
        for flag in ("config_dir", "config_path", "config_name")
        if (value := getattr(before, flag)) is not None
    ]
    paths = [word for word in before.overrides if key_of(word) == "hydra.searchpath"]
    words = replaced([*flags, *paths, *settings], typed)
    overrides = parse_flags(words, config_dir).overrides
    groups = read_index([config_dir, *own_folders(words)]).groups
    experiment = _experiment(overrides, groups, f"The best settings of {folder}")
    plugins = sorted(named_plugins(typed))
    return words, Refit(winner, _announcement(folder, manifest, winner), name, experiment, plugins)


def _winner(manifest: Manifest) -> Winner:
    found = winners(collect(manifest))
    if not found:
        raise CheckpointError(
            f"{_KEY}={manifest.folder}: no job of this sweep has finished with a figure, so none is"
            f" best. Go on with it: bigmodel-train -m {shell_quoted(f'sweep.resume={manifest.folder}')}"
        )
    if len(found) > 1:
        metrics = ", ".join(dict.fromkeys(winner.metric for winner in found))
        words = " ".join(map(shell_quoted, manifest.states[int(found[0].job.job)].job.overrides))
        raise ConfigError(
            f"{_KEY}={manifest.folder}: its jobs differ in what they are ranked by ({metrics}), so none"
            f" is the best of all. Train the one that you choose, such as: bigmodel-train {words}"
        )
    return found[0]


def _check_plugins(folder: Path, plugins: frozenset[str], typed: Sequence[str]) -> None:
    if forgotten := sorted(plugins - named_plugins(typed)):
        raise ConfigError(
            f"{_KEY}={folder}: the sweep uses plugins, whose code runs only when you name them again:"
            f" {setting('plugins', forgotten)}"
        )


def _announcement(folder: Path, manifest: Manifest, winner: Winner) -> str:
    changed = {k: v for k, v in winner.job.changed.items() if k not in winner.repeats}
    words = in_one_line(changed)
    chosen = words if winner.repeats else f"job {winner.job.job} ({words})"
    mean = f"mean {winner.metric} of {counted(winner.runs, 'run')}" if winner.repeats else winner.metric
    best = f"{chosen} is the best of {winner.among}" if winner.candidates > 1 else "its only settings"
    unfinished = sum(state.status in ("waiting", "running") for state in manifest.states.values())
    rest = f" {counted(unfinished, 'job')} had not ended and did not count." if unfinished else ""
    return f"{_KEY}={folder}: {best}, {mean}: {figure(winner.value)}. It is trained again.{rest}"


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
