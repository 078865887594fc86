"""Partial dependence: against the definition, and scikit-learn's terms for categories and numbers."""

import torch

from bigmodel.explain.partial_dependence import partial_dependence
from bigmodel.explain.subject import Options
from bigmodel.spec import Values
from tests.explain.subjects import learnt, linear


def test_of_a_linear_model_it_is_a_line_in_the_values_own_unit() -> None:
    subject, network = linear(Values(("price",), (10.0,), (2.0,)))
    for column, each in enumerate(partial_dependence(subject, Options())):
        values = torch.tensor(each.numbers)
        assert (values.diff() > 0).all()
        rise = 2 * network.weight.detach()[0, column] * (values - values[0])
        torch.testing.assert_close(each.mean - each.mean[0], rise, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(each.low, each.mean, rtol=1e-4, atol=1e-4)  # all rows react alike
        assert each.output == "price"


def test_it_is_the_mean_over_rows_with_that_value() -> None:
    subject = learnt("fnn", "table")
    colour = partial_dependence(subject, Options())[2]
    assert colour.numbers == ()
    inputs = subject.inputs().clone()
    output = int(subject.explained.bincount().argmax())
    for value, mean in zip(colour.values, colour.mean, strict=True):
        inputs[:, 2] = float(value)
        expected = subject.outputs_of(inputs).softmax(1)[:, output].mean()
        torch.testing.assert_close(mean, expected)
    assert (colour.low <= colour.high).all()


def test_the_band_of_a_probability_is_within_0_and_1() -> None:
    subject = learnt("fnn", "table")
    with torch.no_grad():
        for parameter in subject.model.parameters():
            parameter.mul_(8)  # a model that is sure: its rows' curves go from 0 to 1
    for each in partial_dependence(subject, Options()):
        assert (each.low >= 0).all()
        assert (each.high <= 1).all()
        assert (each.low <= each.high).all()
