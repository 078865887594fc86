"""Parts of the user's own, written as people write them: used rightly, or refused in one message."""

import random
import sys
import threading
from collections.abc import Callable, Iterator
from copy import deepcopy
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bigmodel import registry
from bigmodel.build.custom_parts import try_parts
from bigmodel.data.assemble import assemble
from bigmodel.data.base import DataConfig, Dataset
from bigmodel.data.parts import Part
from bigmodel.errors import BigModelError, CheckpointError, ConfigError
from bigmodel.models.base import Model
from bigmodel.optim.optimizers.base import OptimizerConfig
from bigmodel.optim.schedulers.base import Scheduler, SchedulerConfig
from bigmodel.registry import EntryConfig
from bigmodel.spec import Classes, DataSpec, Features, Values
from bigmodel.training.evaluation import evaluate
from bigmodel.training.loop import fit
from bigmodel.training.run import Run
from tests.small_runs import built

SGD = {"optimizer": "sgd", "optimizer.momentum": 0.0, "optimizer.lr": 0.05}
VALUES = {"data.target": "values", "data.outputs": 2}
FLAGS = {"data.target": "flags", "data.outputs": 2}
WEIGHTS = [3.0, 1.0, 0.25]
CONFIGS = {
    "model": EntryConfig,
    "data": DataConfig,
    "loss": EntryConfig,
    "optimizer": OptimizerConfig,
    "scheduler": SchedulerConfig,
}
Own = Callable[..., dict[str, Any]]


@pytest.fixture
def own() -> Iterator[Own]:
    """Registers something as a plugin does, and gives the settings that choose it."""
    kinds = []

    def register(kind: str, factory: Any) -> dict[str, Any]:
        registry.REGISTRIES[kind].register("my_own", CONFIGS[kind])(factory)
        kinds.append(kind)
        chosen: Any = {"name": "my_own"} if kind == "data" else "my_own"
        return {kind: chosen}

    yield register
    for kind in kinds:
        del registry.REGISTRIES[kind]._entries["my_own"]


