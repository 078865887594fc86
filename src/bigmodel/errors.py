"""What a user can get wrong, each as one message that says how to put it right.

Every message names the key or file, what was found there, what is allowed and, where one is
likely, the fix. The command line prints it without a traceback and exits with status 1.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable

from bigmodel.secrets import masked


class BigModelError(Exception):
    """Base of all errors that a user can cause."""


class ConfigError(BigModelError):
    """A configuration that cannot be run: unknown key, wrong type, out of range, no such choice."""


class DataError(BigModelError):
    """Data that is missing, damaged, empty, or not what it claims to be."""


class SpecError(ConfigError):
    """Parts that do not fit each other: a model that cannot read the data, a loss that cannot score
    the target."""


class DeviceError(ConfigError):
    """A device or precision that this machine does not have."""


class CheckpointError(BigModelError):
    """A checkpoint or run folder that cannot be read or written."""


class DamagedError(CheckpointError):
    """A checkpoint that is not what was written: an older one may do in its place."""


class NonFiniteError(BigModelError):
    """Training has diverged: a loss, gradient or weight is NaN or infinite.

    Attributes:
        step: the optimizer step, from 1, that it was found at.
    """

    def __init__(self, message: str, step: int) -> None:
        super().__init__(message)
        self.step = step


class UndefinedError(BigModelError):
    """A model gives NaN or infinity, so that it says nothing."""


DIVERGED = (
    "Its training has diverged, or its numbers have outgrown its precision: try other weights of the run"
    " (--weights), or train again with a smaller optimizer.lr."
)
"""What may be done about such a model."""


def reason(error: BaseException) -> str:
    """Why something ended, in one text, without secrets: our own message as it is, others with type."""
    ours = isinstance(error, BigModelError)
    return masked(str(error) if ours else f"{type(error).__name__}: {error}")


def did_you_mean(name: str, choices: Iterable[str]) -> str:
    """`" Did you mean 'lr'?"` for the nearest choice, or an empty string where none is near."""
    known = [str(choice) for choice in choices]
    near = difflib.get_close_matches(str(name), known, n=1, cutoff=0.6)
    if not near:  # `lr` for `optimizer.lr`: the last part alone is often what was meant
        near = [c for c in known if c.rsplit(".", 1)[-1] == str(name).rsplit(".", 1)[-1]][:1]
    return f" Did you mean '{near[0]}'?" if near else ""
