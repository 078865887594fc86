"""`bigmodel-train`: from the command line to an exit status.

Help, completion and the version import nothing heavy; torch is imported only once Hydra has composed a
configuration.
"""

from __future__ import annotations

if __name__ == "__main__":  # `python -m bigmodel.cli.train`: set up signals first
    from bigmodel.cli import entry, imports

    imports.leave_start_folder()
    entry.bigmodel_train()

import contextlib
import io
import os
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from bigmodel.cli import imports, invocation, messages
from bigmodel.cli.messages import FULL_ERROR
from bigmodel.distributed import environment
from bigmodel.errors import BigModelError, CheckpointError, ConfigError, program, shell_quoted
from bigmodel.runtime import standard_streams
from bigmodel.runtime.escaping import escape, escape_library_output
from bigmodel.runtime.signals import SignalMode, Signals

TYPE_CHECKING = False  # importing `typing` would slow down --help
if TYPE_CHECKING:
    from bigmodel.sweeps.refit import Refit


def config_dir() -> Path:
    """The shipped configurations: inside the installed package, or at the root of a checkout."""
    installed = Path(__file__).parents[1] / "configs"
    return installed if installed.is_dir() else Path(__file__).parents[3] / "configs"


def main(signals: Signals | None = None) -> None:
    """Runs the command line and exits with 0, or with 1 after an error that the user can fix."""
    imports.isolate()
    argv = sys.argv[1:]
    if signals is not None:
        invocation.current.signals = signals
    try:
        with invocation.current.signals.installed():  # before anything heavy is imported
            place = environment.place()
            status = _obey(argv) if place is None else _obey_together(argv, place)
    except (KeyboardInterrupt, Exception) as error:
        stopped = messages.stop_status(error, invocation.current.signals)
        if not _is_told_here(error, stopped):
            sys.exit(stopped or 1)
        message, status = _message_of(error, argv)
        if message is None:
            raise
        messages.report(message)
    if status:
        sys.exit(status)


def _obey_together(argv: list[str], place: environment.Place) -> int:
    """What one of several processes does: the first reads the command line, and tells the others."""
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "FATAL")  # no stack traces about lost ranks
    from bigmodel.cli import job
    from bigmodel.cli.ranks import follow
    from bigmodel.distributed.meeting import Meeting

    if place.rank > 0:
        job.import_everything()
        return follow(place, job.run_along)
    invocation.current.meeting = meeting = Meeting(place)
    status = 1
    try:
        status = _obey(argv)
    finally:
        # If there is nothing to train. A mistake is one of all: what has started them, such as torchrun,
        # may wait for the first where the others seem to have succeeded.
        meeting.open(status)
    return status


def _is_told_here(error: BaseException, stopped: int | None) -> bool:
    """Whether it is this one of several processes that says why they end.

    Args:
        stopped: the exit status if they were asked to stop.
    """
    current = invocation.current
    if current.meeting is None:
        return True
    if stopped is not None:
        return current.meeting.place.rank == 0
    with current.signals.waiting():  # what has started it may end it meanwhile
        return current.meeting.is_told_here(error)


def _obey(argv: list[str]) -> int:
    page = _page(argv)
    return _train(argv) if page is None else _show(page)


def _page(argv: list[str]) -> str | None:
    """The text to show if only that is requested, such as help; otherwise None."""
    flags = {word.partition("=")[0] for word in argv if word.startswith("-")}
    if flags & {"-sc", "--shell-completion"}:
        from bigmodel.cli.launch.completion import complete

        return complete(argv, config_dir())
    if flags & {"--help", "-h"}:
        from bigmodel.cli.launch.help import help_page

        if any(":" in word for word in argv):  # `device=cuda:1`, for which there is no file
            from bigmodel.cli.launch.flags import expand_device_index

            argv = expand_device_index(argv)
        return help_page(config_dir(), argv)
    if "--version" in flags:
        from importlib.metadata import version

        return f"bigmodel-train {version('bigmodel-train')}"
    return None


def _show(page: str) -> int:
    from bigmodel.cli.launch.pager import show

    show(page)
    standard_streams.check_result()
    return 0


