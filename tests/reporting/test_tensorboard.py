import io
from collections.abc import Sequence
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
from tensorboard.plugins.custom_scalar import layout_pb2
from tensorboard.plugins.hparams import api_pb2, backend_context, list_session_groups, metadata
from tensorboard.plugins.pr_curve import metadata as pr_metadata
from tensorboard.util import tensor_util
from torch import nn

from bigmodel.models.summary import Layer
from bigmodel.reporting import tensorboard as module
from bigmodel.reporting import tensorboard_events as events
from bigmodel.reporting.base import EvaluationResult, Labels, PredictedSample, Sinks
from bigmodel.reporting.tensorboard import TensorBoard, hyperparameters
from bigmodel.reporting.tensorboard_texts import model_table, sample_table
from tests.reporting import facts


def evaluation(shape: tuple[int, ...] = (1, 8, 8), classes: int = 3) -> EvaluationResult:
    samples = [PredictedSample(torch.rand(shape), "a", "b", False)] * 3
    return EvaluationResult({"loss": 1.0}, torch.eye(classes), ["a", "b", "c"][:classes], samples)


def run(
    folder: Path,
    *epochs: int,
    status: str = "finished",
    first_step: int = 0,
    changed: dict[str, str] | None = None,
    **config: Any,
) -> None:
    sink = TensorBoard(folder)
    settings = facts.CONFIG | config
    sink.start(facts.info(folder, first_step=first_step, config=settings, changed=changed or {}))
    for epoch in epochs:
        sink.evaluated(evaluation(), 23 * epoch)
        record = facts.record(epoch, epoch / 10, **{"train/loss": 1 / epoch})
        sink.record(record, record)
    last = facts.record(epochs[-1], epochs[-1] / 10)
    sink.finish(facts.summary(status, best=last, final=last, steps=23 * epochs[-1]), folder)
    sink.close()


def place(folder: Path) -> Path:
    """The one folder with a run's files."""
    (place,) = (folder / "tensorboard").iterdir()
    return place


def read(folder: Path) -> EventAccumulator:
    return read_from(place(folder))


def read_from(folder: Path) -> EventAccumulator:
    return EventAccumulator(str(folder), size_guidance={"scalars": 0, "tensors": 0}).Reload()


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
    assert points(events, "~optimizer/lr")[0] == (23, 0.01)
    assert points(events, "~clock/epoch") == [(23, 1.0), (46, 2.0), (69, 3.0)]
    assert not [tag for tag in events.Tags()["scalars"] if tag.endswith("step")]


def test_results_for_the_table_of_hyperparameters(tmp_path: Path) -> None:
    run(tmp_path, 1, 2)
    events = read(tmp_path)
    assert points(events, "~best/val/loss") == [(46, 0.0987)]
    assert (
        points(events, "~best/val/accuracy") == points(events, "val-best/accuracy")[-1:] == [(46, 0.2)]
    )
    assert points(events, "~test/accuracy") == [(46, 0.9611)]


def opened(tags: Sequence[str]) -> list[str]:
    """The groups of the page of curves in its order: by tag, slashes and digits before letters."""
    by_page = sorted(tags, key=lambda tag: [(c not in "/_0123456789", c) for c in tag])
    return list(dict.fromkeys(tag.partition("/")[0] for tag in by_page))


def test_training_and_validation_are_what_the_page_opens(tmp_path: Path) -> None:
    """It opens the first two groups, pictures and histograms too. Of the figures in the table of
    hyperparameters, which it sorts by plain text, it shows the first five."""
    sink = TensorBoard(tmp_path)
    sink.start(facts.info(tmp_path))
    sink.record(facts.record(1, grad_norm=1.0, memory_gib=2.0), facts.record(1))
    sink.evaluated(evaluation(), 1)
    sink.weights(nn.Linear(1, 1), 1)
    sink.finish(facts.summary(), tmp_path)
    tags = read(tmp_path).Tags()
    groups = opened([*tags["scalars"], *tags["images"], *tags["histograms"]])
    assert groups[:2] == ["train", "val"]
    assert groups[2:] == [
        "val-best",
        "val-pictures",
        "weights",
        "~best",
        "~clock",
        "~optimizer",
        "~test",
    ]
    assert sorted(tags["scalars"])[:4] == ["train/loss", "val-best/accuracy", "val/accuracy", "val/loss"]


