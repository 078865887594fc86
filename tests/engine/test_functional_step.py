"""A whole step as a function of tensors does what `Step` does: nothing is compiled here."""

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from bigmodel.data.base import Batch
from bigmodel.engine.fixed_shape import step_inputs
from bigmodel.engine.functional_step import FunctionalStep, UntraceableError
from bigmodel.engine.step import Step
from tests.engine.steps import begun, both_ways, copies_of, make_batch, make_step, small_step
from tests.models.cases import build, spec
from tests.models.test_every_model import CASES, EXTRA, EXTRA_OF, options

FEATURES = spec("features")


def assert_same(step: Step, batch: Batch, rtol: float = 2e-5, atol: float = 1e-6) -> None:
    before = [p.detach().clone() for p in step.model.parameters() if p.requires_grad]
    ours, theirs = both_ways(step, batch)
    for name, wanted in theirs.items():
        got = ours[name]
        assert got.dtype == wanted.dtype, name
        torch.testing.assert_close(got, wanted, rtol=rtol, atol=atol, msg=lambda m, n=name: f"{n}: {m}")
    after = [p for p in step.model.parameters() if p.requires_grad]
    assert any(not torch.equal(old, new) for old, new in zip(before, after, strict=True))


@pytest.mark.parametrize(("name", "kind", "target"), CASES)
def test_every_model_over_every_kind_of_data(name: str, kind: str, target: str) -> None:
    of = spec(kind, target)
    step = make_step(build(name, of, **options(name, kind)), of, {"name": "sgd", "lr": 0.1}, ema=0.9)
    assert_same(begun(step, of), make_batch(of))


@pytest.mark.parametrize(
    ("name", "extra"), [(name, extra) for name, extras in EXTRA_OF.items() for extra in extras[1:]]
)
def test_every_kind_of_model(name: str, extra: str) -> None:
    kind = "padded" if name in ("rnn", "transformer", "attention") else "image"
    of = spec(kind)
    step = make_step(build(name, of, **EXTRA[extra]), of, {"name": "sgd", "lr": 0.1})
    assert_same(begun(step, of), make_batch(of))


@pytest.mark.parametrize(
    "optimizer",
    [
        {"name": "adam"},
        {"name": "adam", "amsgrad": True},
        {"name": "adamw", "weight_decay": 0.3},
        {"name": "adamw", "weight_decay": 0.3, "amsgrad": True},
        {"name": "sgd"},
        {"name": "sgd", "momentum": 0.9, "weight_decay": 0.1},
        {"name": "sgd", "momentum": 0.9, "nesterov": True},
        {"name": "rmsprop"},
        {"name": "rmsprop", "centered": True, "momentum": 0.9},
        {"name": "nadam"},
        {"name": "radam", "weight_decay": 0.1},
    ],
    ids=lambda options: " ".join(map(str, options.values())),
)
def test_every_optimizer(optimizer: dict[str, Any]) -> None:
    """At once, and after so many steps that RAdam has changed its way (it does so at its sixth)."""
    step = small_step(optimizer=optimizer)
    for before in (1, 8):
        begun(step, FEATURES, before)
        assert_same(step, make_batch(FEATURES))


@pytest.mark.parametrize(
    ("kind", "target", "loss"),
    [
        ("features", "classes", {"name": "cross_entropy", "class_weights": [1.0, 2.0, 5.0]}),
        ("features", "classes", {"name": "cross_entropy", "label_smoothing": 0.2}),
        ("features", "classes", {"name": "bce_with_logits", "pos_weight": 3.0}),
        ("features", "flags", {"name": "bce_with_logits", "pos_weight": [1.0, 4.0]}),
        ("features", "values", {"name": "huber"}),
        ("features", "values", {"name": "l1"}),
    ],
)
def test_every_loss(kind: str, target: str, loss: dict[str, Any]) -> None:
    of = spec(kind, target)
    step = small_step(kind, target, loss=loss, clip_norm=0.05)
    assert_same(begun(step, of), make_batch(of))


def test_what_surrounds_a_step() -> None:
    """Dropout, batch norm, a bound on the gradient, averages, and metrics."""
    of = spec("image")
    model = build("cnn", of, channels=[4], dropout=0.5)
    step = make_step(model, of, {"weight_decay": 0.1}, clip_norm=0.1, ema=0.9)
    for _ in range(3):
        assert_same(begun(step, of), make_batch(of))


class Shared(nn.Module):
    """A head whose matrix is the embedding's: one weight by two names."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding, self.head = nn.Embedding(11, 8), nn.Linear(8, 11)
        self.head.weight = self.embedding.weight

    def forward(self, inputs: Tensor, score: Any = None) -> Tensor:
        features = self.embedding(inputs)
        outputs: Tensor = self.head(features) if score is None else score(features, self.head)
        return outputs


def test_weights_that_are_shared() -> None:
    of = spec("tokens", "next")
    model = build("transformer", of, dim=16, depth=1, num_heads=2, dropout=0.3, tied_embeddings=True)
    for shared in (model, Shared()):
        step = make_step(shared, of, {"weight_decay": 0.1}, ema=0.9)
        assert_same(begun(step, of), make_batch(of))
        assert step.ema is not None
        assert step.ema.weights.keys() == shared.state_dict().keys()


class Twice(nn.Module):
    """A layer that stands in two places, and torch's own recurrent layer."""

    def __init__(self) -> None:
        super().__init__()
        self.first = self.second = nn.LSTM(3, 3, batch_first=True)
        self.head = nn.Linear(3, 3)

    def forward(self, inputs: Tensor) -> Tensor:
        outputs: Tensor = self.head(self.second(self.first(inputs)[0])[0][:, -1])
        return outputs


