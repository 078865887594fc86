"""A step as a graph of torch's operations gives what the step gives; what cannot be is refused."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from bigmodel.engine.compiler import trace
from bigmodel.engine.fixed_shape import step_inputs
from bigmodel.engine.functional_step import FunctionalStep, UntraceableError
from bigmodel.engine.step import Step
from bigmodel.losses import chunked, cross_entropy
from tests.engine.steps import (
    begun,
    copies_of,
    example_of,
    make_batch,
    make_step,
    small_step,
    tensors_of,
)
from tests.models.cases import build, spec

# Torch's own, where its tracer is loaded.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")

FEATURES = spec("features")


def assert_traced(step: Step, of: Any) -> None:
    """Twice, with other batches than the one that it was traced with: nothing of that is left in it."""
    function = FunctionalStep(begun(step, of))
    random, own = torch.get_rng_state(), tensors_of(step.model)
    graph = trace(function, step_inputs(make_batch(of), step))
    assert tensors_of(step.model) == own, "the model has its own back"
    torch.set_rng_state(random)
    for _ in range(2):
        batch = make_batch(of)
        example, start = example_of(step, batch), torch.get_rng_state()
        copies = copies_of(function.tensors)
        (metrics,) = graph(*copies.flatten(), *example)
        torch.set_rng_state(start)
        wanted = step.full_batch_step(batch)
        torch.testing.assert_close(metrics, wanted, rtol=2e-5, atol=1e-6)
        for name, right in function.tensors.changed.items():
            message = f"{name}: {{}}".format
            # Eager products may be another library's: at a magnitude near 1, ten roundings.
            torch.testing.assert_close(copies.changed[name], right, rtol=2e-5, atol=2e-6, msg=message)


@pytest.mark.parametrize(
    ("name", "kind", "target", "options"),
    [
        ("fnn", "tokens", "classes", {"dropout": 0.3, "hidden_sizes": [8]}),
        ("fnn", "categories", "flags", {"hidden_sizes": [8], "norm": "batch"}),
        ("cnn", "image", "classes", {"channels": [4], "dropout": 0.3}),
        ("rnn", "padded", "classes", {"hidden_size": 8, "bidirectional": True, "dropout": 0.3}),
        ("rnn", "tokens", "next", {"hidden_size": 8, "cell": "lstm"}),
        ("attention", "sequence", "values", {}),
        ("transformer", "padded", "classes", {"dim": 16, "depth": 1, "num_heads": 2, "dropout": 0.3}),
        ("transformer", "tokens", "next", {"dim": 16, "depth": 2, "num_heads": 2, "position": "rotary"}),
        ("transformer", "pair", "next", {"dim": 16, "depth": 1, "num_heads": 2}),
    ],
)
def test_every_family_of_models(name: str, kind: str, target: str, options: dict[str, Any]) -> None:
    of = spec(kind, target)
    assert_traced(make_step(build(name, of, **options), of, {"name": "sgd", "lr": 0.1}, ema=0.9), of)


@pytest.mark.parametrize(
    "optimizer",
    [
        {"name": "adam", "amsgrad": True},
        {"name": "adamw", "weight_decay": 0.1},
        {"name": "sgd", "momentum": 0.9, "nesterov": True},
        {"name": "rmsprop", "centered": True},
        {"name": "nadam"},
        {"name": "radam"},
    ],
    ids=lambda options: str(options["name"]),
)
def test_every_optimizer_over_counters_that_go_on(optimizer: dict[str, Any]) -> None:
    step = small_step(optimizer=optimizer, clip_norm=0.1)
    assert_traced(step, FEATURES)
    assert_traced(begun(step, FEATURES, 6), FEATURES)


def test_what_looks_at_values_is_refused_in_words() -> None:
    step = begun(small_step(), FEATURES)
    forward = step.model.forward

    def looking(inputs: Tensor) -> Tensor:
        outputs: Tensor = forward(inputs if inputs.sum() > 0 else -inputs)
        return outputs

    step.model.forward = looking  # type: ignore[method-assign]
    with pytest.raises(UntraceableError, match=r"it cannot be traced \(.+\)"):
        trace(FunctionalStep(step), step_inputs(make_batch(FEATURES), step))


def test_a_tensor_that_nobody_knows_of_is_refused_in_words() -> None:
    """It could change from step to step, and the code would not see it."""
    step = begun(small_step(), FEATURES)
    forward, hidden = step.model.forward, torch.ones(4)

    def keeping(inputs: Tensor) -> Tensor:
        outputs: Tensor = forward(inputs * hidden)
        return outputs

    step.model.forward = keeping  # type: ignore[method-assign]
    with pytest.raises(
        UntraceableError, match="it stores a tensor that is neither a parameter nor a buffer"
    ):
        trace(FunctionalStep(step), step_inputs(make_batch(FEATURES), step))


def test_a_loss_whose_logits_come_in_pieces_is_traced(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cross_entropy, "_MANY_LOGITS", 1)
    monkeypatch.setattr(chunked, "POSITIONS", 16)
    of = spec("tokens", "next")
    model = build("transformer", of, dim=16, depth=1, num_heads=2)
    assert_traced(make_step(model, of, {"name": "sgd", "lr": 0.1}), of)
