"""The entry points `bigmodel-train`, `bigmodel` and `python -m bigmodel`: a process from end to end.

The standard streams and the signal handlers are set up before anything that takes time is loaded, so
that a signal prints at most one line and never a traceback.
"""

from __future__ import annotations

import atexit
import os
import sys

TYPE_CHECKING = False  # loading `typing` takes longer than this module
if TYPE_CHECKING:
    from typing import NoReturn


def bigmodel_train() -> NoReturn:
    """Trains and exits with a status."""
    _run("bigmodel-train", "bigmodel.cli.train")


def bigmodel() -> NoReturn:
    """Works with existing runs, or trains one as `bigmodel train`, and exits with a status."""
    if sys.argv[1:2] == ["train"]:  # Hydra parses the rest, as for `bigmodel-train`
        del sys.argv[1]
        bigmodel_train()
    _run("bigmodel", "bigmodel.cli.commands.main")


def python_m() -> NoReturn:
    """`python -m bigmodel`: trains with the settings that follow, or obeys a verb as `bigmodel` does."""
    first = sys.argv[1] if len(sys.argv) > 1 else ""
    if first and first[0] not in "-+~" and "=" not in first:  # settings have none of that: a verb
        bigmodel()
    bigmodel_train()


def _run(program: str, module: str) -> NoReturn:
    try:
        from bigmodel.runtime import standard_streams

        standard_streams.make_safe()
        from bigmodel.runtime.signals import SignalMode, Signals

        signals = Signals(program)
        signals.enter(SignalMode.LEAVE)
        signals.install()
        atexit.register(signals.ignore)  # registered first, called last
    except KeyboardInterrupt:  # the handlers are not installed yet
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
