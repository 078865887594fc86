"""What a user can get wrong, each as one message that says how to put it right.

Every message names the key or file, what was found there, what is allowed and, where one is
likely, the fix. The command line prints it without a traceback and exits with status 1.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from bigmodel.redaction import masked


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


class MissingPackageError(ConfigError):
    """A package that only some runs need is not installed."""


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


def first_line(error: BaseException, default: str = "") -> str:
    """The first line of an error's message, or `default` if it has none."""
    return next(iter(str(error).splitlines()), default)


EXTRAS = {
    "pyarrow": "tables",
    "PIL": "images",
    "soundfile": "audio",
    "tokenizers": "text",
    "regex": "text",
    "sacrebleu": "text",
    "onnx": "export",
    "onnxscript": "export",
    "schedulefree": "optim",
}
"""Modules that only some runs need, and the extra of `bigmodel-train` that installs each."""


def require(module: str, user: str) -> None:
    """Checks that a module of `EXTRAS` is installed, without importing it.

    Args:
        module: such as `pyarrow`.
        user: what needs it, as it is typed: `data=table`.

    Raises:
        MissingPackageError: it is not; the message says what to type.
    """
    from importlib.util import find_spec

    if find_spec(module) is None:
        package = "pillow" if module == "PIL" else module
        raise MissingPackageError(
            f"{user} needs {package}, which is not installed:"
            f" pip install 'bigmodel-train[{EXTRAS[module]}]'"
        )


@contextmanager
def may_need_extras(user: str) -> Iterator[None]:
    """Raises what `require` raises if an import within fails because a module of `EXTRAS` is missing."""
    try:
        yield
    except ModuleNotFoundError as error:
        module = (error.name or "").partition(".")[0]
        if module in EXTRAS:
            require(module, user)
        raise


