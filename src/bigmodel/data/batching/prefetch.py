"""Threads that gather batches ahead of training.

Samples are tensors in memory or mapped from files, which torch gathers without Python's global lock, so
threads do what processes would, without copies of the data or shared memory. The training thread takes
what they gather in order, and raises their errors itself, between two steps.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, wait
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

_AHEAD = 2  # blocks for each thread: one that is gathered, and one that waits for training
_POLL = 0.5  # seconds between two calls of `between`
_PATIENCE = 3.0  # seconds for threads to finish the blocks that they are gathering

_Tasks = SimpleQueue[tuple[Future[Samples], Callable[[], Samples]] | None]


@dataclass
class Prefetcher:
    """How batches are gathered: by `threads` ahead of training, or, with 0, when training asks for them.

    Attributes:
        threads: how many.
        timeout: seconds to wait for a block before the run fails.
        device: where the batches are wanted. Threads queue copies to CUDA on a stream of their own, so
            that copies and steps overlap.
    """

    threads: int = 0
    timeout: float = 10.0
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))

    def __post_init__(self) -> None:
        # One for all epochs: memory that CUDA's allocator frees is used again on the same stream only.
        beside = self.threads > 0 and self.device.type == "cuda"
        self._stream = torch.cuda.Stream(self.device) if beside else None  # type: ignore[no-untyped-call]

    def gather(
        self, reads: Iterable[Callable[[], Samples]], between: Callable[[], None] = lambda: None
    ) -> Generator[Samples, None, None]:
        """The results of `reads`, in order. Threads end when the iterator is exhausted or closed.

        Args:
            reads: each gathers one block. At most two for each thread are ahead of the consumer.
            between: called about twice a second while the consumer waits; what it raises ends the epoch.

        Raises:
            DataError: a block did not come in time, or a thread cannot be started.
            Exception: whatever a read raised.
        """
        if not self.threads:
            for read in reads:
                yield read()
        elif self._stream is None:
            yield from self._ahead(reads, between)
        else:
            yield from self._copied_ahead(reads, between, self._stream)

    def _ahead(
        self, reads: Iterable[Callable[[], Samples]], between: Callable[[], None]
    ) -> Generator[Samples, None, None]:
        left, tasks, pending = iter(reads), _Tasks(), deque[Future[Samples]]()
        threads: list[Thread] = []
        try:
            self._start(threads, tasks)
            while True:
                for read in islice(left, _AHEAD * self.threads - len(pending)):
                    pending.append(Future())
                    tasks.put((pending[-1], read))
                if not pending:
                    return
                self._wait(pending[0], between)
                yield pending.popleft().result()
        finally:
            for future in pending:
                future.cancel()
            _end(threads, tasks)

    def _copied_ahead(
        self,
        reads: Iterable[Callable[[], Samples]],
        between: Callable[[], None],
        stream: torch.cuda.Stream,
    ) -> Generator[Samples, None, None]:
        """The same where reads queue copies and kernels: on `stream`, beside those of the steps."""
        copied: deque[torch.cuda.Event] = deque()  # in the order of the reads, as they are handed out

        def on_stream(read: Callable[[], Samples], done: torch.cuda.Event) -> Samples:
            # The current stream, and with it the device, are a thread's own.
            with torch.cuda.stream(stream):
                samples = read()
                done.record(stream)
            return samples

        def queued() -> Iterator[Callable[[], Samples]]:
            for read in reads:
                copied.append(torch.cuda.Event())  # type: ignore[no-untyped-call]
                yield lambda read=read, done=copied[-1]: on_stream(read, done)  # type: ignore[misc]

        # Statistics that inputs are scaled by may still be on their way to the device.
        stream.wait_stream(torch.cuda.current_stream(self.device))
        for samples in self._ahead(queued(), between):
            steps = torch.cuda.current_stream(self.device)
            steps.wait_event(copied.popleft())
            for tensor in samples:
                # Freed by the training thread, its memory waits for the steps before `stream` gets it.
                tensor.record_stream(steps)
            yield samples

    def _start(self, threads: list[Thread], tasks: _Tasks) -> None:
        for number in range(self.threads):
            # Daemons: a thread that hangs, in a read from a network disk say, cannot be ended from
            # outside, and the process exits without it.
            thread = Thread(target=_work, args=(tasks,), name=f"prefetch {number}", daemon=True)
            try:
                thread.start()
            except RuntimeError as error:
                raise DataError(
                    f"data.workers={self.threads}: thread {number + 1} cannot be started ({error})."
                    f" The limit on processes (ulimit -u) may be reached. Set data.workers={number}."
                ) from error
            threads.append(thread)

    def _wait(self, future: Future[Samples], between: Callable[[], None]) -> None:
        deadline = monotonic() + self.timeout
        while not wait([future], min(self.timeout, _POLL)).done:
            between()
            if monotonic() >= deadline:
                raise DataError(
                    f"data.timeout={self.timeout:g}: no batch came for {self.timeout:g} seconds. The"
                    " disk is slow, or reading hangs. Set a larger data.timeout, or data.workers=0 to"
                    " read in the training thread, without a limit."
                )


def _work(tasks: _Tasks) -> None:
    """What a thread does until it gets None."""
    torch.set_num_threads(1)  # an operation of this thread uses one core; `data.workers` says how many
    while (task := tasks.get()) is not None:
        _fulfil(*task)
        del task  # a block in it would stay in memory while the thread waits


def _fulfil(future: Future[Samples], read: Callable[[], Samples]) -> None:
    if not future.set_running_or_notify_cancel():
        return
    try:
        future.set_result(read())
    except BaseException as error:  # the training thread raises it
        future.set_exception(error)


def _end(threads: list[Thread], tasks: _Tasks) -> None:
    """Waits until the threads are gone, but not for one that hangs."""
    for _ in threads:
        tasks.put(None)
    deadline = monotonic() + _PATIENCE
    for thread in threads:
        thread.join(max(0.0, deadline - monotonic()))
    # For torch, what a thread set last is also what threads begin with: back to this thread's number.
    torch.set_num_threads(torch.get_num_threads())
