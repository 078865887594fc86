"""What belongs to the caller's process, kept as it is while a run trains in it."""

from __future__ import annotations

import logging
import os
import sys
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

from hydra import version
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.singleton import Singleton
from hydra.core.utils import JobRuntime
from omegaconf.basecontainer import BaseContainer

from bigmodel.api import torch_settings
from bigmodel.cli import invocation
from bigmodel.cli.invocation import Invocation
from bigmodel.cli.launch.hydra_patches import set_globals

_ONE_AT_A_TIME = threading.RLock()
"""Random states, threads and Hydra's singletons are the whole process's: runs of several threads would
disturb each other, and wait instead."""


@contextmanager
def unchanged_process() -> Iterator[Invocation]:
    """A fresh state for one run; afterwards everything of the process is as it was: torch's settings and
    threads, random states, warning filters, the root logger, environment, `sys.path`, `sys.argv`, the
    current folder, and Hydra's singletons and resolvers.

    Not undone: what the C library does with freed memory (`runtime.device.keep_memory`).
    """
    with (
        _ONE_AT_A_TIME,
        torch_settings.unchanged(),
        warnings.catch_warnings(),
        _unchanged_python(),
        _own_hydra(),
        _own_invocation() as current,
    ):
        yield current


@contextmanager
def _unchanged_python() -> Iterator[None]:
    environment, path, argv, folder = dict(os.environ), list(sys.path), list(sys.argv), os.getcwd()  # noqa: PTH109
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    try:
        yield
    finally:
        for name in set(os.environ) - set(environment):
            del os.environ[name]
        for name, value in environment.items():
            if os.environ.get(name) != value:
                os.environ[name] = value
        sys.path[:], sys.argv[:] = path, argv
        if os.getcwd() != folder:  # noqa: PTH109
            os.chdir(folder)
        root.handlers[:] = handlers
        root.setLevel(level)


@contextmanager
def _own_hydra() -> Iterator[None]:
    """Singletons and resolvers as in a fresh process: the caller may use Hydra too."""
    singletons, resolvers = dict(Singleton._instances), dict(BaseContainer._resolvers)
    for kind in (GlobalHydra, HydraConfig, JobRuntime, version.VersionBase):
        Singleton._instances.pop(kind, None)
    set_globals()
    JobRuntime.instance().set("name", "train")
    try:
        yield
    finally:
        Singleton._instances.clear()
        Singleton._instances.update(singletons)
        BaseContainer._resolvers.clear()
        BaseContainer._resolvers.update(resolvers)


@contextmanager
def _own_invocation() -> Iterator[Invocation]:
    before, invocation.current = invocation.current, Invocation()
    try:
        yield invocation.current
    finally:
        invocation.current = before
