import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from bigmodel.data.base import PartName
from bigmodel.data.batching.batches import make_batches
from bigmodel.reporting.base import EvaluationResult
from bigmodel.training.evaluation import SAMPLES, evaluate
from bigmodel.training.loop import Run
from tests.small_runs import built, config, model_inputs

DROPOUT = {"model.dropout": 0.5, "model.norm": "batch"}
KINDS: dict[str, dict[str, Any]] = {
    "classes": {},
    "values": {"data.target": "values", "data.outputs": 2},
    "flags": {"data.target": "flags", "data.outputs": 2},
}


def judged(run: Run, size: int = 5, part: PartName = "train", samples: bool = False) -> EvaluationResult:
    """The run's model by a part in batches of `size`: 64 training samples leave a last batch of 4."""
    data = run.dataset
    batches = make_batches(data, part, config().data, shuffle=False, batch_size=size)
    return evaluate(
        run.state.model, batches, run.loss, run.val_metrics, run.runtime, data, samples=samples
    )


def outputs_of(run: Run) -> tuple[Tensor, Tensor]:
    """What the model says of the whole training set at once, and its targets."""
    model, part = run.state.model, run.dataset.train
    was = model.training
    model.eval()
    with torch.no_grad():
        outputs = model(model_inputs(run.dataset.preprocessing, part.inputs))
    model.train(was)
    return outputs, part.targets


WEIGHTS = [3.0, 1.0, 0.25]
CASES: list[tuple[dict[str, Any], Callable[[Tensor, Tensor], Tensor]]] = [
    ({}, F.cross_entropy),
    (
        {"loss": "cross_entropy", "loss.class_weights": WEIGHTS},
        lambda x, y: F.cross_entropy(x, y, weight=torch.tensor(WEIGHTS)),
    ),
    (
        {"loss": "cross_entropy", "loss.class_weights": WEIGHTS, "loss.label_smoothing": 0.2},
        lambda x, y: F.cross_entropy(x, y, weight=torch.tensor(WEIGHTS), label_smoothing=0.2),
    ),
    (KINDS["values"], F.mse_loss),
    (KINDS["values"] | {"loss": "huber", "loss.delta": 0.5}, lambda x, y: F.huber_loss(x, y, delta=0.5)),
    (KINDS["flags"], F.binary_cross_entropy_with_logits),
]


@pytest.mark.parametrize(("settings", "reference"), CASES)
@pytest.mark.parametrize("size", [1, 5, 64, 1000])
def test_the_loss_is_that_of_the_whole_part_at_once(
    tmp_path: Path, settings: dict[str, Any], reference: Callable[[Tensor, Tensor], Tensor], size: int
) -> None:
    run, _ = built(tmp_path, DROPOUT | settings)
    expected = float(reference(*outputs_of(run)))
    assert judged(run, size).metrics["loss"] == pytest.approx(expected, rel=1e-5)


def test_figures_do_not_depend_on_how_samples_are_batched(tmp_path: Path) -> None:
    run, _ = built(tmp_path)
    outputs, targets = outputs_of(run)
    by_hand = float((outputs.argmax(1) == targets).float().mean())
    for size in (1, 5, 64):
        assert judged(run, size).metrics["accuracy"] == pytest.approx(by_hand)


@pytest.mark.parametrize("training", [True, False])
def test_the_model_is_left_as_it_was(tmp_path: Path, training: bool) -> None:
    run, _ = built(tmp_path, DROPOUT)
    model = run.state.model.train(training)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    judged(run)
    assert all(module.training is training for module in model.modules())
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert all(p.grad is None for p in model.parameters())


def test_nothing_is_drawn_at_random(tmp_path: Path) -> None:
    run, _ = built(tmp_path, DROPOUT)
    run.state.model.train()
    torch_before, python_before = torch.get_rng_state(), random.getstate()
    first, second = judged(run), judged(run)
    assert first.metrics == second.metrics  # with dropout it would differ each time
    assert torch.equal(torch.get_rng_state(), torch_before)
    assert random.getstate() == python_before


@pytest.mark.parametrize(
    "settings",
    [
        {"model": "transformer", "model.position": "rotary", "model.causal": True},
        {"model": "attention"},
        {"model": "cnn"},
        {"model": "rnn"},
        {"model.norm": "batch"},
    ],
    ids=str,
)
def test_training_goes_on_after_an_evaluation(tmp_path: Path, settings: dict[str, Any]) -> None:
    """What a model made in inference mode and kept could not be trained with."""
    run, _ = built(tmp_path, settings | {"data.input": "tokens"})
    run.val_metrics.reset()
    judged(run)
    run.step(next(iter(run.train.epoch(0))))
    judged(run)
    run.step(next(iter(run.train.epoch(1))))
    assert len(run.step.drain()) == 2


def test_classes_in_words_and_the_confusion_of_them(tmp_path: Path) -> None:
    run, _ = built(tmp_path, {"data": "digits"})
    evaluation = judged(run, size=7, samples=True)
    outputs, targets = outputs_of(run)
    said = outputs.argmax(1)
    assert len(evaluation.samples) == SAMPLES
    for index, sample in enumerate(evaluation.samples):
        assert (sample.prediction, sample.truth) == (str(int(said[index])), str(int(targets[index])))
        assert sample.correct is bool(said[index] == targets[index])
        torch.testing.assert_close(sample.inputs, run.dataset.train.inputs[index])  # undone: 0 to 1
    confusion = torch.zeros(10, 10, dtype=torch.int64)
    for truth, prediction in zip(targets, said, strict=True):
        confusion[truth, prediction] += 1
    assert evaluation.confusion is not None
    assert torch.equal(evaluation.confusion, confusion)
    assert list(evaluation.class_names) == [str(digit) for digit in range(10)]


def test_values_in_their_own_unit(tmp_path: Path) -> None:
    run, _ = built(tmp_path, {"data": "diabetes"})
    (sample, *_) = judged(run, samples=True).samples
    outputs, targets = outputs_of(run)
    target = run.dataset.spec.target
    mean, std = target.mean[0], target.std[0]  # type: ignore[union-attr]
    assert float(sample.prediction) == pytest.approx(float(outputs[0]) * std + mean, rel=1e-3)
    assert float(sample.truth) == pytest.approx(float(targets[0]) * std + mean, rel=1e-3)
    assert 25 <= float(sample.truth) <= 346
    assert sample.correct is None


def test_samples_only_where_they_are_asked_for_and_no_more_than_there_are(tmp_path: Path) -> None:
    run, _ = built(tmp_path, KINDS["values"] | {"data.samples": 12})
    assert judged(run).samples == []
    assert len(judged(run, samples=True).samples) == 10
    assert judged(run).confusion is None
