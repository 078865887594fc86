"""Permutation importance: against the formula, against scikit-learn, and where figures are undefined."""

import math

import numpy as np
import pytest
import torch
from sklearn.base import BaseEstimator
from sklearn.inspection import permutation_importance

from bigmodel.errors import ConfigError
from bigmodel.explain.permutation import permutation
from bigmodel.explain.subject import Options
from bigmodel.spec import Values
from tests.explain.subjects import linear

VALUE = Values(("price",), (10.0,), (2.0,))


def test_of_a_linear_model_it_is_twice_the_weight_squared_times_the_variance() -> None:
    torch.manual_seed(3)
    subject, network = linear(VALUE)
    found = permutation(subject, Options(repeats=200))
    inputs = subject.inputs()
    expected = 2 * network.weight.detach()[0] ** 2 * inputs.var(0, correction=0)
    by_name = dict(zip(found.names, found.drops.tolist(), strict=True))
    got = [by_name[f"feature {column}"] for column in range(4)]
    np.testing.assert_allclose(got, expected, rtol=0.1)
    assert found.figure == "loss"
    assert found.value == pytest.approx(0.0, abs=1e-9)
    assert list(found.drops) == sorted(found.drops, reverse=True)


def test_it_agrees_with_scikit_learn() -> None:
    torch.manual_seed(1)
    subject, network = linear(VALUE)

    class Estimator(BaseEstimator):
        def fit(self) -> None: ...

        def predict(self, inputs: np.ndarray) -> np.ndarray:
            outputs: np.ndarray = network(torch.from_numpy(inputs).float()).detach().numpy()
            return outputs

    inputs, targets = subject.part.take(slice(0, 30))
    theirs = permutation_importance(
        Estimator(),
        inputs.numpy(),
        targets.numpy(),
        scoring="neg_mean_squared_error",
        n_repeats=300,
        random_state=0,
    )
    ours = permutation(subject, Options(repeats=300))
    by_name = dict(zip(ours.names, ours.drops.tolist(), strict=True))
    got = [by_name[f"feature {column}"] for column in range(4)]
    np.testing.assert_allclose(got, theirs.importances_mean, rtol=0.08)


def test_intervals_hold_the_truth() -> None:
    """95 % of intervals hold the importance in the population: here at least 80 of 100 do."""
    torch.manual_seed(2)
    held, widths = 0, []
    _, network = linear(VALUE)
    truth = 2 * network.weight.detach()[0] ** 2  # inputs have unit variance
    for seed in range(25):
        torch.manual_seed(seed)
        subject, other = linear(VALUE)
        other.load_state_dict(network.state_dict())
        targets = network(subject.inputs()).detach()
        subject.part.targets.copy_(targets)
        found = permutation(subject, Options(repeats=5, seed=seed))
        for name, low, high in zip(found.names, found.low, found.high, strict=True):
            held += int(low <= truth[int(name.split()[1])] <= high)
        widths.append(float((found.high - found.low).mean()))
    assert held >= 80
    assert min(widths) > 0


def test_without_targets_or_with_one_sample_it_is_refused() -> None:
    from dataclasses import replace

    subject, _ = linear(VALUE)
    with pytest.raises(ConfigError, match="--method permutation: needs samples with their targets"):
        permutation(replace(subject, figure=None), Options())
    with pytest.raises(ConfigError, match="--method permutation: needs two samples or more"):
        permutation(subject.first(1), Options())  # shuffled they are the same


def test_what_is_not_defined_is_nan() -> None:
    from dataclasses import replace

    subject, _ = linear(VALUE)
    subject.part.targets.fill_(1.0)
    assert subject.figure is not None
    undefined = replace(subject, figure=replace(subject.figure, name="r2", better="max"))
    found = permutation(undefined, Options(repeats=2))
    assert math.isnan(found.value)
    assert found.low.isnan().all()
