"""Metrics of several targets: those that each has alone, under its name."""

import math

import pytest
import torch

from bigmodel.errors import SpecError
from bigmodel.metrics.choice import default_monitor, metric_names, metrics_for, undefined_reasons
from bigmodel.metrics.multitask import split_outputs, split_targets
from bigmodel.spec import Classes, Multitask, Values

KIND = Classes(tuple("abcdefg"), (1,) * 7)
PRICE = Values(("price",), (10.0,), (3.0,))
BOTH = Multitask(("price", "kind"), (PRICE, KIND))


def samples(count: int) -> tuple[torch.Tensor, torch.Tensor]:
    targets = torch.stack([torch.randn(count), torch.randint(0, 7, (count,)).float()], dim=1)
    return torch.randn(count, 8), targets


def test_each_target_is_split_off_as_if_it_were_alone() -> None:
    outputs, targets = samples(5)
    price, kind = split_targets(targets, BOTH)
    assert torch.equal(price, targets[:, :1])
    assert kind.dtype == torch.int64
    assert torch.equal(kind, targets[:, 1].long())
    assert [own.shape for own in split_outputs(outputs, BOTH)] == [(5, 1), (5, 7)]


@pytest.mark.parametrize("light", [False, True])
def test_figures_are_those_of_each_target_alone(light: bool) -> None:
    batches = [samples(count) for count in (5, 1, 8)]
    together = metrics_for(BOTH, "cpu", light)
    alone = {
        name: metrics_for(part, "cpu", light) for name, part in zip(BOTH.names, BOTH.parts, strict=True)
    }
    for outputs, targets in batches:
        together.update(outputs, targets)
        split = split_outputs(outputs, BOTH), split_targets(targets, BOTH)
        for metrics, own, truths in zip(alone.values(), *split, strict=True):
            metrics.update(own, truths)
    expected = {f"{n}/{key}": v for n, each in alone.items() for key, v in each.compute().items()}
    assert together.compute() == pytest.approx(expected)
    assert together.samples == 14
    if not light:
        assert set(expected) == set(metric_names(BOTH)) - {"loss"}
    again = metrics_for(BOTH, "cpu", light)
    again.load_state_dict(together.state_dict())
    assert again.compute() == together.compute()
    together.reset()
    assert together.compute() == {}


def test_a_copy_over_other_sums_leaves_the_original_alone() -> None:
    metrics = metrics_for(BOTH, "cpu")
    other = metrics.over(torch.zeros_like(metrics.sums))
    outputs, targets = samples(6)
    other.update(outputs, targets, valid=torch.tensor(True))
    assert not metrics.sums.any()
    metrics.add(other.sums, 6, torch.tensor(True))
    assert metrics.compute() == other.compute()
    rejected = metrics_for(BOTH, "cpu")
    rejected.update(outputs, targets, valid=torch.tensor(False))
    assert all(map(math.isnan, rejected.compute().values()))


def test_an_undefined_output_makes_every_figure_undefined() -> None:
    metrics = metrics_for(BOTH, "cpu")
    outputs, targets = samples(6)
    outputs[2, 0] = torch.nan
    metrics.update(outputs, targets)
    assert all(map(math.isnan, metrics.compute().values()))


def test_a_figure_that_is_undefined_has_its_reason() -> None:
    metrics = metrics_for(BOTH, "cpu")
    outputs, targets = samples(6)
    targets[:, 0] = 0.5
    metrics.update(outputs, targets)
    assert undefined_reasons(metrics.compute()) == {"price/r2": "all of its values are equal"}


def test_the_loss_chooses_the_best_weights() -> None:
    assert default_monitor(BOTH) == "loss"


def test_shapes_have_to_match() -> None:
    outputs, targets = samples(4)
    with pytest.raises(SpecError, match="do not go with targets"):
        metrics_for(BOTH, "cpu").update(outputs[:, :5], targets)
    with pytest.raises(SpecError, match="do not go with targets"):
        metrics_for(BOTH, "cpu").update(outputs, targets[:, :1])
