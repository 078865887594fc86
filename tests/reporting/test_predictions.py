"""Predictions and targets as columns."""

import pytest
import torch

from bigmodel.reporting.predictions import merge_columns, predictions
from bigmodel.spec import Classes, Flags, Values


def test_classes_in_words() -> None:
    predicted = predictions(
        torch.tensor([[0.0, 2.0], [1.0, 0.0]]), Classes(("a", "b"), ()), probabilities=True
    )
    assert predicted["prediction"].to_pylist() == ["b", "a"]
    assert predicted["probability"] == pytest.approx([0.8808, 0.7311], abs=1e-4)
    assert predicted["probability of b"] == pytest.approx([0.8808, 0.2689], abs=1e-4)


def test_labels_that_do_not_exclude_each_other() -> None:
    predicted = predictions(torch.tensor([[0.5, -1.0]]), Flags(("wet", "cold")), probabilities=True)
    assert predicted["wet"].tolist() == [1]
    assert predicted["cold"].tolist() == [0]
    assert predicted["probability of cold"] == pytest.approx([0.2689], abs=1e-4)


def test_values_come_in_their_own_unit_with_as_many_digits_as_mean_something() -> None:
    outputs = torch.tensor([[1.0, 0.1]])
    target = Values(("price", "size"), mean=(200_000.0, 3.0), std=(50_000.0, 0.5))
    predicted = predictions(outputs, target, probabilities=False)
    assert predicted["price"].tolist() == [250_000.0]
    assert predicted["size"].tolist() == [3.05]
    one = predictions(outputs[:, :1], Values(("price",), (2.0,), (3.0,)), probabilities=False)
    assert one["prediction"].tolist() == [5.0]


def test_a_column_of_the_same_name_stays() -> None:
    assert list(merge_columns({"prediction": [1]}, {"prediction": [2]})) == [
        "prediction",
        "prediction (predicted)",
    ]
