"""Metrics that are chosen by name against scikit-learn's, on 100,000 samples in uneven batches."""

import math
from functools import partial

import numpy as np
import pytest
import torch
from sklearn import metrics as sk
from sklearn.preprocessing import label_binarize
from torch import Tensor

from bigmodel.errors import ConfigError, SpecError
from bigmodel.metrics import ChosenMetrics, Figures, choose_metrics, metrics_for, parse_metrics
from bigmodel.registry import metrics as registered
from bigmodel.spec import Classes, Flags, NextTokens, Target, Values

EXACT = partial(pytest.approx, rel=1e-9, abs=1e-9)
ROWS = 100_000
SIZES = [1, 511, 30_000, 4096]


def classes(count: int) -> Classes:
    return Classes(names=tuple(f"c{i}" for i in range(count)), counts=(1,) * count)


FLAGS = Flags(names=("x", "y", "z"))
VALUES = Values(names=("price", "size"), mean=(1e6, -5.0), std=(250.0, 7.0))


def samples(target: Target, size: int = ROWS, rounded: bool = True) -> tuple[Tensor, Tensor]:
    """Outputs, many of them equal if they are `rounded`, and targets, rare ones too."""
    draw = torch.Generator().manual_seed(size)
    outputs = torch.randn(size, target.output_size, generator=draw)
    match target:
        case Classes(count=count):
            targets = (torch.rand(size, generator=draw) ** 3 * count).long()
            outputs[torch.arange(size), targets] += 1.0
        case Flags(count=count):
            targets = (torch.rand(size, count, generator=draw) < 0.1).float()
            outputs += 2 * targets - 1
        case _:
            targets = 0.7 * outputs + 0.5 * torch.randn(outputs.shape, generator=draw)
    return (outputs * 8).round() / 8 if rounded else outputs, targets


def pieces(*tensors: Tensor) -> list[tuple[Tensor, ...]]:
    rest = len(tensors[0]) - sum(SIZES)
    split = [*SIZES, rest] if rest > 0 else 7
    return list(zip(*(tensor.split(split) for tensor in tensors), strict=True))


def judged(names: object, target: Target, outputs: Tensor, targets: Tensor) -> Figures:
    """What metrics say of samples that come in uneven batches, in two processes."""
    configs = parse_metrics(names if isinstance(names, list) else [names])
    ranks = [choose_metrics(configs, target) for _ in range(2)]
    for number, batch in enumerate(pieces(outputs, targets)):
        ranks[number % 2].update(*batch)
    return ranks[0].compute([rank.gathered() for rank in ranks], by_class=True)


def probabilities(outputs: Tensor) -> np.ndarray:
    return outputs.double().softmax(1).numpy()


@pytest.mark.parametrize("rounded", [True, False])
def test_of_two_classes_the_second_is_ranked(rounded: bool) -> None:
    outputs, targets = samples(classes(2), rounded=rounded)
    found = judged(["auc", "average_precision"], classes(2), outputs, targets).values
    score = (outputs.double()[:, 1] - outputs.double()[:, 0]).numpy()
    assert found["auc"] == EXACT(sk.roc_auc_score(targets, score))
    assert found["average_precision"] == EXACT(sk.average_precision_score(targets, score))


def test_more_classes_are_ranked_one_against_the_rest() -> None:
    outputs, targets = samples(classes(5))
    found = judged(["auc", "average_precision"], classes(5), outputs, targets)
    p, true = probabilities(outputs), label_binarize(targets, classes=range(5))
    assert found.values["auc"] == EXACT(sk.roc_auc_score(targets, p, multi_class="ovr"))
    assert found.values["average_precision"] == EXACT(sk.average_precision_score(true, p))
    each = sk.roc_auc_score(true, p, average=None)
    assert found.by_class["auc"] == EXACT(dict(zip(classes(5).names, each, strict=True)))


def test_labels_are_ranked_one_by_one() -> None:
    outputs, targets = samples(FLAGS)
    found = judged(["auc", "average_precision"], FLAGS, outputs, targets).values
    assert found["auc"] == EXACT(sk.roc_auc_score(targets, outputs))
    assert found["average_precision"] == EXACT(sk.average_precision_score(targets, outputs))


def test_samples_of_equal_score_are_one_point_of_the_curve() -> None:
    outputs, targets = torch.zeros(6, 2), torch.tensor([0, 1, 0, 1, 1, 1])
    found = judged(["auc", "average_precision"], classes(2), outputs, targets).values
    assert found == {"auc": 0.5, "average_precision": pytest.approx(4 / 6)}


@pytest.mark.parametrize("name", ["precision", "recall", "f1"])
@pytest.mark.parametrize("target", [classes(2), classes(5), FLAGS], ids=["two", "five", "labels"])
def test_decisions_are_scikit_learns(name: str, target: Target) -> None:
    outputs, targets = samples(target, rounded=False)
    said = (outputs > 0).int() if isinstance(target, Flags) else outputs.argmax(1)
    true = targets.int()
    found = judged(name, target, outputs, targets)
    score = partial(getattr(sk, f"{name}_score"), true, said, zero_division=np.nan)
    two = target == classes(2)
    figure = name if two else f"macro_{name}"
    assert found.values == {figure: EXACT(score(average="binary" if two else "macro"))}
    assert list(found.by_class[name].values()) == EXACT(list(score(average=None)))
    assert tuple(found.by_class[name]) == target.names


