"""`bigmodel VERB`: works with runs that exist. Torch is imported once the arguments are understood."""

from __future__ import annotations

import os
import sys
import traceback
from argparse import Namespace
from importlib import import_module

from bigmodel import caches, isolation
from bigmodel.commands.arguments import parse
from bigmodel.errors import BigModelError
from bigmodel.secrets import holds_secret, masked
from bigmodel.signals import Mode, Signals, Stopped
from bigmodel.visible import visible_message, watch_libraries

FULL_ERROR = "HYDRA_FULL_ERROR"
_BROKEN_PIPE = 141  # 128 + SIGPIPE, as a shell has it


def main() -> None:
    """Runs the command line and exits: 0, or 1 where something the user can mend went wrong."""
    isolation.isolate()
    signals = Signals()
    try:
        with signals.installed():
            arguments = parse(sys.argv[1:])
            _run(arguments, signals)
        sys.stdout.flush()
        return
    except KeyboardInterrupt as stop:
        _say("Stopped.")
        status = stop.status if isinstance(stop, Stopped) else 130
    except BrokenPipeError:  # whoever read has seen enough, such as `head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        status = _BROKEN_PIPE
    except Exception as error:
        message = _explain(error)
        if os.environ.get(FULL_ERROR, "0") not in {"0", ""} or message is None:
            if not holds_secret(traceback.format_exc()):
                raise
            message = traceback.format_exc()
        _say(message)
        status = 1
    sys.exit(status)


def _run(arguments: Namespace, signals: Signals) -> None:
    watch_libraries()
    signals.enter(Mode.LEAVE)
    # As `bigmodel-train` does: threads that wait by spinning slow down whoever else needs the processor.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    caches.settle()
    run = import_module(f"bigmodel.commands.{arguments.verb}").run
    signals.enter(Mode.RAISE)
    run(arguments)


def _explain(error: Exception) -> str | None:
    """The one message for an error that a user can mend; None for a fault of ours."""
    if isinstance(error, BigModelError):
        return str(error)
    from bigmodel.launch.complaints import TOO_LARGE

    if isinstance(error, MemoryError) or TOO_LARGE.search(str(error)):
        first = next(iter(str(error).splitlines()), "nothing more could be had")
        return f"Out of memory: {first}. Try --batch-size 1, or --device cpu."
    return None


def _say(message: str) -> None:
    print(visible_message(f"bigmodel: {masked(message)}"), file=sys.stderr)  # noqa: T201


if __name__ == "__main__":
    isolation.leave_start_folder()
    main()
