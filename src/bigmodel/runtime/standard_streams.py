"""The standard streams: open from the first line on, and never the reason why work ends.

Where nobody reads (a closed pipe, a terminal that is gone) or the disk takes no more, what is written
to them is lost, and the program goes on. Where what it prints is all that it was called for, it asks
`check_result` whether that has arrived.
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
"""128 + SIGPIPE: how a shell has it of `cat`, say, when its reader has seen enough."""


class Unfailing(io.RawIOBase):
    """Writes to a file, and keeps to itself that it could not.

    Args:
        raw: the file.
        error: what is wrong with it from the start.

    Attributes:
        error: the first that came.
    """

    def __init__(self, raw: io.RawIOBase, error: OSError | None = None) -> None:
        self._raw = raw
        self.error = error

    def write(self, data: ReadableBuffer) -> int:
        """Writes all bytes; tells how many, those that are lost included.

        All, since under `python -u` nobody asks for the rest.
        """
        left = memoryview(data).cast("B")
        count = len(left)
        try:
            while left:
                written = self._raw.write(left)
                if written is None:  # it does not block: others share it
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
    """Opens those that are closed on nothing, and has the others never fail.

    Has to come first of all: the next file that is opened has the lowest number that is free, and a
    checkpoint with the number 1 would get what is printed.
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
            place = os.devnull if missing is None else number  # the number may be another file's by now
            stream = open(place, "r" if name == "stdin" else "w", closefd=missing is None)  # noqa: SIM115
            missing = missing or OSError(errno.EBADF, os.strerror(errno.EBADF))
        setattr(sys, f"__{name}__", stream)  # it would be closed where nobody has it
        setattr(sys, name, stream if name == "stdin" else _unfailing(stream, missing))


@contextlib.contextmanager
def errors_held_back() -> Iterator[None]:
    """Within it, nothing comes to standard error, not what a library writes there on its own; afterwards
    it does, but for what led to an exception, which tells enough."""
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
    """Makes sure that all which was printed until now has arrived.

    Raises:
        SystemExit: the reader has closed the pipe; nothing needs to be reported.
        DataError: it could not be written.
    """
    from bigmodel.errors import DataError  # not needed at the start

    sys.stdout.flush()
    file = getattr(sys.stdout, "buffer", None)
    file = getattr(file, "raw", file)
    error = file.error if isinstance(file, Unfailing) else None
    if isinstance(error, BrokenPipeError):
        sys.exit(BROKEN_PIPE)
    if error is not None:
        raise DataError(f"The output cannot be written: {error.strerror or error}.")


def _unfailing(stream: TextIO, error: OSError | None) -> TextIO:
    """The stream as it is, but for its failing."""
    stream.flush()
    binary: Any = stream.buffer  # the file itself under `python -u`
    raw = getattr(binary, "raw", None)
    file: Any = Unfailing(raw or binary, error)
    return io.TextIOWrapper(
        file if raw is None else io.BufferedWriter(file),
        stream.encoding,
        stream.errors,
        line_buffering=getattr(stream, "line_buffering", False),
        write_through=getattr(stream, "write_through", False),
    )
