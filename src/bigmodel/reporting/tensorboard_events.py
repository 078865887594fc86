"""Writes TensorBoard's event files directly: one event holds all figures of a step.

`SummaryWriter` writes an event per scalar, and its thread prints a traceback when the disk is full;
here an error is raised where it happens. The format is a TFRecord file of `Event` messages. Only
TensorBoard's messages are imported: its functions that make them load a stub of TensorFlow, which takes
longer than a short run spends on writing.
"""

from __future__ import annotations

import io
import math
import os
import re
import socket
import struct
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from tensorboard.compat.proto.event_pb2 import Event, SessionLog  # type: ignore[import-untyped]
from tensorboard.compat.proto.summary_pb2 import (  # type: ignore[import-untyped]
    HistogramProto,
    Summary,
    SummaryMetadata,
)
from tensorboard.compat.proto.tensor_pb2 import TensorProto  # type: ignore[import-untyped]
from tensorboard.compat.proto.tensor_shape_pb2 import (  # type: ignore[import-untyped]
    TensorShapeProto,
)
from tensorboard.compat.proto.types_pb2 import DT_FLOAT, DT_STRING  # type: ignore[import-untyped]
from tensorboard.plugins.custom_scalar import layout_pb2  # type: ignore[import-untyped]
from tensorboard.plugins.hparams import api_pb2, plugin_data_pb2  # type: ignore[import-untyped]
from tensorboard.plugins.pr_curve.plugin_data_pb2 import (  # type: ignore[import-untyped]
    PrCurvePluginData,
)
from tensorboard.plugins.text.plugin_data_pb2 import TextPluginData  # type: ignore[import-untyped]
from torch import Tensor

from bigmodel.reporting.tfrecord import frame_record
from bigmodel.runtime.escaping import escape, escape_line

if TYPE_CHECKING:
    from PIL import Image as Pictures

FLUSH_SECONDS = 2.0
BINS = 64


class EventFile:
    """An event file, open for writing. The files of a folder are read in the order of their names.

    Args:
        folder: created if it does not exist.
        suffix: end of the file's name.

    Raises:
        OSError: it cannot be written; so do the methods.
    """

    def __init__(self, folder: Path, suffix: str = "") -> None:
        folder.mkdir(parents=True, exist_ok=True)
        name = f"events.out.tfevents.{time.time():.6f}.{socket.gethostname()}.{os.getpid()}{suffix}"
        self._file = (folder / name).open("xb")
        self._flushed = time.monotonic()
        self._write(Event(file_version="brain.Event:2"))

    def add(self, step: int, values: Sequence[Any]) -> None:
        """Adds one event with the given `Summary.Value` messages."""
        self._write(Event(step=step, summary=Summary(value=values)))

    def restart(self, step: int) -> None:
        """Makes TensorBoard drop older events of `step` and later: the run repeats these steps."""
        for _ in range(2):  # the page takes the first one for the start of the run
            self._write(Event(step=step, session_log=SessionLog(status=SessionLog.START)))

    def flush(self) -> None:
        """Passes added events to the operating system, so that readers see them."""
        self._file.flush()
        self._flushed = time.monotonic()

    def close(self) -> None:
        """Flushes and closes the file."""
        self._file.close()

    def abandon(self) -> None:
        """Closes the file without the events added since the last flush: its folder is gone."""
        with Path(os.devnull).open("wb") as nothing:
            os.dup2(nothing.fileno(), self._file.fileno())
        self._file.close()

    def _write(self, event: Any) -> None:
        event.wall_time = time.time()
        self._file.write(frame_record(event.SerializeToString()))
        if time.monotonic() - self._flushed > FLUSH_SECONDS:
            self.flush()


def scalar(tag: str, value: float) -> Any:
    """A figure for the Scalars page."""
    return Summary.Value(tag=tag, simple_value=float(value))


def text(tag: str, markdown: str) -> Any:
    """Markdown for the Text page."""
    shape = TensorShapeProto(dim=[TensorShapeProto.Dim(size=1)])
    tensor = TensorProto(dtype=DT_STRING, string_val=[escape(markdown).encode()], tensor_shape=shape)
    return Summary.Value(tag=tag, metadata=_metadata("text", TextPluginData(), tag), tensor=tensor)


def image(tag: str, picture: Pictures.Image) -> Any:
    """A picture for the Images page."""
    data = io.BytesIO()
    picture.save(data, "PNG", compress_level=1)  # a tenth larger, and twice as fast
    return png(tag, data.getvalue())


def png(tag: str, file: bytes) -> Any:
    """A PNG file for the Images page."""
    width, height = struct.unpack(">II", file[16:24])  # of its header, which comes first
    content = Summary.Image(width=width, height=height, colorspace=3, encoded_image_string=file)
    return Summary.Value(tag=tag, image=content)


