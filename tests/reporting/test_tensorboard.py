import io
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from tensorboard.backend.event_processing import (
    data_provider,
    plugin_event_accumulator,
    plugin_event_multiplexer,
)
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.context import RequestContext
from tensorboard.plugins import base_plugin
from tensorboard.plugins.hparams import api_pb2, backend_context, list_session_groups, metadata
from torch import nn

from bigmodel.reporting import tensorboard as module
from bigmodel.reporting import tensorboard_events as events
from bigmodel.reporting.base import EvaluationResult, PredictedSample, Sinks
from bigmodel.reporting.tensorboard import TensorBoard, hyperparameters, sample_table
from tests.reporting import facts


def evaluation(shape: tuple[int, ...] = (1, 8, 8), classes: int = 3) -> EvaluationResult:
    samples = [PredictedSample(torch.rand(shape), "a", "b", False)] * 3
    return EvaluationResult({"loss": 1.0}, torch.eye(classes), ["a", "b", "c"][:classes], samples)


def run(
    folder: Path, *epochs: int, status: str = "finished", first_step: int = 0, **config: Any
) -> None:
    sink = TensorBoard(folder)
    sink.start(facts.info(folder, first_step=first_step, config=facts.CONFIG | config))
    for epoch in epochs:
        sink.evaluated(evaluation(), 23 * epoch)
        record = facts.record(epoch, epoch / 10, **{"train/loss": 1 / epoch})
        sink.record(record, record)
    last = facts.record(epochs[-1], epochs[-1] / 10)
    sink.finish(facts.summary(status, best=last, final=last, steps=23 * epochs[-1]), folder)
    sink.close()


def read(folder: Path) -> EventAccumulator:
    accumulator = EventAccumulator(
        str(folder / "tensorboard"), size_guidance={"scalars": 0, "tensors": 0}
    )
    return accumulator.Reload()


def points(events: EventAccumulator, tag: str) -> list[tuple[int, float]]:
    return [(event.step, round(event.value, 6)) for event in events.Scalars(tag)]


def hparams(events: EventAccumulator, tag: str) -> bytes:
    content: bytes = events.SummaryMetadata(tag).plugin_data.content
    return content


def words(events: EventAccumulator, tag: str) -> str:
    text: str = events.Tensors(tag)[-1].tensor_proto.string_val[0].decode()
    return text


def test_curves_over_steps(tmp_path: Path) -> None:
    run(tmp_path, 1, 2, 3)
    events = read(tmp_path)
    assert points(events, "train/loss") == [(23, 1.0), (46, 0.5), (69, 0.333333)]
    assert points(events, "val/accuracy") == [(23, 0.1), (46, 0.2), (69, 0.3)]
    assert points(events, "lr")[0] == (23, 0.01)
    assert points(events, "epoch") == [(23, 1.0), (46, 2.0), (69, 3.0)]
    assert "step" not in events.Tags()["scalars"]


def test_results_for_the_table_of_hyperparameters(tmp_path: Path) -> None:
    run(tmp_path, 1, 2)
    events = read(tmp_path)
    assert points(events, "final/val/accuracy") == [(46, 0.2)]
    assert points(events, "final/train/loss") == [(46, 0.12341)]
    assert points(events, "best/val/accuracy")[-1] == (46, 0.2)
    assert points(events, "test/accuracy") == [(46, 0.9611)]


def test_the_best_so_far_is_a_curve(tmp_path: Path) -> None:
    sink = TensorBoard(tmp_path)
    sink.start(facts.info(tmp_path, first_step=23))
    records = [
        facts.record(epoch, accuracy, **{"val/loss": epoch / 10})
        for epoch, accuracy in ((2, 0.4), (3, 0.5), (4, 0.2))
    ]
    for record, best in zip(records, [records[0], records[1], records[1]], strict=True):
        sink.record(record, best)
    sink.record({"epoch": 5, "step": 100, "train/loss": 0.1}, records[1])
    sink.close()
    events = read(tmp_path)
    assert points(events, "best/val/accuracy") == [(46, 0.4), (69, 0.5), (92, 0.5)]
    assert points(events, "best/val/loss") == [(46, 0.2), (69, 0.3), (92, 0.3)]


