"""Steps that are compiled here do what eager steps do; what is not known is refused by name."""

from __future__ import annotations

import ctypes
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from bigmodel.data.base import Batch, Block
from bigmodel.engine.compiled import UnknownOperationError
from bigmodel.engine.fixed_shape import step_inputs
from bigmodel.engine.functional_step import FunctionalStep
from bigmodel.engine.native import compiler, recording
from bigmodel.engine.step import Step
from tests.engine.steps import begun, example_of, make_batch, make_step, needs_compiler, small_step
from tests.models.cases import build, spec

pytestmark = needs_compiler

FEATURES = spec("features")
ADAM = {"name": "adam", "lr": 1e-2}
SGD = {"name": "sgd", "lr": 0.1}


def assert_compiled(step: Step, of: Any, folder: Path) -> None:
    """Three steps leave what eager ones leave, and the random numbers after them are the same."""
    function = FunctionalStep(begun(step, of))
    path = folder / "step.so"
    compiler.compile_step(function, step_inputs(make_batch(of), step), path)
    engine = compiler.load(path, step, make_batch(of))
    changed = function.tensors.changed
    for _ in range(3):
        batch = make_batch(of)
        before = {name: tensor.clone() for name, tensor in changed.items()}
        example, start = example_of(step, batch), torch.get_rng_state()
        metrics = engine.run_step(example)
        ended, own = torch.get_rng_state(), {name: tensor.clone() for name, tensor in changed.items()}
        for name, tensor in changed.items():
            tensor.copy_(before[name])
        torch.set_rng_state(start)
        wanted = step.full_batch_step(batch)
        assert torch.equal(ended, torch.get_rng_state()), "as many random numbers were drawn"
        torch.testing.assert_close(metrics, wanted, rtol=2e-5, atol=1e-6)
        for name, right in changed.items():
            message = f"{name}: {{}}".format
            torch.testing.assert_close(own[name], right, rtol=5e-5, atol=2e-6, msg=message)


@pytest.mark.parametrize("activation", ["relu", "leaky_relu", "elu", "gelu", "silu", "tanh", "sigmoid"])
def test_every_activation(activation: str, tmp_path: Path) -> None:
    of = spec("features", "classes")
    model = build("fnn", of, hidden_sizes=[33, 5], activation=activation)
    assert_compiled(make_step(model, of, ADAM), of, tmp_path)


@pytest.mark.parametrize(
    ("name", "kind", "target", "options"),
    [
        ("fnn", "features", "values", {"hidden_sizes": [40, 7]}),
        ("fnn", "features", "flags", {"hidden_sizes": [8], "norm": "batch", "dropout": 0.4}),
        ("fnn", "features", "values", {"hidden_sizes": [8], "norm": "layer"}),
        ("fnn", "categories", "flags", {"hidden_sizes": [8]}),
        ("fnn", "tokens", "classes", {"hidden_sizes": [8], "dropout": 0.3}),
        ("rnn", "sequence", "classes", {"hidden_size": 8, "cell": "gru"}),
        ("rnn", "sequence", "values", {"hidden_size": 8, "cell": "rnn"}),
        ("attention", "sequence", "values", {}),
        ("transformer", "features", "values", {"dim": 16, "depth": 1, "num_heads": 2}),
        ("transformer", "image", "classes", {"dim": 16, "depth": 2, "num_heads": 2, "dropout": 0.2}),
        ("transformer", "tokens", "next", {"dim": 16, "depth": 2, "num_heads": 2, "dropout": 0}),
    ],
)
def test_families_of_models(
    name: str, kind: str, target: str, options: dict[str, Any], tmp_path: Path
) -> None:
    of = spec(kind, target)
    step = make_step(build(name, of, **options), of, SGD, ema=0.9, clip_norm=0.5)
    assert_compiled(step, of, tmp_path)


@pytest.mark.parametrize(
    "optimizer",
    [
        {"name": "adam", "amsgrad": True},
        {"name": "adamw", "weight_decay": 0.1},
        {"name": "sgd", "momentum": 0.9, "nesterov": True},
        {"name": "nadam"},
        {"name": "radam"},
    ],
    ids=lambda options: str(options["name"]),
)
def test_optimizers(optimizer: dict[str, Any], tmp_path: Path) -> None:
    assert_compiled(small_step(optimizer=optimizer), FEATURES, tmp_path)


def test_weights_that_stay_as_they_are(tmp_path: Path) -> None:
    """A norm passes on the gradients of those of its weights that have one."""
    of = spec("features", "values")
    for number, frozen in enumerate([("weight",), ("bias",), ("weight", "bias")]):
        model = build("fnn", of, hidden_sizes=[8], norm="layer")
        for name, parameter in model.named_parameters():
            if name.startswith("norms") and name.endswith(frozen):
                parameter.requires_grad_(False)
        assert_compiled(make_step(model, of, SGD), of, tmp_path / str(number))