def test_without_validation_the_best_is_a_training_loss(tmp_path: Path) -> None:
    record = {"epoch": 1, "step": 2, "train/loss": 0.5}
    sink = TensorBoard(tmp_path)
    sink.start(facts.info(tmp_path, monitor="train/loss"))
    sink.record(record, record)
    sink.close()
    assert points(read(tmp_path), "train-best/loss") == [(2, 0.5)]


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
    assert points(events, "val-best/accuracy") == [(46, 0.4), (69, 0.5), (92, 0.5)]


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
    assert start.hparams["~optimizer.lr"].number_value == 0.01
    assert start.hparams["~data.normalize"].bool_value is True
    assert start.hparams["~model.hidden_sizes"].string_value == "[128, 64]"
    end = metadata.parse_session_end_info_plugin_data(hparams(events, metadata.SESSION_END_INFO_TAG))
    assert end.status == code
    assert [path for path in place(tmp_path).iterdir() if path.is_dir()] == []


def test_noise_is_no_hyperparameter() -> None:
    assert hyperparameters(facts.CONFIG) == {
        "model": "fnn",
        "~model.hidden_sizes": "[128, 64]",
        "~model.dropout": 0.5,
        "data": "digits",
        "~data.normalize": True,
        "~optimizer": "adamw",
        "~optimizer.lr": 0.01,
        "~optimizer.betas": "[0.9, 0.999]",
        "~trainer.epochs": 30,
        "~seed": 0,
    }


def test_what_was_changed_keeps_its_name() -> None:
    changed = {
        "optimizer": "adamw",
        "trainer.max_steps": "null",
        "data.root": "~/data",
        "experiment": "a",
        "trainer.log_every": "3",
    }
    found = hyperparameters(facts.CONFIG, changed)
    assert {key: value for key, value in found.items() if not key.startswith("~")} == {
        "model": "fnn",
        "data": "digits",
        "optimizer": "adamw",
        "trainer.max_steps": "null",  # the page takes an empty cell for no value that differs
        "data.root": "~/data",
        "experiment": "a",
    }


def test_how_a_sweep_is_run_is_no_hyperparameter_but_a_fold_is() -> None:
    config = {"sweep": {"jobs": 2, "zip": []}, "run": {"name": "x", "tags": []}, "data": {"val_fold": 3}}
    assert hyperparameters(config, {"data.val_fold": "3"}) == {"data.val_fold": 3}


