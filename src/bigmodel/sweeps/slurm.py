"""Jobs of Slurm, by submitit, which is imported only here and only where jobs are submitted or run.

submitit pickles each job, writes the script for sbatch, and runs the job on its node. Before a job's
time is up, or when Slurm needs its place, submitit's handler of a signal (SIGUSR2, or the one that the
variable SUBMITIT_PREEMPT_SIGNAL names) has the job queued again. That handler would act between any two
instructions, in the middle of a save too: so it is called once the job has saved and its run is over.
"""

from __future__ import annotations

import contextlib
import io
import os
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from bigmodel.errors import ConfigError, require
from bigmodel.sweeps.config import SlurmConfig
from bigmodel.sweeps.jobs import Job
from bigmodel.sweeps.report import FileChannel

if TYPE_CHECKING:
    import submitit

_ENDED = {
    *("BOOT_FAIL", "CANCELLED", "COMPLETED", "DEADLINE", "FAILED", "NODE_FAIL", "OUT_OF_MEMORY"),
    *("PREEMPTED", "REVOKED", "TIMEOUT"),
}
"""States of Slurm in which a job is over, unless it is queued again."""

STOPPED = {"CANCELLED", "DEADLINE", "NODE_FAIL", "PREEMPTED", "REVOKED", "TIMEOUT"}
"""Those of them that are not the job's own fault."""

QueueWork = Callable[[Job, FileChannel, int], bool]
"""What a job does in its own process; it has to report its outcome, and handle a signal that asks it to
make room. Returns whether it was asked that and has stopped."""


class Task:
    """One job, as submitit runs it, and again whenever it was queued again.

    Args:
        work: what the job does.
        report: the file for what it tells.
        begun: whether its run folder is its own already.
    """

    def __init__(self, work: QueueWork, job: Job, report: Path, begun: bool = False) -> None:
        self._work, self._job, self._report, self._begun = work, job, report, begun

    def __call__(self) -> None:
        name = os.environ.get("SUBMITIT_PREEMPT_SIGNAL", "USR2")
        number = getattr(signal, f"SIG{name}")
        requeue: Any = signal.getsignal(number)  # before the work handles the signal itself
        if self._work(self._job, FileChannel(self._report, self._job, self._begun), number):
            requeue(number, None)

    def checkpoint(self) -> submitit.helpers.DelayedSubmission:
        """What submitit runs when the job's turn comes again: the same, which finds its checkpoint."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self)


class Cluster(Protocol):
    """Where jobs wait and run.

    Attributes:
        keeps: whether they go on when the sweep has ended.
        patience: seconds after which a job counts as over that is there no more: its last words may
            still be on their way, or it is queued again.
    """

    keeps: bool
    patience: float

    def submit(self, tasks: Sequence[Task]) -> list[str]:
        """Submits jobs. Returns what each is called there."""

    def states(self) -> Mapping[str, str] | None:
        """By name, Slurm's words for the jobs that are there, or were until recently; None: it does not
        answer."""

    def cancel(self, names: Sequence[str]) -> None:
        """Asks jobs to stop: those that run save."""


def is_over(state: str | None) -> bool:
    """Whether a job is over, by its state; None: it is not there."""
    return state is None or state in _ENDED


def cluster_for(config: SlurmConfig, folder: Path, at_once: int) -> Cluster:
    """Where the jobs of a sweep run.

    Args:
        folder: for what submitit writes.
        at_once: how many jobs of an array run at a time.
    """
    return Slurm(config, folder, at_once) if config.cluster == "slurm" else Local(config, folder)


def check(config: SlurmConfig) -> None:
    """Makes sure that jobs can be submitted from here.

    Raises:
        MissingPackageError: submitit is not installed.
        ConfigError: this machine has no Slurm.
    """
    require("submitit", "sweep.launcher=submitit")
    missing = [name for name in ("sbatch", "srun", "squeue") if shutil.which(name) is None]
    if config.cluster == "slurm" and missing:
        raise ConfigError(
            f"sweep.launcher=submitit: there is no Slurm here: no command {missing[0]} was found. Start"
            " the sweep where sbatch works, such as on a login node. To try it without Slurm, add"
            " sweep.slurm.cluster=local; to run it on this machine, leave out sweep.launcher."
        )


class Slurm:
    """Slurm's queue, for the jobs of this user."""

    keeps = True
    patience = 60.0  # file systems that machines share show new files this late

    def __init__(self, config: SlurmConfig, folder: Path, at_once: int) -> None:
        self._executor = _executor(config, folder)
        self._executor.update_parameters(slurm_array_parallelism=at_once)

    def submit(self, tasks: Sequence[Task]) -> list[str]:
        from submitit.core.utils import FailedJobError, FailedSubmissionError

        try:
            with contextlib.redirect_stderr(io.StringIO()):  # where submitit repeats what sbatch says
                return [job.job_id for job in self._executor.submit_array(tasks)]
        except (FailedJobError, FailedSubmissionError) as error:
            lines = str(error).replace("sbatch: ", "").strip().splitlines()
            raise ConfigError(
                f"sweep.slurm: sbatch has refused the jobs: {' '.join(lines)}. Change what they ask for"
                " with sweep.slurm.*, such as sweep.slurm.partition."
            ) from error

    def states(self) -> Mapping[str, str] | None:
        # A line for each job of an array, all of the user's: an unknown name would be an error.
        words = ["squeue", "--noheader", "--array", "--states=all", f"--user={os.getuid()}"]
        try:
            told = subprocess.run(
                [*words, "--format=%i|%T"], capture_output=True, text=True, timeout=60, check=True
            ).stdout
        except (OSError, subprocess.SubprocessError):
            return None
        return dict(line.split("|", 1) for line in told.split() if "|" in line)

    def cancel(self, names: Sequence[str]) -> None:
        with contextlib.suppress(OSError, subprocess.SubprocessError):
            subprocess.run(["scancel", *names], capture_output=True, timeout=60, check=False)


