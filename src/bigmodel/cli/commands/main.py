"""`bigmodel VERB`: works with existing runs. Torch is imported only once the arguments are parsed."""

from __future__ import annotations

if __name__ == "__main__":  # `python -m bigmodel.cli.commands.main`: set up signals first
    from bigmodel.cli import entry, imports

    imports.leave_start_folder()
    entry.bigmodel()

import os
import sys
from argparse import Namespace
from importlib import import_module

from bigmodel.cli import imports, messages
from bigmodel.cli.commands.arguments import parse
from bigmodel.errors import BigModelError, first_line, is_too_large, may_need_extras
from bigmodel.runtime import caches, progress_messages, standard_streams
from bigmodel.runtime.escaping import escape_library_output
from bigmodel.runtime.signals import SignalMode, Signals

_DOING = {
    "eval": "Evaluating",
    "predict": "Predicting",
    "chat": "Answering",
    "explain": "Explaining",
    "export": "Exporting",
    "report": "Reporting",
    "track": "Sending",
    "compare": "Reading",
}


def main(signals: Signals | None = None) -> None:
    """Runs the command line and exits with 0, or with 1 after an error that the user can fix."""
    imports.isolate()
    signals = Signals("bigmodel") if signals is None else signals
    status = 1
    try:
        with signals.installed():
            _run(_arguments(), signals)
        return
    except (KeyboardInterrupt, Exception) as error:
        if (stopped := messages.stop_status(error, signals)) is not None:
            message, status = "Stopped.", stopped
        elif (text := messages.error_text(_explain(error))) is not None:
            message = text
        else:
            raise
    messages.report(message, "bigmodel")
    sys.exit(status)


def _arguments() -> Namespace:
    try:
        return parse(sys.argv[1:])
    except SystemExit:  # it has printed help, say
        standard_streams.check_result()
        raise


def _run(arguments: Namespace, signals: Signals) -> None:
    escape_library_output()
    signals.enter(SignalMode.LEAVE)
    # As `bigmodel-train` does: threads that wait by spinning slow down other processes.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    caches.use_private_folders()
    with progress_messages.report_progress(_DOING[arguments.verb]):
        run = import_module(f"bigmodel.cli.commands.{arguments.verb}").run
        signals.enter(SignalMode.RAISE)
        with may_need_extras(arguments.verb):
            if arguments.verb == "export":  # its result is a file
                run(arguments)
                return
            standard_streams.check_result()  # do not compute what cannot be printed
            run(arguments)
            standard_streams.check_result()


def _explain(error: BaseException) -> str | None:
    """The message for an error that the user can fix; None for a bug."""
    if isinstance(error, BigModelError):
        return str(error)
    if is_too_large(error):
        first = first_line(error, "no more memory is available")
        return f"Out of memory: {first}. Try --batch-size 1, or --device cpu."
    return None
