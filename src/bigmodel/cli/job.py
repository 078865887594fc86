"""One run of `bigmodel-train`: the function that Hydra calls, once or for each job of a sweep.

Torch is imported only here, once a configuration has been composed.
"""

from __future__ import annotations

import contextlib
import sys
import traceback
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from bigmodel.cli import imports, invocation, messages
from bigmodel.cli.launch import run_folder
from bigmodel.cli.launch.lock import locked
from bigmodel.errors import BigModelError, ConfigError, reason
from bigmodel.redaction import masked
from bigmodel.runtime import caches, disk, progress_messages
from bigmodel.runtime.escaping import escape, escape_message
from bigmodel.runtime.signals import SignalMode


def run_job(config: DictConfig) -> float | None:
    """Runs one composed configuration.

    Returns:
        The best value of the monitored metric, for Hydra's sweepers to optimise; NaN from a job of a
        sweep that failed; None from a single run that failed, whose error `invocation` keeps.
    """
    from hydra.core.hydra_config import HydraConfig
    from hydra.types import RunMode

    with progress_messages.report_progress("Getting ready"):
        caches.use_private_folders()
        with imports.importing():
            # Everything that is slow to load; the loop too, so that a recorded run trains at once.
            import bigmodel.build.new_run
            import bigmodel.training.loop  # noqa: F401

        invocation.current.started = True
        invocation.current.signals.enter(SignalMode.RAISE)  # there may be something to clean up now
        hydra = HydraConfig.get()
        folder = Path(hydra.runtime.output_dir)
        if hydra.mode == RunMode.MULTIRUN:
            invocation.current.sweep = Path(hydra.sweep.dir)
            return _run_in_sweep(config, folder, hydra)
        try:
            return _run(config, folder, hydra)
        except Exception as error:
            invocation.current.error = error
            return None


def _run(config: DictConfig, folder: Path, hydra: Any) -> float | None:
    if invocation.current.resumed is not None:
        with locked(folder):
            run_folder.remove_leftovers(folder)
            run = _prepare_resumed(config, folder, invocation.current.resumed)
            if run is None:
                return None
            run_folder.write_config(folder, config)
            return _fit(run)
    try:
        run_folder.check_free(folder, "hydra.run.dir")
        run = _prepare(config, folder)
        with locked(folder):
            run_folder.check_free(folder, "hydra.run.dir")  # another process may have been quicker
            return _start(run, config, folder, hydra)
    except BaseException:
        if invocation.current.folder is None:  # training has not started there
            run_folder.discard(folder)
        raise


def _run_in_sweep(config: DictConfig, folder: Path, hydra: Any) -> float:
    """Runs a job; if it fails, that is reported at once and the other jobs go on.

    If its folder belongs to another process or holds something else, nothing is written.
    """
    with contextlib.ExitStack() as stack:
        try:
            run_folder.check_free(folder, "hydra.sweep.dir")
            stack.enter_context(locked(folder))
            run_folder.check_free(folder, "hydra.sweep.dir")  # another process may have been quicker
            held = stack.enter_context(contextlib.closing(disk.HeldFolder(folder)))
        except BigModelError as error:
            invocation.current.refused.append(folder)
            return _failed(error, hydra)
        try:
            value = _start(_prepare(config, folder), config, folder, hydra)
            return float("nan") if value is None else value
        except BaseException as error:
            if messages.stop_status(error, invocation.current.signals) is not None:
                raise  # a request to stop ends the sweep
            with contextlib.suppress(BigModelError):  # a full disk, a folder moved: reported already
                held.check()
                _record_failure(error, config, folder, hydra)
            return _failed(error, hydra)


def _prepare(config: DictConfig, folder: Path) -> Any:
    """Builds the run; all checks are made here, before the first step and the first file."""
    from bigmodel.build.new_run import build_run
    from bigmodel.config import parse, to_plain, to_shown

    typed = parse(to_plain(config), to_shown(config))
    if typed.top.resume is not None:  # it must be handled before Hydra composes
        raise ConfigError(
            f"resume={typed.top.resume}: would be ignored in a file, or with a plus before it. Pass it "
            f"on the command line: resume={typed.top.resume}"
        )
    return build_run(typed, folder)


def _prepare_resumed(config: DictConfig, folder: Path, resumed: Path) -> Any:
    """The same for a resumed run; None if it is finished."""
    from bigmodel.build.dataset import read_dataset
    from bigmodel.build.new_run import build_run
    from bigmodel.build.resumed_run import resume_run, saved_statistics
    from bigmodel.checkpointing.checkpoint import load_newest
    from bigmodel.cli.launch.resume_check import check_plugins, check_same
    from bigmodel.cli.launch.unfinished_runs import check_may_restart, has_checkpoint
    from bigmodel.config import parse, to_plain, to_shown
    from bigmodel.reporting.summary import read_summary

    check_plugins(resumed, config)
    typed = parse(to_plain(config), to_shown(config))
    if not has_checkpoint(folder):
        check_may_restart(folder)
        message = f"{folder}: this run ended before its first save. It starts from the beginning."
        print(escape_message(message))  # noqa: T201
        return build_run(typed, folder)
    newest = load_newest(folder / "checkpoints")
    settings = newest.facts.get("settings")
    changed = check_same(resumed, config, typed, settings, invocation.current.may_change)
    run = build_run(typed, folder, saved_statistics(newest, changed))
    run = resume_run(run, newest, changed, partial(read_dataset, typed))
    summary = read_summary(folder)
    if run.over and summary is not None and summary.status == "finished":
        print(escape_message(f"{folder}: this run is finished. {_how_to_continue(run)}"))  # noqa: T201
        return None
    return run  # when all steps are done but the summary is missing, training only reports


def _how_to_continue(run: Any) -> str:
    if run.state.progress.stopped_early:
        patience = run.config.early_stopping.patience
        return f"It stopped early; raise trainer.early_stopping.patience (now {patience}) to go on."
    if run.config.max_steps is not None:
        return f"To train longer, raise trainer.max_steps (now {run.config.max_steps})."
    return f"To train longer, raise trainer.epochs (now {run.config.epochs})."


def _start(run: Any, config: DictConfig, folder: Path, hydra: Any) -> float | None:
    """Starts a new run in a folder that is free and locked by this process."""
    run_folder.remove_leftovers(folder)
    run_folder.record_start(folder, config, hydra)
    return _fit(run)


def _fit(run: Any) -> float | None:
    from bigmodel.training.loop import fit

    invocation.current.folder = run.info.folder
    fit(replace(run, signals=invocation.current.signals))
    best: float | None = run.state.progress.best_value
    return best


def _record_failure(error: BaseException, config: DictConfig, folder: Path, hydra: Any) -> None:
    from bigmodel.reporting.base import Summary
    from bigmodel.reporting.summary import read_summary, write_summary

    run_folder.record_start(folder, config, hydra)
    summary = read_summary(folder) or Summary(status="failed")
    summary.status, summary.error = "failed", reason(error)
    write_summary(summary, folder)


def _failed(error: BaseException, hydra: Any) -> float:
    if not isinstance(error, BigModelError):
        sys.stderr.write(escape(masked(traceback.format_exc())))
    messages.report(f"Job {hydra.job.num} ({run_folder.typed_overrides(hydra)}) failed: {reason(error)}")
    return float("nan")
