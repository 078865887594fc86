"""Blocks of samples made by processes beside training, and what is said when one of them fails.

Each worker makes every n-th block of an epoch, writes it into memory that it shares with training, and
says through a pipe of its own that it is there. Workers share no locks and no queue, so that one may be
killed or stopped at any moment and nobody waits for it in vain; that is why this is not torch's
`DataLoader`, which may hang in both cases, and which raises wherever training happens to be when a
worker dies: in the midst of a step or of saving. Here an error comes between two steps. Workers live
for one epoch, or for what is left of it.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import multiprocessing
import os
import pickle
import signal
import sys
import time
import traceback
import warnings
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any, NamedTuple

import torch
from torch import Tensor

from bigmodel.data.batching.blocks import Blocks
from bigmodel.errors import DataError
from bigmodel.runtime.signals import NUMBERS

_LOOK = 0.5  # seconds between two looks at what else is going on, while waiting
_AHEAD = 2  # blocks that a worker makes before the first of them is asked for
_UNMINDED = NUMBERS  # sent to the whole group at times: the main process decides what to do about them
_DYING = 10.0  # seconds for a process that was killed to be gone; a busy machine takes its time
_PR_SET_PDEATHSIG = 1  # linux/prctl.h

_living: list[_Worker] = []


class _Worker(NamedTuple):
    """A process, and where it says that a block is there: None, or the error that came instead."""

    process: BaseProcess
    pipe: Connection


@contextlib.contextmanager
def worker_faults() -> Iterator[None]:
    """However it is left, no worker stays behind: not a busy one, nor one that hangs or was stopped."""
    try:
        yield
    finally:
        _end(list(_living))


def read_ahead(
    blocks: Blocks,
    epoch: int,
    first: int,
    workers: int,
    timeout: float,
    between: Callable[[], None] = lambda: None,
) -> Iterator[tuple[Tensor, Tensor]]:
    """The blocks of an epoch from sample `first` on, in order, each made by one of the workers.

    They are those that `Blocks.read` gives, and torch's global random state is not touched.

    Args:
        blocks: on the CPU.
        epoch, first: see `Blocks.read`.
        workers: how many processes; never more than there are blocks.
        timeout: seconds to wait for a block.
        between: called a few times a second while there is nothing but waiting; what it raises ends it.

    Yields:
        Inputs and targets, in memory that is overwritten once the next block is asked for.

    Raises:
        DataError: a worker was killed, or gave nothing in time; workers cannot be started.
        Exception: what went wrong within a worker, as itself.
    """
    starts = blocks.starts(first)
    workers = min(workers, len(starts))
    blocks.order(epoch)  # drawn once, before there are workers: they inherit it
    slots = _slots(blocks, workers)
    crew: list[_Worker] = []
    try:
        _start(crew, workers, blocks, epoch, starts, slots)
        for place, start in enumerate(starts):
            turn, number = divmod(place, workers)
            _await(crew[number], timeout, between)
            inputs, targets = (slot[number, turn % _AHEAD, : blocks.count(start)] for slot in slots)
            yield inputs, targets
            with contextlib.suppress(OSError):  # it is done, or dead: that shows when its turn comes
                crew[number].pipe.send(None)
    finally:
        _end(crew)


def _slots(blocks: Blocks, workers: int) -> tuple[Tensor, Tensor]:
    """Shared memory, (workers, blocks ahead, size, *shape), for inputs and for targets."""
    shape = (workers, _AHEAD, min(blocks.size, blocks.stop))
    one_input, one_target = blocks.part.take(slice(0, 1))
    dtype = one_input.dtype if blocks.scaling is None else torch.float32
    inputs = torch.empty((*shape, *one_input.shape[1:]), dtype=dtype)
    targets = torch.empty((*shape, *one_target.shape[1:]), dtype=one_target.dtype)
    try:
        for memory in (inputs, targets):
            memory.share_memory_()  # type: ignore[no-untyped-call]
    except RuntimeError as error:
        raise DataError(
            f"data.workers: the {inputs.nbytes / 2**20:,.0f} MiB of shared memory (/dev/shm) that the"
            f" workers need are not to be had ({str(error).splitlines()[0]}). Say data.workers=0, or"
            " give the container more of it (docker run --shm-size)."
        ) from error
    return inputs, targets


def _start(
    crew: list[_Worker],
    workers: int,
    blocks: Blocks,
    epoch: int,
    starts: range,
    slots: tuple[Tensor, Tensor],
) -> None:
    """Starts processes and puts them into `crew`, one by one."""
    # A fork starts in no time and holds no second copy of the data.
    context: Any = multiprocessing.get_context("fork" if sys.platform == "linux" else "spawn")
    for number in range(workers):
        ours, theirs = context.Pipe()
        own = tuple(memory[number] for memory in slots)
        arguments = (theirs, blocks, epoch, starts[number::workers], own)
        process = context.Process(target=_work, args=arguments, name=f"worker {number}", daemon=True)
        try:
            with _signals_held(), warnings.catch_warnings():
                # From 3.12 on, any fork beside threads is warned of. A worker takes no lock of theirs.
                warnings.filterwarnings("ignore", ".*multi-threaded.*fork", DeprecationWarning)
                process.start()
                crew.append(_Worker(process, ours))
                _living.append(crew[-1])
        except OSError as error:
            raise DataError(
                f"data.workers={workers}: a process cannot be started: {error.strerror or error}. Most"
                " often memory is short, or a limit on processes is reached. Say data.workers=0, or"
                " fewer of them."
            ) from error
        finally:
            theirs.close()  # so that the worker's end is the pipe's


@contextlib.contextmanager
def _signals_held() -> Iterator[None]:
    """Signals wait until its end; in a worker that starts within it, until it lets them through."""
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _UNMINDED)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _work(
    pipe: Connection, blocks: Blocks, epoch: int, starts: range, slots: tuple[Tensor, Tensor]
) -> None:
    """What a worker does: makes the blocks at `starts`, at most `_AHEAD` before they are used."""
    _settle()
    with contextlib.suppress(OSError, EOFError):  # training has ended
        for turn, start in enumerate(starts):
            if turn >= _AHEAD:
                pipe.recv()  # a slot is free
            try:
                for memory, made in zip(slots, blocks.read(epoch, start), strict=True):
                    memory[turn % _AHEAD, : len(made)] = made
            except Exception as error:
                pipe.send(_portable(error))
                return
            pipe.send(None)


def _portable(error: Exception) -> Exception:
    """The error with where it came from, as itself wherever it can travel through a pipe."""
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:
        error = RuntimeError(f"{type(error).__name__}: {error}")
    error.add_note(f"In a worker, pid {os.getpid()}:\n{traceback.format_exc()}")
    return error


def _settle() -> None:
    """Leaves signals to the main process, which is not to be outlived, and takes one core."""
    gc.freeze()  # what was inherited is not for a worker to tidy up
    for number in _UNMINDED:
        signal.signal(number, signal.SIG_IGN)
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _UNMINDED)
    torch.set_num_threads(1)
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    parent = multiprocessing.parent_process()
    if parent is None or os.getppid() != parent.pid:  # it died before that was asked for
        os._exit(1)


def _await(worker: _Worker, timeout: float, between: Callable[[], None]) -> None:
    """Waits until the worker's next block is there; raises what came instead."""
    until = time.monotonic() + timeout
    while not (ready := wait([worker.pipe, worker.process.sentinel], min(timeout, _LOOK))):
        between()
        if time.monotonic() >= until:
            break
    if not ready:
        raise DataError(
            f"data.timeout={timeout:g}: no batch came from a worker (pid {worker.process.pid}) for"
            f" {timeout:g} seconds. It hangs or was stopped, or the disk is slow. Say data.workers=0, or"
            " a larger data.timeout."
        )
    try:
        if worker.pipe not in ready:
            raise EOFError
        error = worker.pipe.recv()
    except (EOFError, OSError):
        raise DataError(_death(worker.process)) from None
    if error is not None:
        raise error


def _death(process: BaseProcess) -> str:
    process.join(_DYING)  # so that its status is known
    code = process.exitcode or 0
    end = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with status {code}"
    return (
        f"data.workers: a process that prepares batches (pid {process.pid}) {end}. Most often the"
        " machine, or the container, ran out of memory. Say data.workers=0, or fewer of them, or a"
        " smaller data.batch_size."
    )


def _end(crew: list[_Worker]) -> None:
    """Ends workers here and now: nothing that they do is needed any more."""
    for worker in crew:
        worker.process.kill()  # what was stopped, too
    for worker in crew:
        worker.process.join(_DYING)
        worker.pipe.close()
        if worker in _living:
            _living.remove(worker)
