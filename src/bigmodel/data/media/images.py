"""Decodes a picture of any size and format into bytes of the size that a model reads.

Nothing is random or depends on other pictures, so a new one is decoded as those of training were.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy
import torch
from pydantic import Field
from torch import Tensor

from bigmodel.data.files.decode_cache import UnreadableFileError, io_threads
from bigmodel.data.libraries import pil_image, pil_ops
from bigmodel.errors import first_line
from bigmodel.registry import Config
from bigmodel.runtime.disk import check_regular

SUFFIXES = {
    **dict.fromkeys((".jpg", ".jpeg"), "JPEG"),
    **{f".{kind.lower()}": kind for kind in ("PNG", "GIF", "BMP", "WEBP")},
    **dict.fromkeys((".tif", ".tiff"), "TIFF"),
    **dict.fromkeys((".ppm", ".pgm"), "PPM"),
}
_FORMATS = [*dict.fromkeys(SUFFIXES.values())]  # no others: some run other programs
_GREY_MODES = {"1", "L", "LA", "La", "I", "I;16", "I;16B", "I;16L", "I;16N"}
_ORIENTATION = 0x0112
_SIDEWAYS = {5, 6, 7, 8}  # orientations that swap height and width
_REDUCING_GAP = 2.0  # a fast first reduction keeps at least this many times the final size

Side = Annotated[int, Field(ge=1, le=65535)]


class ResizeSettings(Config):
    """How pictures are resized.

    Attributes:
        height, width: of all pictures.
        channels: 1 for grey, 3 for colour.
        fit: crop the middle, pad with black, or stretch.
        background: behind transparent pictures.
    """

    height: Side
    width: Side
    channels: Literal[1, 3]
    fit: Literal["crop", "pad", "stretch"]
    background: Literal["white", "black"]


@contextmanager
def checked_image_sizes() -> Iterator[None]:
    """Accepts pictures of up to 179 million pixels without a warning; larger ones are refused.

    Enter it once, around all threads: warning filters are global.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", pil_image.DecompressionBombWarning)
        warnings.filterwarnings("ignore", module=r"PIL\.")  # about odd tags in readable files
        yield


@contextmanager
def open_image(path: Path) -> Iterator[Any]:
    """Opens a picture; its pixels are not decoded yet.

    Raises:
        UnreadableFileError: it is missing, broken, not a picture, or enormous; the message says why.
    """
    try:
        check_regular(path)
        if path.stat().st_size == 0:
            raise UnreadableFileError("the file is empty")
        with pil_image.open(path, formats=_FORMATS) as picture:
            yield picture
    except pil_image.UnidentifiedImageError:
        raise UnreadableFileError("it is not an image, or its header is damaged") from None
    except pil_image.DecompressionBombError as error:
        raise UnreadableFileError(f"it would unpack to an enormous size: {error}") from None
    except FileNotFoundError:
        raise UnreadableFileError("there is no such file") from None
    except (OSError, ValueError, SyntaxError, EOFError, IndexError, TypeError, MemoryError) as error:
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise UnreadableFileError(reason) from None


def image_info(path: Path) -> tuple[str, int, int, bool]:
    """Format, height and width of a picture, and whether it is grey, without decoding its pixels.

    Raises:
        UnreadableFileError: see `open_image`.
    """
    with open_image(path) as picture:
        return _image_info(picture)


def all_grey(paths: Sequence[Path]) -> bool:
    """Whether no picture has colours; unreadable ones have none."""
    with ThreadPoolExecutor(io_threads()) as pool:
        return all(pool.map(_seems_grey, paths))


def _seems_grey(path: Path) -> bool:
    try:
        return image_info(path)[3]
    except UnreadableFileError:  # reported when it is decoded
        return True


def _image_info(picture: Any) -> tuple[str, int, int, bool]:
    width, height = picture.size
    if picture.getexif().get(_ORIENTATION) in _SIDEWAYS:
        width, height = height, width
    kind = "JPEG" if picture.format == "MPO" else str(picture.format)
    return kind, height, width, picture.mode in _GREY_MODES