def test_parts_that_are_shared() -> None:
    of = spec("sequence")
    assert_same(begun(make_step(Twice(), of, {"name": "sgd", "lr": 0.1}, ema=0.9), of), make_batch(of))


def test_weights_that_are_frozen_stay() -> None:
    of = spec("image")
    model = build("cnn", of, channels=[4])
    first = next(model.parameters())
    first.requires_grad_(False)
    step = make_step(model, of, ema=0.9)
    before = first.clone()
    assert_same(begun(step, of), make_batch(of))
    assert torch.equal(first, before)
    assert not any(tensor is first for tensor in FunctionalStep(step).tensors.changed.values())


@pytest.mark.parametrize(("kind", "target"), [("image", "classes"), ("tokens", "next")])
def test_mixed_precision(kind: str, target: str) -> None:
    of = spec(kind, target)
    model = build("cnn" if kind == "image" else "transformer", of)
    step = make_step(model, of, {"name": "sgd", "lr": 0.1}, precision="bf16")
    assert_same(begun(step, of), make_batch(of), rtol=2e-2, atol=2e-3)


@pytest.mark.parametrize("value", [math.nan, math.inf, 1e38])
def test_a_batch_that_is_not_fit_changes_nothing_and_says_so(value: float) -> None:
    """All but the metrics, and the averages, which move towards the weights as they were."""
    of = spec("image")
    step = begun(make_step(build("cnn", of, channels=[4]), of, ema=0.9), of)
    batch = make_batch(of)
    batch.inputs[1, 0, 2, 2] = value
    before = {name: value.clone() for name, value in step.model.state_dict().items()}
    moments = [v.clone() for s in step.optimizer.state.values() for v in s.values()]
    ours, theirs = both_ways(step, batch)
    assert ours["metrics"][2] == theirs["metrics"][2] == 1
    for name, wanted in theirs.items():
        if name not in ("metrics", "metric_sums.sums"):
            torch.testing.assert_close(ours[name], wanted)
        if name.startswith(("weights.", "buffers.")):
            assert torch.equal(ours[name], before[name.split(".", 1)[1]]), name
    kept = [value for name, value in ours.items() if name.startswith("optimizer_state.")]
    assert sorted(float(v.sum()) for v in kept) == sorted(float(v.sum()) for v in moments)
    assert torch.equal(ours["metric_sums.sums"][-1], theirs["metric_sums.sums"][-1])


def test_a_batch_without_any_target_says_so() -> None:
    of = spec("tokens", "next")
    step = begun(make_step(build("rnn", of, hidden_size=8), of), of)
    batch = make_batch(of)
    batch.targets.fill_(-100)
    ours, theirs = both_ways(step, batch)
    assert ours["metrics"][:3].tolist() == theirs["metrics"][:3].tolist() == [0, 0, 0]


def compiled_by_itself() -> Step:
    step = small_step()
    step.model.compile()
    return step


@pytest.mark.filterwarnings("ignore:.*torch.jit.script_method:DeprecationWarning")  # torch's own
@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: small_step(optimizer={"name": "muon"}), "this optimizer has state that is not tensors"),
        (
            lambda: small_step(optimizer={"name": "schedule_free_adamw"}),
            "this optimizer has state that is not tensors",
        ),
        (
            lambda: small_step(optimizer={"name": "adagrad"}),
            "this optimizer has state that is not tensors",
        ),
        (lambda: small_step(precision="fp16"), "fp16 scales its gradients"),
        (lambda: small_step(micro_tokens=64), "batches are bounded by their tokens"),
        (compiled_by_itself, "device.compile=true compiles the model by itself"),
    ],
)
def test_what_cannot_be_is_refused_in_words(make: Callable[[], Step], words: str) -> None:
    with pytest.raises(UntraceableError, match=words):
        FunctionalStep(make())


def test_it_works_on_what_it_is_given_alone() -> None:
    step = begun(small_step(ema=0.9), FEATURES)
    function = FunctionalStep(step)
    everything = function.tensors.flatten()
    before = [tensor.clone() for tensor in everything]
    weights = list(step.model.parameters())
    grads = [p.grad for p in weights]
    options = [dict(group) for group in step.optimizer.param_groups]
    function(copies_of(function.tensors), step_inputs(make_batch(FEATURES), step))
    assert all(torch.equal(old, new) for old, new in zip(before, everything, strict=True))
    assert all(old is new for old, new in zip(weights, step.model.parameters(), strict=True))
    assert all(old is new.grad for old, new in zip(grads, weights, strict=True))
    assert options == [dict(group) for group in step.optimizer.param_groups]
    assert not torch.compiler.is_compiling()
