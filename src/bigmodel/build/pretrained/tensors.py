"""Reads the tensors of a pretrained model: safetensors or PyTorch files, in one or several shards."""

from __future__ import annotations

import pickle
import warnings
import zipfile
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from bigmodel.errors import CheckpointError, first_line
from bigmodel.runtime import nested_json

SAFETENSORS, PICKLED = (".safetensors",), (".bin", ".pth", ".pt")
_NAMES = ("model.safetensors", "pytorch_model.bin")
_POINTER = b"version https://git-lfs"
_AGAIN = "Download or copy it again."


def weight_files(folder: Path, where: str) -> list[Path]:
    """The files with the weights of a folder as Hugging Face's libraries write it.

    Raises:
        CheckpointError: there are none, or a shard is missing.
    """
    for name in _NAMES:
        index = folder / f"{name}.index.json"
        if (folder / name).is_file():
            return [folder / name]
        if index.is_file():
            return _shards(index, where)
    raise CheckpointError(
        f"{where}: the folder has no weights: neither {' nor '.join(_NAMES)}, nor an index of several."
    )


def read_tensors(files: list[Path], where: str) -> dict[str, Tensor]:
    """All tensors of some files, by name. Pickled ones run no code.

    Raises:
        CheckpointError: a file is damaged, or holds other things than tensors.
    """
    tensors: dict[str, Tensor] = {}
    for file in files:
        tensors |= _read(file, where)
    whole = [name for name, tensor in tensors.items() if not tensor.is_floating_point()]
    if quantised := [name for name in whole if name.endswith(".weight")]:
        raise CheckpointError(
            f"{where}: {quantised[0]} holds whole numbers: the weights are quantised, which is not read."
            " Use those that were quantised."
        )
    return tensors


def _shards(index: Path, where: str) -> list[Path]:
    try:
        listed = nested_json.loads(index.read_text(encoding="utf-8"))["weight_map"]
        names = sorted({str(name) for name in listed.values()})
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(
            f"{where}: {index.name} lists no shards: {first_line(error, type(error).__name__)}. {_AGAIN}"
        ) from error
    if not names:
        raise CheckpointError(f"{where}: {index.name} lists no shards. {_AGAIN}")
    inside = {name for name in names if Path(name).name == name and index.with_name(name).is_file()}
    if missing := [name for name in names if name not in inside]:
        raise CheckpointError(
            f"{where}: {missing[0]} is not in the folder, one of {len(names)} shards that {index.name}"
            " lists. Download it too."
        )
    return [index.with_name(name) for name in names]


def _read(file: Path, where: str) -> dict[str, Tensor]:
    with file.open("rb") as opened:
        if opened.read(len(_POINTER)) == _POINTER:
            raise CheckpointError(
                f"{where}: {file.name} is only a pointer of Git LFS to the weights. In that folder: git"
                " lfs pull"
            )
    try:
        if file.suffix in SAFETENSORS:
            return dict(load_file(file))
        mapped = zipfile.is_zipfile(file)  # since version 1.6 of torch
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of other pickle protocols
            content = torch.load(file, map_location="cpu", weights_only=True, mmap=mapped)
    except pickle.UnpicklingError as error:
        raise CheckpointError(
            f"{where}: {file.name} is pickled, and holds more than tensors, or is damaged. Only tensors"
            " are read from such a file, since anything else may run code. Use a safetensors file."
        ) from error
    except (SafetensorError, OSError, RuntimeError, ValueError, EOFError) as error:
        fault = first_line(error, type(error).__name__)
        raise CheckpointError(f"{where}: {file.name} is damaged: {fault}. {_AGAIN}") from error
    return _tensors_of(content, file, where)


def _tensors_of(content: Any, file: Path, where: str) -> dict[str, Tensor]:
    """The weights in what a training program has saved: by name, or under a usual key."""
    for key in ("model", "state_dict", "model_state_dict"):
        if isinstance(content, dict) and isinstance(content.get(key), dict):
            content = content[key]
            break
    if isinstance(content, dict):
        tensors = {str(name): value for name, value in content.items() if isinstance(value, Tensor)}
        if tensors:
            return tensors
    raise CheckpointError(f"{where}: {file.name} holds no tensors by name.")