@pytest.mark.parametrize(
    ("status", "code"),
    [
        ("finished", api_pb2.STATUS_SUCCESS),
        ("failed", api_pb2.STATUS_FAILURE),
        ("stopped", api_pb2.STATUS_UNKNOWN),
    ],
)
def test_hyperparameters_and_how_the_run_ended(tmp_path: Path, status: str, code: int) -> None:
    run(tmp_path, 1, status=status)
    events = read(tmp_path)
    start = metadata.parse_session_start_info_plugin_data(
        hparams(events, metadata.SESSION_START_INFO_TAG)
    )
    assert start.hparams["model"].string_value == "fnn"
    assert start.hparams["optimizer.lr"].number_value == 0.01
    assert start.hparams["data.normalize"].bool_value is True
    assert start.hparams["model.hidden_sizes"].string_value == "[128, 64]"
    end = metadata.parse_session_end_info_plugin_data(hparams(events, metadata.SESSION_END_INFO_TAG))
    assert end.status == code
    assert [path for path in (tmp_path / "tensorboard").iterdir() if path.is_dir()] == []


def test_noise_is_no_hyperparameter() -> None:
    assert hyperparameters(facts.CONFIG) == {
        "model": "fnn",
        "model.hidden_sizes": "[128, 64]",
        "model.dropout": 0.5,
        "data": "digits",
        "data.normalize": True,
        "optimizer": "adamw",
        "optimizer.lr": 0.01,
        "optimizer.betas": "[0.9, 0.999]",
        "trainer.epochs": 30,
        "seed": 0,
    }


def test_how_a_sweep_is_run_is_no_hyperparameter_but_a_fold_is() -> None:
    config = {"sweep": {"jobs": 2, "zip": []}, "data": {"val_fold": 3}}
    assert hyperparameters(config) == {"data.val_fold": 3}


def test_the_table_of_a_sweep_has_its_settings_and_figures(tmp_path: Path) -> None:
    """As the page itself reads them: jobs that failed or were pruned leave the others as they are."""
    for job, status in enumerate(("finished", "failed", "pruned", "finished")):
        run(tmp_path / str(job), job + 1, status=status, seed=job)
    failed = TensorBoard(tmp_path / "early")
    failed.start(facts.info(tmp_path / "early", config=facts.CONFIG | {"seed": 9}))
    failed.finish(facts.summary("failed", best={}, final={}, test={}), tmp_path / "early")
    multiplexer = plugin_event_multiplexer.EventMultiplexer(tensor_size_guidance={"tensors": 0})
    multiplexer.AddRunsFromDirectory(str(tmp_path)).Reload()
    provider = data_provider.MultiplexerDataProvider(multiplexer, str(tmp_path))
    page = backend_context.Context(base_plugin.TBContext(data_provider=provider))
    request, ids = RequestContext(), page.hparams_metadata(RequestContext(), "")
    experiment = page.experiment_from_metadata(
        request, "", include_metrics=True, hparams_run_to_tag_to_content=ids, data_provider_hparams=[]
    )
    assert {"model", "optimizer.lr", "seed"} <= {each.name for each in experiment.hparam_infos}
    known = {each.name.tag for each in experiment.metric_infos}
    assert {"best/val/accuracy", "final/val/accuracy"} <= known
    asked = api_pb2.ListSessionGroupsRequest(
        slice_size=99,
        allowed_statuses=api_pb2.Status.values(),
        col_params=[api_pb2.ColParams(metric=each.name) for each in experiment.metric_infos],
    )
    groups = list_session_groups.Handler(request, page, "", asked).run().session_groups
    figures = {
        int(each.hparams["seed"].number_value): {
            value.name.tag: round(value.value, 6) for value in each.metric_values
        }.get("best/val/accuracy")
        for each in groups
    }
    assert figures == {0: 0.1, 1: 0.2, 2: 0.3, 3: 0.4, 9: None}