class Local:
    """Processes of this machine, by submitit's local executor. They end with the sweep."""

    keeps = False
    patience = 0.0

    def __init__(self, config: SlurmConfig, folder: Path) -> None:
        self._executor = _executor(config, folder)
        self._jobs: dict[str, submitit.Job[None]] = {}

    def submit(self, tasks: Sequence[Task]) -> list[str]:
        with _interrupts_ignored():
            jobs = [self._executor.submit(task) for task in tasks]
        self._jobs |= {job.job_id: job for job in jobs}
        return [job.job_id for job in jobs]

    def states(self) -> Mapping[str, str]:
        self._jobs = {name: job for name, job in self._jobs.items() if not job.done()}
        return dict.fromkeys(self._jobs, "RUNNING")

    def cancel(self, names: Sequence[str]) -> None:
        for name in names:
            if name in self.states():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(int(name), signal.SIGTERM)  # submitit's process passes it on to the job's


@contextlib.contextmanager
def _interrupts_ignored() -> Iterator[None]:
    """Processes that are started within it do not get Ctrl-C, which goes to all that share a terminal:
    the sweep decides what its jobs are told."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _executor(config: SlurmConfig, folder: Path) -> submitit.AutoExecutor:
    import submitit

    most = config.max_num_timeout
    executor = submitit.AutoExecutor(
        folder, cluster=config.cluster, slurm_max_num_timeout=most, local_max_num_timeout=most
    )
    asked = config.model_dump(exclude={"cluster", "max_num_timeout", "max_submitted"}, exclude_none=True)
    common = ("name", "timeout_min", "gpus_per_node", "cpus_per_task", "mem_gb")
    executor.update_parameters(
        **{key if key in common else f"slurm_{key}": value for key, value in asked.items()}
    )
    return executor
