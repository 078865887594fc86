"""Errors that a user can cause and fix, each with one message that says how.

Every message names the key or file, its value, what is allowed and, if there is a likely one, the
fix. The command line prints it without a traceback and exits with status 1.
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
    """Base of all errors that a user can cause.

    Args:
        message: what is wrong, and what to do.
        alone: what else to do with a run that is not one of a sweep's jobs, such as how to resume it.

    Attributes:
        in_sweep: the message without that.
    """

    def __init__(self, message: str = "", alone: str = "") -> None:
        super().__init__(f"{message} {alone}" if alone else message)
        self.in_sweep = message


class ConfigError(BigModelError):
    """A configuration that cannot be run: unknown key, wrong type, out of range, no such choice."""


class DataError(BigModelError):
    """Data that is missing, damaged, empty, or not as described."""


class MetricError(ConfigError):
    """A metric that a run will not have."""


class SpecError(ConfigError):
    """Components that do not fit together: a model that cannot read the data, a loss that cannot score
    the target."""


class DeviceError(ConfigError):
    """A device or precision that this machine does not have."""


class MissingPackageError(ConfigError):
    """A package that only some runs need is not installed."""


class CheckpointError(BigModelError):
    """A checkpoint or run folder that cannot be read or written."""


class DamagedError(CheckpointError):
    """A damaged checkpoint; an older one may be usable."""


class NonFiniteError(BigModelError):
    """Training has diverged: a loss, gradient or weight is NaN or infinite.

    Attributes:
        step: the optimizer step, from 1, at which it was detected.
    """

    def __init__(self, message: str, step: int) -> None:
        super().__init__(message)
        self.step = step

    def __reduce__(self) -> Any:  # from another process
        return type(self), (str(self), self.step)


class UndefinedError(BigModelError):
    """A model gives NaN or infinity, so it predicts nothing."""


DIVERGED = (
    "Its training has diverged, or its numbers have outgrown its precision: try other weights of the run"
    " (--weights), or train again with a smaller optimizer.lr."
)
"""Advice for such a model."""


def reason(error: BaseException, *, in_sweep: bool = False) -> str:
    """The reason of a failure, without secrets: our own message, or the type and message of others.

    Args:
        in_sweep: whether it is that of a sweep's job.
    """
    if isinstance(error, BigModelError):
        return masked(error.in_sweep if in_sweep else str(error))
    return masked(f"{type(error).__name__}: {error}".removesuffix(": "))


def may_pass(error: BaseException) -> bool:
    """Whether the same attempt may succeed later, with nothing changed. Settings stay refused, and what
    has diverged diverges again; memory, a disk or data may be there by then."""
    if error.__cause__ is not None and is_out_of_memory(error.__cause__):
        return True
    return not isinstance(error, ConfigError | NonFiniteError | UndefinedError)


def first_line(error: BaseException, default: str = "") -> str:
    """The first line of an error's message, or `default` if it has none."""
    return next(iter(str(error).strip().splitlines()), default).rstrip()


def first_difference(error: BaseException) -> str:
    """What `load_state_dict` says of the first weight that does not fit, with shapes as `6 × 48`."""
    line = next((line.strip() for line in str(error).splitlines()[1:]), str(error))
    sizes = re.compile(r"torch\.Size\(\[([\d, ]*)\]\)")
    return sizes.sub(lambda found: found[1].replace(", ", " × ") or "one number", line)


def line_of(error: BaseException) -> str:
    """Where in a user's own code an error comes from, such as ` (my_net.py, line 12)`; else empty."""
    import sysconfig
    import traceback

    foreign = ("<", str(Path(__file__).parent), sysconfig.get_path("stdlib"))
    frames = traceback.extract_tb(error.__traceback__)
    installed = re.compile(r"[/\\](site|dist)-packages[/\\]")
    own = [f for f in frames if not f.filename.startswith(foreign) and not installed.search(f.filename)]
    return f" ({Path(own[-1].filename).name}, line {own[-1].lineno})" if own else ""


EXTRAS = {
    "pyarrow": "tables",
    "PIL": "images",
    "soundfile": "audio",
    "tokenizers": "text",
    "jinja2": "text",
    "regex": "text",
    "sacrebleu": "text",
    "onnx": "export",
    "onnxscript": "export",
    "schedulefree": "optim",
    "plotly": "sweeps",
    "optuna": "sweeps",
    "cmaes": "sweeps",
    "submitit": "sweeps",
    "mlflow": "mlflow",
    "trackio": "trackio",
    "wandb": "wandb",
}
"""Modules that only some runs need, and the extra of `bigmodel-train` that installs each."""

PACKAGES = {"PIL": "pillow", "mlflow": "mlflow-skinny"}
"""The packages of modules that have another name."""


def require(module: str, user: str) -> None:
    """Checks that a module of `EXTRAS` is installed, without importing it.

    Args:
        module: such as `pyarrow`.
        user: what needs it, as the user types it: `data=table`.

    Raises:
        MissingPackageError: it is not installed; the message says what to type.
    """
    from importlib.util import find_spec

    if find_spec(module) is None:
        package = PACKAGES.get(module, module)
        raise MissingPackageError(
            f"{user} needs {package}, which is not installed:"
            f" pip install 'bigmodel-train[{EXTRAS[module]}]'"
        )


