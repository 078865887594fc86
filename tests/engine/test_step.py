from copy import deepcopy
from typing import Any

import pytest
import torch
from torch import nn

from bigmodel import registry
from bigmodel.data.base import Batch
from bigmodel.distributed.parallel import Parallel
from bigmodel.engine.step import Step
from bigmodel.errors import DataError
from bigmodel.losses import Loss
from bigmodel.metrics import metrics_for
from bigmodel.runtime.device import Runtime
from bigmodel.spec import IGNORED, Classes, DataSpec, Image, NextTokens, Tokens, Values

RUNTIME = Runtime(torch.device("cpu"), "fp32")
CLASSES = DataSpec("images", Image(1, 8, 8), Classes(tuple("abcd"), (5, 9, 2, 1)))
VALUES = DataSpec("images", Image(1, 8, 8), Values(("u", "v"), (0.0, 0.0), (1.0, 1.0)))


def make_loss(spec: DataSpec, **options: object) -> Loss:
    loss: Loss = registry.losses.build(registry.losses.parse({"name": "auto"}), spec)
    if options:
        loss = registry.losses.build(registry.losses.parse(options), spec)
    return loss


def make_step(
    model: nn.Module, loss: Loss, spec: DataSpec, micro_batch: int, lr: float = 0.0, **more: object
) -> Step:
    optimizer = torch.optim.SGD(model.parameters(), lr=lr)
    metrics = metrics_for(spec.target, RUNTIME.device, light=True)
    return Step(model, loss, optimizer, metrics, RUNTIME, micro_batch=micro_batch, **more)  # type: ignore[arg-type]


def make_batch(spec: DataSpec, size: int) -> Batch:
    targets = torch.randint(0, 4, (size,)) if isinstance(spec.target, Classes) else torch.randn(size, 2)
    return Batch(torch.randn(size, 1, 8, 8), targets)


def gradient(model: nn.Module) -> torch.Tensor:
    return torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None]).double()


@pytest.mark.parametrize("name", registry.models.names())
@pytest.mark.parametrize(
    ("spec", "options"),
    [
        (CLASSES, {}),
        (CLASSES, {"name": "cross_entropy", "class_weights": "balanced", "label_smoothing": 0.1}),
        (VALUES, {}),
    ],
    ids=["classes", "weighted", "values"],
)
@pytest.mark.parametrize("micro_batch", [7, 16])
def test_accumulated_gradients_are_those_of_the_full_batch(
    name: str, spec: DataSpec, options: dict[str, object], micro_batch: int
) -> None:
    values: dict[str, object] = {"name": name}
    if name == "cnn":
        values["batch_norm"] = False  # its statistics are those of a micro-batch, by their nature
    model = registry.models.build(registry.models.parse(values), spec).eval()
    whole = deepcopy(model)
    batch, loss = make_batch(spec, 37), make_loss(spec, **options)
    pieces_step, whole_step = (
        make_step(model, loss, spec, micro_batch),
        make_step(whole, loss, spec, 37),
    )
    pieces_step(batch)
    whole_step(batch)
    difference = (gradient(model) - gradient(whole)).norm() / gradient(whole).norm()
    assert difference < 1e-6
    assert pieces_step.drain()[0].loss == pytest.approx(whole_step.drain()[0].loss, rel=1e-5)


def test_equals_the_loop_anyone_would_write() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 4))
    by_hand = deepcopy(model)
    step = make_step(model, make_loss(CLASSES), CLASSES, 16, lr=0.1)
    optimizer = torch.optim.SGD(by_hand.parameters(), lr=0.1)
    expected = []
    for _ in range(5):
        batch = make_batch(CLASSES, 16)
        step(batch)
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(by_hand(batch.inputs), batch.targets)
        loss.backward()
        optimizer.step()
        expected.append(loss.item())
    assert [figure.loss for figure in step.drain()] == pytest.approx(expected, rel=1e-5)
    assert not step.drain()
    for ours, theirs in zip(model.parameters(), by_hand.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs)


def test_the_norm_is_measured_before_clipping() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 4))
    free = deepcopy(model)
    batch, loss = make_batch(CLASSES, 16), make_loss(CLASSES)
    clipped, unclipped = (
        make_step(model, loss, CLASSES, 16, clip_norm=0.01),
        make_step(free, loss, CLASSES, 16),
    )
    clipped(batch)
    unclipped(batch, measure=True)
    assert clipped.accumulation.grad_norm is not None
    assert unclipped.accumulation.grad_norm is not None
    torch.testing.assert_close(clipped.accumulation.grad_norm, unclipped.accumulation.grad_norm)
    assert gradient(free).norm() == pytest.approx(float(unclipped.accumulation.grad_norm), rel=1e-5)
    assert gradient(model).norm() == pytest.approx(0.01, rel=1e-3)


def test_half_precision_scales_and_unscales() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 4))
    runtime = Runtime(torch.device("cpu"), "fp16")
    metrics = metrics_for(CLASSES.target, runtime.device, light=True)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    step = Step(model, make_loss(CLASSES), optimizer, metrics, runtime, micro_batch=16, clip_norm=1.0)
    batch = make_batch(CLASSES, 16)
    for _ in range(30):
        step(batch)
    losses = [figure.loss for figure in step.drain()]
    assert losses[-1] < losses[0] * 0.8


