"""`resume=`: settled before Hydra starts, which would compose the default model over the old run."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, NamedTuple

from hydra import compose, initialize_config_dir
from omegaconf import DictConfig, OmegaConf

from bigmodel import nested_json
from bigmodel.errors import CheckpointError, ConfigError
from bigmodel.launch import lock
from bigmodel.launch.folders import register_resolver
from bigmodel.launch.guard import check_overrides
from bigmodel.launch.hide import hide_composed
from bigmodel.launch.stored import OF_ONE_SITTING, comparable, is_same, read_config
from bigmodel.regular import check_regular, read_text
from bigmodel.visible import visible_message

GROUPS = ("model", "data", "loss", "optimizer", "scheduler")
PRESETS = ("experiment", "debug", "trainer")


class Settled(NamedTuple):
    """What `resume=` comes to.

    Attributes:
        argv: the arguments for Hydra.
        folder: the run to go on with; None for a new one.
        may_change: whether it may go on with other settings or data.
    """

    argv: list[str]
    folder: Path | None = None
    may_change: bool = False


def settle(argv: list[str], config_dir: Path) -> Settled:
    """Turns `resume=` into arguments with which Hydra composes the old run's own configuration.

    Args:
        argv: the command line without the program's name.
        config_dir: our configurations.

    Raises:
        ConfigError, CheckpointError: it is not a run that can go on.
    """
    wanted = [word.split("=", 1)[1] for word in argv if word.startswith("resume=")]
    if not wanted or wanted[-1] in {"null", ""}:
        return Settled(argv)
    if {"-m", "--multirun"} & set(argv):
        raise ConfigError("resume goes with one run, not with a sweep (-m). Leave one of the two out.")
    may_change = _may_change(argv)
    rest = [word for word in argv if not word.startswith("resume=") and not _says_may_change(word)]
    if wanted[-1] == "auto":
        found = newest_unfinished(rest, config_dir)
        if found is None:
            print("resume=auto: no unfinished run of this configuration; a new one starts.")  # noqa: T201
            return Settled(rest)
        print(visible_message(f"resume=auto: going on with {found}"))  # noqa: T201
        return Settled(_arguments(_overrides_of(found), found, None), found, may_change)
    folder = Path(wanted[-1].strip("'\""))
    _check_is_run(folder)
    return Settled(_arguments(rest, folder, config_dir if may_change else None), folder, may_change)


def _may_change(argv: list[str]) -> bool:
    said = [word.partition("=")[2].lower() for word in argv if _says_may_change(word)]
    if said and said[-1] not in {"true", "false"}:
        raise ConfigError(f"resume_changed={said[-1]}: expected true or false.")
    return bool(said) and said[-1] == "true"


def _says_may_change(word: str) -> bool:
    return word.lstrip("+").startswith("resume_changed=")


def newest_unfinished(argv: list[str], config_dir: Path) -> Path | None:
    """The newest run that is not finished, has a checkpoint, and was started with the same config."""
    register_resolver()
    overrides, extra = _split(argv)
    config = _composed(overrides, config_dir, extra)
    ours = comparable(config)
    outputs = Path(str(config.output_dir))  # not checked yet: it may be a number
    runs = sorted(outputs.glob("*/*/.hydra/config.yaml"), key=_started, reverse=True)
    for folder in (path.parent.parent for path in runs):
        if _status(folder) == "finished" or not _has_checkpoint(folder):
            continue
        theirs = _theirs(folder)
        if theirs is None or not is_same(theirs, ours, config_dir):
            continue
        taken_by = lock.owner(folder)
        if taken_by is None:
            return folder
        print(visible_message(f"resume=auto: {folder} is going on already, in {taken_by}."))  # noqa: T201
    return None


def _theirs(folder: Path) -> dict[str, Any] | None:
    try:
        theirs = read_config(folder)
    except CheckpointError:  # cut off while it was written; whoever asks for this very run is told
        return None
    return {key: value for key, value in theirs.items() if key not in OF_ONE_SITTING}


def _arguments(argv: list[str], folder: Path, config_dir: Path | None) -> list[str]:
    """Arguments that make Hydra compose a run's own config, with `argv` on top, into its own folder.

    Args:
        config_dir: where another choice in a group is looked up; None where none is allowed.
    """
    overrides, extra = _split(argv)
    flags = [word for word in argv if word not in overrides and not word.startswith("--config-dir")]
    stored = read_config(folder)
    on_top: list[str] = []
    for word in overrides:
        on_top += _on_stored(word, folder, stored, config_dir, extra)
    quoted = "'" + str(folder.resolve()).replace("'", "\\'") + "'"
    return [
        f"--config-path={(folder / '.hydra').resolve()}",
        "--config-name=config",
        *flags,
        "hydra/job_logging=none",
        "hydra/hydra_logging=none",
        "hydra.output_subdir=null",
        f"hydra.run.dir={quoted}",
        f"++resume={quoted}",
        "++plugins=[]",
        *on_top,
    ]


def _on_stored(
    word: str, folder: Path, stored: dict[str, Any], config_dir: Path | None, extra: str | None
) -> list[str]:
    """An override for a stored config, which has no groups left to choose from, and lacks the keys that
    are newer than it.

    Raises:
        ConfigError: another choice, which would make it another run.
    """
    group, _, choice = word.lstrip("+").partition("=")
    if group == "hydra.run.dir":
        raise ConfigError(f"{word}: the run goes on in its own folder, {folder}. Leave it out.")
    if group == "device":
        return [f"device.name={choice}"]
    if group in GROUPS:
        settings: Any = stored[group]
        made = settings.get("name") if isinstance(settings, dict) else None
        if choice == made:  # says nothing new
            return []
        if config_dir is None:
            raise ConfigError(
                f"{word}: the run in {folder} has {group}={made}, and goes on with it. Leave it out,"
                " start anew, or add resume_changed=true to go on all the same."
            )
        settings = _composed([f"{group}={choice}"], config_dir, extra)[group]
        plain = OmegaConf.to_container(settings, resolve=False)
        return [f"~{group}", f"+{group}={in_grammar(plain)}"]
    if group in PRESETS:
        raise ConfigError(
            f"{word}: a preset cannot be put onto a run that has begun."
            " Set single keys, such as trainer.epochs=60."
        )
    plain_key = word[0] not in "+~" and not group.startswith("hydra")
    return [f"++{word}" if plain_key else word]


def in_grammar(value: Any) -> str:
    """A plain value as Hydra's command line reads it."""
    if isinstance(value, dict):
        return "{" + ",".join(f"{key}:{in_grammar(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ",".join(map(in_grammar, value)) + "]"
    if isinstance(value, str):  # a backslash means itself, but for those before a quotation mark
        return "'" + re.sub(r"(\\*)('|$)", r"\1\1\\\2", value).removesuffix("\\") + "'"
    return "null" if value is None else str(value).lower()


