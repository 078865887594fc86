import pytest
import torch
from sklearn.metrics import precision_score, recall_score

from bigmodel.metrics.score_counts import STEPS, ScoreCounts
from bigmodel.spec import Classes, Flags, NextTokens, Target, Values

CPU = torch.device("cpu")
NAMES = tuple("abcdefghijklmnopqrstuvwxyz")


def classes(count: int) -> Classes:
    return Classes(NAMES[:count], (1,) * count)


def counted(target: Classes | Flags, outputs: torch.Tensor, targets: torch.Tensor) -> ScoreCounts:
    found = ScoreCounts(target, CPU)
    for batch in torch.arange(len(outputs)).split(7):
        found.update(outputs[batch], targets[batch])
    return found


def test_precision_and_recall_follow_at_every_step() -> None:
    torch.manual_seed(0)
    outputs, targets = torch.randn(99, 3), torch.randint(3, (99,))
    found = counted(classes(3), outputs, targets).by_name(lambda counts: counts)
    assert list(found) == ["a", "b", "c"]
    for index, counts in enumerate(found.values()):
        scores, positive = outputs.softmax(1)[:, index], targets == index
        true, false = counts.flip(1).cumsum(1).flip(1)
        for step in range(0, STEPS, 10):
            predicted = scores >= step / (STEPS - 1)
            called = int(true[step] + false[step])
            assert called == int(predicted.sum())
            if called:
                assert int(true[step]) / called == pytest.approx(precision_score(positive, predicted))
            assert int(true[step]) / int(positive.sum()) == pytest.approx(
                recall_score(positive, predicted)
            )


def test_of_two_classes_the_second_counts() -> None:
    outputs, targets = torch.tensor([[0.0, 9.0], [9.0, 0.0], [0.0, 9.0]]), torch.tensor([1, 0, 0])
    found = counted(classes(2), outputs, targets)
    assert found.names == ("b",)
    assert found.counts[0].nonzero().tolist() == [[0, 199], [1, 0], [1, 199]]


def test_labels_count_one_by_one() -> None:
    outputs, targets = (
        torch.tensor([[-99.0, 99.0], [0.0, -99.0]]),
        torch.tensor([[0.0, 1.0], [1.0, 1.0]]),
    )
    found = counted(Flags(("x", "y")), outputs, targets)
    assert found.names == ("x", "y")
    assert found.counts.nonzero().tolist() == [[0, 0, 100], [0, 1, 0], [1, 0, 0], [1, 0, 200]]


def test_many_classes_count_together() -> None:
    torch.manual_seed(0)
    outputs, targets = torch.randn(50, 26), torch.randint(26, (50,))
    found = counted(classes(26), outputs, targets)
    assert found.names == ("all",)
    assert found.counts.sum(2).tolist() == [[50, 50 * 25]]


@pytest.mark.parametrize("strange", [torch.nan, torch.inf, -torch.inf])
def test_what_is_no_number_harms_no_other_memory(strange: float) -> None:
    outputs = torch.full((4, 3), strange)
    assert counted(classes(3), outputs, torch.tensor([0, 1, 2, 0])).counts.sum() == 12
    assert counted(Flags(("x", "y", "z")), outputs, torch.zeros(4, 3)).counts.sum() == 12


@pytest.mark.parametrize(
    ("target", "known"),
    [
        (classes(3), True),
        (Flags(("x",)), True),
        (Values(("x",), (0.0,), (1.0,)), False),
        (NextTokens(9), False),
        (Classes(tuple(map(str, range(1025))), (1,) * 1025), False),
    ],
)
def test_what_can_be_counted(target: Target, known: bool) -> None:
    assert (ScoreCounts.of(target, CPU) is not None) == known
