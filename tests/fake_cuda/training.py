"""Whole runs on the fake device: every model on the kinds of data that it can read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from bigmodel import registry
from bigmodel.training.loop import fit
from bigmodel.training.run import Run
from tests.fake_cuda.device import device
from tests.fake_cuda.kinds import KINDS, data_of
from tests.small_runs import built

WAITS = {
    "engine.step_metrics._fetched": "what steps gave, when a line is due",
    "training.records.make_record": "the gradient's norm, for a record",
    "metrics.sums.Metrics.compute": "metrics, for a record and at an evaluation's end",
    "training.evaluation._result": "the loss and the confusion matrix, at an evaluation's end",
    "training.state.State.load_model": "the best weights, once training is over",
    "training.outputs.model_outputs": "outputs of the validation set, once training is over",
    "data.preprocessing.Preprocessing.scaling": "what scales stored inputs, before these",
    "training.evaluation._samples": "predictions that a report shows",
    "training.evaluation._shown": "inputs that a report shows",
    "training.state.State._check_finite": "before a model is judged or saved",
    "training.state.State.save": "numbers of a checkpoint",
    "checkpointing.saver.Saver._copied": "copies for a checkpoint, which are queued",
    "models.generation.decoding.DecodingBatch._set_logits": "the next token, when a text is written",
}
"""Where the host may wait for the device while a run goes on, and for what."""

FIRST = {"optim.optimizers.masked.step_on_device": "whether an optimizer begins to keep its state"}
"""Where the host may wait within a run's first step."""

SMALL: dict[str, dict[str, Any]] = {
    "attention": {"name": "attention", "dim": 8},
    "cnn": {"name": "cnn", "channels": [4, 8]},
    "fnn": {"name": "fnn", "hidden_sizes": [8]},
    "fusion": {"name": "fusion", "dim": 8, "num_heads": 2},
    "rnn": {"name": "rnn", "hidden_size": 8, "num_layers": 2, "dropout": 0.1},
    "transformer": {"name": "transformer", "dim": 16, "depth": 2, "num_heads": 2},
}

MIXED = {"bf16": torch.bfloat16, "fp16": torch.float16}
OPTIONS: tuple[dict[str, Any], ...] = (
    {},
    {"trainer.clip_norm": 1.0, "trainer.ema": 0.9},
    {"trainer.accumulate": 2, "trainer.clip_norm": 1.0},
    {"data.on_device": False, "trainer.ema": 0.9},
    {"data.on_device": False, "trainer.accumulate": 2},
)
"""What else a run may be told to do; each pair of model and kind of data gets one in turn."""

READERS = {
    "features": {"attention", "fnn", "transformer"},
    "values": {"fnn"},
    "flags": {"fnn"},
    "digits": {"cnn", "fnn"},
    "text": {"rnn", "transformer"},
    "packed": {"transformer"},
    "padded": {"rnn", "transformer"},
    "chat": {"transformer"},
    "pairs": {"transformer"},
    "several": {"fusion"},
}
"""Kinds of data that not all models are tried on; the rest read none of it, or much the same."""


PRODUCTS = (nn.Linear, nn.Conv1d, nn.Conv2d)
RECURRENT = {"bf16": torch.float32, "fp16": torch.float16}  # cuDNN has no bf16 everywhere


def combinations() -> list[Any]:
    """Each model with each kind of inputs, in one number format and with one of the options."""
    found = []
    for place, model in enumerate(SMALL):
        for turn, kind in enumerate(KINDS, start=place):
            if model in READERS.get(kind, SMALL):
                precision, option = list(MIXED)[turn % len(MIXED)], turn % len(OPTIONS)
                name = f"{model}-{kind}-{precision}-{option}"
                found.append(pytest.param(model, kind, precision, OPTIONS[option], id=name))
    return found


def settings_of(folder: Path, kind: str, precision: str, more: dict[str, Any]) -> dict[str, Any]:
    return {
        "data": data_of(kind, folder),
        "device": {"name": "cuda", "precision": precision, "engine": "eager"},
        "trainer.max_steps": 2,
        "trainer.limit": {"val": 1},
        **more,
    }