def test_a_resume_forgets_what_comes_again(tmp_path: Path) -> None:
    run(tmp_path, 1, 2, 3, status="stopped")
    run(tmp_path, 2, 3, 4, first_step=23, seed=7)
    events = read(tmp_path)
    for tag in ("val/accuracy", "best/val/accuracy"):
        assert points(events, tag)[:4] == [(23, 0.1), (46, 0.2), (69, 0.3), (92, 0.4)]
    assert points(events, "final/val/accuracy") == [(92, 0.4)]
    start = metadata.parse_session_start_info_plugin_data(
        hparams(events, metadata.SESSION_START_INFO_TAG)
    )
    assert start.hparams["seed"].number_value == 7
    end = metadata.parse_session_end_info_plugin_data(hparams(events, metadata.SESSION_END_INFO_TAG))
    assert end.status == api_pb2.STATUS_SUCCESS


def test_the_page_s_own_reader_forgets_what_comes_again(tmp_path: Path) -> None:
    run(tmp_path, 1, 2, 3, status="stopped")
    run(tmp_path, 2, 3, first_step=23)
    page = plugin_event_accumulator.EventAccumulator(
        str(tmp_path / "tensorboard"), tensor_size_guidance={"scalars": 0}
    ).Reload()
    assert [event.step for event in page.Tensors("val/accuracy")] == [23, 46, 69]


def test_a_resume_from_the_beginning_forgets_all(tmp_path: Path) -> None:
    run(tmp_path, 1, 2, 3, status="stopped")
    run(tmp_path, 1, 2)
    assert points(read(tmp_path), "val/accuracy") == [(23, 0.1), (46, 0.2)]


@pytest.mark.parametrize("cut", [1, 9, 20])
def test_a_torn_end_of_an_older_file_hides_nothing_that_follows(tmp_path: Path, cut: int) -> None:
    sink = TensorBoard(tmp_path)
    sink.start(facts.info(tmp_path))
    for epoch in (1, 2, 3):
        record = facts.record(epoch, epoch / 10)
        sink.record(record, record)
    sink.close()
    (path,) = (path for path in (tmp_path / "tensorboard").iterdir() if path.suffix != ".hparams")
    path.write_bytes(path.read_bytes()[:-cut])
    run(tmp_path, 3, 4, first_step=46)
    assert points(read(tmp_path), "val/accuracy") == [(23, 0.1), (46, 0.2), (69, 0.3), (92, 0.4)]


def test_texts(tmp_path: Path) -> None:
    run(tmp_path, 1)
    events = read(tmp_path)
    config = words(events, "config")
    assert config.startswith("```yaml\nmodel:\n  name: fnn\n  hidden_sizes: [128, 64]\n")
    assert config.endswith("```\n")
    assert words(events, "model").splitlines() == [
        "| layer | kind | output shape | parameters |",
        "| --- | --- | --- | --- |",
        "| 1 | Linear | 128 | 8,320 |",
        "| 3 | Linear | 10 | 1,290 |",
        "| **total** |  |  | **9,610** |",
    ]
    assert "| Model | fnn, 9,610 parameters |" in words(events, "run")


def test_pictures_of_the_last_evaluation(tmp_path: Path) -> None:
    run(tmp_path, 1, 2)
    events = read(tmp_path)
    for tag in ("confusion matrix", "samples"):
        (picture,) = events.Images(tag)
        assert picture.step == 46
        decoded = Image.open(io.BytesIO(picture.encoded_image_string))
        assert decoded.size == (picture.width, picture.height)


