import tracemalloc
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_file_loader import EventFileLoader
from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.plugins.hparams import metadata, plugin_data_pb2
from tensorboard.plugins.text.metadata import create_summary_metadata as text_metadata

from bigmodel.reporting import events, records


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Five steps, each with a figure."""
    written = events.EventFile(tmp_path)
    for step in range(1, 6):
        written.add(step, [events.scalar("loss", step / 10)])
    written.close()
    (path,) = tmp_path.iterdir()
    return path


def steps(path: Path) -> list[int]:
    """As TensorBoard reads them."""
    return [event.step for event in EventFileLoader(str(path)).Load() if event.HasField("summary")]


def test_later_steps_are_dropped_and_the_rest_still_reads(file: Path) -> None:
    assert steps(file) == [1, 2, 3, 4, 5]
    events.drop_after(file, 3)
    assert steps(file) == [1, 2, 3]
    assert next(event.file_version for _, event in events.read_events(file))


@pytest.mark.parametrize("cut", [1, 3, 9, 20])
def test_a_torn_end_is_dropped(file: Path, cut: int) -> None:
    file.write_bytes(file.read_bytes()[:-cut])
    events.drop_after(file, 5)
    assert steps(file) == [1, 2, 3, 4]
    assert sum(len(record) for record, _ in events.read_events(file)) == file.stat().st_size


def test_a_file_with_nothing_to_drop_is_not_touched(file: Path) -> None:
    before = file.stat()
    events.drop_after(file, 5)
    assert (file.stat().st_ino, file.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)


def test_what_is_no_event_ends_a_file(file: Path) -> None:
    whole = file.read_bytes()
    file.write_bytes(whole + (5).to_bytes(8, "little") + b"\xff" * 13)
    events.drop_after(file, 5)
    assert file.read_bytes() == whole


def test_values_are_those_that_tensorboard_makes() -> None:
    started = events.session_start({"model": "fnn"})  # one: a map has no order
    content = plugin_data_pb2.HParamsPluginData.FromString(started.metadata.plugin_data.content)
    assert content.session_start_info.hparams["model"].string_value == "fnn"
    assert started.metadata == metadata.create_summary_metadata(content)
    assert started.tensor == metadata.NULL_TENSOR
    assert started.tag == metadata.SESSION_START_INFO_TAG
    assert events.session_end("finished").tag == metadata.SESSION_END_INFO_TAG
    assert events.text("config", "a: 1").metadata == text_metadata("config", "")


def test_a_length_beyond_the_file_is_its_end(file: Path) -> None:
    whole = file.read_bytes()
    file.write_bytes(whole + (1 << 60).to_bytes(8, "little") + bytes(100))
    events.drop_after(file, 5)
    assert file.read_bytes() == whole


def test_a_large_file_is_never_whole_in_memory(file: Path) -> None:
    with file.open("ab") as out:
        for step in range(6, 606):
            out.write(records.framed(Event(step=step, file_version="x" * 50_000).SerializeToString()))
    size = file.stat().st_size
    tracemalloc.start()
    events.drop_after(file, 600)
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert most < size / 20
    assert [event.step for _, event in events.read_events(file)][-1] == 600