def _train(argv: list[str]) -> int:
    """Runs one run, or a sweep with its leaderboard."""
    from bigmodel.cli.launch import flags, hydra_patches, redact_overrides, resume, run_folder
    from bigmodel.cli.launch.config_index import read_index

    # Threads that wait by spinning take the processor from other processes: beside another busy process
    # the same training took ten times as long. OpenMP reads this once, when torch is loaded.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    escape_library_output()
    current = invocation.current
    current.signals.enter(SignalMode.LEAVE)
    current.signals.on_leaving = run_folder.discard_claimed
    run_folder.register_resolver()
    hydra_patches.limit_input()

    # From what the user typed to what Hydra parses. Secrets are first, since errors quote the rest.
    argv = redact_overrides.redact_argv(argv)
    argv = _sweep_words(argv)
    current.words = argv
    argv = flags.flags_first(argv, config_dir())
    argv = flags.expand_device_index(argv)
    argv = flags.add_pluses(argv, read_index([config_dir()]).open_paths())
    argv, current.resumed, current.may_change = resume.expand_resume(argv, config_dir())
    hydra_patches.guard(config_dir(), argv)
    try:
        return _run_jobs(argv)
    except Exception:
        if current.error is None:
            run_folder.discard_refused_sweep()
        raise


def _sweep_words(argv: list[str]) -> list[str]:
    """The words that `sweep.resume` or `sweep.refit` stands for; a single run has no other such word."""
    named = [word for word in argv if word.lstrip("+~").startswith(("sweep.", "sweep="))]
    if not named:
        return argv
    from bigmodel.cli.sweep.refit import expand_refit
    from bigmodel.cli.sweep.resume import expand_resume

    current = invocation.current
    argv, current.refit = expand_refit(argv, config_dir())
    if {"-m", "--multirun"} & set(argv) or any("hydra.mode=" in word for word in argv):
        argv, current.resumed_sweep = expand_resume(argv)
        return argv
    named = [word for word in argv if word.lstrip("+~").startswith(("sweep.", "sweep="))]
    if named:
        raise ConfigError(f"{named[0]}: is a setting of sweeps. Add -m to run one, or leave it out.")
    return argv


def _run_jobs(argv: list[str]) -> int:
    current = invocation.current
    if "${" in (here := str(Path.cwd())):
        raise ConfigError(
            f"{here}: a ${{ in a folder's name stands for a setting in configurations. Start in another"
            " folder."
        )
    try:
        _call_hydra(argv)
    except KeyboardInterrupt:
        _conclude_sweep(stopped=True)
        raise
    if current.error is not None:
        raise current.error
    if not current.started:  # only text was requested, as by --cfg
        standard_streams.check_result()
    if current.resumed is not None:
        current.refit = _resumed_refit(current.resumed)
    if current.refit is not None and current.folder is not None:
        _conclude_refit(current.refit, current.folder)
    return _conclude_sweep()


def _resumed_refit(folder: Path) -> Refit | None:
    """The best settings of a sweep, if the run trains those, and has gone on without any others."""
    from bigmodel.cli.launch.safe_loader import named_plugins
    from bigmodel.cli.sweep.resume import key_of
    from bigmodel.sweeps.refit import Refit

    words = invocation.current.words
    if not {key_of(word) for word in words} <= {"resume", "plugins"}:
        return None
    return Refit.read(folder, sorted(named_plugins(words)))


def _conclude_refit(refit: Refit, folder: Path) -> None:
    from bigmodel.cli.sweep.refit_report import conclusion
    from bigmodel.reporting.summary import read_summary

    summary = read_summary(folder)
    assert summary is not None
    for line in conclusion(refit, folder, summary):
        print(escape(line))  # noqa: T201


def _call_hydra(argv: list[str]) -> None:
    """Has Hydra compose and run the jobs. Its errors are raised instead of printed."""
    import hydra

    from bigmodel.cli import job
    from bigmodel.cli.launch.hydra_patches import VERSION_BASE, sweeping_with

    before = os.environ.get(FULL_ERROR)
    os.environ[FULL_ERROR] = "1"
    sys.argv[1:] = argv
    try:
        with _escaped_on_terminal(argv), sweeping_with(partial(_make_sweeper, argv)):
            main = hydra.main(
                version_base=VERSION_BASE, config_path=str(config_dir()), config_name="train"
            )
            main(job.run_job)()
    finally:
        if before is None:
            del os.environ[FULL_ERROR]
        else:
            os.environ[FULL_ERROR] = before


