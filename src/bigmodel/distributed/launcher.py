"""Starts the ranks of one machine, and ends them together."""

from __future__ import annotations

import contextlib
import math
import multiprocessing
import os
import signal
import socket
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from pathlib import Path
from threading import Thread
from typing import Any

import torch.distributed as dist

from bigmodel.distributed.ranks import PATIENCE, LostRankError, ProcessGroup, Ranks
from bigmodel.runtime.processes import context, print_to
from bigmodel.runtime.signals import Stopped

GRACE = 5.0
"""Seconds for the other ranks to end by themselves once one has failed; one that waits for it cannot."""

_TICK = 0.2


@dataclass(frozen=True)
class Ended:
    """How a rank ended.

    Attributes:
        rank: which.
        error: what it raised; None if it finished, or ended without a word.
        status: of its process; None if it has said how it ended.
        hung: whether it had to be ended, since others waited for it too long.
    """

    rank: int
    error: BaseException | None = None
    status: int | None = None
    hung: bool = False

    @property
    def failed(self) -> bool:
        """Whether it did not finish."""
        return self.error is not None or self.status is not None

    @property
    def explains(self) -> int:
        """How well it says how all of them ended: a rank that only missed another one says little, and
        one that was asked to stop does not know whether the first could save."""
        if not self.failed:
            return 0
        if isinstance(self.error, LostRankError):
            return 1
        return 2 if isinstance(self.error, Stopped) else 3


def launch(
    count: int,
    act: Callable[[Ranks], None],
    requests: Callable[[], int | None],
    timeout: float = PATIENCE,
) -> Ended:
    """Runs a function on several ranks of this machine.

    Whatever ends the launcher, nothing of it is left: the ranks meet at a socket, and what they print
    goes to files that no longer have a name.

    Args:
        count: of ranks.
        act: what each of them does. What it raises has to go through a pipe.
        requests: asked a few times a second; returns a signal to pass on to all ranks.
        timeout: seconds that a rank waits for another.

    Returns:
        How the first rank ended or, if one has failed, how the first that failed did.
    """
    with socket.create_server(("127.0.0.1", 0)) as server:
        ranks = [_Rank(number, count, act, server, timeout) for number in range(count)]
    try:
        return _supervise(ranks, requests, timeout)
    finally:
        for rank in ranks:
            rank.end()


def _supervise(ranks: Sequence[_Rank], requests: Callable[[], int | None], timeout: float) -> Ended:
    running, deadline = list(ranks), math.inf
    result: Ended | None = None
    while running:
        wait([channel for rank in running for channel in rank.channels], _TICK)
        for rank in running:
            rank.hear()
        if (number := requests()) is not None:
            for rank in running:
                rank.signal(number)
        for rank in [rank for rank in running if not rank.alive]:
            running.remove(rank)
            ended = rank.ended()
            if result is None or ended.explains > result.explains:
                result = ended
            if ended.failed:  # if it was asked to stop, so were all, and the first may still be saving
                patience = timeout if isinstance(ended.error, Stopped) else GRACE
                deadline = min(deadline, time.monotonic() + patience)
        if time.monotonic() > deadline:
            assert result is not None
            hung = isinstance(result.error, LostRankError) and result.error.timeout is not None
            for rank in running:
                rank.end()
                if hung:
                    result = Ended(rank.number, result.error, hung=True)
            break
    assert result is not None
    return result


class _Rank:
    """The process of one rank, seen from the launcher."""

    def __init__(
        self,
        number: int,
        count: int,
        act: Callable[[Ranks], None],
        server: socket.socket,
        timeout: float,
    ) -> None:
        self.number = number
        self._said: list[BaseException | None] = []
        # The launcher computes nothing, and starts no thread: a process can be forked from it.
        processes = context()
        self._connection, theirs = processes.Pipe(duplex=False)
        output, path = tempfile.mkstemp(prefix="bigmodel-rank-")
        self._output = open(output, errors="replace")  # noqa: PTH123, SIM115
        self._process: Any = processes.Process(  # type: ignore[attr-defined]
            target=_run,
            args=(number, count, server, act, theirs, Path(path), timeout),
            name=f"rank {number}",
        )
        self._process.start()
        theirs.close()

    @property
    def channels(self) -> list[Any]:
        """Become readable when the process ends, or says how."""
        return [self._process.sentinel, *([] if self._said else [self._connection])]

    @property
    def alive(self) -> bool:
        """Whether the process is there."""
        return bool(self._process.is_alive())

    def signal(self, number: int) -> None:
        """Sends the process a signal."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self._process.pid, number)

    def end(self) -> None:
        """Ends the process at once, if it is there."""
        if self.alive:
            self._process.kill()
        self._process.join()
        self._output.close()

    def hear(self) -> None:
        """Takes what the process says of its end: it would wait, if that is more than a pipe holds."""
        with contextlib.suppress(EOFError, OSError):
            if not self._said and self._connection.poll():
                self._said.append(self._connection.recv())

    def ended(self) -> Ended:
        """How it ended; prints what it had to say, if it has ended without a word to the launcher."""
        self._process.join()
        self.hear()
        if self._said:
            return Ended(self.number, self._said[0])
        sys.stderr.write(self._output.read())
        return Ended(self.number, status=self._process.exitcode)


def _run(
    number: int,
    count: int,
    server: socket.socket,
    act: Callable[[Ranks], None],
    connection: Connection,
    output: Path,
    timeout: float,
) -> None:
    """The whole of a rank's process."""
    if hasattr(os, "setsid"):
        os.setsid()  # Ctrl-C goes to the launcher alone, which passes it on: twice, it would end at once
    Thread(target=_end_with_launcher, daemon=True).start()
    if number > 0:  # the first rank speaks for all
        print_to(output, 0o600)
    with contextlib.suppress(OSError):  # Windows removes no open file
        output.unlink()
    ended: BaseException | None = None
    try:
        ranks = ProcessGroup.join(number, count, _store(number, count, server), timeout, number)
        act(ranks)
        ranks.leave()
    except BaseException as error:
        ended = error
    connection.send(ended)


def _store(number: int, count: int, server: socket.socket) -> Any:
    """Where the ranks meet: the first serves it, on the launcher's socket."""
    first = number == 0
    port = server.getsockname()[1]
    handle = server.detach() if first else None
    server.close()
    return dist.TCPStore(  # type: ignore[attr-defined]
        "127.0.0.1", port, count, first, master_listen_fd=handle
    )


def _end_with_launcher() -> None:
    """Has the rank save and stop once its launcher is gone."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os.kill(os.getpid(), signal.SIGTERM)
