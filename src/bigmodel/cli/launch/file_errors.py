"""Errors in configuration files: which file a message is about, and files that cannot be read."""

from __future__ import annotations

import re
import traceback
from collections.abc import Sequence
from pathlib import Path

import yaml  # type: ignore[import-untyped]

from bigmodel.cli.launch.config_index import read_index
from bigmodel.cli.launch.help import own_folders
from bigmodel.runtime.disk import read_text

_KEY = re.compile(r"([A-Za-z_][\w.]*)(?:=|: )")


def files_named(message: str, config_dir: Path, argv: Sequence[str]) -> str:
    """The message with the user's file in front of each line whose key that file sets.

    Args:
        message: an error about settings: one per line, the key first. Keys that were typed get no file.
        config_dir: the shipped configurations.
        argv: the command line.
    """
    folders = own_folders(argv)
    if not folders:
        return message
    index = read_index([config_dir, *folders])
    setters = [
        (key.path, folders[-1] / group / f"{name}.yaml")
        for group, names in index.chosen(argv).items()
        for name in names
        if name in index.groups[group].choices and index.groups[group].choices[name].own
        for key in index.groups[group].choices[name].keys
    ]
    typed = {word.lstrip("+").partition("=")[0] for word in argv}

    def named(line: str) -> str:
        match = _KEY.match(line)
        if match is None or match[1] in typed:
            return line
        file = next((file for path, file in setters if f"{path}.".startswith(f"{match[1]}.")), None)
        return line if file is None else f"{file}: {line}"

    return "\n".join(map(named, message.split("\n")))


def broken_file(error: BaseException, argv: Sequence[str]) -> str | None:
    """The message for a configuration file that is not valid YAML or UTF-8; None for other errors."""
    if isinstance(error, yaml.MarkedYAMLError):
        mark = error.problem_mark or error.context_mark
        place = f"{mark.name}, line {mark.line + 1}, column {mark.column + 1}" if mark else "a file"
        return f"{place}: this is not valid YAML: {error.problem or error.context}."
    if isinstance(error, yaml.YAMLError):
        return f"A configuration file is not valid YAML: {error}."
    if isinstance(error, UnicodeDecodeError) and out_of_hydra(error):
        files = [path for folder in own_folders(argv) for path in sorted(folder.rglob("*.yaml"))]
        broken = next((path for path in files if not _is_text(path)), "A configuration file")
        return f"{broken}: this is not valid UTF-8 ({error.reason}). Save it as UTF-8."
    return None


def output_folder(error: BaseException, argv: Sequence[str]) -> str | None:
    """The message for a run folder that Hydra could not create; None for other errors."""
    if not isinstance(error, OSError) or error.filename is None or not out_of_hydra(error):
        return None
    key = "hydra.sweep.dir" if {"-m", "--multirun"} & set(argv) else "hydra.run.dir"
    return (
        f"{error.filename}: {(error.strerror or str(error)).lower()}."
        f" The output folder must be writable; choose another with {key}=<folder>."
    )


def out_of_hydra(error: BaseException) -> bool:
    """Whether an error comes from Hydra itself rather than from a run that it called."""
    frames = traceback.walk_tb(error.__traceback__)
    packages = [str(frame.f_globals.get("__name__")) for frame, _ in frames]
    of_both = [
        name.partition(".")[0]
        for name in packages
        if name.startswith(("hydra.", "bigmodel.")) and name != "bigmodel.cli.launch.safe_loader"
    ]
    return bool(of_both) and of_both[-1] == "hydra"


def _is_text(path: Path) -> bool:
    try:
        read_text(path)
    except UnicodeDecodeError:
        return False
    except OSError:  # a folder of that name, or not readable: another error
        pass
    return True
