"""Threads that gather batches ahead of training.

Samples are tensors in memory or mapped from files, and torch gathers them without holding Python's
global lock. So threads do the work of processes, without copies of the data or shared memory. The
training thread takes the results in order, and raises the threads' errors itself, between two steps.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, wait
from contextlib import nullcontext
from dataclasses import dataclass, field
from itertools import islice
from queue import SimpleQueue
from threading import Thread
from time import monotonic

import torch
from torch import Tensor

from bigmodel.errors import DataError

Samples = tuple[Tensor, Tensor]
"""Inputs and targets."""

Read = Callable[[], Samples]
"""Gathers one block."""

_AHEAD = 2  # blocks for each thread: one being gathered, and one waiting for training
_POLL = 0.5  # seconds between two calls of `between`
_PATIENCE = 3.0  # seconds for threads to finish their blocks

_Task = tuple["Future[_Gathered]", Read]
_Gathered = tuple[Samples, torch.cuda.Event | None]  # with the event that it is on the device


@dataclass
class Prefetcher:
    """How batches are gathered: by `threads` ahead of training or, with 0, when training asks for them.

    Attributes:
        threads: how many.
        timeout: seconds to wait for a block before the run fails.
        device: of the batches.
    """

    threads: int = 0
    timeout: float = 10.0
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))

    def __post_init__(self) -> None:
        # On a stream of their own, copies to CUDA overlap with steps. All epochs share it, since memory
        # is reused only on the stream that it was allocated on.
        separate = self.threads > 0 and self.device.type == "cuda"
        self._stream = torch.cuda.Stream(self.device) if separate else None  # type: ignore[no-untyped-call]

    def gather(
        self, reads: Iterable[Read], between: Callable[[], None] = lambda: None
    ) -> Generator[Samples, None, None]:
        """The results of `reads`, in order. Threads end when the generator is exhausted or closed.

        Args:
            reads: at most two for each thread run ahead of the consumer.
            between: called about twice a second while the consumer waits; what it raises ends the epoch.

        Raises:
            DataError: a block has timed out, or a thread cannot be started.
            Exception: whatever a read raised.
        """
        if not self.threads:
            for read in reads:
                yield read()
            return
        if self._stream is not None:  # the scaling may still be copied there
            self._stream.wait_stream(torch.cuda.current_stream(self.device))
        remaining, tasks = iter(reads), SimpleQueue[_Task | None]()
        pending: deque[Future[_Gathered]] = deque()
        threads: list[Thread] = []
        patience = _PATIENCE
        try:
            self._start(threads, tasks)
            while True:
                for read in islice(remaining, _AHEAD * self.threads - len(pending)):
                    pending.append(Future())
                    tasks.put((pending[-1], read))
                if not pending:
                    return
                try:
                    self._wait(pending[0], between)
                except DataError:
                    patience = 0.0  # a thread that hangs has had `timeout` seconds already
                    raise
                yield self._received(*pending.popleft().result())
        finally:
            for future in pending:
                future.cancel()
            _end(threads, tasks, patience)

    def _start(self, threads: list[Thread], tasks: SimpleQueue[_Task | None]) -> None:
        ready, cores = SimpleQueue[None](), torch.get_num_threads()
        for number in range(self.threads):
            # Daemons: a thread that hangs, for example on a network disk, cannot be ended from outside,
            # but the process can still exit.
            name, arguments = f"prefetch {number}", (tasks, ready, self._stream)
            thread = Thread(target=_work, args=arguments, name=name, daemon=True)
            try:
                thread.start()
            except RuntimeError as error:
                raise DataError(
                    f"data.workers={self.threads}: thread {number + 1} cannot be started ({error})."
                    f" The limit on processes (ulimit -u) may be reached. Set data.workers={number}."
                ) from error
            threads.append(thread)
            # torch gives new threads the number of cores that any thread set last, so that of the
            # training thread is set again after this one has set its own.
            ready.get()
            torch.set_num_threads(cores)

    def _wait(self, future: Future[_Gathered], between: Callable[[], None]) -> None:
        deadline = monotonic() + self.timeout
        while not wait([future], min(self.timeout, _POLL)).done:
            between()
            if monotonic() >= deadline:
                raise DataError(
                    f"data.timeout={self.timeout:g}: no batch came for {self.timeout:g} seconds. The"
                    " disk is slow, or reading hangs. Set a larger data.timeout, or data.workers=0 to"
                    " read in the training thread, without a limit."
                )

    def _received(self, samples: Samples, copied: torch.cuda.Event | None) -> Samples:
        if copied is not None:
            steps = torch.cuda.current_stream(self.device)
            steps.wait_event(copied)
            for tensor in samples:
                # Its memory was allocated on the threads' stream and may be reused there as soon as
                # this thread drops the batch, before the steps that read it have run.
                tensor.record_stream(steps)
        return samples


def _work(
    tasks: SimpleQueue[_Task | None], ready: SimpleQueue[None], stream: torch.cuda.Stream | None
) -> None:
    """Runs tasks until one is None."""
    torch.get_num_threads()  # the first call in a thread adopts another's setting: have it happen now
    torch.set_num_threads(1)  # operations in this thread use one core; `threads` sets how many there are
    ready.put(None)
    # Streams and devices are current for one thread only.
    with nullcontext() if stream is None else torch.cuda.stream(stream):
        while (task := tasks.get()) is not None:
            _run(*task, stream)
            del task  # or its block would stay in memory while this thread waits


def _run(future: Future[_Gathered], read: Read, stream: torch.cuda.Stream | None) -> None:
    if not future.set_running_or_notify_cancel():
        return
    try:
        samples = read()
        future.set_result((samples, None if stream is None else stream.record_event()))
    except BaseException as error:  # the training thread raises it
        future.set_exception(error)


def _end(threads: list[Thread], tasks: SimpleQueue[_Task | None], patience: float) -> None:
    """Waits for the threads to end, for at most `patience` seconds: one may hang."""
    for _ in threads:
        tasks.put(None)
    deadline = monotonic() + patience
    for thread in threads:
        thread.join(max(0.0, deadline - monotonic()))
