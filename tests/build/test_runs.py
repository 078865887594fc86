import sys
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from bigmodel import registry
from bigmodel.build.new_run import build_run
from bigmodel.build.resumed_run import resume_run
from bigmodel.data.assemble import assemble
from bigmodel.data.base import DataConfig, Dataset
from bigmodel.data.parts import Part
from bigmodel.errors import ConfigError, DataError, SpecError
from bigmodel.spec import Classes, DataSpec, Features
from bigmodel.training.loop import fit
from bigmodel.training.run import Run
from tests.small_runs import STEPS_PER_EPOCH, built, config, model_inputs

SGD = {"optimizer": "sgd", "optimizer.momentum": 0.0, "optimizer.lr": 0.5}


def weights(run: Run) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in run.state.model.state_dict().items()}


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return all(torch.equal(value, other[name]) for name, value in one.items())


def test_building_writes_nothing(tmp_path: Path) -> None:
    run = build_run(config({"trainer.tensorboard": True}), tmp_path / "not" / "yet")
    assert list(tmp_path.iterdir()) == []
    assert run.info.folder == tmp_path / "not" / "yet"


def test_the_header_says_what_will_run(tmp_path: Path) -> None:
    run, told = built(tmp_path, {"trainer.accumulate": 2, "scheduler": "cosine", "loss": "auto"})
    rows = dict(run.info.rows)
    parameters = sum(p.numel() for p in run.state.model.parameters())
    assert rows["Model"] == f"fnn, {parameters:,} parameters"
    assert rows["Data"] == "synthetic: 5 features → 3 classes (64 train, 16 val)"
    assert rows["Optimizer"] == "adamw, learning rate 0.002, weight decay 10, cosine schedule"
    assert rows["Loss"] == "cross_entropy"
    assert rows["Training"] == "2 epochs × 3 steps, batches of 24"
    assert run.info.title == "fnn on synthetic"
    assert run.summary.parameters == parameters == sum(layer.parameters for layer in run.info.layers)
    assert (run.info.total_steps, run.info.steps_per_epoch, run.info.first_step) == (6, 3, 0)
    assert run.info.monitor == run.monitor.name == "val/accuracy"
    fit(run)
    names = [name for name in told.records[-1] if name.startswith("val/")]
    assert names == ["val/loss", "val/accuracy", "val/macro_f1"]


@pytest.mark.parametrize(
    ("settings", "measured"),
    [
        ({}, True),
        ({"data": {"name": "text_labels", "unit": "character"}}, False),
        ({"device.deterministic": True}, False),
    ],
    ids=["one shape", "as wide as the longest text", "the same bits"],
)
def test_kernels_are_measured_where_shapes_come_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, settings: dict[str, Any], measured: bool
) -> None:
    (tmp_path / "texts.csv").write_text("text,label\n" + "one,yes\na longer one,no\n" * 20)
    monkeypatch.setattr(torch.backends.cudnn, "benchmark", not measured)
    if "data" in settings:
        settings["data"]["path"] = str(tmp_path / "texts.csv")
    try:
        built(tmp_path, settings)
        assert torch.backends.cudnn.benchmark == measured
    finally:
        torch.use_deterministic_algorithms(False)


def test_the_seed_alone_decides_the_weights(tmp_path: Path) -> None:
    one = weights(built(tmp_path)[0])
    torch.rand(7)
    assert same(one, weights(built(tmp_path)[0]))
    assert same(one, weights(built(tmp_path, {"data.batch_size": 5, "trainer.limit.train": 1})[0]))
    assert not same(one, weights(built(tmp_path, {"seed": 1})[0]))


def test_the_seed_decides_the_order_of_samples(tmp_path: Path) -> None:
    orders = [
        torch.cat([b.inputs for b in built(tmp_path, {"seed": seed})[0].train.epoch(0)])
        for seed in (0, 0, 1)
    ]
    assert torch.equal(orders[0], orders[1])
    assert not torch.equal(orders[0], orders[2])
    assert torch.equal(orders[0].sort(0).values, orders[2].sort(0).values)  # the same split


def test_limits_leave_so_many_batches_of_samples(tmp_path: Path) -> None:
    whole, _ = built(tmp_path)
    run, _ = built(tmp_path, {"trainer.limit": {"train": 2, "val": 1}})
    assert (len(run.train), len(run.val), run.plan.steps_per_epoch) == (24, 12, 2)
    assert run.dataset.spec.sizes == {"train": 24, "val": 12}
    target, everything = run.dataset.spec.target, whole.dataset.spec.target
    assert isinstance(target, Classes)
    assert isinstance(everything, Classes)
    assert target.names == everything.names
    assert sum(target.counts) == 24  # balanced class weights go by the samples that are there
    rows = {tuple(row) for row in whole.dataset.train.inputs.tolist()}
    seen = [
        {tuple(row) for b in run.train.epoch(epoch) for row in b.inputs.tolist()} for epoch in (0, 1)
    ]
    assert seen[0] == seen[1] <= rows  # the same few samples in every epoch
    again, _ = built(tmp_path, {"trainer.limit": {"train": 2, "val": 1}, "seed": 5})
    assert torch.equal(again.dataset.train.inputs, run.dataset.train.inputs)


