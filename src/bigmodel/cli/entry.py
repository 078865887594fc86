"""`bigmodel-train` and `bigmodel`: the first lines of a process, and its last.

Before anything that takes time is loaded, the standard streams are safe and signals are ours, so that
from here on a signal ends in one line at most and never in a traceback.
"""

from __future__ import annotations

import atexit
import os
import sys

TYPE_CHECKING = False  # `typing` itself takes longer to load than what stands here
if TYPE_CHECKING:
    from typing import NoReturn


def bigmodel_train() -> NoReturn:
    """Trains, and exits with the status that says how it went."""
    _run("bigmodel-train", "bigmodel.cli.train")


def bigmodel() -> NoReturn:
    """Works with runs that exist, or trains one as `bigmodel train`; exits with its status."""
    if sys.argv[1:2] == ["train"]:  # Hydra reads the rest, as `bigmodel-train` has it
        del sys.argv[1]
        bigmodel_train()
    _run("bigmodel", "bigmodel.cli.commands.main")


def _run(program: str, module: str) -> NoReturn:
    try:
        from bigmodel.runtime import standard_streams

        standard_streams.make_safe()
        from bigmodel.runtime.signals import SignalMode, Signals

        signals = Signals(program)
        signals.enter(SignalMode.LEAVE)
        signals.install()
        atexit.register(signals.ignore)  # the first to be registered is the last to be called
    except KeyboardInterrupt:  # for these milliseconds the interpreter's own handler stands
        os.write(2, f"{program}: Stopped.\n".encode())
        os._exit(130)
    status: int | str | None = 1
    try:
        __import__(module)
        sys.modules[module].main(signals)
        status = 0
    except SystemExit as end:
        status = end.code
    except KeyboardInterrupt as stop:  # while the outcome was being printed
        status = signals.status(stop)
        sys.stderr.write(f"{program}: Stopped.\n")
    finally:
        signals.over(status if isinstance(status, int) else int(status is not None))
    sys.exit(status)
