import pytest
import torch
from PIL import Image

from bigmodel.reporting.base import PredictedSample
from bigmodel.reporting.pictures import RIGHT, WRONG, confusion_matrix, sample_grid


def colours(picture: Image.Image) -> set[tuple[int, ...]]:
    return {colour for _, colour in picture.getcolors(maxcolors=1_000_000)}


@pytest.mark.parametrize("classes", [2, 10, 30, 31, 200])
def test_a_confusion_matrix_of_any_size(classes: int) -> None:
    names = [f"a rather long class name {index}" for index in range(classes)]
    picture = confusion_matrix(torch.eye(classes, dtype=torch.long) * 12345, names)
    assert 150 < picture.width <= 1200
    assert 150 < picture.height <= 1200


def test_the_colour_is_the_share_of_the_row() -> None:
    """Without names the cells alone are drawn, each of them one colour."""
    counts = torch.zeros(40, 40)
    counts[0, 0] = 1000  # all of a large row
    counts[1, 1] = 3  # all of a small one
    counts[2, 2] = counts[2, 3] = 5  # halves
    picture = confusion_matrix(counts, [str(i) for i in range(40)])
    cell, (left, top) = 600 // 40, (40, 54)

    def at(row: int, column: int) -> tuple[int, ...]:
        pixel = picture.getpixel((left + cell * column + cell // 2, top + cell * row + cell // 2))
        assert isinstance(pixel, tuple)
        return pixel

    assert at(0, 0) == at(1, 1) == (8, 69, 148)
    assert at(0, 1) == at(39, 39) == (255, 255, 255)  # none; and a class without samples
    assert at(2, 2) == at(2, 3)
    assert 8 < at(2, 2)[0] < 255
    assert at(3, 2) == (255, 255, 255)  # rows are the truth: nothing is transposed


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 32, 32), (2, 5, 9), (1, 600, 400), (1, 1, 784)])
def test_samples_of_any_image_shape(shape: tuple[int, int, int]) -> None:
    grid = sample_grid([PredictedSample(torch.rand(shape), "3", "3", True)] * 5)
    assert grid.width <= 1100
    assert grid.height <= 1100


def test_right_and_wrong_differ_in_colour() -> None:
    black = torch.zeros(1, 8, 8)
    assert RIGHT in colours(sample_grid([PredictedSample(black, "3", "3", True)]))
    assert WRONG not in colours(sample_grid([PredictedSample(black, "3", "3", True)]))
    assert WRONG in colours(sample_grid([PredictedSample(black, "3", "8", False)]))
    assert not {RIGHT, WRONG} & colours(sample_grid([PredictedSample(black, "1.5", "1.7", None)]))


def test_pixels_are_enlarged_without_smoothing() -> None:
    board = torch.tensor([[0.0, 1.0], [0.5, float("nan")]]).view(1, 2, 2)
    grid = sample_grid([PredictedSample(board, "", "", None)])
    inside = grid.crop((15, 15, 15 + 64, 15 + 64))
    assert colours(inside) == {(0, 0, 0), (255, 255, 255), (128, 128, 128)}
    assert inside.getpixel((40, 10)) == (255, 255, 255)
    assert inside.getpixel((10, 40)) == (128, 128, 128)
