"""One run of `bigmodel-train`: the function that Hydra calls.

Torch is imported only here, once a configuration has been composed.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig, OmegaConf

from bigmodel.cli import imports, invocation
from bigmodel.cli.finding import find
from bigmodel.cli.launch import run_folder
from bigmodel.cli.launch.lock import locked
from bigmodel.cli.launch.seen_folder import check_seen
from bigmodel.errors import ConfigError
from bigmodel.redaction import PER_INVOCATION, looks_secret, masked, redact_text
from bigmodel.runtime import caches, progress_messages
from bigmodel.runtime.escaping import escape_message
from bigmodel.runtime.git_state import ask_git
from bigmodel.runtime.signals import SignalMode
from bigmodel.sweeps.jobs import settings
from bigmodel.sweeps.results import typed_words

if TYPE_CHECKING:
    from bigmodel.config import RunConfig
    from bigmodel.distributed.ranks import Ranks


def run_job(config: DictConfig) -> None:
    """Runs one composed configuration; `invocation` keeps its error."""
    from hydra.core.hydra_config import HydraConfig

    with progress_messages.report_progress("Getting ready"):
        import_everything()
    invocation.current.started = True
    invocation.current.signals.enter(SignalMode.RAISE)  # from now on there may be things to tidy up
    hydra = HydraConfig.get()
    folder = Path(hydra.runtime.output_dir)
    act = partial(_run, config, folder, hydra)
    from bigmodel.cli.ranks import Task, lead, run_ranks
    from bigmodel.distributed.ranks import ALONE

    current = invocation.current
    task = Task(config, folder, current.resumed, current.may_change)
    try:
        if current.meeting is not None:
            lead(current.meeting, act, task)
        elif (count := number_of(config.device.get("ranks"))) > 1:
            run_ranks(count, act, task, number_of(config.device.get("restarts")))
        else:
            act(ALONE)
    except Exception as error:
        invocation.current.error = error
        if current.folder is None:  # training has not started there
            run_folder.discard(folder)


def import_everything() -> None:
    """Imports everything that is slow to load; the loop too, so that a recorded run trains at once."""
    caches.use_private_folders()
    with imports.importing():
        import bigmodel.build.new_run
        import bigmodel.training.loop  # noqa: F401


def number_of(typed: Any) -> int:
    """A setting that is not checked yet: a wrong value is refused when the run is built."""
    return typed if isinstance(typed, int) else 0


def _run(config: DictConfig, folder: Path, hydra: Any, ranks: Ranks) -> None:
    """Trains one run, alone or as one of several ranks, of which the first owns the folder."""
    with progress_messages.report_progress("Getting ready") if ranks.is_first else nullcontext():
        if config.get("find") is not None:
            find(config, folder, ranks)
        elif not ranks.is_first:
            run_along(config, folder, ranks)
        elif invocation.current.resumed is not None:
            resume(config, folder, invocation.current.resumed, ranks)
        else:
            start(config, folder, hydra, ranks)


def resume(config: DictConfig, folder: Path, resumed: Path, ranks: Ranks, **how: Any) -> None:
    """Goes on with a run; `how` is for `build_run`."""
    with locked(folder):
        run_folder.remove_leftovers(folder)
        check_seen(folder, ranks)
        git = ask_git(Path.cwd())
        run = prepare_resumed(config, folder, resumed, ranks=ranks, **how)
        if run is not None:
            run.summary.environment |= git()
            run_folder.write_config(folder, config)
            ranks.barrier()
            fit_run(run)


def start(config: DictConfig, folder: Path, hydra: Any, ranks: Ranks, **how: Any) -> None:
    """Trains a new run; `how` is for `build_run`."""
    try:
        run_folder.check_free(folder, "hydra.run.dir")
        check_seen(folder, ranks)
        git = ask_git(Path.cwd())
        run = prepare(config, folder, ranks=ranks, **how)
        run.summary.environment |= git()
        with locked(folder):
            run_folder.check_free(folder, "hydra.run.dir")  # another process may have been quicker
            run_folder.remove_leftovers(folder)
            run_folder.record_start(folder, config, hydra)
            if (refit := invocation.current.refit) is not None:
                refit.write(folder)
                print(escape_message(refit.announcement))  # noqa: T201
            ranks.barrier()
            fit_run(run)
    except BaseException:
        if invocation.current.folder is None:  # training has not started there
            run_folder.discard(folder)
        raise


def run_along(config: DictConfig, folder: Path, ranks: Ranks) -> None:
    """What the other ranks do: they wait until the folder is the run's, and never write into it."""
    check_seen(folder, ranks)
    resumed = invocation.current.resumed
    run = (
        prepare(config, folder, ranks=ranks)
        if resumed is None
        else prepare_resumed(config, folder, resumed, ranks=ranks)
    )
    if run is not None:
        ranks.barrier()
        fit_run(run)


