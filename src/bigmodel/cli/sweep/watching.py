"""What runners of our own share: who watches the jobs, and what is done when the sweep is to stop."""

from __future__ import annotations

import contextlib

from bigmodel.cli import messages
from bigmodel.cli.sweep.resume import resume_words
from bigmodel.reporting.sweep_view import SweepView
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


def report_left(done: str, manifest: Manifest, view: SweepView) -> None:
    """The last that a sweep does when it is asked to stop a second time.

    Args:
        done: what has become of its jobs, as a sentence.
    """
    with contextlib.suppress(Exception):  # it may be in the middle of drawing
        view.close()
    messages.report(f"{done} Resume with {resume_words(manifest)}")