def histogram(tag: str, values: Tensor) -> Any:
    """The distribution of the finite `values`, of any shape, in equal bins, for the Histograms page."""
    flat = values.detach().to("cpu", torch.float32).flatten()
    if not bool((finite := flat.isfinite()).all()):
        flat = flat[finite]
    counts, edges = torch.histogram(flat, BINS)
    low, *limits = edges.tolist()
    content = HistogramProto(
        min=low,
        max=limits[-1],
        num=len(flat),
        sum=flat.sum(dtype=torch.float64).item(),
        sum_squares=torch.linalg.vector_norm(flat, dtype=torch.float64).item() ** 2,
        bucket_limit=[low, *limits],  # the first bucket ends where the values begin
        bucket=[0.0, *counts.tolist()],
    )
    return Summary.Value(tag=tag, histo=content)


def layout(charts: Mapping[str, Mapping[str, Sequence[str]]]) -> Any:
    """Which curves share a chart on the Custom Scalars page.

    Args:
        charts: by heading and title, the tags of a chart's curves.
    """
    categories = []
    for heading, titles in charts.items():
        drawn = []
        for title, tags in titles.items():
            exact = [f"^{re.escape(tag)}$" for tag in tags]  # the page takes them for patterns
            lines = layout_pb2.MultilineChartContent(tag=exact)
            drawn.append(layout_pb2.Chart(title=title, multiline=lines))
        categories.append(layout_pb2.Category(title=heading, chart=drawn))
    content = layout_pb2.Layout(category=categories).SerializeToString()
    tensor = TensorProto(dtype=DT_STRING, string_val=[content], tensor_shape=TensorShapeProto())
    data = SummaryMetadata.PluginData(plugin_name="custom_scalars")
    metadata = SummaryMetadata(plugin_data=data)
    return Summary.Value(tag="custom_scalars__config__", metadata=metadata, tensor=tensor)


def precision_recall(tag: str, counts: Tensor) -> Any:
    """A curve for the PR Curves page.

    Args:
        counts: positive and negative samples by score, in equal steps from 0 to 1, (2, steps) int64.
    """
    true, false = counts.to("cpu", torch.float64).flip(1).cumsum(1).flip(1)  # with at least that score
    missed, rejected = true[0] - true, false[0] - false
    precision, recall = true / (true + false).clamp(min=1), true / true[0].clamp(min=1)
    rows = torch.stack([true, false, rejected, missed, precision, recall])
    shape = TensorShapeProto(dim=[TensorShapeProto.Dim(size=size) for size in rows.shape])
    content = rows.to(torch.float32).numpy().tobytes()
    tensor = TensorProto(dtype=DT_FLOAT, tensor_shape=shape, tensor_content=content)
    plugin = PrCurvePluginData(num_thresholds=counts.shape[1])
    return Summary.Value(tag=tag, metadata=_metadata("pr_curves", plugin, tag), tensor=tensor)


def session_start(hparams: Mapping[str, bool | float | str]) -> Any:
    """A run's hyperparameters for the HParams page.

    They come without a description of the experiment: the page takes the first that it finds, and would
    leave out the hyperparameters that only other runs have. Without one it collects those of all runs.
    """
    info = plugin_data_pb2.SessionStartInfo(start_time_secs=time.time())
    for key, value in hparams.items():
        name = escape_line(key)
        if isinstance(value, bool):
            info.hparams[name].bool_value = value
        elif isinstance(value, str):
            info.hparams[name].string_value = escape_line(value)
        elif math.isfinite(value):
            info.hparams[name].number_value = value
    content = plugin_data_pb2.HParamsPluginData(session_start_info=info)
    return _hparams_value("_hparams_/session_start_info", content)


def session_end(status: str) -> Any:
    """How a run ended, for the HParams page.

    Args:
        status: as in `summary.json`.
    """
    known = {"finished": api_pb2.STATUS_SUCCESS, "failed": api_pb2.STATUS_FAILURE}
    code = known.get(status, api_pb2.STATUS_UNKNOWN)
    info = plugin_data_pb2.SessionEndInfo(status=code, end_time_secs=time.time())
    content = plugin_data_pb2.HParamsPluginData(session_end_info=info)
    return _hparams_value("_hparams_/session_end_info", content)


def _hparams_value(tag: str, content: Any) -> Any:
    # The page reads the metadata alone, but the value needs a tensor as well.
    shape = TensorShapeProto(dim=[TensorShapeProto.Dim(size=0)])
    nothing = TensorProto(dtype=DT_FLOAT, tensor_shape=shape)
    return Summary.Value(tag=tag, metadata=_metadata("hparams", content), tensor=nothing)


def _metadata(page: str, content: Any, name: str = "") -> Any:
    """Metadata: the page of TensorBoard that shows a value, and the value's name."""
    data = SummaryMetadata.PluginData(plugin_name=page, content=content.SerializeToString())
    return SummaryMetadata(display_name=name, plugin_data=data)