def prepare(config: DictConfig, folder: Path, **how: Any) -> Any:
    """Builds the run; all checks are made here, before the first step and the first file."""
    from bigmodel.build.new_run import build_run
    from bigmodel.config import parse, to_plain, to_shown

    typed = replace(parse(to_plain(config), to_shown(config)), **_changed())
    check_new(typed)
    return build_run(typed, folder, **how)


_NOT_CHANGES = (*PER_INVOCATION, "hydra", "run", "logger", "output_dir", "plugins")


def _changed(before: Sequence[str] = ()) -> dict[str, Any]:
    """The settings of this run that were typed, or that its sweep has chosen, without secrets; see
    `RunConfig`.

    Args:
        before: the words with which a resumed run was started.
    """
    from hydra.core.hydra_config import HydraConfig

    chosen = invocation.current.chosen
    if chosen is None:
        # Not resolved: secrets are references.
        now: Any = []
        if HydraConfig.initialized():
            now = OmegaConf.to_container(HydraConfig.get().overrides.task, resolve=False)
        chosen = [*before, *now]
    own = {k: v for k, v in settings(chosen).items() if re.split(r"[./]", k)[0] not in _NOT_CHANGES}
    told = {k: masked(redact_text(k, v)) for k, v in own.items() if not looks_secret(k)}
    return {"changed": told, "in_sweep": invocation.current.chosen is not None}


def check_new(config: RunConfig) -> None:
    """Raises ConfigError if a run is to be resumed, which must be handled before Hydra composes."""
    if (resume := config.top.resume) is not None:
        raise ConfigError(
            f"resume={resume}: would be ignored in a file, or with a plus before it. Pass it on the"
            f" command line: resume={resume}"
        )


def prepare_resumed(config: DictConfig, folder: Path, resumed: Path, **how: Any) -> Any:
    """The same for a resumed run; None if it is finished."""
    from bigmodel.build.dataset import read_dataset
    from bigmodel.build.new_run import build_run
    from bigmodel.build.pretrained.start import as_started
    from bigmodel.build.resumed_run import resume_run, saved_statistics
    from bigmodel.checkpointing.checkpoint import load_newest
    from bigmodel.cli.launch.resume_check import check_plugins, check_same
    from bigmodel.cli.launch.resume_config import read_config
    from bigmodel.cli.launch.unfinished_runs import check_may_restart, has_checkpoint
    from bigmodel.config import parse, to_plain, to_shown
    from bigmodel.distributed.ranks import ALONE
    from bigmodel.reporting.summary import read_summary

    check_plugins(resumed, config)
    before = typed_words(folder)
    typed = replace(parse(to_plain(config), to_shown(config)), **_changed(before))
    ranks = how.get("ranks", ALONE)
    if not ranks.from_first(has_checkpoint(folder)):
        check_may_restart(folder)
        message = f"{folder}: this run ended before its first save. It starts from the beginning."
        print(escape_message(message))  # noqa: T201
        return build_run(typed, folder, **how)
    newest = load_newest(folder / "checkpoints", ranks)
    typed = as_started(typed, newest.facts, read_config(folder))
    settings = newest.facts.get("settings")
    changed = check_same(resumed, config, typed, settings, invocation.current.may_change)
    run = build_run(typed, folder, saved_statistics(newest, changed), goes_on=True, **how)
    run = resume_run(run, newest, changed, partial(read_dataset, typed))
    summary = read_summary(folder)
    if ranks.from_first(run.over and summary is not None and summary.status == "finished"):
        print(escape_message(f"{folder}: this run is finished. {_how_to_continue(run)}"))  # noqa: T201
        return None
    return run  # when all steps are done but the summary is missing, training only reports


def _how_to_continue(run: Any) -> str:
    if run.state.progress.stopped_early:
        patience = run.plan.patience
        return f"It stopped early; raise trainer.early_stopping.patience (now {patience}) to go on."
    if run.state.progress.out_of_time:
        return f"Its time was up; raise trainer.max_minutes (now {run.config.max_minutes:g}) to go on."
    if run.config.max_steps is not None:
        return f"To train longer, raise trainer.max_steps (now {run.config.max_steps})."
    return f"To train longer, raise trainer.epochs (now {run.plan.epochs})."


def fit_run(run: Any) -> None:
    """Trains, and remembers the folder in case the run is stopped."""
    from bigmodel.runtime.energy import EnergyMeter
    from bigmodel.training.loop import fit
    from bigmodel.training.stopwatch import SharedStopwatch, Stopwatch

    invocation.current.folder = run.info.folder
    signals = invocation.current.signals
    watch = (
        Stopwatch(EnergyMeter(run.runtime.device))
        if run.ranks.size == 1
        else SharedStopwatch(run.ranks, signals)
    )
    fit(replace(run, signals=signals, watch=watch))
