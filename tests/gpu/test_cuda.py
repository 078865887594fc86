"""The same on CUDA: half precision near full precision, resuming, and data on the device or not.

pytest -m gpu
"""

from collections.abc import Iterator
from dataclasses import replace
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import pytest
import torch

from bigmodel import registry
from bigmodel.build.resumed_run import resume_run
from bigmodel.checkpointing import checkpoint
from bigmodel.data.augment import AugmentConfig
from bigmodel.data.base import Dataset, ImageConfig
from bigmodel.data.batching.batches import make_batches
from bigmodel.data.parts import Part
from bigmodel.optim.schedulers import apply
from bigmodel.spec import Classes, DataSpec, Image
from bigmodel.training.loop import fit
from bigmodel.training.run import Run
from tests.small_runs import built, model_inputs

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]

DEVICE = "cuda"
MODELS = registry.models.names()
DIGITS = {"data": {"name": "digits", "batch_size": 128}}
SYNTHETIC = {"name": "synthetic", "samples": 512, "batch_size": 128, "target": "classes", "outputs": 3}
INPUTS: dict[str, dict[str, Any]] = {
    "digits": DIGITS,
    "sequence": {"data": SYNTHETIC | {"input": "sequence", "shape": [6, 8]}},
    "tokens": {"data": SYNTHETIC | {"input": "tokens", "shape": [8], "vocab_size": 20}},
}
STEPS = 30


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    """A run sets the process up for itself; other tests are not to notice."""
    yield
    torch.use_deterministic_algorithms(False)
    torch.set_float32_matmul_precision("highest")


def on_cuda(model: str, precision: str, **device: Any) -> dict[str, Any]:
    """Settings of a model without dropout on CUDA, where no product is rounded but by `precision`."""
    return {
        "model": {"name": model, "dropout": 0.0},
        "device": {"name": DEVICE, "precision": precision, "tf32": False} | device,
    }


def step(run: Run, steps: int) -> list[float]:
    """Trains on over the same few batches; returns the losses."""
    progress = run.state.progress
    run.state.model.train()
    for batch in islice(cycle(run.train.epoch(0)), steps):
        apply(run.state.optimizer, run.state.schedule.factor(progress.step))
        run.step(batch)
        progress.step += 1
    return [figure.loss for figure in run.step.drain()]


def save(run: Run, checkpoints: Path) -> None:
    """Saves a run as `fit` does, in the middle of it."""
    groups, facts = run.state.save()
    checkpoints.mkdir()
    checkpoint.save(checkpoints / "last", groups, facts | {"data": run.fingerprint})


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
@pytest.mark.parametrize("kind", INPUTS)
@pytest.mark.parametrize("model", MODELS)
def test_half_precision_trains_as_full_precision_does(
    tmp_path: Path, model: str, kind: str, precision: str
) -> None:
    """fp16 may leave out a first step or two until its scale fits, so that ends differ a little."""
    runs = {
        name: built(tmp_path, INPUTS[kind] | on_cuda(model, name))[0] for name in ("fp32", precision)
    }
    losses = {name: step(run, STEPS) for name, run in runs.items()}
    full, half = losses["fp32"], losses[precision]
    assert half[0] == pytest.approx(full[0], rel=0.02)
    assert sum(full[-5:]) < 5 * 0.9 * full[0]
    assert sum(half[-5:]) == pytest.approx(sum(full[-5:]), rel=0.25, abs=0.25)
    for run in runs.values():
        assert all(p.dtype == torch.float32 for p in run.state.model.parameters())
        assert all(p.device.type == DEVICE for p in run.state.model.parameters())
        assert all(bool(p.isfinite().all()) for p in run.state.model.parameters())


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
@pytest.mark.parametrize("model", MODELS)
def test_a_whole_run(tmp_path: Path, model: str, precision: str) -> None:
    """Evaluation, records and checkpoints included; what was saved holds weights in full precision."""
    settings = DIGITS | on_cuda(model, precision) | {"trainer.epochs": 3, "trainer.ema": 0.9}
    run, told = built(tmp_path, settings)
    summary = fit(run)
    assert summary.status == "finished"
    assert told.records[-1]["train/loss"] < told.records[0]["train/loss"]
    assert 0.2 < summary.final["val/accuracy"] <= 1
    groups, _ = checkpoint.load(tmp_path / "checkpoints" / "last")
    assert {value.dtype for value in groups["model"].values()} <= {torch.float32, torch.int64}
    assert "cuda" in groups["random"]


