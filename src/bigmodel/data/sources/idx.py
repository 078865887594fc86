"""MNIST and Fashion-MNIST, and other data sets in the same four IDX files.

IDX (LeCun, Cortes and Burges, "The MNIST database of handwritten digits", 1998): two zero bytes, one
for the type (8: bytes), one for the number of dimensions, then each dimension as a big-endian 32-bit
integer, then the bytes themselves.
"""

from __future__ import annotations

import math
import struct
from pathlib import Path
from typing import BinaryIO

import torch
from pydantic import Field
from torch import Tensor

from bigmodel.data.assemble import assemble
from bigmodel.data.base import BatchSize, Dataset, ImageConfig, ValFraction
from bigmodel.data.memory_check import check_memory, free_memory
from bigmodel.data.parts import Part
from bigmodel.data.paths import check_inside
from bigmodel.data.text_encoding import open_decompressed
from bigmodel.errors import DataError
from bigmodel.registry import data
from bigmodel.spec import Classes, DataSpec, Image

_MNIST_CLASSES = tuple("0123456789")
_FASHION_CLASSES = (
    *("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat"),
    *("Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"),
)
_DEBIAN_FASHION = Path("/usr/share/datasets/fashion-mnist")
_STEMS = ("train-images", "train-labels", "t10k-images", "t10k-labels")
_MAGIC = {"images": 0x00000803, "labels": 0x00000801}
_CHUNK = 1 << 20


class IDXConfig(ImageConfig):
    """Four IDX files, gzip or not."""

    batch_size: BatchSize = 128
    val_fraction: ValFraction = 0.1
    root: str | None = Field(
        None, description="folder of the four IDX files; null: data/<name> and system folders"
    )


@data.register("mnist", IDXConfig)
def mnist(config: IDXConfig) -> Dataset:
    """70,000 handwritten digits, images 1×28×28 (LeCun et al., 1998), with their test set."""
    help_text = "The four files of the official MNIST distribution belong there."
    return _read_dataset(config, _MNIST_CLASSES, [], help_text)


@data.register("fashion_mnist", IDXConfig)
def fashion_mnist(config: IDXConfig) -> Dataset:
    """70,000 pictures of clothes, images 1×28×28 (Xiao et al., 2017), with their test set."""
    help_text = (
        "Debian's package dataset-fashion-mnist has them (non-free; it installs into"
        f" {_DEBIAN_FASHION}), and so has the official distribution of Zalando Research."
    )
    return _read_dataset(config, _FASHION_CLASSES, [_DEBIAN_FASHION], help_text)


def _read_dataset(
    config: IDXConfig, classes: tuple[str, ...], system_folders: list[Path], help_text: str
) -> Dataset:
    """Finds and reads the four files.

    Raises:
        DataError: a file is missing, damaged, of another kind, a link out of its folder, or does not
            match the others.
    """
    if config.root is not None:
        folders = [Path(config.root).expanduser()]
    else:
        folders = [Path("data") / config.name, *system_folders]
    files = _find(config, folders, system_folders, help_text)
    train = _read_part(files["train-images"], files["train-labels"], classes)
    test = _read_part(files["t10k-images"], files["t10k-labels"], classes)
    height, width = train.inputs.shape[2:]
    if test.inputs.shape[2:] != train.inputs.shape[2:]:
        raise DataError(
            f"{files['t10k-images']}: its images are {test.inputs.shape[2]}×{test.inputs.shape[3]}"
            f" pixels, but those of {files['train-images']} are {height}×{width}:"
            " the files are from different data sets."
        )
    spec = DataSpec(config.name, Image(1, height, width), Classes(classes, counts=()))
    return assemble(config, spec, train, test, normalize=config.normalize, as_read=True)


def _find(
    config: IDXConfig, folders: list[Path], system_folders: list[Path], help_text: str
) -> dict[str, Path]:
    """The path of each of the four files, all from the first folder that has any."""
    for folder in folders:
        files = {stem: path for stem in _STEMS if (path := _find_file(folder, stem)) is not None}
        if len(files) == len(_STEMS):
            if folder not in system_folders:  # distributions may install links
                for path in files.values():
                    check_inside(path, folder, "data.root")
            return files
        if files:
            missing = ", ".join(f"{_file_name(stem)}[.gz]" for stem in _STEMS if stem not in files)
            raise DataError(
                f"data={config.name}: of its four files, these are missing in {folder.absolute()}:"
                f" {missing}. {help_text}"
            )
    looked = " nor in ".join(f"{folder.absolute()}" for folder in folders)
    names = ", ".join(f"{_file_name(stem)}[.gz]" for stem in _STEMS)
    raise DataError(
        f"data={config.name}: its files are not in {looked}. Expected are {names}."
        f" {help_text} Set data.root=<folder> for another place."
    )


