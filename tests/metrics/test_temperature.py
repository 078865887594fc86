"""Temperatures: those of least log loss, whatever the outputs."""

import numpy as np
import pytest
import torch
from scipy.optimize import minimize_scalar
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy

from bigmodel.metrics.temperature import fit_temperatures, scale
from bigmodel.spec import Classes, Flags

THREE, TWO = (Classes(tuple("abc"[:n]), (1,) * n) for n in (3, 2))
FLAGS = Flags(("x", "y"))


def drawn(size: int, classes: int, temperature: float) -> tuple[Tensor, Tensor]:
    """Outputs that are too large by a factor, and truths that follow from those before."""
    draw = torch.Generator().manual_seed(size)
    logits = 2 * torch.randn(size, classes, generator=draw)
    return logits * temperature, torch.multinomial(logits.softmax(1), 1, generator=draw)[:, 0]


@pytest.mark.parametrize("true", [0.3, 1.0, 4.0])
@pytest.mark.parametrize("target", [TWO, THREE])
def test_it_has_the_least_log_loss(target: Classes, true: float) -> None:
    outputs, targets = drawn(20_000, target.count, true)
    (found,) = fit_temperatures(outputs, targets, target)
    best = minimize_scalar(
        lambda t: float(cross_entropy(outputs.double() / t, targets)),
        bounds=(true / 3, true * 3),
        method="bounded",
        options={"xatol": 1e-6},
    )
    assert found == pytest.approx(best.x, rel=1e-3)
    assert found == pytest.approx(true, rel=0.05)


def test_each_label_has_its_own() -> None:
    first, second = drawn(20_000, 2, 0.5), drawn(20_001, 2, 3.0)
    columns = [(o[:20_000, 1] - o[:20_000, 0], t[:20_000]) for o, t in (first, second)]
    outputs, targets = (torch.stack(each, dim=1) for each in zip(*columns, strict=True))
    found = fit_temperatures(outputs, targets.float(), FLAGS)
    assert found == pytest.approx([0.5, 3.0], rel=0.05)
    calibrated = scale(outputs, found)
    for column in range(2):
        before, after = (
            binary_cross_entropy_with_logits(each[:, column].double(), targets[:, column].double())
            for each in (outputs, calibrated)
        )
        assert after < before


def test_one_sample_more_is_wrong_so_that_certainty_stays_finite() -> None:
    outputs = torch.tensor([[0.0, 1.0], [2.0, 0.0]] * 50)
    targets = torch.tensor([1, 0] * 50)
    (found,) = fit_temperatures(outputs, targets, TWO)
    # By hand: mean log loss with 1 of 102 wrong, over T.
    wrong, gaps = 1 / 102, np.array([1.0, 2.0])
    ts = np.linspace(0.05, 2, 40_000)[:, None]
    loss = (1 - wrong) * np.log1p(np.exp(-gaps / ts)) + wrong * np.log1p(np.exp(gaps / ts))
    assert found == pytest.approx(float(ts[loss.mean(1).argmin(), 0]), rel=1e-3)
    assert 0.1 < found < 0.5


@pytest.mark.parametrize(
    ("outputs", "targets"),
    [
        ([[0.0, 0.0]] * 5, [0, 1, 0, 1, 0]),
        ([[0.0, 9.0]] * 5, [0] * 5),  # worse than chance
        ([[-torch.inf, 9.0, 1.0]] * 3, [1, 2, 0]),
        ([[5e8, -3e30]] * 3, [0, 0, 1]),
        ([[1.0, 2.0]], [1]),
    ],
)
def test_it_is_finite_and_positive(outputs: list[list[float]], targets: list[int]) -> None:
    target = Classes(tuple("abc"[: len(outputs[0])]), (1,) * len(outputs[0]))
    (found,) = fit_temperatures(torch.tensor(outputs), torch.tensor(targets), target)
    assert 0.01 <= found <= 100


def test_what_is_likeliest_stays_so() -> None:
    outputs, targets = drawn(500, 3, 5.0)
    before = outputs.clone()
    scaled = scale(outputs, fit_temperatures(outputs, targets, THREE))
    assert torch.equal(outputs, before)
    assert torch.equal(scaled.argsort(1), outputs.argsort(1))
    assert scale(outputs, None) is outputs


def test_one_class_has_none_to_find() -> None:
    assert fit_temperatures(torch.zeros(4, 1), torch.zeros(4).long(), Classes(("a",), (4,))) == [1.0]


def test_a_part_that_all_outputs_share_does_not_matter() -> None:
    outputs, targets = drawn(500, 3, 2.0)
    shifted = outputs.double() + 1e6 * torch.rand(500, 1).double()
    found = fit_temperatures(shifted, targets, THREE)
    assert found == pytest.approx(fit_temperatures(outputs, targets, THREE), rel=1e-5)
