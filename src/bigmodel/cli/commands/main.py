"""`bigmodel VERB`: works with runs that exist. Torch is imported once the arguments are understood."""

from __future__ import annotations

if (
    __name__ == "__main__"
):  # `python -m bigmodel.cli.commands.main`: signals come before all that takes time
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

_DOING = {"eval": "Evaluating", "predict": "Predicting", "export": "Exporting"}


def main(signals: Signals | None = None) -> None:
    """Runs the command line and exits: 0, or 1 where something the user can mend went wrong."""
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
    except SystemExit:  # what it has printed, such as help, is all
        standard_streams.check_result()
        raise


def _run(arguments: Namespace, signals: Signals) -> None:
    escape_library_output()
    signals.enter(SignalMode.LEAVE)
    # As `bigmodel-train` does: threads that wait by spinning slow down whoever else needs the processor.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    caches.use_private_folders()
    with progress_messages.report_progress(_DOING[arguments.verb]):
        run = import_module(f"bigmodel.cli.commands.{arguments.verb}").run
        signals.enter(SignalMode.RAISE)
        with may_need_extras(arguments.verb):
            if arguments.verb == "export":  # leaves a file, and tells where
                run(arguments)
                return
            standard_streams.check_result()  # nothing is computed for nobody
            run(arguments)
            standard_streams.check_result()


def _explain(error: BaseException) -> str | None:
    """The one message for an error that a user can mend; None for a fault of ours."""
    if isinstance(error, BigModelError):
        return str(error)
    if is_too_large(error):
        first = first_line(error, "no more memory is available")
        return f"Out of memory: {first}. Try --batch-size 1, or --device cpu."
    return None
