"""Metrics against scikit-learn's, however the samples are batched."""

import math

import numpy as np
import pytest
import torch
from sklearn import metrics as sk

from bigmodel.errors import SpecError
from bigmodel.metrics import CONFUSION_LIMIT, default_monitor, metric_names, metrics_for
from bigmodel.spec import IGNORED, Classes, Flags, NextTokens, Values


def classes(count):
    return Classes(names=tuple(map(str, range(count))), counts=(1,) * count)


FLAGS = Flags(names=("x", "y", "z"))
VALUES = Values(names=("price", "size"), mean=(1e6, -5.0), std=(250.0, 7.0))
TARGETS = {
    "3 classes": classes(3),
    "12 classes": classes(12),
    "many classes": classes(CONFUSION_LIMIT + 1),
    "flags": FLAGS,
    "values": VALUES,
}
every_target = pytest.mark.parametrize("target", TARGETS.values(), ids=TARGETS)


def samples(target, size=203, seed=0):
    draw = torch.Generator().manual_seed(seed)
    outputs = torch.randn(size, target.output_size, generator=draw)
    match target:
        case Classes(count=count):
            targets = torch.randint(min(count, 40), (size,), generator=draw)
            outputs[torch.arange(size), targets] += 2.0
        case Flags(count=count):
            targets = torch.randint(2, (size, count), generator=draw).float()
        case Values():
            targets = 0.7 * outputs + 0.5 * torch.randn(outputs.shape, generator=draw)
    return outputs, targets


def metrics_of(target, outputs, targets, pieces=None, **options):
    metrics = metrics_for(target, "cpu", **options)
    pieces = pieces or [len(targets)]
    for piece, truth in zip(outputs.split(pieces), targets.split(pieces), strict=True):
        metrics.update(piece, truth)
    return metrics.compute()


@pytest.mark.parametrize("count", [3, 12, CONFUSION_LIMIT + 1])
def test_class_metrics_are_scikit_learns(count):
    target = classes(count)
    outputs, targets = samples(target)
    found = metrics_of(target, outputs, targets)
    predictions = outputs.argmax(1)
    assert found["accuracy"] == pytest.approx(sk.accuracy_score(targets, predictions))
    expected = sk.f1_score(targets, predictions, average="macro", zero_division=0)
    assert found["macro_f1"] == pytest.approx(expected)
    if count > 5:
        expected = sk.top_k_accuracy_score(targets, outputs, k=5, labels=np.arange(count))
        assert found["top5_accuracy"] == pytest.approx(expected)


def test_macro_f1_leaves_out_classes_that_never_occur():
    target = classes(4)
    truths, predictions = torch.tensor([0, 0, 1]), torch.tensor([0, 3, 1])
    found = metrics_of(target, torch.eye(4)[predictions], truths)
    assert found["macro_f1"] == pytest.approx((2 / 3 + 1 + 0) / 3)  # class 2 is nowhere


def test_confusion_is_truth_by_prediction():
    target = classes(3)
    outputs, targets = samples(target)
    metrics = metrics_for(target, "cpu")
    metrics.update(outputs, targets)
    expected = sk.confusion_matrix(targets, outputs.argmax(1))
    np.testing.assert_array_equal(metrics.confusion, expected)
    metrics.confusion.zero_()  # a copy: the sums are safe
    np.testing.assert_array_equal(metrics.confusion, expected)
    assert metrics_for(classes(CONFUSION_LIMIT + 1), "cpu").confusion is None
    assert metrics_for(FLAGS, "cpu").confusion is None
    assert metrics_for(VALUES, "cpu").confusion is None


def test_flag_metrics_are_scikit_learns():
    outputs, targets = samples(FLAGS)
    outputs[:, 2], targets[:, 2] = -1.0, 0.0  # a label that is neither set nor predicted
    found = metrics_of(FLAGS, outputs, targets)
    said = (outputs > 0).int().numpy()
    expected = sk.f1_score(targets.int().numpy(), said, average="macro", zero_division=np.nan)
    assert found["macro_f1"] == pytest.approx(expected)
    assert found["accuracy"] == pytest.approx((said == targets.numpy()).mean())