def test_auto_is_cuda_in_half_precision(tmp_path: Path) -> None:
    run, _ = built(tmp_path, {"device": {"name": "auto"}})
    assert run.runtime.device.type == DEVICE
    assert run.runtime.precision == ("bf16" if torch.cuda.is_bf16_supported(False) else "fp16")
    assert torch.cuda.get_device_name() in dict(run.info.rows)["Device"]


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two CUDA devices")
@pytest.mark.parametrize("engine", ["eager", "graph"])
def test_the_second_device_is_used_alone(tmp_path: Path, engine: str) -> None:
    before = torch.cuda.mem_get_info(0)[0]
    chosen = {"device": {"name": "cuda:1", "engine": engine}, "trainer.epochs": 2}
    run, told = built(tmp_path, DIGITS | chosen)
    assert fit(run).status == "finished", told.messages
    assert {p.device for p in run.state.model.parameters()} == {torch.device("cuda", 1)}
    assert torch.cuda.mem_get_info(0)[0] >= before
    again, _ = built(tmp_path, DIGITS | chosen | {"device": {"name": "cuda:0"}, "trainer.epochs": 3})
    assert fit(resume_run(again, changed=["trainer.epochs"])).status == "finished"


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
@pytest.mark.parametrize("model", MODELS)
def test_a_resumed_run_equals_one_that_never_stopped(tmp_path: Path, model: str, precision: str) -> None:
    """With the operations that give the same bits each time, and with dropout."""
    settings = DIGITS | on_cuda(model, precision, deterministic=True)
    settings |= {"model": {"name": model, "dropout": 0.2}}
    run, _ = built(tmp_path, settings)
    step(run, 4)
    save(run, tmp_path / "checkpoints")
    expected = step(run, 4)

    again = replace(resume_run(built(tmp_path, settings | {"seed": 1})[0]), train=run.train)
    assert step(again, 4) == expected
    theirs = run.state.model.state_dict()
    assert all(
        torch.equal(value, theirs[name]) for name, value in again.state.model.state_dict().items()
    )


@pytest.mark.parametrize(("saved_on", "resumed_on"), [(DEVICE, "cpu"), ("cpu", DEVICE)])
@pytest.mark.parametrize("optimizer", registry.optimizers.names())
def test_a_run_goes_on_on_another_device(
    tmp_path: Path, optimizer: str, saved_on: str, resumed_on: str
) -> None:
    def settings(device: str) -> dict[str, Any]:
        return DIGITS | {
            "optimizer": optimizer,
            "device": {"name": device, "precision": "fp32", "tf32": False},
        }

    run, _ = built(tmp_path, settings(saved_on))
    if hasattr(run.state.optimizer, "train"):
        run.state.optimizer.train()
    step(run, 3)
    save(run, tmp_path / "checkpoints")
    expected = step(run, 3)
    again = resume_run(built(tmp_path, settings(resumed_on))[0])
    if hasattr(again.state.optimizer, "train"):
        again.state.optimizer.train()
    assert step(again, 3) == pytest.approx(expected, rel=0.01)


@pytest.mark.filterwarnings("ignore:Synchronization debug mode:UserWarning")  # a prototype in torch
@pytest.mark.parametrize("settings", [{}, {"trainer.clip_norm": 0.5, "trainer.ema": 0.9}], ids=str)
@pytest.mark.parametrize("model", MODELS)
def test_a_step_never_waits_for_the_device(tmp_path: Path, model: str, settings: dict[str, Any]) -> None:
    weighted = {"loss": {"name": "cross_entropy", "class_weights": "balanced", "label_smoothing": 0.1}}
    run, _ = built(tmp_path, DIGITS | on_cuda(model, "bf16") | weighted | settings)
    batches = list(run.train.epoch(0))[:3]
    for batch in batches:  # the first steps choose kernels and make the optimizer's state
        run.step(batch, measure=True)
    torch.cuda.set_sync_debug_mode("error")
    try:
        for batch in batches:
            run.step(batch, measure=True)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert len(run.step.drain()) == 6


