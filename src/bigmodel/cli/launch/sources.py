"""Which file of the user's own a complaint is about: what is wrong there is not on the command line."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from bigmodel.cli.launch.config_index import read_index
from bigmodel.cli.launch.help import own_folders

_KEY = re.compile(r"([A-Za-z_][\w.]*)(?:=|: )")


def files_named(message: str, config_dir: Path, argv: Sequence[str]) -> str:
    """The message, with the file in front of each line whose key an own file sets, and nobody has typed.

    Args:
        message: a complaint about settings, a line each, the key first.
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
        found = _KEY.match(line)
        if found is None or found[1] in typed:
            return line
        file = next((file for path, file in setters if f"{path}.".startswith(f"{found[1]}.")), None)
        return line if file is None else f"{file}: {line}"

    return "\n".join(map(named, message.split("\n")))