def watched(run: Run) -> dict[str, set[torch.dtype]]:
    """The number formats of what a model's layers give while it trains: products, and recurrent ones."""
    seen: dict[str, set[torch.dtype]] = {"products": set(), "recurrent": set()}

    def note(module: nn.Module, _inputs: Any, outputs: Tensor) -> None:
        if module.training:
            seen["products" if isinstance(module, PRODUCTS) else "recurrent"].add(outputs.dtype)

    for module in run.state.model.modules():
        if isinstance(module, (*PRODUCTS, nn.RNNBase)):
            module.register_forward_hook(note)
    return seen


def tensors_of(run: Run) -> dict[str, Tensor]:
    """All that a step reads and writes, by name."""
    model, optimizer, ema = run.state.model, run.state.optimizer, run.state.ema
    kept = {f"{n} of {k}": v for k, s in enumerate(optimizer.state.values()) for n, v in s.items()}
    gradients = {f"gradient of {n}": p.grad for n, p in model.named_parameters()}
    averages = {} if ema is None else {f"average of {n}": v for n, v in ema.weights.items()}
    sums = {"sums": run.step.metrics.sums}
    found = model.state_dict() | gradients | kept | averages | sums
    return {name: value for name, value in found.items() if isinstance(value, Tensor)}


def check_waits(begun: bool = False) -> None:
    """The host has waited where it may, and nowhere else; within no step, but for the first of a run."""
    first = 0 if begun else 1
    assert {wait.place for wait in device.waits if wait.step == 0} <= WAITS.keys()
    assert {wait.place for wait in device.waits if wait.step == first} - WAITS.keys() <= FIRST.keys()
    assert [wait for wait in device.waits if wait.step > first] == []


def trained(folder: Path, settings: dict[str, Any]) -> Run:
    """A run that was fitted, and did nothing on the way that a GPU would not take."""
    run, told = built(folder, settings)
    seen = watched(run)
    device.waits.clear()
    assert fit(run).status == "finished", told.messages
    check_waits()
    assert any(seen.values())
    assert seen["products"] <= {MIXED[run.runtime.precision]}
    assert seen["recurrent"] <= {RECURRENT[run.runtime.precision]}
    for name, tensor in tensors_of(run).items():
        assert tensor.is_cuda or tensor.dim() == 0, f"{name} is on {tensor.device}"
        exact = name == "sums" or not tensor.is_floating_point()
        assert exact or tensor.dtype == torch.float32, f"{name} is {tensor.dtype}"
    return run


@pytest.mark.parametrize(("model", "kind", "precision", "more"), combinations())
def test_every_model_on_every_kind_of_data(
    tmp_path: Path, model: str, kind: str, precision: str, more: dict[str, Any]
) -> None:
    trained(tmp_path, settings_of(tmp_path, kind, precision, {"model": SMALL[model], **more}))


@pytest.mark.parametrize("precision", MIXED)
def test_packed_texts_are_attended_to_one_by_one(tmp_path: Path, precision: str) -> None:
    more = {"model": SMALL["transformer"] | {"dropout": 0.0}}
    trained(tmp_path, settings_of(tmp_path, "packed", precision, more))


@pytest.mark.parametrize("precision", MIXED)
def test_frozen_parts_in_fewer_bits(tmp_path: Path, precision: str) -> None:
    frozen = {"freeze": ["embedding", "blocks.0"], "frozen_precision": "int8"}
    more = {"model": SMALL["transformer"] | {"dim": 128} | frozen, "optimizer.layer_decay": 0.5}
    run = trained(tmp_path, settings_of(tmp_path, "text", precision, more))
    weight = run.state.model.get_parameter("blocks.0.attention.qkv.weight")
    assert (weight.dtype, weight.device.type) == (torch.int8, "cuda")


def test_no_model_is_left_out() -> None:
    assert SMALL.keys() == set(registry.models.names())
