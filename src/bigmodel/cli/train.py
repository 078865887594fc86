"""`bigmodel-train`: the Hydra entry.

Torch is imported only once a configuration has been composed: `--help`, `--cfg job` and shell completion
never load it.
"""

from __future__ import annotations

if __name__ == "__main__":  # `python -m bigmodel.cli.train`: signals come before all that takes time
    from bigmodel.cli import entry, imports

    imports.leave_start_folder()
    entry.bigmodel_train()

import contextlib
import io
import os
import sys
import traceback
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bigmodel.cli import imports
from bigmodel.errors import BigModelError, ConfigError, reason, shell_quoted
from bigmodel.redaction import holds_secret, masked
from bigmodel.runtime import activity, caches, disk, streams
from bigmodel.runtime.escaping import escape, escape_library_output, escape_message
from bigmodel.runtime.signals import SignalMode, Signals

if TYPE_CHECKING:
    from omegaconf import DictConfig

FULL_ERROR = "HYDRA_FULL_ERROR"


@dataclass
class _Outcome:
    """What jobs leave for `main`, since Hydra does not hand their results on."""

    error: BaseException | None = None
    sweep: Path | None = None
    resumed: Path | None = None
    may_change: bool = False
    folder: Path | None = None
    refused: list[Path] = field(default_factory=list)
    began: bool = False
    signals: Signals = field(default_factory=Signals)


_outcome = _Outcome()


def config_dir() -> Path:
    """The folder of our configurations: inside the installed package, or at the root of a checkout."""
    installed = Path(__file__).parents[1] / "configs"
    return installed if installed.is_dir() else Path(__file__).parents[3] / "configs"


def main(signals: Signals | None = None) -> None:
    """Runs the command line and exits: 0, or 1 where something the user can mend went wrong."""
    imports.isolate()
    argv = sys.argv[1:]
    wants_traceback = os.environ.get(FULL_ERROR, "0") not in {"0", ""}
    if signals is not None:
        _outcome.signals = signals
    try:
        with _outcome.signals.installed():  # before anything heavy is imported
            status = _launch(argv) if (page := _page(argv)) is None else _show(page)
    except (KeyboardInterrupt, Exception) as error:
        stopped = _stopped(error)
        if stopped is not None:
            folder = _outcome.folder
            _say(
                "Stopped."
                if folder is None
                else f"Stopped. Go on with {shell_quoted(f'resume={folder}')}"
            )
            sys.exit(stopped)
        message = _explain(error, argv)
        if wants_traceback or message is None:
            if not holds_secret(traceback.format_exc()):
                raise
            message = traceback.format_exc()
        _say(message)
        status = 1
    if status:
        sys.exit(status)


def _page(argv: list[str]) -> str | None:
    """What is asked for only to be read, for which nothing heavy is loaded; None: work is to be done."""
    flags = {word.partition("=")[0] for word in argv if word.startswith("-")}
    if flags & {"-sc", "--shell-completion"}:
        from bigmodel.cli.launch.completion import complete

        return complete(argv, config_dir())
    if flags & {"--help", "-h"}:
        from bigmodel.cli.launch.help import help_page

        if any(":" in word for word in argv):  # `device=cuda:1`, which no file is called
            from bigmodel.cli.launch.flags import indexed

            argv = indexed(argv)
        return help_page(config_dir(), argv)
    if "--version" in flags:
        from importlib.metadata import version

        return f"bigmodel-train {version('bigmodel-train')}"
    return None


def _show(page: str) -> int:
    from bigmodel.cli.launch.pager import show

    show(page)
    streams.check_result()
    return 0


def job(config: DictConfig) -> float | None:
    """One run: what Hydra calls, once or for each job of a sweep.

    Returns:
        The best value of the monitored metric, for Hydra's sweepers to optimise; NaN from a job of a
        sweep that failed.
    """
    with activity.report_progress("Getting ready"):
        return _do_job(config)


def _do_job(config: DictConfig) -> float | None:
    from hydra.core.hydra_config import HydraConfig
    from hydra.types import RunMode

    caches.use_private_folders()
    with imports.importing():
        # Torch and all that is slow to load; the loop too, so that a run on record is under way at once.
        import bigmodel.build.runs
        import bigmodel.training.loop  # noqa: F401

    _outcome.began = True
    _outcome.signals.enter(SignalMode.RAISE)
    hydra = HydraConfig.get()
    folder = Path(hydra.runtime.output_dir)
    if hydra.mode != RunMode.MULTIRUN:
        try:
            return _run(config, folder, hydra)
        except Exception as error:
            _outcome.error = error
            return None
    _outcome.sweep = Path(hydra.sweep.dir)
    return _run_in_sweep(config, folder, hydra)