def _composed(overrides: list[str], config_dir: Path, extra: str | None) -> DictConfig:
    """The configuration that our own files, and those of `--config-dir`, give."""
    check_overrides(overrides)  # Hydra imports a package that is named as a search path
    search = [f"hydra.searchpath={in_grammar([f'file://{Path(extra).resolve()}'])}"] if extra else []
    with initialize_config_dir(str(config_dir), version_base="1.3"):
        config = compose("train", overrides=[*overrides, *search])
    hide_composed(config)  # as in the runs that it is compared with
    return config


def _split(argv: list[str]) -> tuple[list[str], str | None]:
    """Parts the command line into overrides and the value of `--config-dir`."""
    overrides, config_dir, words = [], None, iter(argv)
    for word in words:
        if word in {"--config-dir", "-cd"}:
            config_dir = next(words, None)
        elif word.startswith("--config-dir="):
            config_dir = word.split("=", 1)[1]
        elif word.startswith("~") or ("=" in word and not word.startswith("-")):
            overrides.append(word)
    return overrides, config_dir


def _overrides_of(folder: Path) -> list[str]:
    """What has to be named again on resume although it did not change: the plugins."""
    plugins = read_config(folder).get("plugins")
    return [f"plugins=[{','.join(plugins)}]"] if plugins else []


def _check_is_run(folder: Path) -> None:
    if not folder.is_dir():
        raise CheckpointError(
            f"resume={folder}: there is no such folder. Give a run's folder, or resume=auto."
        )
    if not (folder / ".hydra" / "config.yaml").is_file():
        raise CheckpointError(
            f"resume={folder}: this is no run's folder: it has no .hydra/config.yaml."
            " Give the folder that holds checkpoints/ and .hydra/."
        )
    for path in (*folder.iterdir(), *(folder / ".hydra").iterdir()):
        if path.is_symlink():  # what is written to it would land elsewhere
            raise CheckpointError(
                f"{path}: is a link to {path.readlink()}; the files of a run have to lie in its folder."
                " Put there what the link leads to, and go on."
            )
        try:
            check_regular(path)
        except OSError as error:
            raise CheckpointError(f"{path}: {error.strerror}. Remove it, and go on.") from error


def _has_checkpoint(folder: Path) -> bool:
    from bigmodel import manifest  # bring torch

    return any((folder / "checkpoints" / name).exists() for name in manifest.GENERATIONS)


def _status(folder: Path) -> str | None:
    try:
        status: str = nested_json.loads(read_text(folder / "summary.json"))["status"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return status


def _started(config: Path) -> float:
    return config.stat().st_mtime