def test_value_metrics_are_scikit_learns_in_the_targets_own_unit():
    outputs, targets = samples(VALUES)
    found = metrics_of(VALUES, outputs, targets)
    mean, std = np.array(VALUES.mean), np.array(VALUES.std)
    truth, said = targets.double().numpy() * std + mean, outputs.double().numpy() * std + mean
    assert found["mae"] == pytest.approx(sk.mean_absolute_error(truth, said), rel=1e-9)
    assert found["rmse"] == pytest.approx(sk.root_mean_squared_error(truth, said), rel=1e-9)
    assert found["r2"] == pytest.approx(sk.r2_score(truth, said), rel=1e-9)


def test_r2_is_sound_far_from_the_training_parts_mean():
    """A validation set a thousand deviations off: sums of squares still tell its spread."""
    target = Values(names=("y",), mean=(0.0,), std=(1.0,))
    targets = 1000 + 1e-2 * torch.randn(500, 1, generator=torch.Generator().manual_seed(1))
    outputs = targets + 3e-3 * torch.randn(500, 1, generator=torch.Generator().manual_seed(2))
    found = metrics_of(target, outputs, targets, [100] * 5)
    assert found["r2"] == pytest.approx(sk.r2_score(targets.double(), outputs.double()), rel=1e-4)


@pytest.mark.parametrize("pieces", [[1], [3], [3, 4], [1, 1, 1]])
def test_r2_of_equal_truths_is_undefined_as_scikit_learn_says_without_force_finite(pieces):
    """0 / 0 for predictions without error, and no finite number for others: neither is a figure."""
    target, size = Values(names=("y",), mean=(0.0,), std=(1.0,)), sum(pieces)
    truth = torch.full((size, 1), 0.1)
    for said in (truth, truth + 1):
        found = metrics_of(target, said, truth, pieces)
        if size > 1:
            with np.errstate(divide="ignore", invalid="ignore"):
                quarter = np.full(size, 0.25)  # whose mean has no rounding error
                error = said[:, 0].double().numpy() - truth[:, 0].double().numpy()
                assert not math.isfinite(sk.r2_score(quarter, quarter + error, force_finite=False))
        assert math.isnan(found["r2"])
        assert found["rmse"] == pytest.approx(sk.root_mean_squared_error(truth, said))


def test_r2_is_of_the_values_that_differ():
    outputs, targets = samples(VALUES)
    targets[:, 1] = 0.3
    found, alone = (metrics_of(VALUES, outputs, targets), sk.r2_score(targets[:, 0], outputs[:, 0]))
    assert found["r2"] == pytest.approx(alone, rel=1e-6)


def test_macro_f1_of_labels_of_which_nothing_is_said_and_nothing_true_is_undefined():
    none = torch.zeros(5, 3)
    found = metrics_of(FLAGS, none - 1, none)
    assert found["accuracy"] == 1.0
    assert math.isnan(found["macro_f1"])


@every_target
def test_metrics_do_not_depend_on_batches(target):
    outputs, targets = samples(target)
    whole = metrics_of(target, outputs, targets)
    for pieces in ([64, 64, 64, 11], [1, 200, 2]):
        assert metrics_of(target, outputs, targets, pieces) == pytest.approx(whole, rel=1e-12)


@every_target
def test_names_tell_what_an_evaluation_gives(target):
    names = metric_names(target)
    assert set(names) == {"loss", *metrics_of(target, *samples(target))}
    assert set(names.values()) <= {"max", "min"}
    assert default_monitor(target) in names


def test_each_targets_monitor():
    assert [default_monitor(target) for target in (classes(3), FLAGS, VALUES)] == [
        "accuracy",
        "loss",
        "rmse",
    ]


def test_light_metrics_leave_out_top5_only():
    outputs, targets = samples(classes(12))
    full = metrics_of(classes(12), outputs, targets)
    light = metrics_of(classes(12), outputs, targets, light=True)
    assert full.pop("top5_accuracy") > 0
    assert light == full


