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
    blue = picture.convert("RGB").point(lambda value: 255 if value < 10 else 0).getchannel("R").getbbox()
    assert blue is not None
    cell, (left, top) = 480 // 40, blue[:2]  # the first cell is the darkest, and leftmost and uppermost

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
    assert grid.width <= 1200
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
    inside = grid.crop((22, 22, 22 + 128, 22 + 128))
    assert colours(inside) == {(0, 0, 0), (255, 255, 255), (128, 128, 128)}
    assert inside.getpixel((80, 20)) == (255, 255, 255)
    assert inside.getpixel((20, 80)) == (128, 128, 128)


@pytest.mark.parametrize("classes", [2, 10, 15])
def test_letters_are_large_enough_where_they_are_shown(classes: int) -> None:
    """TensorBoard shows pictures some 330 pixels wide, and leaves out pixels instead of smoothing."""
    picture = confusion_matrix(torch.eye(classes) * 36, [str(n) for n in range(classes)])
    blue = picture.point(lambda value: 255 if value < 10 else 0).getchannel("R").getbbox()
    assert blue is not None
    side = (blue[2] - blue[0]) // classes
    first = picture.crop((blue[0], blue[1], blue[0] + side, blue[1] + side))
    letters = first.convert("L").point(lambda value: 255 if value > 200 else 0).getbbox()
    assert letters is not None
    assert (letters[3] - letters[1]) * 330 / picture.width >= 5
    assert letters[0] > 0 < letters[1]  # within its cell
    assert letters[2] < side > letters[3]