@contextmanager
def may_need_extras(user: str) -> Iterator[None]:
    """Raises the error of `require` if an import in the block fails for lack of a module of `EXTRAS`."""
    try:
        yield
    except ModuleNotFoundError as error:
        module = (error.name or "").partition(".")[0]
        if module in EXTRAS:
            require(module, user)
        raise


_OUT_OF_MEMORY = (
    # torch's allocators, unless they raise a specific error
    r"DefaultCPUAllocator: (can't allocate memory|not enough memory): you tried to allocate",
    r"^std::bad_alloc$",
    r"^MPS backend out of memory",
    # CUDA itself: page-locked memory, graphs, contexts, memory that grows (expandable segments)
    r"^(CUDA|HIP)( driver)? error: out of memory",
    r"^Triton Error \[(CUDA|HIP)\]: out of memory",
    # cuBLAS, also when there is no memory for its handle
    r"^CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling",
    r"^CUDA error: CUBLAS_STATUS_NOT_INITIALIZED when calling `cublas(Lt)?Create",
    r"^cuDNN (Frontend )?error: .*CUDNN_STATUS_(ALLOC|INTERNAL_ERROR_(HOST|DEVICE)_ALLOCATION)_FAILED",
)
"""How libraries report that memory ran out; torch words them in c10/core/impl/alloc_cpu.cpp,
c10/cuda/CUDAException.cpp, c10/cuda/driver_api.h and aten/src/ATen/cuda/Exceptions.h."""


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error means that memory ran out, on any device."""
    names = [kind.__name__ for kind in type(error).__mro__]  # torch is not imported here
    if "OutOfMemoryError" in names:
        return True
    words = "|".join(_OUT_OF_MEMORY)
    return isinstance(error, RuntimeError) and re.search(words, str(error)) is not None


def is_too_large(error: BaseException) -> bool:
    """Whether an error means that more memory was requested than exists or can be addressed."""
    text = r"allocate memory|out of memory|storage size calculation overflowed"
    return isinstance(error, MemoryError) or re.search(text, str(error), re.IGNORECASE) is not None


def nearest(name: str, choices: Iterable[str]) -> str | None:
    """The most similar choice: `optimizer.lr` for `lr` or `optimiser.lr`; None if none is similar."""
    import difflib  # only errors need it, and --help must be fast

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
    """`" Did you mean 'lr'?"` for the most similar choice, or an empty string if none is similar."""
    near = nearest(name, choices)
    return f" Did you mean '{near}'?" if near else ""


_PLAIN = re.compile(r"[A-Za-z_./][\w./+%@-]*( [\w./+%@-]+)*", re.ASCII)
_CONSTANT = re.compile(r"true|false|null|nan|inf", re.IGNORECASE)  # Hydra does not read these as text
_NUMBER = re.compile(r"[+-]?\.?\d[\d_.eE+-]*")


def setting(key: str, value: Any) -> str:
    """`key=value`, quoted for the shell and for Hydra: `'data.path="a, b.csv"'`, `'plugins=[mine]'`."""
    return shell_quoted(f"{key}={hydra_value(value, literal=True)}")


def shell_quoted(word: str) -> str:
    """A word quoted for bash, zsh and other shells."""
    return shlex.quote(word)


def program(name: str) -> str:
    """The command for a program installed beside this one: its name if the shell finds it, otherwise its
    path, relative if it lies in the current folder."""
    beside, here = Path(os.path.abspath(sys.executable)).with_name(name), Path.cwd()  # noqa: PTH100
    if shutil.which(name) is not None or not beside.is_file():
        return name
    return shell_quoted(str(beside.relative_to(here) if beside.is_relative_to(here) else beside))


def hydra_value(value: Any, *, literal: bool = False) -> str:
    """A value in the syntax of Hydra's command line: text, numbers, lists and mappings.

    Args:
        value: the value.
        literal: take text literally, including `${…}`, and quote it only if necessary; otherwise `${…}`
            refers to another setting.
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
    mark = "'" if '"' in value else '"'  # the shell uses single ones
    return _quoted(escape_interpolations(value), mark)


def escape_interpolations(text: str) -> str:
    """Escapes `${…}`, so that it refers to no other setting."""
    return re.sub(r"(\\*)\$\{", r"\1\1\\${", text)


def _is_plain(text: str) -> bool:
    return bool(_PLAIN.fullmatch(text)) and not (_CONSTANT.fullmatch(text) or _NUMBER.fullmatch(text))


def _quoted(text: str, mark: str) -> str:
    # A backslash is literal unless it precedes a quotation mark.
    inside = re.sub(rf"(\\*){mark}", rf"\1\1\\{mark}", text)
    return mark + re.sub(r"(\\+)\Z", r"\1\1", inside) + mark


MAX_NAMES = 8
"""The most names that a message lists."""


def counted(number: float, one: str, many: str | None = None) -> str:
    """`1 epoch`, `2.5 epochs`, `12,000 epochs`; of `one class`, `many` are `classes`."""
    number = int(number) if number == int(number) else number
    return f"{number:,} {one if number == 1 else many or f'{one}s'}"


def join_names(names: Sequence[str]) -> str:
    """The first `MAX_NAMES` names on one line, and how many there are in all."""
    more = f", … ({len(names):,} in all)" if len(names) > MAX_NAMES else ""
    return ", ".join(names[:MAX_NAMES]) + more
