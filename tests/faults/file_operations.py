"""Ends threads between two operations on files, as a kill would: nothing reaches the disk any more."""

from __future__ import annotations

import contextlib
import os
import shutil
import threading
from collections.abc import Callable, Iterator
from typing import Any
from unittest import mock

from bigmodel.checkpointing import tensor_files

_ACTS = [
    *((os, name) for name in ("fsync", "rename", "replace", "mkdir", "unlink", "rmdir")),
    (shutil, "copy"),
    (tensor_files, "save_file"),
]


class Killed(BaseException):
    """What a killed thread raises."""


class Kill:
    """Ends all threads once one of them begins its operation number `after`, counted from 0.

    Args:
        after: how many operations that thread may do.
        then: called at that moment, to wake threads that wait.
    """

    def __init__(self, after: int, then: Callable[[], None]) -> None:
        self.done = False
        self._left = after
        self._then = then
        self._victim = 0

    def aim(self) -> None:
        """Makes the calling thread the one whose operations count."""
        self._victim = threading.get_ident()

    @contextlib.contextmanager
    def lurking(self) -> Iterator[None]:
        """Within it, operations of all threads are looked at."""
        with contextlib.ExitStack() as stack:
            for owner, name in _ACTS:
                stack.enter_context(mock.patch.object(owner, name, self._watched(getattr(owner, name))))
            yield

    def _watched(self, real: Callable[..., Any]) -> Callable[..., Any]:
        def act(*args: Any, **more: Any) -> Any:
            if threading.get_ident() == self._victim:
                if self._left == 0:
                    self.done = True
                    self._then()
                self._left -= 1
            if self.done:
                raise Killed
            return real(*args, **more)

        return act
