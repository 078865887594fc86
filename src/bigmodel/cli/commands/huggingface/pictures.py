"""preprocessor_config.json: how pictures become the inputs of a vision transformer."""

from __future__ import annotations

from typing import Any

from bigmodel.data.preprocessing import Preprocessing
from bigmodel.data.sources.images import ImagesReader
from bigmodel.spec import Image

_BILINEAR = 2  # as PIL numbers it


def preprocessor_config(preprocessing: Preprocessing) -> dict[str, Any]:
    """The settings of transformers' image processor."""
    kind = preprocessing.spec.input
    assert isinstance(kind, Image)
    settings = {
        "image_processor_type": "ViTImageProcessor",
        "do_convert_rgb": kind.channels == 3,
        "do_resize": True,
        "size": {"height": kind.height, "width": kind.width},
        "resample": _BILINEAR,
        "do_rescale": preprocessing.bytes,
        "rescale_factor": 1 / 255,
        "do_normalize": preprocessing.mean is not None,
    }
    if preprocessing.mean is not None and preprocessing.std is not None:
        settings |= {
            "image_mean": preprocessing.mean.flatten().tolist(),
            "image_std": preprocessing.std.flatten().tolist(),
        }
    if _crops(preprocessing) and kind.height == kind.width:
        settings |= {
            "image_processor_type": "CLIPImageProcessor",  # the other one does not crop
            "size": {"shortest_edge": kind.height},
            "do_center_crop": True,
            "crop_size": {"height": kind.height, "width": kind.width},
        }
    return settings


def remarks(preprocessing: Preprocessing) -> list[str]:
    """What the image processor does otherwise than the run did, and what it needs."""
    kind, reader = preprocessing.spec.input, preprocessing.reader
    assert isinstance(kind, Image)
    found = []
    if kind.channels == 1:
        found.append("Pictures must be grey: `picture.convert('L')`.")
    if not isinstance(reader, ImagesReader):
        return found
    if reader.settings.fit == "crop" and kind.height == kind.width:
        found.append("Where pictures are not square, their crop may lie up to a pixel aside.")
    elif reader.settings.fit != "stretch":
        done = {"crop": "cropped", "pad": "padded with black"}[reader.settings.fit]
        found.append(
            f"Pictures of other proportions than {kind.width}×{kind.height} were {done} in training,"
            " and have to be before the image processor, which stretches them."
        )
    found.append("Pictures more than four times as large may differ by a few of 255 levels.")
    return found


def _crops(preprocessing: Preprocessing) -> bool:
    reader = preprocessing.reader
    return isinstance(reader, ImagesReader) and reader.settings.fit == "crop"
