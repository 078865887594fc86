from tensorboard.plugins.hparams import metadata, plugin_data_pb2
from tensorboard.plugins.text.metadata import create_summary_metadata as text_metadata

from bigmodel.reporting import tensorboard_events


def test_values_are_those_that_tensorboard_makes() -> None:
    started = tensorboard_events.session_start({"model": "fnn"})  # one: a map has no order
    content = plugin_data_pb2.HParamsPluginData.FromString(started.metadata.plugin_data.content)
    assert content.session_start_info.hparams["model"].string_value == "fnn"
    assert started.metadata == metadata.create_summary_metadata(content)
    assert started.tensor == metadata.NULL_TENSOR
    assert started.tag == metadata.SESSION_START_INFO_TAG
    assert tensorboard_events.session_end("finished").tag == metadata.SESSION_END_INFO_TAG
    assert tensorboard_events.text("config", "a: 1").metadata == text_metadata("config", "")