@pytest.mark.filterwarnings("ignore")  # torch's compiler has some of its own
def test_a_compiled_model_trains_alike_and_is_saved_by_its_plain_names(tmp_path: Path) -> None:
    runs = [
        built(tmp_path, DIGITS | on_cuda("fnn", "fp32", compile=compiled))[0]
        for compiled in (False, True)
    ]
    losses = [step(run, 5) for run in runs]
    assert losses[1] == pytest.approx(losses[0], rel=1e-3)
    plain, compiled = (run.state.save()[0]["model"] for run in runs)
    assert plain.keys() == compiled.keys()


# ----- data on the device or not -----


def photographs() -> Dataset:
    """Images stored as bytes, as those of IDX files are."""
    draw = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (300, 3, 12, 12), dtype=torch.uint8, generator=draw)
    labels = torch.randint(0, 4, (300,), generator=draw)
    spec = DataSpec("photographs", Image(3, 12, 12), Classes(tuple("abcd"), (75, 75, 75, 75)))
    mean, std = torch.full((3, 1, 1), 0.5), torch.full((3, 1, 1), 0.3)
    part = Part(images, labels)
    return Dataset(spec, part, part.select(torch.arange(50)), mean=mean, std=std)


def batches_of(dataset: Dataset, device: str, on_device: bool | None, epoch: int) -> list[Any]:
    augment = AugmentConfig(shift=2, flip=0.5, erase=0.5)
    config = ImageConfig(name="photographs", batch_size=64, on_device=on_device, augment=augment)
    batches = make_batches(dataset, "train", config, device, seed=3)
    return [batch for start in (0, 2) for batch in batches.epoch(epoch, start)]


@pytest.mark.parametrize("epoch", [0, 1])
def test_batches_are_the_same_wherever_the_data_lies(epoch: int) -> None:
    dataset = photographs()
    resident = batches_of(dataset, DEVICE, True, epoch)
    sent = batches_of(dataset, DEVICE, False, epoch)
    reference = batches_of(dataset, "cpu", None, epoch)
    assert len(resident) == len(sent) == len(reference) == 5 + 3
    for one, other, expected in zip(resident, sent, reference, strict=True):
        assert one.inputs.device.type == other.inputs.device.type == DEVICE
        assert torch.equal(one.inputs, other.inputs)
        assert torch.equal(one.targets, other.targets)
        torch.testing.assert_close(one.inputs.cpu(), expected.inputs)
        assert torch.equal(one.targets.cpu(), expected.targets)


def test_batches_that_are_sent_are_not_overwritten_before_they_arrive() -> None:
    """Page-locked memory must not be used again while a copy out of it is under way: four copies."""
    dataset = photographs()
    many = replace(dataset, train=dataset.train.select(torch.arange(300).repeat(400)))
    config = ImageConfig(name="photographs", batch_size=256, on_device=False)
    sent = list(make_batches(many, "train", config, DEVICE, seed=1, shuffle=False).epoch(0))
    whole = torch.cat([batch.inputs for batch in sent])
    torch.testing.assert_close(whole.cpu(), model_inputs(many.preprocessing, many.train.inputs))


@pytest.mark.parametrize("model", ["fnn", "cnn"])
def test_training_is_the_same_wherever_the_data_lies(tmp_path: Path, model: str) -> None:
    losses = []
    for on_device in (True, False):
        data = {"data": {"name": "digits", "on_device": on_device, "augment": {"shift": 1}}}
        run, _ = built(tmp_path, data | on_cuda(model, "fp32", deterministic=True))
        losses.append(step(run, 6))
    assert losses[0] == losses[1]