def test_the_table_of_a_sweep_has_its_settings_and_figures(tmp_path: Path) -> None:
    """As the page itself reads them: jobs that failed or were pruned leave the others as they are."""
    for job, status in enumerate(("finished", "failed", "pruned", "finished")):
        run(tmp_path / str(job), job + 1, status=status, seed=job, changed={"seed": str(job)})
    for beside in ("a", "b"):  # whose settings come before, by name
        data = {"name": beside, "batch_size": ord(beside), "workers": ord(beside), "augment": beside}
        run(tmp_path / beside, 1, data=data, model={"name": beside, "width": ord(beside)})
    failed = TensorBoard(tmp_path / "early")
    config = facts.CONFIG | {"seed": 9}
    failed.start(facts.info(tmp_path / "early", config=config, changed={"seed": "9"}))
    failed.finish(facts.summary("failed", best={}, final={}, test={}), tmp_path / "early")
    multiplexer = plugin_event_multiplexer.EventMultiplexer(tensor_size_guidance={"tensors": 0})
    multiplexer.AddRunsFromDirectory(str(tmp_path)).Reload()
    provider = data_provider.MultiplexerDataProvider(multiplexer, str(tmp_path))
    page = backend_context.Context(base_plugin.TBContext(data_provider=provider))
    request, ids = RequestContext(), page.hparams_metadata(RequestContext(), "")
    experiment = page.experiment_from_metadata(
        request, "", include_metrics=True, hparams_run_to_tag_to_content=ids, data_provider_hparams=[]
    )
    backend_context._sort_and_reduce_to_hparams_limit(experiment)
    first = [each.name for each in experiment.hparam_infos][:5]
    assert first == ["data", "model", "seed", "~data.augment", "~data.batch_size"]
    first = [each.name.tag for each in experiment.metric_infos][:5]
    assert first[:4] == ["train/loss", "val-best/accuracy", "val/accuracy", "val/loss"]
    asked = api_pb2.ListSessionGroupsRequest(
        slice_size=99,
        allowed_statuses=api_pb2.Status.values(),
        col_params=[api_pb2.ColParams(metric=each.name) for each in experiment.metric_infos],
    )
    groups = list_session_groups.Handler(request, page, "", asked).run().session_groups
    figures = {
        int(each.hparams["seed"].number_value): {
            value.name.tag: round(value.value, 6) for value in each.metric_values
        }.get("val-best/accuracy")
        for each in groups
        if "seed" in each.hparams
    }
    assert figures == {0: 0.1, 1: 0.2, 2: 0.3, 3: 0.4, 9: None}


def test_a_resume_forgets_what_comes_again(tmp_path: Path) -> None:
    run(tmp_path, 1, 2, 3, status="stopped")
    run(tmp_path, 2, 3, 4, first_step=23, seed=7)
    events = read(tmp_path)
    for tag in ("val/accuracy", "val-best/accuracy"):
        assert points(events, tag)[:4] == [(23, 0.1), (46, 0.2), (69, 0.3), (92, 0.4)]
    assert points(events, "~best/val/accuracy") == [(92, 0.4)]
    start = metadata.parse_session_start_info_plugin_data(
        hparams(events, metadata.SESSION_START_INFO_TAG)
    )
    assert start.hparams["~seed"].number_value == 7
    end = metadata.parse_session_end_info_plugin_data(hparams(events, metadata.SESSION_END_INFO_TAG))
    assert end.status == api_pb2.STATUS_SUCCESS


def test_the_page_s_own_reader_forgets_what_comes_again(tmp_path: Path) -> None:
    run(tmp_path, 1, 2, 3, status="stopped")
    run(tmp_path, 2, 3, first_step=23)
    page = plugin_event_accumulator.EventAccumulator(
        str(place(tmp_path)), tensor_size_guidance={"scalars": 0}
    ).Reload()
    assert [event.step for event in page.Tensors("val/accuracy")] == [23, 46, 69]


def test_a_run_is_shown_by_its_name(tmp_path: Path) -> None:
    run(tmp_path / "a", 1, changed={"optimizer.lr": "0.01"})
    assert place(tmp_path / "a").name == "fnn-digits,lr=0.01"
    sink = TensorBoard(tmp_path / "b")
    sink.start(facts.info(tmp_path / "b", labels=Labels(name="../b\x1b/c")))
    sink.close()
    assert place(tmp_path / "b").name == "b_c"
    assert [path.name for path in sorted(tmp_path.iterdir())] == ["a", "b"]


def test_a_resumed_run_is_shown_where_it_was(tmp_path: Path) -> None:
    run(tmp_path, 1, 2, status="stopped")
    sink = TensorBoard(tmp_path)
    renamed = {"labels": Labels(name="another"), "changed": {"trainer.epochs": "60"}}
    sink.start(facts.info(tmp_path, first_step=46, **renamed))
    sink.record(facts.record(3, 0.3), facts.record(3, 0.3))
    sink.close()
    assert place(tmp_path).name == "fnn-digits"
    assert points(read(tmp_path), "val/accuracy") == [(23, 0.1), (46, 0.2), (69, 0.3)]