def test_balanced_accuracy_is_scikit_learns() -> None:
    for count in (2, 5):
        outputs, targets = samples(classes(count))
        found = judged("balanced_accuracy", classes(count), outputs, targets).values
        assert found["balanced_accuracy"] == EXACT(
            sk.balanced_accuracy_score(targets, outputs.argmax(1))
        )


@pytest.mark.parametrize("count", [2, 5])
def test_log_loss_and_brier_score_are_scikit_learns(count: int) -> None:
    outputs, targets = samples(classes(count))
    found = judged(["log_loss", "brier"], classes(count), outputs, targets).values
    p = probabilities(outputs)
    assert found["log_loss"] == EXACT(sk.log_loss(targets, p))
    true = label_binarize(targets, classes=range(count))
    true = np.hstack([1 - true, true]) if count == 2 else true
    expected = sk.brier_score_loss(targets, p[:, 1]) if count == 2 else ((p - true) ** 2).sum(1).mean()
    assert found["brier"] == EXACT(expected)


def test_log_loss_and_brier_score_of_labels_are_means_over_them() -> None:
    outputs, targets = samples(FLAGS)
    found = judged(["log_loss", "brier"], FLAGS, outputs, targets).values
    columns = list(zip(outputs.double().sigmoid().numpy().T, targets.numpy().T, strict=True))
    assert found["log_loss"] == EXACT(np.mean([sk.log_loss(true, p) for p, true in columns]))
    assert found["brier"] == EXACT(np.mean([sk.brier_score_loss(true, p) for p, true in columns]))


@pytest.mark.parametrize("bins", [15, 4])
def test_calibration_error_is_what_its_paper_defines(bins: int) -> None:
    outputs, targets = samples(classes(5))
    found = judged({"name": "ece", "bins": bins}, classes(5), outputs, targets).values
    p = probabilities(outputs)
    confidence, right = p.max(1), p.argmax(1) == targets.numpy()
    expected = 0.0
    for m in range(bins):
        inside = (confidence > m / bins) & (confidence <= (m + 1) / bins)
        if inside.any():
            distance = abs(right[inside].mean() - confidence[inside].mean())
            expected += inside.mean() * distance
    assert found["ece"] == EXACT(expected)


@pytest.mark.parametrize("k", [1, 3])
def test_the_first_k_are_scikit_learns_with_ties(k: int) -> None:
    outputs, targets = samples(classes(5))
    found = judged({"name": "top_k", "k": k}, classes(5), outputs, targets).values
    expected = sk.top_k_accuracy_score(targets, outputs, k=k)
    assert found == {f"top{k}_accuracy": EXACT(expected)}
    alike = judged({"name": "top_k", "k": k}, classes(5), torch.zeros(5, 5), torch.arange(5)).values
    assert alike == {f"top{k}_accuracy": k / 5}  # not 1: being like all others is no merit


def test_error_quantiles_and_mape_are_in_the_targets_own_unit() -> None:
    outputs, targets = samples(VALUES)
    chosen = [{"name": "error_quantiles", "quantiles": [0.5, 0.9, 1.0]}, "mape"]
    found = judged(chosen, VALUES, outputs, targets)
    mean, std = np.array(VALUES.mean), np.array(VALUES.std)
    truth, said = targets.double().numpy() * std + mean, outputs.double().numpy() * std + mean
    assert found.values["error_p50"] == EXACT(sk.median_absolute_error(truth, said))
    expected = np.quantile(np.abs(truth - said), 0.9, axis=0)
    assert found.values["error_p90"] == EXACT(expected.mean())
    assert found.by_class["error_p90"] == EXACT(dict(zip(VALUES.names, expected, strict=True)))
    assert found.values["error_p100"] == EXACT(np.abs(truth - said).max(0).mean())
    assert found.values["mape"] == EXACT(sk.mean_absolute_percentage_error(truth, said))


def test_what_is_undefined_is_nan_with_a_reason() -> None:
    two, ones = samples(classes(2), 50)[0], torch.ones(50, dtype=torch.int64)
    found = judged(["auc", "recall"], classes(2), two, ones)
    assert math.isnan(found.values["auc"])
    assert found.reasons == {"auc": "its samples are all of one class"}
    found = judged(
        ["auc", "average_precision", "recall", "balanced_accuracy"], classes(2), two, 0 * ones
    )
    assert math.isnan(found.values["average_precision"])
    assert found.reasons.keys() == {"auc", "average_precision", "recall"}
    none = torch.tensor([[1.0, 0.0]]).expand(50, 2)
    assert judged("precision", classes(2), none, ones).reasons == {
        "precision": "the model predicts none of it"
    }
    assert judged("f1", classes(2), none, 0 * ones).reasons.keys() == {"f1"}
    impossible = torch.tensor([[0.0, -math.inf]]).expand(50, 2)
    assert judged("log_loss", classes(2), impossible, ones).reasons == {
        "log_loss": "what is true was given the probability 0"
    }
    zero = Values(names=("y",), mean=(0.0,), std=(1.0,))
    assert judged("mape", zero, torch.ones(3, 1), torch.zeros(3, 1)).reasons.keys() == {"mape"}