@every_target
def test_a_saved_state_goes_on_where_it_stopped(target):
    outputs, targets = samples(target)
    first, second = metrics_for(target, "cpu"), metrics_for(target, "cpu")
    first.update(outputs[:100], targets[:100])
    state = first.state_dict()
    first.update(outputs[100:], targets[100:])
    assert all(isinstance(value, torch.Tensor) for value in state.values())
    second.load_state_dict(state)
    second.update(outputs[100:], targets[100:])
    assert second.compute() == first.compute()


def test_another_targets_state_is_refused():
    with pytest.raises(ValueError, match="sums of shape"):
        metrics_for(classes(3), "cpu").load_state_dict(metrics_for(classes(4), "cpu").state_dict())


@every_target
def test_reset_forgets(target):
    outputs, targets = samples(target)
    metrics = metrics_for(target, "cpu")
    assert metrics.compute() == {}
    metrics.update(outputs[:50], targets[:50])
    metrics.reset()
    assert metrics.compute() == {}
    metrics.update(outputs[50:], targets[50:])
    assert metrics.compute() == metrics_of(target, outputs[50:], targets[50:])


@every_target
def test_an_update_never_waits_for_the_device(target):
    """Tensors without data would raise at any look at their values."""
    metrics = metrics_for(target, "meta")
    outputs, targets = (tensor.to("meta") for tensor in samples(target))
    metrics.update(outputs.requires_grad_(), targets)


@every_target
def test_updates_may_mix_inference_and_training(target):
    outputs, targets = samples(target)
    metrics = metrics_for(target, "cpu")
    with torch.inference_mode():
        metrics.update(outputs[:64], targets[:64])
    metrics.update(outputs[64:128].clone().requires_grad_(), targets[64:128])
    metrics.update(outputs[128:], targets[128:])
    assert metrics.compute() == pytest.approx(metrics_of(target, outputs, targets), rel=1e-12)
    assert not any(value.requires_grad for value in metrics.state_dict().values())


@every_target
def test_shapes_are_never_broadcast(target):
    outputs, targets = samples(target, size=8)
    for wrong in ((outputs[:, :1], targets), (outputs[:4], targets), (outputs[:, 0], targets[:, None])):
        with pytest.raises(SpecError, match="do not go with targets"):
            metrics_for(target, "cpu").update(*wrong)
    single = Values(names=("y",), mean=(0.0,), std=(1.0,))
    with pytest.raises(SpecError, match=r"\(8, 1\) do not go with targets of shape \(8,\)"):
        metrics_for(single, "cpu").update(torch.zeros(8, 1), torch.zeros(8))


def tokens(vocab_size=7, size=(9, 5), seed=0):
    """Outputs and next tokens, some of which nothing is asked of."""
    draw = torch.Generator().manual_seed(seed)
    outputs = torch.randn(*size, vocab_size, generator=draw)
    targets = torch.randint(vocab_size, size, generator=draw)
    targets[torch.rand(size, generator=draw) < 0.3] = IGNORED
    return outputs, targets


def test_token_metrics_are_scikit_learns_over_the_positions_asked_for():
    outputs, targets = tokens()
    characters = (1, 2, 3, 1, 0, 5, 2)
    found = metrics_of(NextTokens(7, characters), outputs, targets)
    asked = targets != IGNORED
    said, truth = outputs[asked].double(), targets[asked]
    surprise = sk.log_loss(truth, torch.softmax(said, -1), labels=range(7), normalize=False)
    assert found["perplexity"] == pytest.approx(math.exp(surprise / len(truth)), rel=1e-6)
    assert found["accuracy"] == sk.accuracy_score(truth, said.argmax(1))
    count = sum(characters[token] for token in truth.tolist())
    assert found["bits_per_character"] == pytest.approx(surprise / math.log(2) / count, rel=1e-6)
    assert "bits_per_character" not in metrics_of(NextTokens(7), outputs, targets)