def _launch(argv: list[str]) -> int:
    from bigmodel.cli.launch import (
        flags,
        limits,
        redact_overrides,
        resume,
        run_folder,
        safe_loader,
        sweep_folder,
    )
    from bigmodel.cli.launch.config_index import open_keys, read_options

    # Threads that wait by spinning take the processor from whoever else needs it: beside another busy
    # process the same training took ten times as long. OpenMP reads this once, when torch is loaded.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    escape_library_output()
    _outcome.signals.enter(SignalMode.LEAVE)
    _outcome.signals.on_leaving = run_folder.discard_claimed
    run_folder.register_resolver()
    limits.install()
    argv = flags.indexed(flags.flags_first(redact_overrides.hide_typed(argv), config_dir()))
    argv = flags.adding(argv, open_keys(read_options([config_dir()])))
    argv, _outcome.resumed, _outcome.may_change = resume.settle(argv, config_dir())
    safe_loader.guard(config_dir(), argv)
    try:
        with sweep_folder.owning():
            return _runs(argv)
    except Exception:
        if _outcome.error is None:
            run_folder.discard_refused_sweep()
        raise


def _runs(argv: list[str]) -> int:
    """One run, or a sweep with its leaderboard."""
    try:
        _call_hydra(argv)
    except KeyboardInterrupt:
        if _outcome.sweep is not None:
            _conclude_sweep(_outcome.sweep)
        raise
    if _outcome.error is not None:
        raise _outcome.error
    if not _outcome.began:  # what was printed, such as by --cfg, is all that was wanted
        streams.check_result()
    return 0 if _outcome.sweep is None else _conclude_sweep(_outcome.sweep)


def _call_hydra(argv: list[str]) -> None:
    """Has Hydra compose and call `job`. Its errors reach us instead of being printed its own way."""
    import hydra

    before = os.environ.get(FULL_ERROR)
    os.environ[FULL_ERROR] = "1"
    sys.argv[1:] = argv
    try:
        with _page_shown(argv):
            hydra.main(version_base="1.3", config_path=str(config_dir()), config_name="train")(job)()
    finally:
        if before is None:
            del os.environ[FULL_ERROR]
        else:
            os.environ[FULL_ERROR] = before


@contextlib.contextmanager
def _page_shown(argv: list[str]) -> Iterator[None]:
    """What Hydra prints for a reader; for a pipe it is left as it is, which may be read as YAML."""
    if not (sys.stdout.isatty() and {"--cfg", "--info"} & set(argv)):
        yield
        return
    with contextlib.redirect_stdout(io.StringIO()) as page:
        yield
    sys.stdout.write(escape(page.getvalue()))


def _run(config: DictConfig, folder: Path, hydra: Any) -> float | None:
    from bigmodel.cli.launch import run_folder
    from bigmodel.cli.launch.lock import owned

    if _outcome.resumed is not None:
        with owned(folder):
            run_folder.tidy(folder)
            run = _prepare_resumed(config, folder, _outcome.resumed)
            if run is None:
                return None
            run_folder.write_config(folder, config)
            return _fit(run)
    try:
        run_folder.check_free(folder, "hydra.run.dir")
        run = _prepare(config, folder)
        with owned(folder):
            run_folder.check_free(folder, "hydra.run.dir")  # another process may have been quicker
            return _begin(run, config, folder, hydra)
    except BaseException:
        if _outcome.folder is None:  # nothing has begun there
            run_folder.discard(folder)
        raise


def _begin(run: Any, config: DictConfig, folder: Path, hydra: Any) -> float | None:
    """Starts a new run in a folder that is this process's, and free."""
    from bigmodel.cli.launch import run_folder

    run_folder.tidy(folder)
    run_folder.record_start(folder, config, hydra)
    return _fit(run)


def _fit(run: Any) -> float | None:
    from bigmodel.training.loop import fit

    run.signals, _outcome.folder = _outcome.signals, run.info.folder
    fit(run)
    best: float | None = run.state.progress.best_value
    return best


def _prepare(config: DictConfig, folder: Path) -> Any:
    """Everything that can be refused is refused here, before the first step and the first file."""
    from bigmodel.build.runs import build_run
    from bigmodel.config import parse, to_plain, to_shown

    typed = parse(to_plain(config), to_shown(config))
    if typed.top.resume is not None:  # it has to be settled before Hydra composes
        raise ConfigError(
            f"resume={typed.top.resume}: would be ignored in a file, or with a plus before it."
            f" Give it on the command line: resume={typed.top.resume}"
        )
    return build_run(typed, folder)