def _make_sweeper(argv: list[str], **context: Any) -> Any:
    from bigmodel.cli.sweep.sweeper import make_sweeper  # not needed for a single run

    return make_sweeper(partial(_explain, argv=argv), **context)


@contextlib.contextmanager
def _escaped_on_terminal(argv: list[str]) -> Iterator[None]:
    """Escapes what Hydra prints on a terminal; in a pipe it stays valid YAML."""
    if not (sys.stdout.isatty() and {"--cfg", "--info"} & set(argv)):
        yield
        return
    with contextlib.redirect_stdout(io.StringIO()) as page:
        yield
    sys.stdout.write(escape(page.getvalue()))


def _conclude_sweep(*, stopped: bool = False) -> int:
    """Shows how the jobs of a sweep ended; 1 unless all of them finished.

    Args:
        stopped: whether it was asked to stop, which another message says with how to resume it.
    """
    if invocation.current.sweep is None:
        return 0
    from bigmodel.cli.launch.run_folder import LEADERBOARD, LOGS
    from bigmodel.cli.sweep import out_of_fold
    from bigmodel.cli.sweep.baseline_words import verdict
    from bigmodel.reporting.leaderboard import print_leaderboard
    from bigmodel.reporting.leaderboard_csv import write_csv
    from bigmodel.sweeps.leaderboard import rank
    from bigmodel.sweeps.results import collect

    results, path = collect(invocation.current.sweep), invocation.current.sweep.folder / LEADERBOARD
    boards = rank(results)
    try:
        write_csv(boards, path)
    finally:  # also if the disk is full
        print_leaderboard(boards, path=path)
    folder = invocation.current.sweep.folder
    for line in [*verdict(folder, results), *out_of_fold.write(folder, results)]:
        print(escape(line))  # noqa: T201
    unfinished = {result.status for result in results} - {"finished", "pruned"}
    logs = folder / LOGS
    if "failed" in unfinished and logs.is_dir() and any(logs.iterdir()):
        print(escape(f"What jobs have printed: {logs}"))  # noqa: T201
    if unfinished and not stopped:
        again = " sweep.retries=1" if "failed" in unfinished else ""
        print(escape(f"Resume with: {program('bigmodel-train')} {_resume_words()}{again}"))  # noqa: T201
    return int(bool(unfinished))


def _resume_words() -> str:
    """What to type to resume the run or the sweep; empty if there is nothing to resume."""
    folder, sweep = invocation.current.folder, invocation.current.sweep
    if sweep is not None:
        from bigmodel.cli.sweep.resume import resume_words

        return resume_words(sweep)
    return "" if folder is None else shell_quoted(f"resume={folder}")


def _message_of(error: BaseException, argv: list[str]) -> tuple[str | None, int]:
    """The message for an error, and the exit status; no message if its traceback should be shown."""
    if (status := messages.stop_status(error, invocation.current.signals)) is not None:
        words = _resume_words()
        return f"Stopped. Resume with {words}" if words else "Stopped.", status
    text = _explain(error, argv)
    if isinstance(error, CheckpointError) and {"-m", "--multirun"} & set(argv):
        text, sweep = error.in_sweep, invocation.current.sweep
        if sweep is not None:
            moved = not sweep.folder.is_dir()
            words = "-m sweep.resume=<its new folder>" if moved else _resume_words()
            text = f"{text} Then resume with {words}"
    return messages.error_text(text), 1


def _explain(error: BaseException, argv: list[str]) -> str | None:
    """The message for an error that the user can fix; None for a bug."""
    if isinstance(error, ConfigError):
        from bigmodel.cli.launch.file_errors import files_named

        with contextlib.suppress(BigModelError, OSError):  # no such folder: the error itself says so
            return files_named(str(error), config_dir(), argv)
    if isinstance(error, BigModelError):
        return str(error)
    from bigmodel.cli.launch.error_messages import explain

    return explain(error, config_dir(), argv)