def test_many_steps_in_a_call_are_the_same_steps(tmp_path: Path) -> None:
    """To the bit, whether the batches lie together or each has memory of its own."""
    of = spec("features", "values")
    found = []
    for together in (True, False):
        torch.manual_seed(0)
        step = begun(make_step(build("fnn", of, hidden_sizes=[6], dropout=0.5), of, ADAM), of)
        example = make_batch(of)
        compiler.compile_step(FunctionalStep(step), step_inputs(example, step), tmp_path / "step.so")
        engine = compiler.load(tmp_path / "step.so", step, example)
        inputs, targets = (
            torch.randn(42, *example.inputs.shape[1:]),
            torch.randn(42, *example.targets.shape[1:]),
        )
        block = Block(inputs, targets, 6)
        batches = block if together else [Batch(*(part.clone() for part in batch)) for batch in block]
        rates = torch.full((7, 2), 1e-2, dtype=torch.float64)
        metrics = engine.run_steps(batches, rates)
        found.append([metrics, *(p.detach() for p in step.model.parameters())])
    assert all(map(torch.equal, *found))


def test_a_batch_that_is_not_finite_changes_nothing(tmp_path: Path) -> None:
    step = begun(small_step(target="values"), spec("features", "values"))
    function = FunctionalStep(step)
    batch = make_batch(spec("features", "values"))
    compiler.compile_step(function, step_inputs(batch, step), tmp_path / "step.so")
    engine = compiler.load(tmp_path / "step.so", step, batch)
    before = {name: tensor.clone() for name, tensor in function.tensors.changed.items()}
    batch.inputs[2, 1] = torch.nan
    metrics = engine.run_step(step_inputs(batch, step))
    assert metrics[0].isnan()
    assert metrics[2] == 1, "skipped"
    for name, tensor in function.tensors.changed.items():
        assert torch.equal(tensor, before[name]), name


def test_a_class_that_does_not_exist_is_an_error(tmp_path: Path) -> None:
    step, batch = begun(small_step(), FEATURES), make_batch(FEATURES)
    compiler.compile_step(FunctionalStep(step), step_inputs(batch, step), tmp_path / "step.so")
    engine = compiler.load(tmp_path / "step.so", step, batch)
    batch.targets[3] = 10**12
    with pytest.raises(IndexError, match="a token or class is not among those that there are"):
        engine.run_step(step_inputs(batch, step))


def test_an_operation_that_is_not_known_is_named(tmp_path: Path) -> None:
    of = spec("image", "classes")
    step = begun(make_step(build("cnn", of, channels=[4]), of), of)
    inputs, random = step_inputs(make_batch(of), step), torch.get_rng_state()
    with pytest.raises(UnknownOperationError, match=r"aten\.convolution\.default"):
        compiler.compile_step(FunctionalStep(step), inputs, tmp_path / "step.so")
    assert torch.equal(random, torch.get_rng_state())
    assert not list(tmp_path.iterdir())


def test_a_recording_keeps_no_more_than_it_may(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    step = begun(small_step(), FEATURES)
    monkeypatch.setattr(recording, "MAX_BYTES", 1000)
    with pytest.raises(UnknownOperationError, match="more than fits"):
        compiler.compile_step(
            FunctionalStep(step), step_inputs(make_batch(FEATURES), step), tmp_path / "step.so"
        )


def test_a_compiler_that_fails_says_why(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match=r"failed: .*error"):
        compiler.build("this is not C++", tmp_path / "step.so")
    assert not list(tmp_path.iterdir())


def test_several_threads_are_left_to_others(monkeypatch: pytest.MonkeyPatch) -> None:
    step = begun(small_step(), FEATURES)
    inputs = step_inputs(make_batch(FEATURES), step)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)
    assert compiler.accepts(FunctionalStep(step), inputs)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    assert not compiler.accepts(FunctionalStep(step), inputs)


def test_what_something_else_than_torch_computes_is_not_taken_for_nothing(tmp_path: Path) -> None:
    """Its memory is written behind the recording's back."""
    of = spec("features", "values")
    step = begun(make_step(build("fnn", of, hidden_sizes=[6]), of), of)
    forward = step.model.forward

    def elsewhere(inputs: torch.Tensor) -> torch.Tensor:
        written = torch.empty_like(inputs)
        numpy_view(written)[...] = 1.0
        outputs: torch.Tensor = forward(inputs * written)
        return outputs

    step.model.forward = elsewhere  # type: ignore[method-assign]
    inputs = step_inputs(make_batch(of), step)
    with pytest.raises(UnknownOperationError, match="something other than torch"):
        compiler.compile_step(FunctionalStep(step), inputs, tmp_path / "step.so")


def numpy_view(tensor: torch.Tensor) -> Any:
    """The same memory, without torch."""
    numbers = (ctypes.c_float * tensor.numel()).from_address(tensor.data_ptr())
    return np.frombuffer(numbers, dtype=np.float32)
