"""Tensors in safetensors files: one file for a group, or one of each rank that holds a part of it.

    model.safetensors
    model-00001-of-00002.safetensors, model-00002-of-00002.safetensors

The latter are named as Hugging Face does. The header of each has, as JSON, the `Part` of each of its
tensors; one without is whole. Reading gives whole tensors, however many files there are.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from bigmodel.checkpointing.manifest import SHARD, TENSORS
from bigmodel.checkpointing.serialization import TensorGroups
from bigmodel.distributed.layout import Box, Part
from bigmodel.errors import DamagedError
from bigmodel.runtime import disk, nested_json

Parts = Mapping[str, Mapping[str, Part]]
"""By group and name, which part of a tensor a rank holds. All ranks have the same groups and names."""

_HEADER = "parts"


def own_tensors(groups: TensorGroups, parts: Parts, rank: int) -> TensorGroups:
    """What a rank writes: the parts that it keeps, and if it is the first, whole tensors."""
    if rank == 0 and not parts:
        return groups

    def writes(group: str, name: str) -> bool:
        part = parts.get(group, {}).get(name)
        return rank == 0 if part is None else part.kept

    return {
        group: {name: tensor for name, tensor in tensors.items() if writes(group, name)}
        for group, tensors in groups.items()
    }


def write(
    folder: Path, groups: TensorGroups, parts: Parts | None = None, rank: int = 0, size: int = 1
) -> list[Path]:
    """Writes a rank's tensors, a file for each group, and syncs them.

    Args:
        groups: the tensors that it holds.
        parts: groups that are in it are written by all ranks, and others by the first.
        rank: the number of this rank, from 0.
        size: how many there are.

    Returns:
        The files.

    Raises:
        OSError, SafetensorError: one cannot be written.
    """
    written, parts = [], parts or {}
    for group, tensors in own_tensors(groups, parts, rank).items():
        header = None
        path = folder / f"{group}{TENSORS}"
        if parts.get(group):
            path = folder / shard_name(group, rank, size)
            described = {name: parts[group][name].to_json() for name in tensors if name in parts[group]}
            header = {"format": "pt", _HEADER: json.dumps(described, separators=(",", ":"))}
        elif rank:
            continue
        path.touch()
        mode = path.stat().st_mode
        save_file(_contiguous_cpu(tensors), path, header)
        path.chmod(mode)  # safetensors lets nobody else read it
        disk.sync(path)
        written.append(path)
    return written


def shard_name(group: str, rank: int, size: int) -> str:
    """The name of a rank's file."""
    return f"{group}-{rank + 1:05}-of-{size:05}{TENSORS}"


def read(folder: Path, names: Iterable[str]) -> TensorGroups:
    """The tensors of a checkpoint's files, by group and name.

    Raises:
        DamagedError: a shard is missing, or shards do not make up whole tensors.
        OSError, SafetensorError, ValueError: a file cannot be read.
    """
    groups: TensorGroups = {}
    shards: dict[str, list[Path]] = {}
    for name in names:
        if match := SHARD.fullmatch(name):
            shards.setdefault(match["group"], []).append(folder / name)
        elif name.endswith(TENSORS):
            groups[name.removesuffix(TENSORS)] = load_file(folder / name)
    for group, paths in shards.items():
        if group in groups:
            raise _damaged(folder, f"{min(paths).name} does not belong to {group}{TENSORS}.")
        groups[group] = Shards(group, sorted(paths))
    return groups


@dataclass(frozen=True)
class _Piece:
    """A part of a tensor, in a file that is open."""

    path: Path
    file: Any
    part: Part
    dtype: str