def _prepare_resumed(config: DictConfig, folder: Path, resumed: Path) -> Any:
    """The same for a run that goes on; None for one that is finished."""
    from bigmodel.build.runs import build_run, dataset_of, learnt_before, resume_run
    from bigmodel.checkpointing.checkpoint import load_newest
    from bigmodel.cli.launch.resume_check import check_plugins, check_same
    from bigmodel.cli.launch.unfinished_runs import check_may_begin_anew, has_checkpoint
    from bigmodel.config import parse, to_plain, to_shown
    from bigmodel.reporting.summary import read_summary

    check_plugins(resumed, config)
    typed = parse(to_plain(config), to_shown(config))
    if not has_checkpoint(folder):
        check_may_begin_anew(folder)
        told = f"{folder}: this run ended before its first save. It begins anew there."
        print(escape_message(told))  # noqa: T201
        return build_run(typed, folder)
    newest = load_newest(folder / "checkpoints")
    settings = newest.facts.get("settings")
    changed = check_same(resumed, config, typed, settings, _outcome.may_change)
    run = build_run(typed, folder, learnt_before(newest, changed))
    run = resume_run(run, newest, changed, partial(dataset_of, typed))
    summary = read_summary(folder)
    if run.over and summary is not None and summary.status == "finished":
        told = f"{folder}: this run is finished. {_way_to_go_on(run)}"
        print(escape_message(told))  # noqa: T201
        return None
    return run  # where all steps are done but not told, what is left is told


def _way_to_go_on(run: Any) -> str:
    if run.state.progress.stopped_early:
        patience = run.config.early_stopping.patience
        return f"It stopped early; raise trainer.early_stopping.patience (now {patience}) to go on."
    if run.config.max_steps is not None:
        return f"To train longer, raise trainer.max_steps (now {run.config.max_steps})."
    return f"To train longer, raise trainer.epochs (now {run.config.epochs})."


def _run_in_sweep(config: DictConfig, folder: Path, hydra: Any) -> float:
    """A job that fails, or exits, is reported at once and leaves the others alone.

    One whose folder is another's, or holds what is not of this sweep, is refused: nothing is written.
    """
    from bigmodel.cli.launch import run_folder
    from bigmodel.cli.launch.lock import owned

    with contextlib.ExitStack() as stack:
        try:
            run_folder.check_free(folder, "hydra.sweep.dir")
            stack.enter_context(owned(folder))
            run_folder.check_free(folder, "hydra.sweep.dir")  # another process may have been quicker
            place = stack.enter_context(contextlib.closing(disk.HeldFolder(folder)))
        except BigModelError as error:
            _outcome.refused.append(folder)
            return _failed_job(error, hydra)
        try:
            value = _begin(_prepare(config, folder), config, folder, hydra)
            return float("nan") if value is None else value
        except BaseException as error:
            if _stopped(error) is not None:
                raise
            with contextlib.suppress(BigModelError):  # a full disk, a folder moved: told already
                place.check()
                _record_failure(error, config, folder, hydra)
            return _failed_job(error, hydra)


def _record_failure(error: BaseException, config: DictConfig, folder: Path, hydra: Any) -> None:
    from bigmodel.cli.launch import run_folder
    from bigmodel.reporting.base import Summary
    from bigmodel.reporting.summary import read_summary, write_summary

    run_folder.record_start(folder, config, hydra)
    summary = read_summary(folder) or Summary(status="failed")
    summary.status, summary.error = "failed", reason(error)
    write_summary(summary, folder)


def _failed_job(error: BaseException, hydra: Any) -> float:
    from bigmodel.cli.launch import run_folder

    if not isinstance(error, BigModelError):
        sys.stderr.write(escape(masked(traceback.format_exc())))
    _say(f"Job {hydra.job.num} ({run_folder.typed(hydra)}) failed: {reason(error)}")
    return float("nan")


def _conclude_sweep(folder: Path) -> int:
    from bigmodel.cli.launch.sweep import collect
    from bigmodel.cli.launch.sweep_folder import LEADERBOARD
    from bigmodel.reporting.leaderboard import print_leaderboard, write_csv

    rows, metric, mode = collect(folder, _outcome.refused)
    write_csv(rows, folder / LEADERBOARD, metric, mode)
    print_leaderboard(rows, metric, mode)
    return 1 if _outcome.refused or any(row.status != "finished" for row in rows) else 0


def _stopped(error: BaseException) -> int | None:
    """The exit status where the process was asked to stop; None for an error."""
    return None if isinstance(error, BigModelError) else _outcome.signals.status(error)


def _explain(error: BaseException, argv: list[str]) -> str | None:
    """The one message for an error that a user can mend; None for a fault of ours."""
    if isinstance(error, ConfigError):
        from bigmodel.cli.launch.sources import files_named

        with contextlib.suppress(BigModelError, OSError):  # no such folder: the error itself says so
            return files_named(str(error), config_dir(), argv)
    if isinstance(error, BigModelError):
        return str(error)
    from bigmodel.cli.launch.error_messages import explain

    return explain(error, config_dir(), argv)


def _say(message: str) -> None:
    print(escape_message(f"bigmodel-train: {masked(message)}"), file=sys.stderr)  # noqa: T201
