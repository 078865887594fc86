"""The command, with a clock beside its reports: seconds of the processor at each record.

They are the same on a busy machine, where a step on one thread takes longer by a watch.
"""

from __future__ import annotations

import os
import time
from pathlib import Path

from bigmodel.build import new_run
from bigmodel.cli.train import main
from bigmodel.reporting.base import Record, Sink, Sinks
from costs.measure import CLOCK


class Clock(Sink):
    """Writes a line of step and seconds, into the file that the environment names."""

    def record(self, record: Record, best: Record) -> None:  # noqa: ARG002
        with Path(os.environ[CLOCK]).open("a", encoding="utf-8") as file:
            file.write(f"{record['step']} {time.process_time()}\n")


if __name__ == "__main__":
    make_sinks = new_run._sinks
    new_run._sinks = lambda *given: Sinks([make_sinks(*given), Clock()])
    main()