class Shards(Mapping[str, Tensor]):
    """A group's whole tensors, each put together from its parts at the moment when it is asked for.

    Files are mapped into memory, so that no more than that one tensor takes any.

    Args:
        group: its name.
        paths: its files, in the order of ranks.

    Raises:
        DamagedError: one is missing, or a value of a tensor is in none or in two of them.
    """

    def __init__(self, group: str, paths: Sequence[Path]) -> None:
        _check_complete(group, paths)
        self._pieces: dict[str, list[_Piece]] = {}
        for path in paths:
            for name, piece in _pieces(path):
                self._pieces.setdefault(name, []).append(piece)
        for name, pieces in self._pieces.items():
            _check_covered(name, pieces)

    def __getitem__(self, name: str) -> Tensor:
        pieces = self._pieces[name]
        parts: list[tuple[Part, Tensor]] = [(p.part, p.file.get_tensor(name)) for p in pieces]
        part, tensor = parts[0]
        if part == _whole(part.shape):
            return tensor
        whole = torch.empty(part.shape, dtype=tensor.dtype)
        for part, tensor in parts:
            part.paste(tensor, whole)
        return whole

    def __iter__(self) -> Iterator[str]:
        return iter(self._pieces)

    def __len__(self) -> int:
        return len(self._pieces)

    def __contains__(self, name: object) -> bool:  # a mapping's own would put the tensor together
        return name in self._pieces


def _whole(shape: tuple[int, ...]) -> Part:
    return Part(shape, tuple(((0, size),) if size else () for size in shape))


def _check_complete(group: str, paths: Sequence[Path]) -> None:
    folder, last = paths[0].parent, SHARD.fullmatch(paths[-1].name)
    assert last is not None
    names = {path.name for path in paths}
    for rank in range(int(last["size"])):
        if (name := shard_name(group, rank, int(last["size"]))) not in names:
            raise _damaged(folder, f"{name} is missing.")
    if len(names) > int(last["size"]):
        raise _damaged(folder, f"{min(names)} does not belong to {max(names)}.")


def _pieces(path: Path) -> Iterator[tuple[str, _Piece]]:
    file: Any = safe_open(path, "pt")
    described = nested_json.loads((file.metadata() or {}).get(_HEADER, "{}"))
    try:
        parts = {name: Part.from_json(value) for name, value in described.items()}
    except (ValueError, AttributeError) as error:
        raise _damaged(path.parent, f"{path.name}: {error}.") from error
    for name in file.keys():  # noqa: SIM118
        stored = file.get_slice(name)
        shape = tuple(stored.get_shape())
        part = parts.get(name) or _whole(shape)
        if part.part_shape != shape:
            raise _damaged(path.parent, f"{path.name}: {name} is not of its part's shape.")
        yield name, _Piece(path, file, part, stored.get_dtype())


def _check_covered(name: str, pieces: Sequence[_Piece]) -> None:
    """Each value of a tensor has to be in one file, and in one alone."""
    first = pieces[0]
    for piece in pieces:
        if (piece.part.shape, piece.dtype) != (first.part.shape, first.dtype):
            words = f"{first.path.name} and {piece.path.name} hold parts of two kinds of {name}."
            raise _damaged(piece.path.parent, words)
    boxes = [(there or ((0, 1),), piece) for piece in pieces for _, there in piece.part.boxes()]
    beside: list[tuple[Box, _Piece]] = []  # those before that reach the same rows
    for box, piece in sorted(boxes, key=lambda pair: pair[0]):
        beside = [other for other in beside if other[0][0][1] > box[0][0]]
        for other, its in beside:
            if all(a < d and c < b for (a, b), (c, d) in zip(box, other, strict=True)):
                files = " and ".join(sorted({piece.path.name, its.path.name}))
                raise _damaged(piece.path.parent, f"{files} hold the same part of {name}.")
        beside.append((box, piece))
    count = math.prod(first.part.shape)
    if missing := count - sum(math.prod(piece.part.part_shape) for piece in pieces):
        files = f"{first.path.name} to {pieces[-1].path.name}" if len(pieces) > 1 else first.path.name
        words = f"{missing:,} of the {count:,} values of {name} are missing in {files}."
        raise _damaged(first.path.parent, words)


def _damaged(folder: Path, what: str) -> DamagedError:
    return DamagedError(f"{folder}: the checkpoint is damaged: {what}")


def _contiguous_cpu(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Contiguous copies on the CPU where needed: safetensors takes no shared or strided memory."""
    seen: set[int] = set()
    owned = {}
    for name, tensor in tensors.items():
        value = tensor.detach().to("cpu").contiguous()
        if value.numel() and value.untyped_storage().data_ptr() in seen:
            value = value.clone()
        seen.add(value.untyped_storage().data_ptr())
        owned[name] = value
    return owned