def test_token_metrics_do_not_depend_on_batches():
    outputs, targets = tokens()
    whole = metrics_of(NextTokens(7), outputs, targets)
    assert metrics_of(NextTokens(7), outputs, targets, [1, 6, 2]) == pytest.approx(whole, rel=1e-6)


def test_of_a_part_of_which_nothing_is_asked_no_figure_is_known():
    outputs, targets = tokens()
    found = metrics_of(NextTokens(7, (1,) * 7), outputs, torch.full_like(targets, IGNORED))
    assert all(math.isnan(value) for value in found.values())


def test_bits_per_character_of_tokens_that_stand_for_none_are_undefined():
    outputs, targets = tokens()
    found = metrics_of(NextTokens(7, (0,) * 7), outputs, targets)
    assert math.isnan(found["bits_per_character"])
    assert math.isfinite(found["perplexity"])


def of_kind(target):
    return tokens(size=(203, 5)) if isinstance(target, NextTokens) else samples(target)


EVERY = TARGETS | {"tokens": NextTokens(7, (1,) * 7)}
every_kind = pytest.mark.parametrize("target", EVERY.values(), ids=EVERY)


@every_kind
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("row", [0, 100, 202])
def test_one_sample_of_which_nothing_is_known_leaves_no_figure(target, value, row):
    outputs, targets = of_kind(target)
    targets[row] = targets[row].clamp(min=0)  # of tokens: all of them are asked for
    outputs[row] = value
    for pieces in (None, [64, 64, 64, 11]):
        found = metrics_of(target, outputs, targets, pieces)
        assert found.keys() == metric_names(target).keys() - {"loss"}
        assert all(math.isnan(figure) for figure in found.values()), found


@pytest.mark.parametrize("count", [3, 12, CONFUSION_LIMIT + 1])
def test_a_class_that_is_impossible_is_no_fault(count):
    outputs, targets = samples(classes(count))
    outputs[:, 0] = outputs[:, 1]
    targets = targets.clamp(min=1)
    expected = metrics_of(classes(count), outputs.index_fill(1, torch.tensor([0]), -1e9), targets)
    outputs[:, 0] = -math.inf
    assert metrics_of(classes(count), outputs, targets) == expected


@pytest.mark.parametrize("target", [classes(12), Flags(("p", "q", "r"))], ids=["classes", "flags"])
def test_outputs_whose_sum_is_no_number_count_as_long_as_each_is_one(target):
    outputs, targets = of_kind(target)
    assert metrics_of(target, outputs.sign() * 3e38, targets) == metrics_of(
        target, outputs.sign(), targets
    )


@every_kind
def test_batches_that_are_not_fit_do_not_count(target):
    outputs, targets = of_kind(target)
    metrics = metrics_for(target, "cpu")
    metrics.update(outputs[:64], targets[:64], torch.tensor(True))
    bad = torch.full_like(outputs[64:128], math.nan)
    metrics.update(bad, targets[64:128], torch.tensor(False))
    metrics.update(outputs[64:128], targets[64:128], torch.tensor(False))
    apart = metrics.over(torch.zeros_like(metrics.sums))
    apart.update(outputs[128:], targets[128:])
    metrics.add(apart.sums, 75, torch.tensor(True))
    apart.update(bad, targets[64:128])
    metrics.add(apart.sums, 64, torch.tensor(False))
    good = torch.cat([torch.arange(64), torch.arange(128, 203)])
    expected = metrics_of(target, outputs[good], targets[good])
    assert metrics.compute(of_all=False) == pytest.approx(expected, rel=1e-12)
    assert all(math.isnan(figure) for figure in metrics.compute().values())
    metrics.reset()
    metrics.update(outputs, targets, torch.tensor(False))
    assert all(math.isnan(figure) for figure in metrics.compute(of_all=False).values())


@every_kind
def test_sums_of_an_earlier_version_counted_all(target):
    outputs, targets = of_kind(target)
    first, second = metrics_for(target, "cpu"), metrics_for(target, "cpu")
    first.update(outputs, targets)
    state = first.state_dict()
    state.pop("counted", None)
    second.load_state_dict(state)
    assert second.compute() == first.compute()
