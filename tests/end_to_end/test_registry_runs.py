"""Whatever is registered trains with whatever it fits: a new entry arrives tested.

Each run does two steps with an evaluation after each, saves, and comes back equal from its checkpoint.
"""

from copy import deepcopy
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from bigmodel import registry
from bigmodel.build.resumed_run import resume_run
from bigmodel.checkpointing.serialization import TensorGroups
from bigmodel.errors import SpecError
from bigmodel.metrics import metric_names
from bigmodel.training import calibration, loop
from bigmodel.training.run import Run
from tests.small_runs import built

Saved = tuple[TensorGroups, dict[str, Any]]
"""A state, as `State.save` gives it."""

TWO_STEPS = {
    "trainer": {
        "max_steps": 2,
        "eval_every_steps": 1,
        "tensorboard": False,
        "limit": {"train": 2, "val": 1},
    }
}
SMALL = {"name": "synthetic", "samples": 40, "batch_size": 8}
DATA: dict[str, dict[str, Any]] = {
    **{name: {"name": name, "batch_size": 8} for name in ("digits", "iris", "wine", "breast_cancer")},
    "diabetes": {"name": "diabetes", "batch_size": 8},
    "features": SMALL | {"input": "features", "shape": [6], "target": "flags", "outputs": 2},
    "image": SMALL | {"input": "image", "shape": [3, 4, 8], "target": "classes", "outputs": 3},
    "image to values": SMALL | {"input": "image", "shape": [1, 4, 4], "outputs": 2},
    "sequence": SMALL | {"input": "sequence", "shape": [5, 3]},
    "sequence to classes": SMALL
    | {"input": "sequence", "shape": [5, 3], "target": "classes", "outputs": 7},
    "tokens": SMALL | {"input": "tokens", "shape": [6], "target": "flags"},
    "tokens to classes": SMALL | {"input": "tokens", "shape": [6], "target": "classes", "outputs": 2},
}
TABLES = {"iris", "wine", "breast_cancer", "diabetes", "features"}
NEED_AN_ORDER = {"cnn", "rnn"}
OPTIONS: dict[str, list[dict[str, Any]]] = {
    "fnn": [{"norm": "batch", "dropout": 0.5}, {"norm": "layer", "hidden_sizes": []}],
    "cnn": [
        {"channels": [8, 8, 8, 16], "residual": True},
        {"channels": [8, 8, 8, 16], "pooling": "avg", "readout": "flatten", "kernel_sizes": [5]},
    ],
    "rnn": [
        {"cell": "lstm", "num_layers": 2, "bidirectional": True, "dropout": 0.5},
        {"cell": "rnn", "readout": "mean", "fused": False},
    ],
    "attention": [{"score": "additive", "position": "sinusoidal"}, {"score": "general"}],
    "transformer": [
        {"position": "rotary", "norm": "rmsnorm", "activation": "swiglu", "num_kv_heads": 1},
        {"causal": True, "norm_first": False, "position": "sinusoidal"},
    ],
}


def train(folder: Path, settings: dict[str, Any]) -> Saved:
    """Two steps, with all that belongs to them. Gives the state after them: then the best weights are
    loaded, to calibrate and to test."""
    run, told = built(folder, TWO_STEPS | settings)
    states: list[Saved] = []

    def calibrate(run: Run) -> None:
        states.append(deepcopy(run.state.save()))
        calibration.write_calibration(run)

    before = {name: p.detach().clone() for name, p in run.state.model.named_parameters()}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "calibration", SimpleNamespace(write_calibration=calibrate))
        summary = loop.fit(run)
    assert summary.status == "finished"
    assert [record["step"] for record in told.records] == [1, 2]
    names = [f"val/{name}" for name in metric_names(run.dataset.spec.target)]
    assert all(name in record for record in told.records for name in names)
    assert all(torch.tensor(list(record.values())).isfinite().all() for record in told.records)
    moved = [n for n, p in run.state.model.named_parameters() if not torch.equal(p, before[n])]
    assert moved != []
    return states[0]


def comes_back_equal(left: Saved, folder: Path, settings: dict[str, Any]) -> None:
    """Another run, begun with other weights, that takes over the checkpoint is in the same state."""
    fresh, _ = built(folder, TWO_STEPS | settings | {"seed": 1})
    again = resume_run(fresh)
    (groups, facts), (expected, expected_facts) = again.state.save(), left
    for volatile in (facts, expected_facts):
        volatile["progress"].pop("seconds")
    assert facts == expected_facts
    for name, tensors in expected.items():
        if name != "random":  # the process has but one of these, whichever run is asked
            assert groups[name].keys() == tensors.keys()
            assert all(torch.equal(groups[name][key], value) for key, value in tensors.items()), name


@pytest.mark.parametrize("data", DATA)
@pytest.mark.parametrize("model", registry.models.names())
def test_every_model_trains_on_all_that_it_can_read(tmp_path: Path, model: str, data: str) -> None:
    settings = {"model": model, "data": DATA[data]}
    if model in NEED_AN_ORDER and data in TABLES:
        with pytest.raises(SpecError, match=f"model={model} cannot read data={DATA[data]['name']}"):
            built(tmp_path, settings)
        return
    comes_back_equal(train(tmp_path, settings), tmp_path, settings)


@pytest.mark.parametrize("data", ["image", "sequence", "tokens to classes"])
@pytest.mark.parametrize(
    ("model", "options"), [(name, some) for name, all_ in OPTIONS.items() for some in all_], ids=str
)
def test_options_train_too(tmp_path: Path, model: str, options: dict[str, Any], data: str) -> None:
    settings = {"model": {"name": model} | options, "data": DATA[data]}
    comes_back_equal(train(tmp_path, settings), tmp_path, settings)


@pytest.mark.parametrize("scheduler", registry.schedulers.names())
@pytest.mark.parametrize("optimizer", registry.optimizers.names())
def test_every_optimizer_trains_with_every_scheduler(
    tmp_path: Path, optimizer: str, scheduler: str
) -> None:
    settings = {"optimizer": optimizer, "scheduler": scheduler, "model.hidden_sizes": [4, 4]}
    comes_back_equal(train(tmp_path, settings), tmp_path, settings)


@pytest.mark.parametrize("loss", registry.losses.names())
def test_every_loss_trains_on_its_own_kind_of_target(tmp_path: Path, loss: str) -> None:
    kinds = {"cross_entropy": "classes", "bce_with_logits": "flags", "auto": "classes"}
    data = SMALL | {"shape": [5], "target": kinds.get(loss, "values"), "outputs": 3}
    settings = {"loss": loss, "data": data}
    comes_back_equal(train(tmp_path, settings), tmp_path, settings)