class Summing(nn.Module):
    def __init__(self, config: EntryConfig, spec: Any) -> None:  # noqa: ARG002
        super().__init__()

    def forward(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return F.cross_entropy(outputs, targets, reduction="sum")


class Averaging(Summing):
    def forward(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return F.cross_entropy(outputs, targets)


class SayingSo(Averaging):
    reduction = "mean"


class Each(Summing):
    def forward(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return F.cross_entropy(outputs, targets, reduction="none")


class OursAveraging(registry.losses.entry("mse").factory):  # type: ignore[misc]
    reduction = "mean"

    def total(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return F.mse_loss(outputs, targets)


def weighed(**options: Any) -> Callable[..., nn.Module]:
    return lambda config, spec: nn.CrossEntropyLoss(torch.tensor(WEIGHTS), **options)  # noqa: ARG005


ACCEPTED: dict[str, tuple[Any, dict[str, Any], dict[str, Any]]] = {
    "a sum": (Summing, {}, {"loss": "cross_entropy"}),
    "a mean that says so": (SayingSo, {}, {"loss": "cross_entropy"}),
    "a loss of each sample": (Each, {}, {"loss": "cross_entropy"}),
    "torch's": (lambda config, spec: nn.CrossEntropyLoss(), {}, {"loss": "cross_entropy"}),  # noqa: ARG005
    "torch's, weighted": (
        weighed(),
        {},
        {"loss": {"name": "cross_entropy", "class_weights": WEIGHTS}},
    ),
    "torch's, weighted and smooth": (
        weighed(label_smoothing=0.2),
        {},
        {"loss": {"name": "cross_entropy", "class_weights": WEIGHTS, "label_smoothing": 0.2}},
    ),
    "torch's, each sample": (
        lambda config, spec: nn.HuberLoss("none", delta=0.5),  # noqa: ARG005
        VALUES,
        {"loss": {"name": "huber", "delta": 0.5}},
    ),
    "torch's, of values": (
        lambda config, spec: nn.HuberLoss(delta=0.5),  # noqa: ARG005
        VALUES,
        {"loss": {"name": "huber", "delta": 0.5}},
    ),
    "torch's, of flags": (
        lambda config, spec: nn.BCEWithLogitsLoss(),  # noqa: ARG005
        FLAGS,
        {"loss": "bce_with_logits"},
    ),
    "a function": (
        lambda config, spec: lambda o, t: (o - t).abs().sum(),  # noqa: ARG005
        VALUES,
        {"loss": "l1"},
    ),
    "one of ours, averaged": (OursAveraging, VALUES, {"loss": "mse"}),
    "means of each sample": (
        lambda config, spec: lambda o, t: (o - t).abs().mean(1),  # noqa: ARG005
        VALUES,
        {"loss": "l1"},
    ),
}


@pytest.mark.parametrize("case", ACCEPTED)
@pytest.mark.parametrize("pieces", [{}, {"data.batch_size": 7, "trainer.accumulate": 4}], ids=str)
def test_a_loss_of_one_s_own_trains_as_ours_of_that_formula(
    own: Own, tmp_path: Path, case: str, pieces: dict[str, Any]
) -> None:
    """Micro-batches are uneven, and evaluations too; weights make the mean one over weights."""
    factory, data, ours = ACCEPTED[case]
    runs = [built(tmp_path, {**SGD, **data, **pieces, **loss}) for loss in (own("loss", factory), ours)]
    for run, _ in runs:
        fit(run)
    (mine, told), (theirs, expected) = runs
    for name, value in theirs.state.model.state_dict().items():
        torch.testing.assert_close(mine.state.model.state_dict()[name], value, rtol=1e-5, atol=1e-6)
    for got, wanted in zip(told.records, expected.records, strict=True):
        assert got["train/loss"] == pytest.approx(wanted["train/loss"], rel=1e-5)
        assert got["val/loss"] == pytest.approx(wanted["val/loss"], rel=1e-5)
    assert warnings_of(mine) == []


def warnings_of(run: Run) -> list[str]:
    return [text for label, text in run.info.rows if label == "Warning"]


@pytest.mark.parametrize("cut", [1, 3, 16])
def test_an_evaluation_s_loss_does_not_depend_on_how_it_is_cut(
    own: Own, tmp_path: Path, cut: int
) -> None:
    run, _ = built(tmp_path, own("loss", weighed()))
    losses = [
        evaluate(
            *(run.state.model, run.val, run.loss, run.val_metrics, run.runtime, run.dataset),
            at_once=size,
        ).metrics["loss"]
        for size in (None, cut)
    ]
    assert losses[1] == pytest.approx(losses[0], rel=1e-5)


@pytest.mark.parametrize(
    "loss", [nn.CrossEntropyLoss(), nn.CrossEntropyLoss(reduction="none")], ids=["mean", "each"]
)
def test_of_tokens_torch_s_loss_is_ours(own: Own, tmp_path: Path, loss: nn.Module) -> None:
    """Rows of text of unequal lengths: what fills them up counts nowhere."""
    rows = "".join(f"{'ab' * n},{'ba' * (n + 1)}\n" for n in range(1, 9)) * 4
    (tmp_path / "pairs.csv").write_text("source,target\n" + rows)
    text = {
        "data": {
            "name": "pairs",
            "path": str(tmp_path / "pairs.csv"),
            "vocab_size": 270,
            "source": "source",
            "target": "target",
            "batch_size": 8,
            "bleu_pairs": 0,
        },
        "model": {"name": "transformer", "dim": 8, "num_heads": 2, "depth": 1, "dropout": 0.0},
        "trainer.accumulate": 2,
        "optimizer": "sgd",
        "optimizer.momentum": 0.0,
    }
    chosen = (own("loss", lambda config, spec: loss), {"loss": "cross_entropy"})  # noqa: ARG005
    records = []
    for settings in chosen:
        run, told = built(tmp_path, {**text, **settings})
        fit(run)
        records.append(told.records)
    for got, wanted in zip(*records, strict=True):
        assert got["train/loss"] == pytest.approx(wanted["train/loss"], rel=1e-5)
        assert got["val/loss"] == pytest.approx(wanted["val/loss"], rel=1e-5)


class Trainable(Summing):
    def __init__(self, config: EntryConfig, spec: Any) -> None:
        super().__init__(config, spec)
        self.temperature = nn.Parameter(torch.ones(()))


class InPlace(Summing):
    def forward(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return super().forward(outputs.sub_(outputs.amax()), targets)


def of(loss: Callable[[Tensor, Tensor], Any]) -> Callable[..., Any]:
    return lambda config, spec: loss  # noqa: ARG005


class Broadcasting(nn.Module):
    reduction = "mean"

    def forward(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return (outputs.squeeze() - targets).square().mean()


class Lying(Summing):
    reduction = "mean"


class Odd(Averaging):
    reduction = "average"


LOSSES: dict[str, tuple[Any, dict[str, Any], list[str]]] = {
    "a mean": (Averaging, {}, ["it returns the mean of a batch", 'reduction = "mean"']),
    "a mean, by a function": (of(F.cross_entropy), {}, ["it returns the mean of a batch"]),
    "a sum that is called a mean": (Lying, {}, ['reduction = "sum"']),
    "an unknown reduction": (Odd, {}, ["'average'", "Allowed: 'sum', 'mean', 'none'"]),
    "all against all": (
        of(lambda o, t: (o[:, 0] - t).square().mean()),
        VALUES | {"data.outputs": 1},
        ["neither the sum nor the mean", "outputs (16, 1), targets (16, 1)"],
    ),
    "all against all, said to be a mean": (
        lambda config, spec: Broadcasting(),  # noqa: ARG005
        VALUES | {"data.outputs": 1},
        ["the same value for any order of the targets", "outputs (16, 1), targets (16, 1)", "squeeze()"],
    ),
    "a mean that is 0 at first": (
        of(lambda o, t: F.relu((o - t).abs() - 20).mean()),
        VALUES,
        ["it returns the mean of a batch"],
    ),
    "a tiny mean": (
        of(lambda o, t: 1e-9 * (o - t).abs().mean()),
        VALUES,
        ["it returns the mean of a batch"],
    ),
    "torch's, of classes": (
        of(nn.MSELoss()),
        {"data.outputs": 3, "data.batch_size": 2},
        ["fails on outputs of shape (16, 3) and targets of shape (16,)"],
    ),
    "a tuple": (of(lambda o, t: (F.cross_entropy(o, t), {})), {}, ["it returned a tuple"]),
    "a number": (of(lambda o, t: F.cross_entropy(o, t).item()), {}, ["it returned a float"]),
    "one of a shape": (
        of(lambda o, t: F.cross_entropy(o, t, reduction="sum").reshape(1)),
        {},
        ["it gives shape (1,) for targets of shape (16,)"],
    ),
    "no gradient": (
        of(lambda o, t: (o.argmax(1) != t).float().sum()),
        {},
        ["no gradient", "argmax"],
    ),
    "in place": (InPlace, {}, ["changes its outputs or targets in place"]),
    "NaN": (
        of(lambda o, t: (o.square().neg().log().sum(1) * t).sum()),
        {},
        ["it is nan for outputs of shape (16, 3)"],
    ),
    "one argument": (of(lambda o: o.sum()), {}, ["TypeError"]),
    "parameters": (
        Trainable,
        {},
        ["no optimizer trains", "register_buffer", ".requires_grad_(False)"],
    ),
    "no loss": (lambda config, spec: None, {}, ["it returned a NoneType"]),  # noqa: ARG005
    "outputs and targets": (
        F.cross_entropy,
        {},
        ["torch.nn.functional.cross_entropy failed: TypeError", "(config, spec)"],
    ),
    "torch's class": (nn.CrossEntropyLoss, {}, ["failed", "CrossEntropyLoss(config, spec)"]),
    "a partial": (partial(nn.HuberLoss, delta=2.0), {}, ["failed", "partial(config, spec)"]),
    "no arguments": (lambda: nn.CrossEntropyLoss(), {}, ["TypeError", "(config, spec)"]),
}


@pytest.mark.parametrize("case", LOSSES)
def test_a_loss_that_would_train_something_else_is_refused(own: Own, tmp_path: Path, case: str) -> None:
    factory, settings, parts = LOSSES[case]
    refused({**settings, **own("loss", factory)}, tmp_path, "loss=my_own", parts)


def refused(settings: dict[str, Any], folder: Path, key: str, parts: list[str]) -> None:
    with pytest.raises(ConfigError) as caught:
        built(folder, settings)
    told = str(caught.value)
    assert told.startswith((f"{key}: ", f"{key}, in training mode: "))
    assert "\n" not in told
    for part in parts:
        assert part in told


def test_a_mean_over_something_else_is_told(own: Own, tmp_path: Path) -> None:
    class OverBatch(Averaging):
        reduction = "mean"

        def forward(self, outputs: Tensor, targets: Tensor) -> Tensor:
            return super().forward(outputs - outputs.mean(0), targets)

    run, _ = built(tmp_path, own("loss", OverBatch))
    (told,) = warnings_of(run)
    assert "depend on how the data is batched" in told
    assert "normaliser(targets)" in told


class Plain(nn.Module):
    """A network as people write it, which knows nothing of ours."""

    def __init__(self, config: EntryConfig, spec: Any) -> None:  # noqa: ARG002
        super().__init__()
        self.layer = nn.Linear(5, 3)
        self.activations = [nn.ReLU()]  # has nothing to train

    def forward(self, inputs: Tensor) -> Any:
        return self.layer(inputs)


def test_a_plain_network_trains(own: Own, tmp_path: Path) -> None:
    run, told = built(tmp_path, own("model", Plain) | {"trainer.epochs": 30, "optimizer.lr": 0.05})
    fit(run)
    assert told.records[-1]["val/accuracy"] > 0.8
    assert warnings_of(run) == []


def test_a_network_that_finds_its_sizes_itself_trains(own: Own, tmp_path: Path) -> None:
    class Lazy(Plain):
        def __init__(self, config: EntryConfig, spec: Any) -> None:
            super().__init__(config, spec)
            self.layer = nn.Sequential(nn.LazyBatchNorm1d(), nn.LazyLinear(3))  # type: ignore[assignment]

    run, told = built(tmp_path, own("model", Lazy))
    fit(run)
    assert len(told.records) == 2
    assert warnings_of(run) == []


class Listed(Plain):
    def __init__(self, config: EntryConfig, spec: Any) -> None:
        super().__init__(config, spec)
        self.more = [nn.Linear(5, 5)]

    def forward(self, inputs: Tensor) -> Any:
        return super().forward(self.more[0](inputs))


class ListedInTraining(Listed):
    def forward(self, inputs: Tensor) -> Any:
        return super().forward(inputs) if self.training else self.layer(inputs)


class Auxiliary(Plain):
    def forward(self, inputs: Tensor) -> Any:
        outputs = super().forward(inputs)
        return (outputs, outputs) if self.training else outputs


class SqueezedAll(Plain):
    def forward(self, inputs: Tensor) -> Any:
        return super().forward(inputs).squeeze()


class InPlaceModel(Plain):
    def forward(self, inputs: Tensor) -> Any:
        inputs -= 1.0
        return super().forward(inputs)


class Squeezed(Plain):
    def forward(self, inputs: Tensor) -> Any:
        return super().forward(inputs)[:, 0]


class Tupled(Plain):
    def forward(self, inputs: Tensor) -> Any:
        return super().forward(inputs), None


class Labels(Plain):
    def forward(self, inputs: Tensor) -> Any:
        return F.one_hot(super().forward(inputs).argmax(1), 3).float()


class Narrow(Plain):
    def __init__(self, config: EntryConfig, spec: Any) -> None:
        super().__init__(config, spec)
        self.layer = nn.Linear(4, 3)


class Uninitialised(nn.Module):
    def __init__(self, config: EntryConfig, spec: Any) -> None:  # noqa: ARG002
        self.layer = nn.Linear(5, 3)


class Squared(Plain):
    def forward(self, inputs: Tensor) -> Any:
        return super().forward(inputs @ inputs)


class Empty(nn.Module):
    def __init__(self, config: EntryConfig, spec: Any) -> None:  # noqa: ARG002
        super().__init__()

    def forward(self, inputs: Tensor) -> Any:
        return inputs[:, :3]


class Frozen(Plain):
    def __init__(self, config: EntryConfig, spec: Any) -> None:
        super().__init__(config, spec)
        self.requires_grad_(False)


class Undefined(Plain):
    def forward(self, inputs: Tensor) -> Any:
        return super().forward(inputs).abs().neg().log()


class OwnArguments(nn.Module):
    def __init__(self, width: int = 8) -> None:
        super().__init__()
        self.layer = nn.Linear(5, width)


class HalfAModel(Model):
    def __init__(self, config: EntryConfig, spec: Any) -> None:  # noqa: ARG002
        super().__init__()
        self.head = nn.Linear(5, 3)


MODELS: dict[str, tuple[Any, list[str]]] = {
    "layers in a list": (Listed, ["more holds layers", "nn.ModuleList", ".requires_grad_(False)"]),
    "layers in a list, in training": (ListedInTraining, ["more holds layers", "nn.ModuleList"]),
    "a tuple in training": (Auxiliary, ["in training mode: it returned a tuple"]),
    "squeezed": (SqueezedAll, ["shape (3,) for inputs of shape (1, 5)", "Expected (1, 3)"]),
    "in place": (InPlaceModel, ["changes its inputs in place"]),
    "a dimension less": (Squeezed, ["shape (16,)", "Expected (16, 3)"]),
    "a tuple": (Tupled, ["it returned a tuple"]),
    "no gradient": (Labels, ["no gradient", "argmax"]),
    "another width": (Narrow, ["fails on inputs of shape (16, 5)", "RuntimeError"]),
    "without super().__init__()": (Uninitialised, ["AttributeError", "(test_custom_parts.py, line "]),
    "without features": (HalfAModel, ["fails on inputs", "NotImplementedError"]),
    "no parameters": (Empty, ["it has no parameters"]),
    "frozen": (Frozen, ["all of its parameters are frozen"]),
    "NaN": (Undefined, ["48 of its 48 outputs are NaN or infinite before any training"]),
    "its own arguments": (OwnArguments, ["def make(config, spec): return OwnArguments(…)"]),
    "a fault": (Squared, ["fails on inputs of shape (16, 5)", "(test_custom_parts.py, line "]),
    "no model": (lambda config, spec: None, ["it returned a NoneType"]),  # noqa: ARG005
    "called with inputs": (lambda inputs: inputs, ["TypeError", "(config, spec)"]),
}


@pytest.mark.parametrize("frozen", [True, False])
def test_a_fixed_network_may_stand_in_a_list(own: Own, tmp_path: Path, frozen: bool) -> None:
    class Taught(Listed):
        def forward(self, inputs: Tensor) -> Any:
            self.more[0].requires_grad_(not frozen)
            with torch.set_grad_enabled(frozen):
                features = self.more[0](inputs)
            return self.layer(features)

    run, told = built(tmp_path, own("model", Taught))
    fit(run)
    assert len(told.records) == 2
    assert warnings_of(run) == []


@pytest.mark.parametrize("case", MODELS)
def test_a_model_that_would_learn_nothing_is_refused(own: Own, tmp_path: Path, case: str) -> None:
    factory, parts = MODELS[case]
    refused(own("model", factory), tmp_path, "model=my_own", parts)


def test_a_model_may_make_classes_impossible(own: Own, tmp_path: Path) -> None:
    class Masking(Plain):
        def forward(self, inputs: Tensor) -> Any:
            outputs = super().forward(inputs)
            impossible = torch.arange(outputs.shape[1]) == inputs.argmax(1)[:, None] % outputs.shape[1]
            return outputs.masked_fill(impossible, -torch.inf)

    run, _ = built(tmp_path, own("model", Masking))
    assert not [text for text in warnings_of(run) if "NaN" in text]


def test_a_model_that_ends_with_a_softmax_is_told(own: Own, tmp_path: Path) -> None:
    class Ended(Plain):
        def forward(self, inputs: Tensor) -> Any:
            return super().forward(inputs).softmax(1)

    run, _ = built(tmp_path, own("model", Ended))
    (told,) = warnings_of(run)
    assert "leave the softmax at its end out" in told


@pytest.mark.parametrize(
    ("ending", "loss", "told"),
    [
        (nn.Softmax(1), nn.CrossEntropyLoss(), "leave the softmax at its end out"),
        (nn.Identity(), nn.NLLLoss(), "takes the logarithms of probabilities"),
        (nn.Softmax(1), nn.NLLLoss(), "takes the logarithms of probabilities"),
        (nn.LogSoftmax(1), nn.NLLLoss(), None),
        (nn.Identity(), nn.CrossEntropyLoss(), None),
    ],
    ids=str,
)
def test_a_loss_of_torch_s_that_takes_other_outputs_is_told(
    own: Own, tmp_path: Path, ending: nn.Module, loss: nn.Module, told: str | None
) -> None:
    class Ended(Plain):
        def forward(self, inputs: Tensor) -> Any:
            return ending(super().forward(inputs))

    run, _ = built(tmp_path, own("model", Ended) | own("loss", lambda config, spec: loss))  # noqa: ARG005
    found = warnings_of(run)
    assert len(found) == (told is not None)
    assert told is None or told in found[0]


def test_broadcast_shapes_are_found_where_all_outputs_are_0(own: Own, tmp_path: Path) -> None:
    class Zero(Plain):
        def __init__(self, config: EntryConfig, spec: Any) -> None:
            super().__init__(config, spec)
            self.layer = nn.Linear(5, 1)
            nn.init.zeros_(self.layer.weight)
            nn.init.zeros_(self.layer.bias)

    chosen = own("model", Zero) | own("loss", lambda config, spec: Broadcasting())  # noqa: ARG005
    refused(VALUES | {"data.outputs": 1} | chosen, tmp_path, "loss=my_own", ["any order of the targets"])


def test_a_model_that_mixes_samples_is_told(own: Own, tmp_path: Path) -> None:
    class Mixed(Plain):
        def forward(self, inputs: Tensor) -> Any:
            return 5 * super().forward(inputs).softmax(0)

    run, _ = built(tmp_path, own("model", Mixed))
    (told,) = warnings_of(run)
    assert "mixes the samples of a batch" in told


@pytest.mark.parametrize("kind", ["model", "loss"])
def test_a_part_that_keeps_all_it_computes_is_told(own: Own, tmp_path: Path, kind: str) -> None:
    class KeepingModel(Plain):
        def forward(self, inputs: Tensor) -> Any:
            self.seen = [*getattr(self, "seen", []), super().forward(inputs)]
            return self.seen[-1]

    class KeepingLoss(SayingSo):
        def forward(self, outputs: Tensor, targets: Tensor) -> Tensor:
            self.seen = [*getattr(self, "seen", []), super().forward(outputs, targets)]
            return self.seen[-1]

    run, _ = built(tmp_path, own(kind, KeepingModel if kind == "model" else KeepingLoss))
    (told,) = warnings_of(run)
    assert told.startswith(f"{kind}=my_own stores every result")


def test_trying_a_model_leaves_it_as_it_was(own: Own, tmp_path: Path) -> None:
    """Neither running statistics nor random numbers know of it."""

    class Normed(Plain):
        def __init__(self, config: EntryConfig, spec: Any) -> None:
            super().__init__(config, spec)
            self.norm = nn.BatchNorm1d(5)

        def forward(self, inputs: Tensor) -> Any:
            return super().forward(F.dropout(self.norm(inputs), 0.1, self.training))

    run, _ = built(tmp_path, own("model", Normed) | {"seed": 3})
    statistics = run.state.model.state_dict()
    assert int(statistics["norm.num_batches_tracked"]) == 0
    assert float(statistics["norm.running_mean"].abs().sum()) == 0.0
    state = torch.get_rng_state()
    torch.manual_seed(3)
    Normed(EntryConfig(name="my_own"), run.dataset.spec)
    assert torch.equal(torch.get_rng_state(), state)


class Counting(nn.Module):
    """Counts its calls in a buffer, an attribute and a list, and draws from every generator."""

    def count(self) -> None:
        self.calls += 1  # type: ignore[operator, has-type]
        self.attribute += 1  # type: ignore[has-type]
        self.listed.append(random.random() + float(np.random.rand()) + float(torch.rand(())))

    def begin(self, copied: bool) -> None:
        self.register_buffer("calls", torch.zeros(()))
        self.attribute = 0
        self.listed: list[float] = []
        self.lock = None if copied else threading.Lock()  # which cannot be copied


class CountingModel(Counting, Plain):
    def forward(self, inputs: Tensor) -> Any:
        self.count()
        return super().forward(inputs)


class CountingLoss(Counting, SayingSo):
    def forward(self, outputs: Tensor, targets: Tensor) -> Tensor:
        self.count()
        return super().forward(outputs, targets) * self.calls  # type: ignore[operator]


@pytest.mark.parametrize("copied", [True, False], ids=["copied", "not to be copied"])
@pytest.mark.parametrize("kind", ["model", "loss"])
def test_trying_a_part_that_changes_leaves_no_trace(
    own: Own, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, copied: bool
) -> None:
    """The model is called once besides, for its summary."""
    states = []

    def of_generators() -> tuple[Any, ...]:
        return random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()

    def noting(*arguments: Any) -> list[str]:
        before = of_generators()
        told = try_parts(*arguments)
        states.append((before, of_generators()))
        return told

    def made(config: EntryConfig, spec: Any) -> nn.Module:
        part = (CountingModel if kind == "model" else CountingLoss)(config, spec)
        part.begin(copied)
        return part

    monkeypatch.setattr("bigmodel.build.custom_parts.try_parts", noting)
    run, _ = built(tmp_path, own(kind, made))
    part: Any = run.state.model if kind == "model" else run.loss.made
    calls = 1 if kind == "model" else 0
    assert (float(part.calls), part.attribute, len(part.listed)) == (calls, calls, calls)
    ((before, after),) = states
    assert before == after
    assert warnings_of(run) == []


def test_what_a_loss_keeps_is_resumed(own: Own, tmp_path: Path) -> None:
    """Its buffers are saved where they change, and only there; a checkpoint without them still loads."""

    class Kept(CountingLoss):
        def __init__(self, config: EntryConfig, spec: Any) -> None:
            super().__init__(config, spec)
            self.begin(copied=True)
            self.register_buffer("fixed", torch.ones(3))

    chosen = own("loss", Kept) | SGD
    run, _ = built(tmp_path, chosen)
    untrained, facts = run.state.save()
    assert "loss" not in untrained
    fit(run)
    groups, facts = run.state.save()
    assert list(groups["loss"]) == ["made.calls"]
    calls = float(groups["loss"]["made.calls"])
    assert calls > 12

    again, _ = built(tmp_path, chosen)
    again.state.load(*deepcopy((groups, facts)))
    assert float(again.loss.made.calls) == calls
    again.state.load({name: tensors for name, tensors in groups.items() if name != "loss"}, facts)
    assert float(again.loss.made.calls) == 0
    other, _ = built(tmp_path, SGD)
    with pytest.raises(CheckpointError, match="loss is another"):
        other.state.load(groups, facts)


def test_keeping_the_newest_alone_is_fine(own: Own, tmp_path: Path) -> None:
    class Looking(Plain):
        def forward(self, inputs: Tensor) -> Any:
            self.newest = super().forward(inputs)
            return self.newest

    run, _ = built(tmp_path, own("model", Looking))
    assert warnings_of(run) == []


def copied(config: OptimizerConfig, model: nn.Module) -> Any:
    return torch.optim.SGD([p.detach().clone() for p in model.parameters()], lr=config.lr)


class Closing(torch.optim.SGD):
    def step(self, closure: Any) -> Any:  # type: ignore[override]
        return super().step(closure)


class OfTorch(torch.optim.Optimizer):
    """The least that torch's class asks for."""

    def __init__(self, config: OptimizerConfig, model: nn.Module) -> None:
        super().__init__(model.parameters(), {"lr": config.lr})


class Recording(OfTorch):
    def step(self, closure: Any = None) -> Any:  # noqa: ARG002
        for parameter in self.param_groups[0]["params"]:
            parameter.sub_(0.01 * parameter.grad)


class Divides(OfTorch):
    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:  # noqa: ARG002
        for parameter in self.param_groups[0]["params"]:
            parameter.div_(0 * parameter.grad)


class Forgets(OfTorch):
    def step(self, closure: Any = None) -> Any:  # noqa: ARG002
        self.state["momentum"] += 1


class Unrated(torch.optim.Optimizer):
    def __init__(self, config: OptimizerConfig, model: nn.Module) -> None:  # noqa: ARG002
        super().__init__(model.parameters(), {})


class Idle(OfTorch):
    def step(self, closure: Any = None) -> Any:
        """Changes nothing."""


OPTIMIZERS: dict[str, tuple[Any, list[str]]] = {
    "copies": (copied, ["not the model's parameters"]),
    "the model itself": (
        lambda config, model: torch.optim.SGD(model, lr=config.lr),
        ["TypeError", "(test_custom_parts.py, line "],
    ),
    "a class of torch's": (torch.optim.Adam, ["failed", "Adam(config, model)"]),
    "a closure": (lambda config, model: Closing(model.parameters(), config.lr), ["closure"]),
    "torch's with a closure": (lambda config, model: torch.optim.LBFGS(model.parameters()), ["closure"]),  # noqa: ARG005
    "none": (lambda config, model: None, ["it returned a NoneType"]),  # noqa: ARG005
    "no step": (OfTorch, ["it defines no step()"]),
    "records its step": (Recording, ["(test_custom_parts.py, line ", "@torch.no_grad()"]),
    "NaN": (Divides, ["makes NaN or infinity"]),
    "a fault": (Forgets, ["fails on an update of the model: TypeError", "(test_custom_parts.py, line "]),
    "no rate": (Unrated, ["no 'lr'"]),
}


@pytest.mark.parametrize("case", OPTIMIZERS)
def test_an_optimizer_that_would_train_nothing_is_refused(own: Own, tmp_path: Path, case: str) -> None:
    factory, parts = OPTIMIZERS[case]
    refused(own("optimizer", factory), tmp_path, "optimizer=my_own", parts)


def test_an_optimizer_that_changes_nothing_is_told(own: Own, tmp_path: Path) -> None:
    run, _ = built(tmp_path, own("optimizer", Idle))
    (told,) = warnings_of(run)
    assert "two calls of its step() have changed no parameter" in told


def test_trying_an_optimizer_leaves_the_model_as_it_was(own: Own, tmp_path: Path) -> None:
    settings = own("optimizer", lambda config, model: torch.optim.SGD(model.parameters(), config.lr))
    run, _ = built(tmp_path, settings)
    plain, _ = built(tmp_path, SGD)
    for one, other in zip(run.step.model.parameters(), plain.step.model.parameters(), strict=True):
        assert torch.equal(one, other)
        assert one.grad is None
    assert len(run.step.optimizer.state) == 0


class Switched(OfTorch):
    """Steps only between `train()` and `eval()`, as the package schedulefree does."""

    on = False

    def train(self) -> None:
        self.on = True

    def eval(self) -> None:
        self.on = False

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:  # noqa: ARG002
        if not self.on:
            raise RuntimeError("not in train mode")
        for parameter in self.param_groups[0]["params"]:
            parameter.sub_(0.01 * parameter.grad)


def test_an_optimizer_that_keeps_two_sets_of_weights_is_tried_in_training_mode(
    own: Own, tmp_path: Path
) -> None:
    run, _ = built(tmp_path, own("optimizer", Switched))
    assert warnings_of(run) == []
    fit(run)


def test_memory_for_one_copy_too_few_ends_no_run(
    own: Own, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def exhausted(*_: Any) -> Any:
        raise torch.OutOfMemoryError("CUDA out of memory.")

    settings = own("optimizer", lambda config, model: torch.optim.SGD(model.parameters(), config.lr))
    monkeypatch.setattr(torch, "full_like", exhausted)
    run, _ = built(tmp_path, settings)
    assert warnings_of(run) == []


def test_an_optimizer_may_wrap_another(own: Own, tmp_path: Path) -> None:
    class Wrapping:
        def __init__(self, config: OptimizerConfig, model: nn.Module) -> None:
            self.inner = torch.optim.SGD(model.parameters(), config.lr)
            self.state_dict, self.load_state_dict = self.inner.state_dict, self.inner.load_state_dict
            self.param_groups, self.state = self.inner.param_groups, self.inner.state

        def zero_grad(self) -> None:
            self.inner.zero_grad()

        def step(self) -> None:
            self.inner.step()

    ours = {"optimizer": "sgd", "optimizer.momentum": 0.0, "optimizer.lr": 0.05}
    runs = [built(tmp_path, s) for s in (own("optimizer", Wrapping) | {"optimizer.lr": 0.05}, ours)]
    for run, _ in runs:
        fit(run)
    (_, got), (_, wanted) = runs
    assert got.records[-1]["train/loss"] == pytest.approx(wanted.records[-1]["train/loss"], rel=1e-6)


def test_an_optimizer_that_trains_a_part_is_told(own: Own, tmp_path: Path) -> None:
    def of_head(config: OptimizerConfig, model: Any) -> Any:
        return torch.optim.SGD(model.head.parameters(), lr=config.lr)

    run, _ = built(tmp_path, own("optimizer", of_head))
    (told,) = warnings_of(run)
    assert "does not train 2 of 4 parameters" in told


def shaped(shape: Any) -> Any:
    class Shaped(Scheduler):
        def shape(self, t: int, total: int) -> Any:
            return shape(t, total)

    return Shaped


class Flat(Scheduler):
    def shape(self, t: int, total: int) -> float:  # noqa: ARG002
        return 1.0


class Deaf(Flat):
    def observe(self, value: float) -> None:  # type: ignore[override]
        pass


class Heavy(Flat):
    def state_dict(self) -> Any:
        return {"means": torch.zeros(3)}


SCHEDULERS: dict[str, tuple[Any, list[str]]] = {
    "nothing": (shaped(lambda t, total: None), ["None (NoneType)"]),  # noqa: ARG005
    "several numbers": (shaped(lambda t, total: torch.ones(2)), ["RuntimeError", "2 elements"]),  # noqa: ARG005
    "below 0": (shaped(lambda t, total: 1 - 3 * t / total), ["a number of 0 or more"]),
    "a fault": (shaped(lambda t, total: 1 / t), ["ZeroDivisionError"]),  # noqa: ARG005
    "no shape": (type("Shapeless", (Scheduler,), {}), ["NotImplementedError"]),
    "a function": (lambda config, total: lambda t: 1.0, ["returned a function", "Scheduler"]),  # noqa: ARG005
    "torch's class": (
        lambda config, total: torch.optim.lr_scheduler.LambdaLR,  # noqa: ARG005
        ["returned a type", "torch.optim.lr_scheduler cannot be used"],
    ),
    "observes one value": (Deaf, ["observe(value, mode)", "TypeError"]),
    "tensors in its state": (Heavy, ["state_dict(), which may hold numbers only", "Tensor"]),
    "torch's": (torch.optim.lr_scheduler.StepLR, ["TypeError", "(config, total)"]),
}


@pytest.mark.parametrize("case", SCHEDULERS)
def test_a_schedule_that_gives_no_rates_is_refused(own: Own, tmp_path: Path, case: str) -> None:
    factory, parts = SCHEDULERS[case]
    refused(own("scheduler", factory), tmp_path, "scheduler=my_own", parts)


@pytest.mark.parametrize(
    "number",
    [float, torch.tensor, lambda value: torch.tensor([value]), np.float32, np.array],
    ids=["float", "tensor", "tensor of one", "np.float32", "array"],
)
def test_a_multiplier_may_be_any_kind_of_one_number(own: Own, tmp_path: Path, number: Any) -> None:
    run, told = built(tmp_path, own("scheduler", shaped(lambda t, total: number(1 - t / total))))
    fit(run)
    factor = run.state.schedule.factor(3)
    assert type(factor) is float
    assert factor == pytest.approx(0.75, rel=1e-6)
    assert len(told.records) == 2


def test_of_a_schedule_only_steps_of_the_run_are_asked_for(own: Own, tmp_path: Path) -> None:
    class Table(Scheduler):
        def __init__(self, config: SchedulerConfig, total: int) -> None:
            super().__init__(config, total)
            self.rates = [1.0 - step / total for step in range(total)]

        def shape(self, t: int, total: int) -> float:  # noqa: ARG002
            return self.rates[t]

    run, told = built(tmp_path, own("scheduler", Table) | {"trainer.max_steps": 1})
    fit(run)
    assert told.records[-1]["step"] == 1


def test_a_loss_is_validated_in_evaluation_mode(own: Own, tmp_path: Path) -> None:
    class Noisy(SayingSo):
        def __init__(self, config: EntryConfig, spec: Any) -> None:
            super().__init__(config, spec)
            self.noise = nn.Dropout(0.5)

        def forward(self, outputs: Tensor, targets: Tensor) -> Tensor:
            loss = super().forward(self.noise(outputs), targets)
            return loss + 100 if self.training else loss

    run, told = built(tmp_path, own("loss", Noisy))
    fit(run)
    assert told.records[-1]["train/loss"] > 100
    assert told.records[-1]["val/loss"] < 10
    assert all(part.training for part in run.loss.modules())


def test_options_have_to_be_a_class_of_options() -> None:
    with pytest.raises(ConfigError, match="is not a configuration class"):
        registry.losses.register("my_own", dict)  # type: ignore[arg-type]


def samples(inputs: Any = None, targets: Any = None) -> Callable[[DataConfig], Any]:
    """A source of 40 samples of 5 features in 3 classes, or of what is given in their place."""
    inputs = torch.randn(40, 5) if inputs is None else inputs
    targets = torch.arange(40) % 3 if targets is None else targets

    def source(config: DataConfig) -> Any:
        return assemble(config, DataSpec("my_own", Features(5), ABC), Part(inputs, targets))

    return source


ABC = Classes(("a", "b", "c"), ())
PRICE = Values(("price",), (0.0,), (1.0,))


def ready(config: DataConfig) -> Dataset:  # noqa: ARG001
    """Parts as they are, in double precision."""
    part = Part(torch.randn(20, 5).double(), torch.arange(20) % 3)
    spec = DataSpec("my_own", Features(5), replace(ABC, counts=(7, 7, 6)), {"train": 20, "val": 20})
    return Dataset(spec, part, part)


def priced(targets: Any) -> Callable[[DataConfig], Any]:
    def source(config: DataConfig) -> Any:
        part = Part(torch.randn(40, 5), targets)
        return assemble(config, DataSpec("my_own", Features(5), PRICE), part)

    return source


SOURCES: dict[str, tuple[Any, list[str]]] = {
    "a tuple": (lambda config: (torch.zeros(9, 5), torch.zeros(9)), ["it returned a tuple", "assemble"]),  # noqa: ARG005
    "nothing": (lambda config: None, ["it returned a NoneType"]),  # noqa: ARG005
    "NumPy's": (samples(np.zeros((40, 5))), ["inputs are a ndarray", "torch.as_tensor"]),
    "a list of labels": (samples(targets=[0, 1] * 20), ["targets are a list"]),
    "labels as real numbers": (samples(targets=torch.zeros(40)), ["int64", "float32"]),
    "labels as bytes": (samples(targets=torch.zeros(40, dtype=torch.uint8)), ["int64", "uint8"]),
    "a column of labels": (samples(targets=torch.zeros(40, 1).long()), ["(40, 1)", "(samples,)"]),
    "fewer labels": (samples(targets=torch.zeros(39).long()), ["40 inputs, but 39 targets"]),
    "another width": (samples(torch.randn(40, 4)), ["(40, 4)", "(samples, 5)"]),
    "whole numbers": (samples(torch.ones(40, 5).long()), ["floating point", "int64"]),
    "prices without a column": (priced(torch.randn(40)), ["(40,)", "(samples, 1)"]),
    "whole prices": (priced(torch.ones(40, 1).long()), ["floating point", "int64"]),
    "double precision": (ready, ["float64", "float32"]),
    "a file that is not there": (
        lambda config: np.loadtxt("nowhere.csv"),  # noqa: ARG005
        ["FileNotFoundError", "nowhere.csv", "(test_custom_parts.py, line "],
    ),
    "two arguments": (lambda config, spec: None, ["TypeError"]),  # noqa: ARG005
}


@pytest.mark.parametrize("case", SOURCES)
def test_a_source_that_gives_no_samples_is_refused(own: Own, tmp_path: Path, case: str) -> None:
    factory, parts = SOURCES[case]
    with pytest.raises(BigModelError) as caught:
        built(tmp_path, own("data", factory))
    told = str(caught.value)
    assert told.startswith(("data=my_own: ", "data 'my_own', "))
    for part in parts:
        assert part in told


@pytest.mark.parametrize("known", [True, False])
def test_a_source_that_knows_no_folds_is_refused_with_them(
    own: Own, tmp_path: Path, known: bool
) -> None:
    def source(config: DataConfig) -> Dataset:
        dataset: Dataset = samples()(config)
        return dataset if known else replace(dataset, val_rows=None)

    settings = {**own("data", source), "data.folds": 4, "data.val_fold": 1}
    if known:
        assert len(built(tmp_path, settings)[0].dataset.val) == 10
        return
    with pytest.raises(ConfigError, match=r"data\.folds=4: data=my_own splits its samples itself and"):
        built(tmp_path, settings)


@pytest.mark.parametrize(
    ("written", "told"),
    [
        ("class C(EntryConfig):\n    gamma = 2.0", "non-annotated attribute"),
        ("class C(EntryConfig):\n    gamma: float = Field(2.0, gt='a')", "failed"),
        ("class C(EntryConfig):\n    net: object()", "failed"),
        ("@losses.register('mine', 7)\ndef mine(config, spec): ...", "not a configuration class"),
        (
            "@losses.register\ndef mine(config, spec): ...",
            'an entry has a name, as in .register("mine")',
        ),
        ("def mine(:", "SyntaxError"),
    ],
)
def test_a_plugin_that_cannot_be_read_is_told_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, written: str, told: str
) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    head = "from pydantic import Field\nfrom bigmodel.registry import EntryConfig, losses\n"
    (tmp_path / "unreadable_plugin.py").write_text(head + written + "\n")
    monkeypatch.delitem(sys.modules, "unreadable_plugin", raising=False)
    with pytest.raises(ConfigError) as caught:
        registry.load_plugins(["unreadable_plugin"])
    assert "\n" not in str(caught.value)
    assert told in str(caught.value)