def _file_name(stem: str) -> str:
    return f"{stem}-idx{3 if stem.endswith('images') else 1}-ubyte"


def _find_file(folder: Path, stem: str) -> Path | None:
    """The file in either spelling, gzip or not; None if there is none."""
    name = _file_name(stem)
    for spelling in (name, name.replace("-idx", ".idx")):
        for path in (folder / spelling, folder / f"{spelling}.gz"):
            if path.is_file():
                return path
    return None


def _read_part(images_path: Path, labels_path: Path, classes: tuple[str, ...]) -> Part:
    """One part: images (samples, 1, height, width) uint8 with labels (samples,) int64."""
    images = read_idx(images_path, "images")
    labels = read_idx(labels_path, "labels")
    if len(images) != len(labels):
        raise DataError(
            f"{images_path} holds {len(images):,} images, but {labels_path} {len(labels):,} labels:"
            " the files do not match."
        )
    if int(labels.max()) >= len(classes):
        row = int((labels >= len(classes)).nonzero()[0])
        raise DataError(
            f"{labels_path}: label {int(labels[row])} in row {row} (counted from 0) is out of range:"
            f" 0 to {len(classes) - 1} are allowed for {len(classes)} classes."
        )
    return Part(images[:, None], labels.to(torch.int64))


def read_idx(path: Path, kind: str) -> Tensor:
    """Reads one IDX file of bytes, gzip or not, whatever its suffix.

    Args:
        path: the file.
        kind: `images`, for (samples, height, width), or `labels`, for (samples,).

    Raises:
        DataError: it cannot be read, is of another kind, or is longer or shorter than its header says.
            The message names the file, what it holds and what is expected.
    """
    with open_decompressed(path) as file:
        return _parse(file, path, kind)


def _parse(file: BinaryIO, path: Path, kind: str) -> Tensor:
    """The header, checked, then as many bytes as it promises."""
    expected, dimensions = _MAGIC[kind], _MAGIC[kind] & 0xFF
    head = file.read(4 + 4 * dimensions)
    if len(head) < 4 or int.from_bytes(head[:4], "big") != expected:
        magic = f"the magic number 0x{expected:08x} of {kind}"
        raise DataError(f"{path}: {_wrong_start(head)}, expected {magic}.")
    if (short := len(head)) < (whole := 4 + 4 * dimensions):
        raise DataError(f"{path}: cut short within its header: {short} bytes, expected {whole}.")
    shape = struct.unpack(f">{dimensions}I", head[4:])
    form = "×".join(map(str, shape))
    if 0 in shape:
        raise DataError(f"{path}: its header says {form}: it holds no {kind}.")
    size = math.prod(shape)
    free = free_memory()
    body = _read_up_to(file, min(size, free) + 1)
    if len(body) > free:
        check_memory(size, f"{path}: {form} by its header")
    if len(body) != size:
        fault, actual = ("cut short", f"{len(body):,}") if len(body) < size else ("too long", "more")
        says = f"{form} = {size:,} bytes of {kind}" if len(shape) > 1 else f"{size:,} bytes of {kind}"
        raise DataError(f"{path}: {fault}: its header says {says}, found {actual}. Get it again.")
    return torch.frombuffer(body, dtype=torch.uint8).view(shape)


def _read_up_to(file: BinaryIO, limit: int) -> bytearray:
    """At most `limit` bytes, in pieces: a wrong header must not allocate all memory at once."""
    body = bytearray()
    while len(body) < limit and (piece := file.read(min(_CHUNK, limit - len(body)))):
        body += piece
    return body


def _wrong_start(head: bytes) -> str:
    """What a file starts with instead of the expected magic number."""
    if len(head) < 4:
        return f"cut short: {len(head)} bytes in all"
    magic = int.from_bytes(head[:4], "big")
    for kind, known in _MAGIC.items():
        if magic == known:
            return f"found {kind} (magic number 0x{magic:08x}); are the files mixed up?"
    return f"found 0x{magic:08x} at its start: not an IDX file of bytes"
