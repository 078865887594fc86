"""Baselines are scikit-learn's models on the very arrays that networks get."""

from typing import Any

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.metrics import accuracy_score, root_mean_squared_error

from bigmodel.cli.sweep import baselines
from bigmodel.cli.sweep.baselines import fitted
from bigmodel.data.base import Dataset
from bigmodel.data.parts import Part, Texts
from bigmodel.registry import data
from bigmodel.spec import Classes, DataSpec, Features, Tokens, Values


def dataset(name: str, **settings: Any) -> Dataset:
    built: Dataset = data.build(data.parse({"name": name, **settings}))
    return built


def arrays(part: Any, read: Dataset) -> tuple[Any, Any]:
    inputs, targets = part.take(slice(0, len(part)))
    scaling = read.preprocessing.scaling()
    return (inputs if scaling is None else scaling(inputs)).flatten(1).numpy(), targets.numpy()


def made(inputs: Any, targets: torch.Tensor, input_spec: Any, target: Any) -> Dataset:
    """The first three quarters for training."""
    cut = len(targets) * 3 // 4
    parts = [Part(inputs[where], targets[where]) for where in (slice(None, cut), slice(cut, None))]
    return Dataset(DataSpec("made", input_spec, target, {}), *parts)


def test_classes() -> None:
    read = dataset("digits")
    (x, y), (x_val, y_val) = arrays(read.train, read), arrays(read.val, read)
    expected = accuracy_score(y_val, LogisticRegression(max_iter=1000).fit(x, y).predict(x_val))
    found = {each.name: each for each in fitted(read)}
    assert list(found) == ["the most frequent class", "logistic regression", "gradient boosting"]
    assert found["logistic regression"].figures["val/accuracy"] == pytest.approx(expected)
    assert found["logistic regression"].samples == len(y)
    assert found["the most frequent class"].figures["val/accuracy"] < 0.2
    assert found["gradient boosting"].figures["val/accuracy"] > 0.9


def test_values_are_judged_in_their_own_unit() -> None:
    read = dataset("diabetes")
    target = read.spec.target
    assert isinstance(target, Values)
    (x, y), (x_val, y_val) = arrays(read.train, read), arrays(read.val, read)
    model = Ridge().fit(x, y[:, 0])
    expected = root_mean_squared_error(y_val[:, 0], model.predict(x_val)) * target.std[0]
    found = {each.name: each for each in fitted(read)}
    assert list(found) == ["the mean", "linear regression", "gradient boosting"]
    assert found["linear regression"].figures["val/rmse"] == pytest.approx(expected, rel=1e-5)
    assert found["the mean"].figures["val/r2"] <= 0


def test_several_values_at_once() -> None:
    x = torch.randn(80, 3, generator=torch.Generator().manual_seed(0))
    y = torch.stack([x[:, 0], -x[:, 1]], dim=1)
    target = Values(("a", "b"), (0.0, 0.0), (1.0, 1.0))
    found = {each.name: each for each in fitted(made(x, y, Features(3), target))}
    assert [each.error for each in found.values()] == [None] * 3
    assert found["linear regression"].figures["val/r2"] > 0.99


def test_a_category_is_no_number() -> None:
    """The class is whether a category's index is odd, which no line in the index can tell."""
    category = torch.arange(200) % 10
    x = torch.stack([category.float(), torch.zeros(200)], dim=1)
    spec = Features(2, ("kind", "zero"), (10, 0))
    read = made(x, category % 2, spec, Classes(("even", "odd"), (75, 75)))
    found = {each.name: each.figures["val/accuracy"] for each in fitted(read)}
    assert found["logistic regression"] == 1.0


def test_a_class_without_training_samples() -> None:
    x = torch.randn(40, 2, generator=torch.Generator().manual_seed(0))
    y = (x[:, 0] > 0).long() * 2
    read = made(x, y, Features(2), Classes(("a", "b", "c"), (15, 0, 15)))
    found = {each.name: each.figures["val/accuracy"] for each in fitted(read)}
    assert found["logistic regression"] == 1.0


def test_texts_by_their_tokens() -> None:
    """The class is whether token 1 comes right after token 0."""
    rng = np.random.default_rng(0)
    sizes = torch.from_numpy(rng.integers(2, 6, 100))
    starts = torch.cat([torch.zeros(1, dtype=torch.int64), sizes.cumsum(0)[:-1]])
    tokens = torch.from_numpy(rng.integers(2, 6, int(sizes.sum())))
    targets = torch.arange(100) % 2
    for start, target in zip(starts.tolist(), targets.tolist(), strict=True):
        tokens[start : start + 2] = torch.tensor([0, 1] if target else [1, 0])
    whole = Texts(tokens, starts, sizes, targets, pad=6)
    parts = [whole.select(torch.arange(75)), whole.select(torch.arange(75, 100))]
    spec = DataSpec("made", Tokens(6, 7, 6), Classes(("a", "b"), (38, 37)), {})
    found = {each.name: each for each in fitted(Dataset(spec, *parts))}
    assert list(found) == ["the most frequent class", "tf-idf + logistic regression"]
    assert found["tf-idf + logistic regression"].figures["val/accuracy"] == 1.0


def test_a_test_part_is_evaluated_too() -> None:
    read = dataset("iris")
    read.test = read.val
    for each in fitted(read):
        assert each.figures["test/accuracy"] == each.figures["val/accuracy"]


def test_large_data_is_limited_and_a_model_that_fails_is_listed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(baselines, "MOST_VALUES", 4)  # one sample of iris, so one class
    found = {each.name: each for each in fitted(dataset("iris"))}
    assert {each.samples for each in found.values()} == {1}
    assert "ValueError" in (found["logistic regression"].error or "")
    assert found["logistic regression"].figures == {}


def test_a_large_validation_part_is_evaluated_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    read = dataset("iris")
    whole = fitted(read)[0].figures
    monkeypatch.setattr(baselines, "MOST_VALUES", 4 * len(read.train))
    read.val = read.val.select(torch.arange(len(read.val)).repeat(9))
    assert len(read.val) > len(read.train)
    assert fitted(read)[0].figures == pytest.approx(whole)