def test_the_split_seed_decides_which_windows_of_a_text_a_limit_keeps(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("".join(map(chr, range(97, 123))) * 200)
    text = {"name": "text", "path": str(tmp_path / "a.txt"), "context": 4, "batch_size": 12}
    starts = [
        built(
            tmp_path,
            {
                "data": text | {"split_seed": seed},
                "model": {"name": "rnn"},
                "loss": {"name": "cross_entropy"},
                "trainer.limit.train": 2,
            },
        )[0].dataset.train.starts
        for seed in (0, 0, 1)
    ]
    assert torch.equal(starts[0], starts[1])
    assert not torch.equal(starts[0], starts[2])


def test_the_test_part_is_limited_as_the_others_are(tmp_path: Path) -> None:
    tested = {"data": {"name": "tested", "batch_size": 12}}

    @registry.data.register("tested", DataConfig)
    def source(config: DataConfig) -> Dataset:
        part = Part(torch.randn(60, 4), torch.arange(60) % 2)
        spec = DataSpec("tested", Features(4), Classes(("no", "yes"), ()))
        return assemble(config, spec, part, part)

    try:
        whole, _ = built(tmp_path, tested)
        run, told = built(tmp_path, tested | {"trainer.limit": {"test": 2}, "trainer.epochs": 1})
        fit(run)
    finally:
        registry.data._entries.pop("tested")
    assert whole.dataset.spec.sizes["test"] == 60
    assert run.dataset.spec.sizes == {"train": 48, "val": 12, "test": 24}
    assert ("Limited", "test limited to 24 of 60 (trainer.limit.test)") in run.info.rows
    assert run.test is not None
    assert len(run.test) == 24
    assert told.summary is not None
    assert set(told.summary.test) == {"test/loss", "test/accuracy", "test/macro_f1"}


def test_a_limit_beyond_the_data_changes_nothing(tmp_path: Path) -> None:
    whole, _ = built(tmp_path)
    run, _ = built(tmp_path, {"trainer.limit": {"train": STEPS_PER_EPOCH, "val": 99}})
    assert (len(run.train), len(run.val)) == (64, 16)
    assert torch.equal(run.dataset.train.inputs, whole.dataset.train.inputs)


LOSSES: list[dict[str, Any]] = [
    {},
    {"loss": "cross_entropy", "loss.class_weights": "balanced"},
    {"loss": "cross_entropy", "loss.class_weights": [5.0, 1.0, 0.2], "loss.label_smoothing": 0.1},
    {"data.target": "values", "data.outputs": 2},
    {"data.target": "flags"},
]


@pytest.mark.parametrize("settings", LOSSES, ids=str)
@pytest.mark.parametrize(("size", "accumulate"), [(8, 3), (7, 4), (5, 20)])
def test_accumulating_is_training_with_larger_batches(
    tmp_path: Path, settings: dict[str, Any], size: int, accumulate: int
) -> None:
    """64 samples: the last step of an epoch has fewer micro-batches, the last of those fewer samples."""
    runs = [
        built(tmp_path, SGD | settings | {"data.batch_size": size, "trainer.accumulate": accumulate}),
        built(tmp_path, SGD | settings | {"data.batch_size": size * accumulate}),
    ]
    for run, _ in runs:
        fit(run)
    (pieces, told), (whole, expected) = runs
    assert pieces.plan == whole.plan
    assert len(pieces.train.part) % (size * accumulate) != 0
    for name, value in weights(whole).items():
        torch.testing.assert_close(weights(pieces)[name], value, rtol=1e-5, atol=1e-6)
    for mine, theirs in zip(told.records, expected.records, strict=True):
        assert mine["train/loss"] == pytest.approx(theirs["train/loss"], rel=1e-5)
        assert mine["val/loss"] == pytest.approx(theirs["val/loss"], rel=1e-5)


def test_the_model_never_sees_more_samples_at_once_than_a_batch_has(tmp_path: Path) -> None:
    run, _ = built(tmp_path, {"trainer.accumulate": 3, "trainer.epochs": 1})
    sizes: list[int] = []

    def note(_: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        if run.state.model.training:
            sizes.append(len(inputs[0]))

    run.state.model.register_forward_pre_hook(note)
    fit(run)
    assert sizes == [12, 12, 12, 12, 12, 4]


def test_class_weights_reach_the_training(tmp_path: Path) -> None:
    """A class that counts a thousand times as much is what the model comes to say."""
    heavy = {"loss": "cross_entropy", "loss.class_weights": [1.0, 1000.0, 1.0]}
    run, told = built(tmp_path, SGD | heavy | {"trainer.epochs": 3})
    fit(run)
    confusion = told.evaluations[-1][1].confusion
    assert confusion is not None
    assert int(confusion[:, 1].sum()) == 16


def test_balanced_weights_follow_from_the_training_part(tmp_path: Path) -> None:
    run, _ = built(tmp_path, {"loss": "cross_entropy", "loss.class_weights": "balanced"})
    counts = torch.bincount(run.dataset.train.targets, minlength=3)
    torch.testing.assert_close(run.loss.class_weights, 64 / (3 * counts))


@pytest.mark.parametrize(
    ("settings", "error", "words"),
    [
        (
            {"loss": "cross_entropy", "loss.class_weights": [1.0, 2.0]},
            SpecError,
            r"class_weights=\[1.0, 2.0\]: 2 weights, but synthetic has 3 classes",
        ),
        ({"loss": "mse"}, SpecError, "loss=mse needs real values.*Use loss=cross_entropy"),
        ({"model": "cnn"}, SpecError, "model=cnn cannot read data=synthetic.*model=fnn"),
        ({"data.batch_size": 65, "data.drop_last": True}, ConfigError, "data.batch_size=65"),
        (
            {"trainer.accumulate": 6, "data.drop_last": True},
            ConfigError,
            r"data\.batch_size=12 times trainer\.accumulate=6 is larger than the 64",
        ),
        (
            {"trainer.checkpoint.monitor": "val/acuracy"},
            ConfigError,
            r"^trainer\.checkpoint\.monitor=val/acuracy: .*Did you mean 'val/accuracy'\?",
        ),
        (
            {"trainer.checkpoint.monitor": "val/top5_accuracy"},  # there are only three classes
            ConfigError,
            "no such metric.* There will be: val/loss, val/accuracy, val/macro_f1, train/loss",
        ),
        (
            {"trainer.early_stopping.monitor": "val/rmse"},
            ConfigError,
            r"^trainer\.early_stopping\.monitor=val/rmse: no such metric",
        ),
        (
            {"data.target": "values", "trainer.checkpoint.monitor": "val/accuracy"},
            ConfigError,
            "There will be: val/loss, val/mae, val/rmse, val/r2, train/loss",
        ),
        (
            {"optimizer": "schedule_free_adamw", "trainer.ema": 0.9},
            ConfigError,
            r"trainer\.ema=0\.9: optimizer=schedule_free_adamw averages weights itself",
        ),
    ],
    ids=lambda value: str(value) if isinstance(value, dict) else "",
)
def test_parts_that_do_not_fit_are_refused(
    tmp_path: Path, settings: dict[str, Any], error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        build_run(config(settings), tmp_path)


@pytest.mark.parametrize(
    ("settings", "monitor", "stop"),
    [
        ({}, ("val/accuracy", "max"), ("val/accuracy", "max")),
        ({"data.target": "values"}, ("val/rmse", "min"), ("val/rmse", "min")),
        ({"data.target": "flags"}, ("val/loss", "min"), ("val/loss", "min")),
        ({"trainer.checkpoint": {"mode": "min"}}, ("val/accuracy", "min"), ("val/accuracy", "min")),
        ({"trainer.checkpoint": {"monitor": "val/loss"}}, ("val/loss", "min"), ("val/loss", "min")),
        (
            {"trainer.early_stopping": {"monitor": "val/loss"}},
            ("val/accuracy", "max"),
            ("val/loss", "min"),
        ),
        (
            {"trainer.checkpoint": {"monitor": "val/loss"}, "trainer.early_stopping": {"mode": "max"}},
            ("val/loss", "min"),
            ("val/loss", "max"),
        ),
    ],
    ids=str,
)
def test_what_chooses_and_what_stops(
    tmp_path: Path, settings: dict[str, Any], monitor: tuple[str, str], stop: tuple[str, str]
) -> None:
    run, _ = built(tmp_path, settings)
    assert (run.monitor.name, run.monitor.mode) == monitor
    assert (run.stop_monitor.name, run.stop_monitor.mode) == stop


@pytest.mark.parametrize(("interval", "first", "last"), [("step", 1, 11), ("epoch", 6, 6)])
def test_a_schedule_is_as_long_as_the_run(tmp_path: Path, interval: str, first: int, last: int) -> None:
    run, _ = built(tmp_path, {"scheduler": {"name": "linear", "interval": interval}})
    factor = run.state.schedule.factor
    assert factor(0) == factor(first - 1) == 1.0
    assert factor(first) < 1.0
    assert factor(12) == factor(12 + 5) < factor(last)


def test_held_out_samples_come_in_order_and_unchanged(tmp_path: Path) -> None:
    settings = {"data": {"name": "digits", "augment": {"shift": 2, "flip": 1.0, "erase": 1.0}}}
    run, _ = built(tmp_path, settings | {"data.drop_last": True})
    seen = torch.cat([batch.inputs for batch in run.val.epoch(0)])
    torch.testing.assert_close(seen, model_inputs(run.dataset.preprocessing, run.dataset.val.inputs))


def test_a_run_is_put_where_its_checkpoint_left_it(tmp_path: Path) -> None:
    run, _ = built(tmp_path)
    fit(run)
    again = resume_run(built(tmp_path, {"seed": 1, "trainer.epochs": 3})[0])
    assert same(weights(run), weights(again))
    assert again.state.progress == run.state.progress
    assert again.info.first_step == 12
    assert dict(again.info.rows)["Checkpoint"].endswith("checkpoints/last")


# ----- a user's own data source -----

SOURCE = """\
import torch
from bigmodel.data.assemble import assemble
from bigmodel.data.base import Dataset, RealConfig
from bigmodel.data.parts import Part
from bigmodel.registry import data
from bigmodel.spec import Classes, DataSpec, Features

@data.register("two_moons", RealConfig)
def two_moons(config: RealConfig) -> Dataset:
    labels = torch.arange(200) % 2
    angle = torch.linspace(0, 3.14, 200) + 3.14 * labels
    points = torch.stack([angle.cos() + labels, angle.sin() + 0.3 * labels], 1)
    spec = DataSpec("two_moons", Features(2), Classes(("upper", "lower"), counts=()))
    return assemble(config, spec, Part(points, labels), normalize=config.normalize)
"""


def test_a_plugin_s_data_source_trains(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    (tmp_path / "plugin_with_moons.py").write_text(SOURCE)
    settings = {"plugins": ["plugin_with_moons"], "data": {"name": "two_moons", "batch_size": 16}}
    try:
        run, told = built(tmp_path, SGD | settings | {"trainer.epochs": 20})
        summary = fit(run)
    finally:
        registry.data._entries.pop("two_moons", None)
        sys.modules.pop("plugin_with_moons", None)
    assert run.dataset.spec.target == Classes(("upper", "lower"), (80, 80))
    assert dict(run.info.rows)["Plugins"] == "plugin_with_moons"
    assert summary.final["val/accuracy"] > 0.85
    assert {sample.truth for sample in told.evaluations[-1][1].samples} == {"upper", "lower"}


@pytest.fixture
def source() -> Iterator[Part]:
    """A registered source that gives these samples without a look at them, and draws at random."""
    samples, draws = Part(torch.randn(40, 2), torch.arange(40) % 2), count(1)

    @registry.data.register("careless", DataConfig)
    def careless(_: DataConfig) -> Dataset:
        torch.rand(next(draws))
        sizes = {"train": 30, "val": 10}
        spec = DataSpec("careless", Features(2), Classes(("no", "yes"), (15, 15)), sizes)
        index = torch.arange(40)
        return Dataset(spec, samples.select(index[:30]), samples.select(index[30:]))

    yield samples
    registry.data._entries.pop("careless")


@pytest.mark.parametrize(
    ("part", "where", "value", "words"),
    [
        ("inputs", (7, 1), float("nan"), "careless.*(finite|NaN|nan)"),
        ("inputs", (35, 0), float("inf"), "careless.*(finite|infinite|inf)"),
        ("targets", (7,), 2, "careless.*2"),
        ("targets", (35,), -1, "careless.*-1"),
    ],
)
def test_a_source_s_faults_are_found_before_the_first_step(
    tmp_path: Path, source: Part, part: str, where: tuple[int, ...], value: float, words: str
) -> None:
    build_run(config({"data": "careless"}), tmp_path)
    getattr(source, part)[where] = value
    with pytest.raises(DataError, match=words):
        build_run(config({"data": "careless"}), tmp_path)


@pytest.mark.usefixtures("source")
def test_what_a_source_draws_does_not_change_the_weights(tmp_path: Path) -> None:
    first, second = (built(tmp_path, {"data": "careless"})[0] for _ in range(2))
    assert same(weights(first), weights(second))
