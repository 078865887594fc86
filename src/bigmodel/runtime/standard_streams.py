"""Makes the standard streams safe: they are always open, and failed writes never end the program.

If the reader is gone (a closed pipe or terminal) or the disk is full, output is lost and the program
continues. Commands whose result is their output call `check_result` to find out whether it was written.
"""

from __future__ import annotations

import contextlib
import errno
import io
import os
import select
import sys

TYPE_CHECKING = False  # `typing` itself takes longer to load than all of this
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any, TextIO

    from _typeshed import ReadableBuffer

NAMES = ("stdin", "stdout", "stderr")
BROKEN_PIPE = 141
"""128 + SIGPIPE: the status that a shell gives to `cat`, for example, when its reader exits."""


class ErrorIgnoringFile(io.RawIOBase):
    """Writes to a file, and records errors instead of raising them.

    Args:
        raw: the file.
        error: a known error of the file.

    Attributes:
        error: the first error.
    """

    def __init__(self, raw: io.RawIOBase, error: OSError | None = None) -> None:
        self._raw = raw
        self.error = error

    def write(self, data: ReadableBuffer) -> int:
        """Writes all bytes, and returns their number even if some were lost.

        It writes all of them since under `python -u` the caller does not retry.
        """
        left = memoryview(data).cast("B")
        count = len(left)
        try:
            while left:
                written = self._raw.write(left)
                if written is None:  # a non-blocking file, shared with others
                    select.select([], [self], [])
                left = left[written or 0 :]
        except OSError as error:
            self.error = self.error or error
        return count

    def fileno(self) -> int:
        return self._raw.fileno()

    def isatty(self) -> bool:
        return self._raw.isatty()

    def writable(self) -> bool:
        return True


def make_safe() -> None:
    """Opens closed streams on the null device, and makes all of them ignore errors.

    This must come first: the next opened file gets the lowest free descriptor, and a checkpoint with
    descriptor 1 would receive what is printed.
    """
    for number, name in enumerate(NAMES):
        missing = None
        try:
            os.fstat(number)
        except OSError as error:
            missing = error
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)
        stream: TextIO | None = getattr(sys, name)
        if stream is None:  # the interpreter found it closed
            place = os.devnull if missing is None else number  # it may be another file's by now
            stream = open(place, "r" if name == "stdin" else "w", closefd=missing is None)  # noqa: SIM115
            missing = missing or OSError(errno.EBADF, os.strerror(errno.EBADF))
        setattr(sys, f"__{name}__", stream)  # without a reference it would be closed
        setattr(sys, name, stream if name == "stdin" else _ignoring_errors(stream, missing))


@contextlib.contextmanager
def errors_held_back() -> Iterator[None]:
    """Holds back standard error within the block, including what libraries write to it directly. It is
    printed afterwards, unless the block raised an exception, which says enough."""
    sys.stderr.flush()
    kept = os.dup(2)
    try:
        import tempfile  # not needed at the start

        with tempfile.TemporaryFile() as held:
            os.dup2(held.fileno(), 2)
            try:
                yield
            finally:
                os.dup2(kept, 2)
            held.seek(0)
            if text := held.read():
                sys.stderr.write(text.decode(errors="replace"))
    finally:
        os.close(kept)


def check_result() -> None:
    """Checks that all output so far was written.

    Raises:
        SystemExit: the reader has closed the pipe, which needs no message.
        DataError: output could not be written.
    """
    from bigmodel.errors import DataError  # not needed at the start

    sys.stdout.flush()
    file = getattr(sys.stdout, "buffer", None)
    file = getattr(file, "raw", file)
    error = file.error if isinstance(file, ErrorIgnoringFile) else None
    if isinstance(error, BrokenPipeError):
        sys.exit(BROKEN_PIPE)
    if error is not None:
        raise DataError(f"The output cannot be written: {error.strerror or error}.")


def _ignoring_errors(stream: TextIO, error: OSError | None) -> TextIO:
    """The same stream, which ignores errors."""
    stream.flush()
    binary: Any = stream.buffer  # the file itself under `python -u`
    raw = getattr(binary, "raw", None)
    file: Any = ErrorIgnoringFile(raw or binary, error)
    return io.TextIOWrapper(
        file if raw is None else io.BufferedWriter(file),
        stream.encoding,
        stream.errors,
        line_buffering=getattr(stream, "line_buffering", False),
        write_through=getattr(stream, "write_through", False),
    )
