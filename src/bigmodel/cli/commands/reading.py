"""New files as samples, by what the run has learnt; complaints in the words of this command line."""

from __future__ import annotations

import re
from pathlib import Path

from bigmodel.cli.commands.load import Loaded
from bigmodel.cli.commands.telling import tell, tell_left_out
from bigmodel.data.paths import check_no_device
from bigmodel.data.reader import Found
from bigmodel.errors import BigModelError


def read(
    loaded: Loaded,
    path: Path,
    option: str,
    *,
    with_targets: bool,
    max_bad: int,
    encoding: str | None = None,
) -> Found:
    """The samples of a file or folder; tells what was left out, and what is new in it.

    Args:
        option: that gave the path, such as `--input`.
        with_targets, max_bad: see `Reader.read`.
        encoding: that the file is written in; None: that of training's.

    Raises:
        DataError: it cannot be read, or is not of the kind that the run has learnt from.
    """
    check_no_device(path, option)
    try:
        reader = loaded.reader if encoding is None else loaded.reader.encoded(encoding)
        found = reader.read(path, with_targets=with_targets, max_bad=max_bad)
    except BigModelError as error:
        raise type(error)(_our_words(str(error), option)) from error
    for told in found.told:
        tell(": ".join(told))
    tell_left_out(found.left_out)
    return found


def _our_words(message: str, option: str) -> str:
    """A reader names settings as a configuration does."""
    message = re.sub(r"^(data\.)?path[=:] ?", f"{option} ", message)
    message = re.sub(
        r"^data\.\w+=(.*?): (.*) has no such column\.", r"\2: there is no column '\1'.", message
    )
    message = re.sub(r"; or say ['\"]*data\.label_pattern=.*?(; or|\.$)", r"\1", message)
    message = re.sub(r"data\.encoding=", "--encoding ", message)
    return re.sub(r"data\.max_bad=", "--max-bad ", message)
