"""The state shared by `main` and the jobs of one `bigmodel-train`: Hydra passes nothing between them."""

from __future__ import annotations

from bigmodel.runtime.signals import Signals

TYPE_CHECKING = False  # importing `typing` and `pathlib` would slow down --help
if TYPE_CHECKING:
    from pathlib import Path

    from bigmodel.distributed.meeting import Meeting
    from bigmodel.sweeps.manifest import Manifest
    from bigmodel.sweeps.refit import Refit


class Invocation:
    """One call of `bigmodel-train`.

    Attributes:
        signals: requests to stop or to save.
        resumed: the folder of the run to resume; None for a new run.
        may_change: whether it may resume with other settings or data.
        started: whether a job has started; otherwise only the configuration was printed.
        folder: of the last run whose training has started.
        error: what ended the only job.
        words: what was typed, without secrets.
        sweep: the sweep's record; None for a single run.
        resumed_sweep: the record of the sweep to go on with; None for a new one.
        chosen: of a sweep's job, the words that it has of its own; None for a single run.
        meeting: with the processes that were started beside this one; None: there are none.
        refit: the best settings of a sweep, which the run trains again; None for another run.
    """

    def __init__(self) -> None:
        self.signals = Signals()
        self.resumed: Path | None = None
        self.may_change = False
        self.started = False
        self.folder: Path | None = None
        self.error: Exception | None = None
        self.words: list[str] = []
        self.sweep: Manifest | None = None
        self.resumed_sweep: Manifest | None = None
        self.refit: Refit | None = None
        self.chosen: list[str] | None = None
        self.meeting: Meeting | None = None


current = Invocation()
