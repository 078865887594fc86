"""Trains a run in the caller's process."""

from __future__ import annotations

import contextlib
import ctypes
import io
import sys
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

from omegaconf import open_dict, read_write

from bigmodel.api import composing
from bigmodel.api.composing import Composed
from bigmodel.api.new_data import GivenData, to_arrow
from bigmodel.api.process_state import unchanged_process
from bigmodel.api.trained_run import TrainedRun, load
from bigmodel.cli import job
from bigmodel.cli.invocation import Invocation
from bigmodel.cli.launch import run_folder
from bigmodel.cli.launch.error_messages import explain
from bigmodel.cli.launch.file_errors import files_named
from bigmodel.cli.train import config_dir
from bigmodel.distributed.ranks import ALONE
from bigmodel.errors import BigModelError, ConfigError, DataError
from bigmodel.reporting.console import Console
from bigmodel.reporting.table_bytes import parquet_bytes
from bigmodel.runtime import caches, disk, progress_messages

_START = 5.0
"""Seconds that a thread may take to start."""

_TABLES = ("table", "text_labels", "pairs")
"""Data sources that read a table."""


def train(*overrides: str, frame: Any = None, progress: bool = True) -> TrainedRun:
    """Trains a run, as `bigmodel-train` does with the same words.

    It trains in this process, in a thread of its own, while this call waits: works in a notebook, in a
    running event loop and in any thread; of several calls at once, each waits for the one before.
    Nothing of the process is changed afterwards: no signal handlers, random states, threads, loggers,
    warning filters, environment or current folder.

    Args:
        overrides: settings, such as `"model=cnn"` and `"trainer.epochs=20"`; `"resume=FOLDER"` goes on
            with a run; `"--config-dir=FOLDER"` adds configurations.
        frame: a table to learn from instead of `data.path`: a DataFrame, an Arrow table, a dict of
            columns or a list of dicts. It is kept in the run's folder, so that the run can be resumed.
        progress: whether to print what happens; `train.log` in the run's folder has it in any case.

    Returns:
        The run with its best weights.

    Raises:
        ConfigError, DataError, DeviceError, CheckpointError, NonFiniteError: as `bigmodel.errors` has
            them.
        KeyboardInterrupt: the program was interrupted; everything is saved, and its message says how to
            go on.
    """
    wrong = [word for word in overrides if not isinstance(word, str)]
    if wrong:
        raise ConfigError(f"{wrong[0]!r}: settings are texts, such as 'trainer.epochs=20'.")
    table = None if frame is None else _table(frame)
    words = list(overrides)
    if table is not None:
        words = _words_for_table(words)
    with unchanged_process() as current:
        caches.use_private_folders()
        with _explained(words):
            composed = composing.compose(words)
            try:
                _run(composed, table, current, progress)
            except BaseException:
                if current.folder is None and composed.resumed is None:  # it has not started
                    if table is not None:
                        (composed.folder / run_folder.TABLE).unlink(missing_ok=True)
                    run_folder.discard(composed.folder)
                raise
        device, plugins = composed.config.device.name, list(composed.config.plugins)
        return load(composed.folder, device=device, plugins=plugins)


def _run(composed: Composed, table: Any, current: Invocation, progress: bool) -> None:
    ranks = job.number_of(composed.config.device.get("ranks"))
    if ranks > 1:
        raise ConfigError(f"device.ranks={ranks}: train uses one process. Use bigmodel-train for it.")
    current.started, current.resumed, current.may_change = True, composed.resumed, composed.may_change
    how = {} if progress else {"console": partial(Console, stream=_Nowhere(), terminal=False)}
    if composed.resumed is not None:
        work = partial(job.resume, composed.config, composed.folder, composed.resumed, ALONE, **how)
    else:
        if table is not None:
            _keep(table, composed)
        work = partial(job.start, composed.config, composed.folder, composed.hydra, ALONE, **how)
    quiet = contextlib.nullcontext() if progress else progress_messages.reporting_to(lambda _: None)
    with quiet:
        _interruptible(work, current)


