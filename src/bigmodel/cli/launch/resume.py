"""`resume=`: handled before Hydra starts, which would compose the default model over the old run."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, NamedTuple

from omegaconf import OmegaConf

from bigmodel.checkpointing import manifest
from bigmodel.cli.launch.resume_config import read_config, repair, saved_settings
from bigmodel.cli.launch.run_folder import RECORD, kept_table
from bigmodel.cli.launch.unfinished_runs import compose_config, newest_unfinished, split_argv
from bigmodel.errors import CheckpointError, ConfigError, hydra_value, shell_quoted
from bigmodel.runtime.disk import check_regular
from bigmodel.runtime.escaping import escape_message

GROUPS = ("model", "data", "loss", "optimizer", "scheduler")
PRESETS = ("experiment", "debug", "trainer")


class Resume(NamedTuple):
    """The expanded `resume=`.

    Attributes:
        argv: the arguments for Hydra.
        folder: the run to resume; None for a new one.
        may_change: whether it may resume with other settings or data.
    """

    argv: list[str]
    folder: Path | None = None
    may_change: bool = False


def expand_resume(argv: list[str], config_dir: Path) -> Resume:
    """Turns `resume=` into arguments that make Hydra compose the old run's own configuration.

    Args:
        argv: the command line without the program's name.
        config_dir: the shipped configurations.

    Raises:
        ConfigError, CheckpointError: it is not a run that can be resumed.
    """
    wanted = [word.split("=", 1)[1] for word in argv if word.startswith("resume=")]
    if not wanted or wanted[-1] in {"null", ""}:
        return Resume(argv)
    if {"-m", "--multirun"} & set(argv):
        raise ConfigError("resume goes with one run, not with a sweep (-m). Leave one of the two out.")
    if finds := [word for word in argv if word.lstrip("+").startswith("find=")]:
        raise ConfigError(
            f"{finds[-1]}: goes with a new run, not with resume. Leave one of the two out."
        )
    may_change = _may_change(argv)
    rest = [word for word in argv if not word.startswith("resume=") and not _is_resume_changed(word)]
    if wanted[-1] == "auto":
        newest = newest_unfinished(rest, config_dir)
        if newest is None:
            print("resume=auto: no unfinished run of this configuration; a new one starts.")  # noqa: T201
            return Resume(rest)
        print(escape_message(f"resume=auto: resuming {newest}"))  # noqa: T201
        return Resume(_arguments(_overrides_of(newest), newest, None), newest, may_change)
    folder = _run_of(Path(wanted[-1].strip("'\"")))
    _check_is_run(folder)
    repair(folder, f"resume={folder}")
    return Resume(_arguments(rest, folder, config_dir if may_change else None), folder, may_change)


def _may_change(argv: list[str]) -> bool:
    given_values = [word.partition("=")[2].lower() for word in argv if _is_resume_changed(word)]
    if given_values and given_values[-1] not in {"true", "false"}:
        raise ConfigError(f"resume_changed={given_values[-1]}: expected true or false.")
    return bool(given_values) and given_values[-1] == "true"


def _is_resume_changed(word: str) -> bool:
    return word.lstrip("+").startswith("resume_changed=")


def _arguments(argv: list[str], folder: Path, config_dir: Path | None) -> list[str]:
    """Arguments that make Hydra compose a run's own config, with `argv` on top, into its own folder.

    Args:
        config_dir: where another choice in a group is looked up; None if none is allowed.
    """
    overrides, extra = split_argv(argv)
    others = {*overrides, extra}  # the run's own configuration needs no folder of files
    flags = [word for word in argv if word not in others and not word.startswith("--config-dir")]
    stored = read_config(folder)
    data = stored["data"]
    table = kept_table(folder, data.get("path") if isinstance(data, dict) else None)
    changes = [] if table is None else [f"++data.path={hydra_value(str(table))}"]
    for word in overrides:
        changes += _override_stored(word, folder, stored, config_dir, extra)
    quoted = hydra_value(str(folder.resolve()))
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
        *changes,
    ]


def _override_stored(
    word: str, folder: Path, stored: dict[str, Any], config_dir: Path | None, extra: str | None
) -> list[str]:
    """Adapts an override to a stored config, which has no groups to choose from, and lacks keys that are
    newer than it.

    Raises:
        ConfigError: a different choice, which would make it another run.
    """
    group, _, choice = word.lstrip("+").partition("=")
    if group == "hydra.run.dir":
        if Path(choice.strip("'\"")).resolve() == folder.resolve():
            return []
        raise ConfigError(f"{word}: the run resumes in its own folder, {folder}. Leave it out.")
    if group == "device":
        return [f"device.name={choice}"]
    if group in GROUPS:
        settings: Any = stored[group]
        stored_choice = settings.get("name") if isinstance(settings, dict) else None
        if choice == stored_choice:
            return []
        if config_dir is None:
            raise ConfigError(
                f"{word}: the run in {folder} has {group}={stored_choice}, and keeps it. Leave it out, "
                "start a new run, or add resume_changed=true to continue anyway."
            )
        settings = compose_config([f"{group}={choice}"], config_dir, extra)[group]
        plain = OmegaConf.to_container(settings, resolve=False)
        return [f"~{group}", f"+{group}={hydra_value(plain)}"]
    if group in PRESETS:
        raise ConfigError(
            f"{word}: a preset cannot be applied to a run that has started."
            " Set single keys, such as trainer.epochs=60."
        )
    plain_key = word[0] not in "+~" and not group.startswith("hydra")
    return [f"++{word}" if plain_key else word]


def _overrides_of(folder: Path) -> list[str]:
    """The overrides that must be repeated on resume: the plugins."""
    plugins = read_config(folder).get("plugins")
    return [f"plugins=[{','.join(plugins)}]"] if plugins else []


def _run_of(path: Path) -> Path:
    """The run's folder, given by its own path or by that of its newest checkpoint.

    Raises:
        CheckpointError: the path leads to another checkpoint.
    """
    whole = Path(os.path.abspath(path))  # noqa: PTH100 (links are not followed, dots are)
    if (path / RECORD).is_dir() or "checkpoints" not in {whole.name, whole.parent.name}:
        return path
    checkpoints = whole if whole.name == "checkpoints" else whole.parent
    run = checkpoints.parent
    newest = [name for name in manifest.GENERATIONS if (checkpoints / name).is_dir()]
    if (run / RECORD).is_dir() and whole != checkpoints and [whole.name] != newest[:1]:
        raise CheckpointError(
            f"resume={path}: a run resumes only from its newest checkpoint. Name its folder:"
            f" {shell_quoted(f'resume={run}')}"
        )
    return run if path.is_absolute() else Path(os.path.relpath(run))


def _check_is_run(folder: Path) -> None:
    if not folder.is_dir():
        raise CheckpointError(
            f"resume={folder}: there is no such folder. Name a run's folder, or resume=auto."
        )
    record = folder / RECORD
    if not (record / "config.yaml").is_file() and saved_settings(folder) is None:
        raise CheckpointError(
            f"resume={folder}: this is not a run's folder: it has no .hydra/config.yaml."
            " Name the folder that holds checkpoints/ and .hydra/."
        )
    check_own_files("run", folder, record)


def check_own_files(what: str, *folders: Path) -> None:
    """Makes sure that nothing directly in these folders leads elsewhere.

    Args:
        what: whose they are, `run` or `sweep`.

    Raises:
        CheckpointError: there is a link, or anything else that is neither a file nor a folder.
    """
    for path in (path for folder in folders if folder.is_dir() for path in folder.iterdir()):
        if path.is_symlink():  # writing to it would change a file elsewhere
            raise CheckpointError(
                f"{path}: is a link to {path.readlink()}; a {what}'s files must be in its folder. Put"
                " the linked file there, then resume."
            )
        try:
            check_regular(path)
        except OSError as error:
            raise CheckpointError(f"{path}: {error.strerror}. Remove it, then resume.") from error
