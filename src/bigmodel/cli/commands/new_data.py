"""New files as samples, read as the run's training data was; errors name this command line's options."""

from __future__ import annotations

import re
from argparse import Namespace
from pathlib import Path

from bigmodel.cli.commands.loaded_run import LoadedRun, Notify
from bigmodel.cli.messages import note
from bigmodel.data.paths import check_no_device
from bigmodel.data.reader import NewSamples
from bigmodel.errors import BigModelError


def read_new_data(loaded: LoadedRun, option: str, arguments: Namespace, *, targets: bool) -> NewSamples:
    """Reads the samples of a file or folder, and notes what was left out or is unlike the training data.

    Args:
        option: the option that holds the path, such as `--input`.
        arguments: the command line, with `max_bad` and `encoding`.
        targets: whether targets are read too.

    Raises:
        DataError: the data cannot be read, or is of another kind than the training data.
    """
    path = Path(getattr(arguments, option.removeprefix("--"))).expanduser()
    check_no_device(path, option)
    try:
        reader = loaded.reader
        if arguments.encoding is not None:
            reader = reader.encoded(arguments.encoding)
        new_samples = reader.read(path, with_targets=targets, max_bad=arguments.max_bad)
    except BigModelError as error:
        raise type(error)(_with_options(str(error), option)) from error
    for line in new_samples.header_rows:
        note(": ".join(line))
    report_skipped(new_samples.left_out, note)
    return new_samples


def _with_options(message: str, option: str) -> str:
    """A reader's message with this command line's options instead of configuration keys."""
    message = re.sub(r"^(data\.)?path[=:] ?", f"{option} ", message)
    no_column = r"^data\.\w+=(.*?): (.*) has no such column\."
    message = re.sub(no_column, r"\2: there is no column '\1'.", message)
    message = re.sub(r"; or set ['\"]*data\.label_pattern=.*?(; or|\.$)", r"\1", message)
    message = re.sub(r"data\.encoding=", "--encoding ", message)
    return re.sub(r"data\.max_bad=", "--max-bad ", message)


def report_skipped(skipped: dict[str, int], notify: Notify) -> None:
    """Notes how many samples have no prediction or were not evaluated, and why."""
    if skipped:
        notify("Left out: " + ", ".join(f"{count:,} {why}" for why, count in skipped.items()))