def _table(frame: Any) -> Any:
    given = GivenData.of(frame)
    if given.kind not in ("frame", "table", "columns", "rows"):
        raise DataError(
            f"frame: {type(frame).__name__} is no table. Pass a DataFrame, an Arrow table, a dict of"
            " columns or a list of dicts; or set data.path."
        )
    table = to_arrow(given)
    if table.num_rows == 0:
        raise DataError("frame: it has no rows.")
    return table


def _words_for_table(words: list[str]) -> list[str]:
    """The words, with `data=table` unless another source of tables is chosen."""
    typed = {word.partition("=")[0].lstrip("+"): word.partition("=")[2] for word in words}
    if "data.path" in typed:
        raise ConfigError(f"data.path={typed['data.path']}: goes without a frame. Pass one of them.")
    if "resume" in typed:
        raise ConfigError("resume: a run that goes on keeps its own data. Leave frame out.")
    chosen = typed.get("data", "table")
    if chosen not in _TABLES:
        raise ConfigError(f"data={chosen}: reads no frame. Use data=table, text_labels or pairs.")
    return words if "data" in typed else ["data=table", *words]


def _keep(table: Any, composed: Composed) -> None:
    """Writes the table into the run's folder, where its configuration then finds it."""
    run_folder.check_free(composed.folder, "hydra.run.dir")
    path = composed.folder / run_folder.TABLE
    if path.exists():
        raise ConfigError(f"hydra.run.dir: {path} is there already. Name another folder.")
    try:
        disk.write_bytes(path, parquet_bytes(table))
    except OSError as error:
        raise disk.write_error(path, error, table.nbytes) from error
    with read_write(composed.config), open_dict(composed.config):
        composed.config.data.path = str(path)


@contextlib.contextmanager
def _explained(words: list[str]) -> Iterator[None]:
    """Raises Hydra's errors, and its own about files, as the command line words them."""
    try:
        yield
    except ConfigError as error:
        text = str(error)
        with contextlib.suppress(BigModelError, OSError):
            text = files_named(text, config_dir(), words)
        if text == str(error):
            raise
        raise type(error)(text) from error
    except BigModelError:
        raise
    except Exception as error:
        told = explain(error, config_dir(), words)
        if told is None:
            raise
        raise ConfigError(told) from error


def _interruptible(work: Callable[[], None], current: Invocation) -> None:
    """Runs `work` in a thread, so that KeyboardInterrupt comes here, between two steps there.

    Once is enough to have training save and end; before there is anything to save, and the second time,
    the thread is interrupted wherever it is.
    """
    raised: list[BaseException] = []
    begun, over = threading.Event(), threading.Event()  # after an interrupt, Thread knows neither

    def run() -> None:
        try:
            begun.set()
            work()
        except BaseException as error:
            raised.append(error)
        finally:
            over.set()

    thread = threading.Thread(target=run, name="bigmodel-train", daemon=True)
    asked: KeyboardInterrupt | None = None
    while True:
        try:
            if asked is None:
                thread.start()
            while not over.is_set():
                over.wait(0.1)  # without a limit, it would delay signals on some systems
            break
        except KeyboardInterrupt as interrupt:
            if not begun.wait(_START):
                raise  # it came before the thread was started
            if asked is not None or current.folder is None:
                _interrupt(thread)
            asked = interrupt
            current.signals.ask_to_stop()
    thread.join()
    if asked is not None or (raised and isinstance(raised[0], KeyboardInterrupt)):
        words = "" if current.folder is None else f" bigmodel.train('resume={current.folder}') goes on."
        raise KeyboardInterrupt(f"Stopped.{words}") from (raised[0] if raised else None)
    if raised:
        raise raised[0]


def _interrupt(thread: threading.Thread) -> None:
    assert thread.ident is not None
    # A thread that is being started goes by its parent's identity at first. It would be interrupted in
    # its parent's place, and its parent would wait for it to begin, for ever.
    while _starts_another(thread.ident):
        time.sleep(0.001)
    error = ctypes.py_object(KeyboardInterrupt)
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread.ident), error)


def _starts_another(ident: int) -> bool:
    frame = sys._current_frames().get(ident)
    while frame is not None:
        if frame.f_code is threading.Thread.start.__code__:
            return True
        frame = frame.f_back
    return False


class _Nowhere(io.StringIO):
    """A stream that keeps nothing."""

    def write(self, text: str) -> int:
        return len(text)
