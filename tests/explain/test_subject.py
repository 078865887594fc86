"""The one number that is explained."""

import torch

from bigmodel.explain.subject import scores
from bigmodel.spec import Classes

CLASSES = Classes(("a", "b", "c", "d"), (1, 1, 1, 1))


def test_of_a_class_it_is_the_logit_less_the_mean_of_the_others() -> None:
    outputs, index = torch.randn(6, 4, dtype=torch.float64), torch.tensor([0, 1, 2, 3, 0, 1])
    for row, chosen, score in zip(outputs, index, scores(outputs, index, CLASSES), strict=True):
        others = torch.cat([row[:chosen], row[chosen + 1 :]])
        torch.testing.assert_close(score, row[chosen] - others.mean())
    torch.testing.assert_close(scores(outputs + 7, index, CLASSES), scores(outputs, index, CLASSES))


def test_impossible_classes_are_not_compared_with() -> None:
    inf = torch.inf
    outputs = torch.tensor([[1.0, 4.0, -inf, 2.0], [3.0, -inf, -inf, -inf]], requires_grad=True)
    found = scores(outputs, torch.tensor([1, 0]), CLASSES)
    assert found.tolist() == [2.5, 3.0]
    found.sum().backward()
    assert outputs.grad is not None
    assert outputs.grad.tolist() == [[-0.5, 1.0, 0.0, -0.5], [1.0, 0.0, 0.0, 0.0]]