def test_pictures_on_the_way_come_seldom(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    sink = TensorBoard(tmp_path)
    sink.start(facts.info(tmp_path))
    for step, moment in enumerate((1, 61, 62, 122, 123)):
        now[0] = moment
        sink.evaluated(evaluation(), step)
    sink.finish(facts.summary(), tmp_path)
    assert [picture.step for picture in read(tmp_path).Images("samples")] == [1, 3, 4]


def test_samples_that_are_no_images_become_a_table(tmp_path: Path) -> None:
    sink = TensorBoard(tmp_path)
    sink.start(facts.info(tmp_path))
    sink.evaluated(evaluation((13,), classes=2), 23)
    sink.finish(facts.summary(), tmp_path)
    events = read(tmp_path)
    assert "samples" not in events.Tags()["images"]
    assert words(events, "samples").startswith("| inputs | prediction | truth |  |")


def test_sample_table() -> None:
    samples = [
        PredictedSample(torch.tensor([1.0, 2.5]), "a|b", "a|b", True),
        PredictedSample(torch.arange(12), "1", "2", False),
        PredictedSample(torch.zeros(1), "1.5", "1.7", None),
    ]
    assert sample_table(samples).splitlines()[2:] == [
        "| 1, 2.5 | a\\|b | a\\|b | ✓ |",
        "| 0, 1, 2, 3, 4, 5, 6, 7, … | 1 | 2 | **✗** |",
        "| 0 | 1.5 | 1.7 |  |",
    ]


def test_histograms_of_weights(tmp_path: Path) -> None:
    layer = nn.Linear(3, 2)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[-1.0, 0.0, 0.25], [0.5, 1.0, float("nan")]]))
        layer.bias.fill_(2.0)
    sink = TensorBoard(tmp_path)
    sink.start(facts.info(tmp_path))
    sink.weights(layer, 5)
    sink.close()
    events = read(tmp_path)
    weight = events.Histograms("weights/weight")[0]
    assert weight.step == 5
    value = weight.histogram_value
    assert (value.min, value.max, value.num, value.sum) == (-1.0, 1.0, 5, 0.75)
    assert value.sum_squares == pytest.approx(2.3125)
    assert sum(value.bucket) == 5
    assert len(value.bucket) == len(value.bucket_limit)
    filled = [limit for limit, count in zip(value.bucket_limit, value.bucket, strict=True) if count]
    for upper, number in zip(filled, (-1.0, 0.0, 0.25, 0.5, 1.0), strict=True):
        assert upper - 2 / 64 - 1e-6 <= number <= upper + 1e-6
    bias = events.Histograms("weights/bias")[0].histogram_value
    assert sum(bias.bucket) == bias.num == 2


def test_a_folder_that_cannot_be_written_does_not_stop_the_run(tmp_path: Path) -> None:
    (tmp_path / "tensorboard").write_text("in the way")
    sinks = Sinks([TensorBoard(tmp_path)])
    sinks.start(facts.info(tmp_path))
    assert sinks.sinks == []
    sinks.record(facts.record(1), {})


def test_calls_out_of_order_do_nothing(tmp_path: Path) -> None:
    sink = TensorBoard(tmp_path)
    sink.record(facts.record(1), facts.record(1))
    sink.evaluated(evaluation(), 1)
    sink.weights(nn.Linear(1, 1), 1)
    sink.finish(facts.summary("failed"), tmp_path)
    sink.close()
    assert list(tmp_path.iterdir()) == []


def test_a_record_waits_for_no_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Records are handed on together, when the last time was long enough ago."""
    now, handed_on = 0.0, []
    monkeypatch.setattr(events.time, "monotonic", lambda: now)
    sink = TensorBoard(tmp_path)
    sink.start(facts.info(tmp_path))
    flush = events.EventFile.flush
    monkeypatch.setattr(events.EventFile, "flush", lambda file: (handed_on.append(now), flush(file))[1])
    record = {"epoch": 1, "step": 1} | {f"val/metric_{index}": 0.5 for index in range(10)}
    for tenth in range(1, 51):
        now = tenth * events.FLUSH_SECONDS / 10
        sink.record(record, record)
    assert handed_on == [pytest.approx(events.FLUSH_SECONDS * times) for times in (1.1, 2.2, 3.3, 4.4)]
    sink.close()
