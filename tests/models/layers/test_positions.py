"""Positions against the papers' formulas, written out with plain loops."""

import math

import pytest
import torch

from bigmodel.models.layers.positions import Positions, Rotary, coordinates, sinusoids


def test_coordinates_run_row_by_row() -> None:
    assert coordinates((2, 3)).tolist() == [[0, 0], [0, 1], [0, 2], [1, 0], [1, 1], [1, 2]]


@pytest.mark.parametrize("dim", [8, 7, 2])
def test_sinusoids_along_a_line_are_those_of_the_paper(dim: int) -> None:
    codes = sinusoids((30,), dim)
    even = dim + dim % 2
    for place in range(30):
        for channel in range(dim):
            angle = place / 10_000 ** (2 * (channel // 2) / even)
            expected = math.cos(angle) if channel % 2 else math.sin(angle)
            assert codes[place, channel].item() == pytest.approx(expected, abs=1e-4)


def test_over_an_image_each_axis_has_half_of_the_channels() -> None:
    codes = sinusoids((3, 4), 8)
    for row in range(3):
        for column in range(4):
            for axis, place in enumerate((row, column)):
                for pair in range(2):
                    angle = place / 100 ** (2 * pair / 4)
                    found = codes[row * 4 + column, axis * 4 + pair * 2 :][:2].tolist()
                    assert found == pytest.approx([math.sin(angle), math.cos(angle)], abs=1e-5)


@pytest.mark.parametrize("kind", ["learned", "sinusoidal"])
@pytest.mark.parametrize("grid", [(6,), (3, 4)])
def test_positions_tell_places_apart_and_are_as_large_as_content(
    kind: str, grid: tuple[int, ...]
) -> None:
    positions = Positions(kind, grid, 32)
    vectors = positions(torch.zeros(1, math.prod(grid), 32))[0]
    assert 0.7 < vectors.square().mean().item() < 1.4
    apart = torch.cdist(vectors, vectors) + 10 * torch.eye(len(vectors))
    assert apart.min() > 0.1
    assert len(list(positions.parameters())) == (kind == "learned")
    assert torch.equal(positions(torch.zeros(1, 2, 32))[0], vectors[:2])


def test_rotary_turns_each_pair_of_channels() -> None:
    rotary, inputs = Rotary((5,), 8), torch.randn(2, 3, 5, 8)
    outputs = rotary(inputs)
    for place in range(5):
        for pair in range(4):
            angle = place / 10_000 ** (2 * pair / 8)
            x, y = inputs[..., place, pair], inputs[..., place, pair + 4]
            turned_x = x * math.cos(angle) - y * math.sin(angle)
            turned_y = x * math.sin(angle) + y * math.cos(angle)
            assert torch.allclose(outputs[..., place, pair], turned_x, atol=1e-5)
            assert torch.allclose(outputs[..., place, pair + 4], turned_y, atol=1e-5)


def test_rotary_scores_depend_on_the_distance_alone() -> None:
    query, key = torch.randn(16), torch.randn(16)
    turned = Rotary((12,), 16)
    queries, keys = turned(query.repeat(1, 1, 12, 1))[0, 0], turned(key.repeat(1, 1, 12, 1))[0, 0]
    scores = queries @ keys.T
    for distance in range(-11, 12):
        diagonal = scores.diagonal(distance)
        assert torch.allclose(diagonal, diagonal[0].expand_as(diagonal), atol=1e-4)
    assert scores[0].std() > 0.01  # and on the distance they do depend


def test_rotary_over_an_image_depends_on_the_distance_along_each_axis() -> None:
    query, key = torch.randn(16), torch.randn(16)
    turned = Rotary((4, 5), 16)
    queries, keys = turned(query.repeat(1, 1, 20, 1))[0, 0], turned(key.repeat(1, 1, 20, 1))[0, 0]
    scores = (queries @ keys.T).view(4, 5, 4, 5)
    assert torch.allclose(scores[0, 0, 2, 3], scores[1, 1, 3, 4], atol=1e-4)
    assert torch.allclose(scores[3, 0, 1, 2], scores[2, 2, 0, 4], atol=1e-4)
    assert not torch.allclose(scores[0, 0, 2, 3], scores[0, 0, 3, 2], atol=1e-4)


def test_rotary_keeps_lengths_and_precision() -> None:
    inputs = torch.randn(2, 3, 5, 8)
    outputs = Rotary((5,), 8)(inputs)
    assert torch.allclose(outputs.norm(dim=-1), inputs.norm(dim=-1), atol=1e-5)
    assert Rotary((5,), 8)(inputs.bfloat16()).dtype == torch.bfloat16