class _Elsewhere(Parallel):
    """Another rank's part of the gradient may have overflowed."""

    overflows = False

    def any(self, flag: torch.Tensor) -> torch.Tensor:
        return torch.ones_like(flag) if self.overflows else flag


def test_all_ranks_go_on_with_one_scale_if_the_gradient_of_one_overflows() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 4))
    runtime, parallel = Runtime(torch.device("cpu"), "fp16"), _Elsewhere(model)
    metrics = metrics_for(CLASSES.target, runtime.device, light=True)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    step = Step(
        model, make_loss(CLASSES), optimizer, metrics, runtime, micro_batch=16, parallel=parallel
    )
    step.scaler = torch.amp.GradScaler("cpu", init_scale=256.0)
    step(make_batch(CLASSES, 16))
    assert step.scaler.get_scale() == 256
    before = nn.utils.parameters_to_vector(model.parameters()).clone()
    parallel.overflows = True
    step(make_batch(CLASSES, 16))
    assert step.scaler.get_scale() == 128
    assert torch.equal(nn.utils.parameters_to_vector(model.parameters()), before)


class Ignoring(nn.Module):
    """A loss that counts only the targets of class 0, as one with `ignore_index` does."""

    name = "ignoring"

    def __init__(self, on_device: bool) -> None:
        super().__init__()
        self.on_device = on_device

    def forward(self, outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        return (nn.functional.cross_entropy(outputs, targets, reduction="none") * (targets == 0)).sum()

    def normaliser(self, targets: torch.Tensor) -> torch.Tensor | int:
        count = (targets == 0).sum()
        return count.float() if self.on_device else int(count)


@pytest.mark.parametrize("on_device", [False, True])
def test_a_batch_whose_targets_are_all_ignored_is_refused(on_device: bool) -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 4))
    step = make_step(model, Ignoring(on_device), CLASSES, 16)  # type: ignore[arg-type]
    batch = make_batch(CLASSES, 8)
    ignored = Batch(batch.inputs, torch.full((8,), 2))
    if not on_device:
        with pytest.raises(DataError, match="loss=ignoring: every target of a batch is ignored"):
            step(ignored)
        return
    before = model[1].weight.clone()
    step(ignored)  # the device knows; the host learns of it later
    (figure,) = step.drain()
    assert (figure.weight, figure.updated) == (0.0, False)
    assert torch.equal(model[1].weight, before)


TEXTS = DataSpec("texts", Tokens(12, 30), NextTokens(30))


class Counting(nn.Module):
    """A small writer that keeps how large the pieces were that went through it."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.head = nn.Embedding(30, 8), nn.Linear(8, 30)
        self.pieces: list[tuple[int, ...]] = []

    def forward(self, inputs: torch.Tensor, score: Any = None) -> torch.Tensor:
        self.pieces.append(tuple(inputs.shape))
        features = self.body(inputs)
        outputs: torch.Tensor = self.head(features) if score is None else score(features, self.head)
        return outputs


def make_texts(size: int, width: int) -> Batch:
    targets = torch.randint(30, (size, width))
    targets[torch.rand(size, width) < 0.4] = IGNORED  # pieces have different numbers of tokens
    return Batch(torch.randint(30, (size, width)), targets)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_accumulated_tokens_count_alike_whatever_piece_they_are_in(smoothing: float) -> None:
    model = Counting().double()
    whole, batch = deepcopy(model), make_texts(37, 12)
    loss = make_loss(TEXTS, name="cross_entropy", label_smoothing=smoothing)
    pieces_step = make_step(model, loss, TEXTS, 5)
    whole_step = make_step(whole, loss, TEXTS, 37)
    pieces_step(batch)
    whole_step(batch)
    difference = (gradient(model) - gradient(whole)).norm() / gradient(whole).norm()
    assert difference < 1e-6
    expected = nn.functional.cross_entropy(
        whole(batch.inputs).flatten(0, 1), batch.targets.flatten(), label_smoothing=smoothing
    )
    assert pieces_step.drain()[0].loss == pytest.approx(expected.item(), rel=1e-5)


def test_pieces_are_bounded_by_tokens_too() -> None:
    model = Counting()
    step = make_step(model, make_loss(TEXTS), TEXTS, 100, micro_tokens=48)
    step(make_texts(10, 12))
    assert model.pieces == [(4, 12), (4, 12), (2, 12)]
    model.pieces.clear()
    step(make_texts(5, 60))  # longer than the bound: one by one
    assert model.pieces == [(1, 60)] * 5


def test_a_batch_that_is_left_out_is_counted_and_judges_nothing() -> None:
    step = make_step(nn.Sequential(nn.Flatten(), nn.Linear(64, 4)), make_loss(CLASSES), CLASSES, 16)
    good, bad = make_batch(CLASSES, 16), make_batch(CLASSES, 16)
    step(good)
    expected = step.metrics.compute()
    bad.inputs[0] = torch.nan
    step(bad)
    assert [metrics.updated for metrics in step.drain()] == [True, False]
    assert step.metrics.samples == 32
    assert step.metrics.compute(of_all=False) == expected