def test_a_class_of_which_a_figure_is_undefined_is_left_out_of_the_mean() -> None:
    outputs, targets = samples(classes(4), 500)
    targets = targets.clamp(max=2)  # the last class never occurs
    found = judged(["auc", "average_precision", "recall"], classes(4), outputs, targets)
    p, true = probabilities(outputs)[:, :3], label_binarize(targets, classes=range(3))
    assert found.values["auc"] == EXACT(sk.roc_auc_score(true, p))
    assert found.values["average_precision"] == EXACT(sk.average_precision_score(true, p))
    assert all(math.isnan(found.by_class[name]["c3"]) for name in ("auc", "recall"))
    assert not found.reasons


def test_confidence_that_rounds_to_one_still_ranks() -> None:
    outputs = torch.tensor([[0.0, 40.0], [0.0, 41.0], [0.0, 42.0]])
    assert judged("auc", classes(2), outputs, torch.tensor([0, 1, 1])).values == {"auc": 1.0}


def test_half_precision_is_judged_as_what_it_says() -> None:
    outputs, targets = samples(classes(2), 200)
    half = outputs.bfloat16()
    expected = judged(["auc", "log_loss"], classes(2), half.float(), targets)
    assert judged(["auc", "log_loss"], classes(2), half, targets) == expected


def test_one_process_and_a_part_without_samples() -> None:
    chosen = choose_metrics(parse_metrics(["auc", "f1"]), classes(2))
    assert chosen.compute([chosen.gathered()]) == Figures()
    chosen.update(*samples(classes(2), 10))
    assert chosen.compute([chosen.gathered()]).by_class == {}
    assert chosen.compute([chosen.gathered()]).values.keys() == {"auc", "f1"}
    chosen.reset()
    assert chosen.compute([chosen.gathered()]) == Figures()


def test_no_metric_keeps_nothing() -> None:
    chosen = ChosenMetrics()
    chosen.update(*samples(classes(2), 10))
    assert chosen.gathered().outputs is None
    only_sums = choose_metrics(parse_metrics(["f1"]), classes(2))
    only_sums.update(*samples(classes(2), 10))
    assert only_sums.gathered().outputs is None


@pytest.mark.parametrize(
    "target", [classes(3), classes(2), FLAGS, VALUES], ids=["3", "2", "flags", "values"]
)
def test_every_metric_suits_a_target_or_says_which(target: Target) -> None:
    """Its figures are those that it announces, whatever is chosen beside it."""
    for name in registered.names():
        if not registered.is_builtin(name):
            continue
        accepted = registered.entry(name).factory.accepts  # type: ignore[attr-defined]
        if not isinstance(target, accepted):
            with pytest.raises(SpecError, match=rf"metrics=\[{name}\]: needs "):
                choose_metrics(parse_metrics([name]), target)
            continue
        chosen = choose_metrics(parse_metrics([name]), target)
        found = judged(name, target, *samples(target, 300))
        assert found.values.keys() == chosen.directions.keys()
        assert all(map(math.isfinite, found.values.values())), found
    with pytest.raises(SpecError, match="the target is the next token"):
        choose_metrics(parse_metrics(["auc"]), NextTokens(5))


def test_macro_f1_is_that_of_every_evaluation() -> None:
    outputs, targets = samples(classes(5))
    usual = metrics_for(classes(5), "cpu")
    usual.update(outputs, targets)
    found = judged("f1", classes(5), outputs, targets).values
    assert found["macro_f1"] == EXACT(usual.compute()["macro_f1"])


@pytest.mark.parametrize(
    ("chosen", "said"),
    [
        (["acu"], "there is no metric 'acu'. Did you mean 'auc'?"),
        (["accuracy"], "accuracy is computed anyway"),
        ([{"name": "ece", "bin": 10}], "metrics.bin: no such setting. Did you mean 'bins'?"),
        ([{"name": "top_k", "k": 0}], "metrics.k=0"),
        ([{"bins": 3}], "there is no metric None"),
    ],
)
def test_a_wrong_choice_is_one_message(chosen: list[object], said: str) -> None:
    with pytest.raises(ConfigError) as error:
        parse_metrics(chosen)  # type: ignore[arg-type]
    assert said in str(error.value)


def test_one_figure_twice_is_refused() -> None:
    with pytest.raises(ConfigError, match="its figure 'auc' is that of auc, too"):
        choose_metrics(parse_metrics(["auc", "auc"]), classes(2))
