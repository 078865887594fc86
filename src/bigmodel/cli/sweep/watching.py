"""What runners of our own share: who watches the jobs, and what is done when the sweep is to stop."""

from __future__ import annotations

import contextlib
import signal

from bigmodel.cli import invocation, messages
from bigmodel.cli.sweep.resume import resume_words
from bigmodel.reporting.sweep_view import SweepView
from bigmodel.runtime.signals import Stopped
from bigmodel.sweeps.config import SweepConfig
from bigmodel.sweeps.jobs import Observer, Observers
from bigmodel.sweeps.keep import KeepBest
from bigmodel.sweeps.manifest import Manifest
from bigmodel.sweeps.results import finished


def observers(settings: SweepConfig, manifest: Manifest, view: SweepView) -> Observer:
    """Those that watch the jobs of a sweep."""
    watching: list[Observer] = [manifest, view]
    if settings.keep is not None:
        watching.append(KeepBest(manifest.folder, settings.keep, finished(manifest)))
    return Observers(watching)


def request() -> int | None:
    """The signal that the sweep has received since it was last asked."""
    signals = invocation.current.signals
    if not signals.pending:
        return None
    try:
        signals.acknowledged()
    except Stopped as stop:
        return stop.status - 128
    return getattr(signal, "SIGUSR1", None)


def report_left(done: str, manifest: Manifest, view: SweepView) -> None:
    """The last that a sweep does when it is asked to stop a second time.

    Args:
        done: what has become of its jobs, as a sentence.
    """
    with contextlib.suppress(Exception):  # it may be in the middle of drawing
        view.close()
    messages.report(f"{done} Resume with {resume_words(manifest)}")