_OUT_OF_MEMORY = (
    # torch's allocators, where they do not raise an error of their own
    r"DefaultCPUAllocator: (can't allocate memory|not enough memory): you tried to allocate",
    r"^std::bad_alloc$",
    r"^MPS backend out of memory",
    # CUDA itself: page-locked memory, graphs, contexts, memory that grows (expandable segments)
    r"^(CUDA|HIP)( driver)? error: out of memory",
    r"^Triton Error \[(CUDA|HIP)\]: out of memory",
    # cuBLAS; one whose handle finds no memory was not initialised
    r"^CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling",
    r"^CUDA error: CUBLAS_STATUS_NOT_INITIALIZED when calling `cublas(Lt)?Create",
    r"^cuDNN (Frontend )?error: .*CUDNN_STATUS_(ALLOC|INTERNAL_ERROR_(HOST|DEVICE)_ALLOCATION)_FAILED",
)
"""How libraries report that memory ran out; torch words them in c10/core/impl/alloc_cpu.cpp,
c10/cuda/CUDAException.cpp, c10/cuda/driver_api.h and aten/src/ATen/cuda/Exceptions.h."""


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory ran out, on any device, and nothing else."""
    names = [kind.__name__ for kind in type(error).__mro__]  # torch is not imported here
    if "OutOfMemoryError" in names:
        return True
    words = "|".join(_OUT_OF_MEMORY)
    return isinstance(error, RuntimeError) and re.search(words, str(error)) is not None


def is_too_large(error: BaseException) -> bool:
    """Whether something asked for more memory than there is, or than an address can reach."""
    text = r"allocate memory|out of memory|storage size calculation overflowed"
    return isinstance(error, MemoryError) or re.search(text, str(error), re.IGNORECASE) is not None


def nearest(name: str, choices: Iterable[str]) -> str | None:
    """What was probably meant: `optimizer.lr` for `lr` or `optimiser.lr`; None if nothing is near."""
    import difflib  # only errors need it, and --help has to be quick

    known = list(dict.fromkeys(map(str, choices)))
    last = name.rpartition(".")[2]
    same_last = [choice for choice in known if choice.rpartition(".")[2] == last]
    for candidates in (same_last, known):
        if near := difflib.get_close_matches(name, candidates, n=1, cutoff=0.6):
            return near[0]
    if same_last:
        return same_last[0]
    by_last = {choice.rpartition(".")[2]: choice for choice in reversed(known)}
    near = difflib.get_close_matches(last, by_last, n=1, cutoff=0.75)
    return by_last[near[0]] if near else None


def did_you_mean(name: str, choices: Iterable[str]) -> str:
    """`" Did you mean 'lr'?"` for the nearest choice, or an empty string if none is near."""
    near = nearest(name, choices)
    return f" Did you mean '{near}'?" if near else ""


_PLAIN = re.compile(r"[A-Za-z_./][\w./+%@-]*( [\w./+%@-]+)*", re.ASCII)
_MEANT = re.compile(r"true|false|null|nan|inf", re.IGNORECASE)  # what Hydra takes for what it says
_NUMBER = re.compile(r"[+-]?\.?\d[\d_.eE+-]*")


def setting(key: str, value: Any) -> str:
    """`key=value`, quoted for the shell and for Hydra: `'data.path="a, b.csv"'`, `'plugins=[mine]'`."""
    return shell_quoted(f"{key}={hydra_value(value, literal=True)}")


def shell_quoted(word: str) -> str:
    """A word that bash, zsh and other shells give to a program as it is."""
    return shlex.quote(word)


def program(name: str) -> str:
    """How to call a program that was installed beside this one: by its name where the shell finds it so,
    or else by its path, from the current folder where it lies below that."""
    beside, here = Path(os.path.abspath(sys.executable)).with_name(name), Path.cwd()  # noqa: PTH100
    if shutil.which(name) is not None or not beside.is_file():
        return name
    return shell_quoted(str(beside.relative_to(here) if beside.is_relative_to(here) else beside))


def hydra_value(value: Any, *, literal: bool = False) -> str:
    """A value of text, numbers, lists and mappings as Hydra's command line reads it.

    Args:
        value: the value.
        literal: a text stands for itself, `${…}` in it too, and has quotation marks only where it needs
            them; otherwise `${…}` refers to another setting.
    """
    if isinstance(value, dict):
        entries = (f"{key}:{hydra_value(item, literal=literal)}" for key, item in value.items())
        return "{" + ",".join(entries) + "}"
    if isinstance(value, list | tuple):
        return "[" + ",".join(hydra_value(item, literal=literal) for item in value) + "]"
    if not isinstance(value, str):
        return "null" if value is None else str(value).lower()
    if not literal:
        return _quoted(value, "'")
    if _is_plain(value):
        return value
    mark = "'" if '"' in value else '"'  # the shell's are single ones
    return _quoted(escape_interpolations(value), mark)


def escape_interpolations(text: str) -> str:
    """A text in which no `${…}` refers to another setting."""
    return re.sub(r"(\\*)\$\{", r"\1\1\\${", text)


def _is_plain(text: str) -> bool:
    return bool(_PLAIN.fullmatch(text)) and not (_MEANT.fullmatch(text) or _NUMBER.fullmatch(text))


def _quoted(text: str, mark: str) -> str:
    # A backslash means itself, but for those before a quotation mark.
    inside = re.sub(rf"(\\*){mark}", rf"\1\1\\{mark}", text)
    return mark + re.sub(r"(\\+)\Z", r"\1\1", inside) + mark


MAX_NAMES = 8
"""Names that a message lists before it only counts them."""


def counted(number: float, one: str, many: str | None = None) -> str:
    """`1 epoch`, `2.5 epochs`, `12,000 epochs`; of `one class`, `many` are `classes`."""
    number = int(number) if number == int(number) else number
    return f"{number:,} {one if number == 1 else many or f'{one}s'}"


def join_names(names: Sequence[str]) -> str:
    """Names on a line: the first `MAX_NAMES`, and how many there are in all."""
    more = f", … ({len(names):,} in all)" if len(names) > MAX_NAMES else ""
    return ", ".join(names[:MAX_NAMES]) + more
