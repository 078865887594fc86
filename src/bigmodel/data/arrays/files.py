"""Named arrays in .npz and safetensors files. Neither can hold code; pickles are never read."""

from __future__ import annotations

import math
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from bigmodel.data.memory_check import check_memory
from bigmodel.errors import DataError, did_you_mean, setting

_INPUTS = ("inputs", "x", "x_train", "train_x", "features", "images", "input", "data", "samples")
_TARGETS = ("targets", "y", "y_train", "train_y", "labels", "target", "label", "classes")
IN_MEMORY = "the arrays"
"""What messages call arrays that are in no file."""

SUFFIXES = (".npz", ".safetensors")


class Arrays:
    """The arrays of an open file, each read on request.

    Attributes:
        path: of the file.
        names: of the arrays.
    """

    def __init__(self, path: Path, names: Sequence[str], content: Any) -> None:
        self.path = path
        self.names = list(names)
        self._content = content

    def _suggest_names(self, key: str) -> str:
        """The options to set if inputs and targets have other common names, such as X and y."""
        if key not in ("data.inputs", "data.targets"):
            return ""
        known = {name.lower(): name for name in reversed(self.names)}
        inputs = next((known[name] for name in _INPUTS if name in known), None)
        targets = next((known[name] for name in _TARGETS if name in known), None)
        if inputs is None or targets is None:
            return ""
        names = {"inputs": inputs, "targets": targets}
        options = (setting(f"data.{option}", name) for option, name in names.items() if name != option)
        return f" Did you mean {' '.join(options)}?"

    def read(self, name: str, key: str) -> Tensor | list[str]:
        """An array; words come as a list.

        Args:
            name: of the array.
            key: the option with this name, such as `data.inputs`, for messages.

        Raises:
            DataError: there is no such array, or a tensor cannot hold its type.
        """
        if name not in self.names:
            meant = self._suggest_names(key) or did_you_mean(name, self.names)
            raise DataError(
                f"{key}={name}: {self.path} has no such array.{meant} It has"
                f" {', '.join(self.names) or 'none'}."
            )
        try:
            array = self._content(name)
        except ValueError as error:
            if "pickle" not in str(error):
                raise
            raise DataError(
                f"{self.path}: array '{name}' holds Python objects, which may be code and are never"
                " read. Store numbers, or words as array.astype(str)."
            ) from error
        return array if isinstance(array, Tensor) else _to_tensor(array, f"{self.path}: array '{name}'")


def arrays_in_memory(named: Mapping[str, Any]) -> Arrays:
    """Arrays, or sequences of equal ones, by name."""

    def content(name: str) -> Any:
        import numpy as np

        array = named[name]
        try:
            return array if isinstance(array, Tensor) else np.asarray(array)
        except ValueError as error:
            raise DataError(f"{IN_MEMORY}: '{name}' is ragged: its samples differ in shape.") from error

    return Arrays(Path(IN_MEMORY), list(named), content)


@contextmanager
def open_arrays(path: Path, key: str) -> Iterator[Arrays]:
    """Opens a file of arrays, for a `with` statement.

    Args:
        path: the file.
        key: the option with this path, such as `data.path`, for messages.

    Raises:
        DataError: it cannot be read, or is another kind of file.
    """
    if path.is_dir() or path.suffix.lower() not in SUFFIXES:
        raise DataError(
            f"{key}={path}: is not a file of arrays. Supported are .npz, written by"
            " numpy.savez(path, inputs=…, targets=…), and .safetensors."
        )
    try:
        if path.suffix.lower() == ".npz":
            import numpy as np

            # opened here because numpy leaves a damaged file open
            with path.open("rb") as raw:
                file = np.load(raw, allow_pickle=False)
                if not hasattr(file, "files"):
                    raise DataError(f"{key}={path}: holds a single array without a name, expected .npz.")
                yield Arrays(path, file.files, partial(_read_member, path, file))
        else:
            from safetensors import safe_open

            with safe_open(path, framework="pt") as content:
                yield Arrays(path, list(content.keys()), content.get_tensor)
    except DataError:
        raise
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, RuntimeError) as error:
        raise _unreadable(path, key, error) from error
    except Exception as error:  # safetensors' own error derives directly from Exception
        if type(error).__name__ != "SafetensorError":
            raise
        raise _unreadable(path, key, error) from error


def _read_member(path: Path, file: Any, name: str) -> Any:
    """An array of a .npz file, after its header has been compared with its size.

    Raises:
        DataError: it is damaged, its header gives another size, or it is larger than memory.
    """
    from numpy.lib import format as layout

    where = f"{path}: array '{name}'"
    member = name if name in file.zip.namelist() else f"{name}.npy"
    with file.zip.open(member) as content:
        try:
            first = layout.read_magic(content) == (1, 0)
            read_header = layout.read_array_header_1_0 if first else layout.read_array_header_2_0
            shape, _, dtype = read_header(content)
        except ValueError as error:
            fault = "is empty or was not written by numpy.savez"
            raise DataError(f"{where} {fault}: {error}.") from error
        expected = math.prod(shape) * dtype.itemsize
        actual = file.zip.getinfo(member).file_size - content.tell()
        if not dtype.hasobject and expected != actual:
            raise DataError(
                f"{where}: its header says {expected:,} bytes of {dtype} in shape {shape}"
                f", but it holds {actual:,}. Write it again."
            )
    check_memory(expected, where)
    return file[name]


def _unreadable(path: Path, key: str, error: Exception) -> DataError:
    why = getattr(error, "strerror", None) or str(error)
    if "pickle" in why:
        why = "it is not an .npz file (pickles are never read)"
    return DataError(f"{key}={path}: cannot be read: {why}.")


def _to_tensor(array: Any, where: str) -> Tensor | list[str]:
    """A tensor of any real type, or a list of words."""
    import numpy as np

    if array.dtype.kind in "US":
        if array.ndim != 1:
            raise DataError(f"{where} holds words in {array.ndim} dimensions; only 1 is supported.")
        return [word.decode() if isinstance(word, bytes) else str(word) for word in array.tolist()]
    if array.dtype.kind not in "biuf" or array.dtype.itemsize > 8:
        raise DataError(f"{where} is of type {array.dtype}; supported are whole and real numbers.")
    if array.dtype.kind == "u" and array.dtype.itemsize > 1:  # torch hardly supports these types
        if array.dtype.itemsize == 8 and array.size and array.max() > np.iinfo(np.int64).max:
            raise DataError(f"{where} holds whole numbers beyond {np.iinfo(np.int64).max:,}.")
        array = array.astype(np.int64)
    native = array.astype(array.dtype.newbyteorder("="), copy=False)
    return torch.from_numpy(np.ascontiguousarray(native))