def test_a_run_of_an_earlier_version_goes_on_where_it_was(tmp_path: Path) -> None:
    run(tmp_path, 1, 2, status="stopped")
    own = place(tmp_path)
    for path in own.iterdir():
        path.rename(tmp_path / "tensorboard" / path.name)
    own.rmdir()
    run(tmp_path, 3, first_step=46)
    assert all(path.is_file() for path in (tmp_path / "tensorboard").iterdir())
    found = points(read_from(tmp_path / "tensorboard"), "val/accuracy")
    assert found == [(23, 0.1), (46, 0.2), (69, 0.3)]


def shown_charts(events: EventAccumulator) -> list[tuple[str, list[str]]]:
    content = events.Tensors("custom_scalars__config__")[-1].tensor_proto.string_val[0]
    (first, second) = layout_pb2.Layout.FromString(content).category
    assert (first.title, second.title) == ("train and val", "optimizer")
    return [(each.title, list(each.multiline.tag)) for each in (*first.chart, *second.chart)]


def test_training_and_validation_share_a_chart_for_each_metric(tmp_path: Path) -> None:
    sink = TensorBoard(tmp_path)
    sink.start(facts.info(tmp_path))
    sink.record({"epoch": 1, "step": 1, "train/loss": 1.0, "train/accuracy": 0.1, "lr": 0.1}, {})
    for epoch in (1, 2):
        sink.record(facts.record(epoch), {})
    sink.close()
    events = read(tmp_path)
    assert shown_charts(events) == [
        ("loss", ["^train/loss$", "^val/loss$"]),
        ("accuracy", ["^train/accuracy$", "^val/accuracy$"]),
        ("lr", ["^\\~optimizer/lr$"]),
    ]
    assert [event.step for event in events.Tensors("custom_scalars__config__")] == [1, 23]


def test_precision_over_recall(tmp_path: Path) -> None:
    counts = {"a\x1b": torch.tensor([[0, 1, 2], [3, 1, 0]])}
    sink = TensorBoard(tmp_path)
    sink.start(facts.info(tmp_path))
    sink.evaluated(EvaluationResult({"loss": 1.0}, score_counts=counts), 5)
    sink.finish(facts.summary(), tmp_path)
    events = read(tmp_path)
    (found,) = events.Tensors(r"precision-recall/a\x1b")
    curve = tensor_util.make_ndarray(found.tensor_proto)
    assert found.step == 5
    assert curve[:4].tolist() == [[3, 3, 2], [4, 1, 0], [0, 3, 4], [0, 0, 1]]
    assert curve[4:].ravel() == pytest.approx([3 / 7, 3 / 4, 1, 1, 1, 2 / 3])
    content = events.SummaryMetadata(r"precision-recall/a\x1b").plugin_data.content
    assert pr_metadata.parse_plugin_metadata(content).num_thresholds == 3


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
    (path,) = (path for path in place(tmp_path).iterdir() if path.suffix != ".hparams")
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
    for tag in ("val-pictures/confusion matrix", "val-pictures/samples"):
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
    assert [picture.step for picture in read(tmp_path).Images("val-pictures/samples")] == [1, 3, 4]


def test_samples_that_are_no_images_become_a_table(tmp_path: Path) -> None:
    sink = TensorBoard(tmp_path)
    sink.start(facts.info(tmp_path))
    sink.evaluated(evaluation((13,), classes=2), 23)
    sink.finish(facts.summary(), tmp_path)
    events = read(tmp_path)
    assert events.Tags()["images"] == ["val-pictures/confusion matrix"]
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


def test_frozen_parameters_have_a_column_if_there_are_any() -> None:
    layers = [Layer("body", "Linear", "2", 1200, 1200), Layer("head", "Linear", "3", 9)]
    assert model_table(layers).splitlines()[-3:] == [
        "| body | Linear | 2 | 1,200 | 1,200 |",
        "| head | Linear | 3 | 9 | 0 |",
        "| **total** |  |  | **1,209** | **1,200** |",
    ]
    assert "frozen" in model_table(layers).splitlines()[0]
    assert "frozen" not in model_table(layers[1:])
