"""What is named most is what the model goes by: taking it away costs more than taking anything else."""

import pytest
import torch
from torch import Tensor

from bigmodel.explain.baselines import baseline_of
from bigmodel.explain.integrated_gradients import integrated_gradients
from bigmodel.explain.occlusion import occlusion
from bigmodel.explain.permutation import permutation
from bigmodel.explain.subject import Options, Subject
from tests.explain.subjects import CASES, READS, learnt

METHODS = {"integrated_gradients": integrated_gradients, "occlusion": occlusion}


def scores_while_deleting(subject: Subject, order: Tensor) -> Tensor:
    """The mean score over a deletion of half of the parts, in the order of each sample: (samples,)."""
    inputs = subject.inputs().flatten(1).clone()
    baseline = baseline_of(subject.preprocessing).inputs.flatten(1).expand_as(inputs)
    every, scores = torch.arange(len(inputs)), []
    for part in order.T[: max(1, order.shape[1] // 2)]:
        inputs[every, part] = baseline[every, part]
        shaped = inputs.view(-1, *subject.preprocessing.spec.input.shape)
        scores.append(subject.scores_of(shaped, every))
    return torch.stack(scores).mean(0)


@pytest.mark.parametrize(("model", "kind"), CASES)
@pytest.mark.parametrize("method", METHODS)
def test_deleting_what_is_named_most_costs_more_than_deleting_at_random(
    method: str, model: str, kind: str
) -> None:
    subject = learnt(model, kind)
    assert (subject.outputs.argmax(1) == subject.part.take(slice(0, 60))[1]).float().mean() > 0.8
    result = METHODS[method](subject, Options(patch=2))
    named = scores_while_deleting(subject, result.values.flatten(1).argsort(1, descending=True))
    anything = torch.rand(2, *result.values.flatten(1).shape).argsort(2)
    at_random = torch.stack([scores_while_deleting(subject, order) for order in anything]).mean(0)
    before = result.scores.double()
    assert (before - named).mean() > 1.25 * (before - at_random).mean()
    assert (named < at_random).float().mean() > 0.8


@pytest.mark.parametrize(("model", "kind"), CASES)
def test_attributions_of_models_that_have_learnt_add_up(model: str, kind: str) -> None:
    result = integrated_gradients(learnt(model, kind), Options())
    difference = (result.scores - result.baseline_scores).abs()
    large = difference > 0.05 * result.values.flatten(1).abs().sum(1)  # else it is what cancels
    assert large.float().mean() > 0.7
    assert (result.gaps[large] < 1e-3).all()


@pytest.mark.parametrize("model", [model for model, kinds in READS.items() if "table" in kinds])
def test_columns_of_noise_rank_behind_all_others_and_are_worth_nothing(model: str) -> None:
    importances = permutation(learnt(model, "table"), Options(repeats=5))
    drop, low, high = (
        dict(zip(importances.names, each.tolist(), strict=True))
        for each in (importances.drops, importances.low, importances.high)
    )
    assert set(importances.names[:3]) == {"a", "b", "colour"}
    assert all(low[name] > 0 for name in ("a", "b", "colour"))
    assert low["noise"] <= 0.02
    assert high["noise"] < 0.1 * drop[importances.names[0]]
    size = integrated_gradients(learnt(model, "table"), Options()).values.abs().mean(0)
    names = learnt(model, "table").preprocessing.spec.input.names
    ranked = [names[index] for index in size.argsort(descending=True)]
    assert set(ranked[:3]) == {"a", "b", "colour"}
