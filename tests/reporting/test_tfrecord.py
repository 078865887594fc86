"""The frame of records against TensorBoard's own writer."""

import io
import random

import pytest
from tensorboard.compat.tensorflow_stub.pywrap_tensorflow import crc32c as reference
from tensorboard.summary.writer.record_writer import RecordWriter

from bigmodel.reporting.tfrecord import crc32c, frame_record


def test_a_known_sum() -> None:
    assert crc32c(b"123456789") == 0xE3069283  # the check value that catalogues of CRCs give


@pytest.mark.parametrize("length", [0, 1, 3, 4, 5, 8, 100, 511, 512, 513, 514, 515, 516, 1024, 5001])
def test_as_tensorboard_writes_it(length: int) -> None:
    content = random.Random(length).randbytes(length)
    assert crc32c(content) == reference(content)
    written = io.BytesIO()
    RecordWriter(written).write(content)
    assert frame_record(content) == written.getvalue()