def decode(path: Path, row: Tensor, settings: ResizeSettings) -> tuple[str, int, int]:
    """Decodes a picture into a row.

    Args:
        row: (channels, height, width) uint8.

    Returns:
        Its format, and its height and width before resizing.

    Raises:
        UnreadableFileError: see `open_image`; or its mode does not define white.
    """
    with open_image(path) as picture:
        return decode_picture(picture, row, settings)


def decode_picture(picture: Any, row: Tensor, settings: ResizeSettings) -> tuple[str, int, int]:
    """The same for an open picture, a `PIL.Image.Image`, or an array, (height, width) or (height, width,
    channels) uint8."""
    if not hasattr(picture, "getexif"):
        try:
            picture = pil_image.fromarray(numpy.asarray(picture))
        except (TypeError, ValueError, AttributeError) as error:
            raise UnreadableFileError(f"it is no picture: {first_line(error)}") from None
    kind, height, width, _ = _image_info(picture)
    _draft(picture, height, width, settings)
    flat = _convert_mode(pil_ops.exif_transpose(picture), settings)
    framed = _resize(flat, settings)
    content = bytearray(framed.tobytes())
    pixels = torch.frombuffer(content, dtype=torch.uint8)
    row.copy_(pixels.view(settings.height, settings.width, settings.channels).permute(2, 0, 1))
    return kind, height, width


def _draft(picture: Any, height: int, width: int, settings: ResizeSettings) -> None:
    """Has the JPEG decoder skip detail that is not needed: many times faster for photographs."""
    scale = _scale(height, width, settings) * _REDUCING_GAP
    if picture.format == "JPEG" and picture.mode in ("L", "RGB") and scale < 1:
        sides = (math.ceil(picture.size[0] * scale), math.ceil(picture.size[1] * scale))
        picture.draft(picture.mode, sides)


def _scale(height: int, width: int, settings: ResizeSettings) -> float:
    sides = (settings.height / height, settings.width / width)
    return min(sides) if settings.fit == "pad" else max(sides)


def _convert_mode(picture: Any, settings: ResizeSettings) -> Any:
    """The picture in grey or colour, 8 bits per channel, on an opaque background."""
    mode = "L" if settings.channels == 1 else "RGB"
    if picture.mode == "F":
        raise UnreadableFileError("its pixels are real numbers (mode F), with no defined white level")
    if picture.mode.startswith("I"):  # 16 bits, 65535 being white
        picture = picture.convert("I").point(lambda level: level * (1 / 257) + 0.5).convert("L")
    if picture.has_transparency_data:
        clear = picture.convert("RGBA")
        behind = pil_image.new("RGBA", clear.size, settings.background)
        picture = pil_image.alpha_composite(behind, clear)
    if picture.mode == "P":  # the palette's colours, not their indices
        picture = picture.convert("RGB")
    return picture if picture.mode == mode else picture.convert(mode)


def _resize(picture: Any, settings: ResizeSettings) -> Any:
    """The picture in its final size, antialiased."""
    size, bilinear = (settings.width, settings.height), pil_image.Resampling.BILINEAR
    if settings.fit == "stretch":
        return picture.resize(size, bilinear, reducing_gap=_REDUCING_GAP)
    width, height = picture.size
    scale = _scale(height, width, settings)
    if settings.fit == "pad":
        inner = (max(1, round(width * scale)), max(1, round(height * scale)))
        whole = pil_image.new(picture.mode, size)
        corner = ((size[0] - inner[0]) // 2, (size[1] - inner[1]) // 2)
        whole.paste(picture.resize(inner, bilinear, reducing_gap=_REDUCING_GAP), corner)
        return whole
    across, down = min(width, size[0] / scale), min(height, size[1] / scale)
    left, top = (width - across) / 2, (height - down) / 2
    box = (left, top, left + across, top + down)
    return picture.resize(size, bilinear, box=box, reducing_gap=_REDUCING_GAP)
