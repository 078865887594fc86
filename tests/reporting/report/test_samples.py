"""Samples are shown as what they are."""

import io

import numpy as np
import pytest
import torch
from PIL import Image as Pillow

from bigmodel.reporting.report.content import Exhibit, Exhibits, Table, cut
from bigmodel.reporting.report.held_out import Mistake
from bigmodel.reporting.report.samples import Shown
from bigmodel.spec import Features, Image, Sequence, Tokens

MISTAKE = [Mistake(0, "p", "t")]


def exhibit(shown: Shown, stored: torch.Tensor) -> Exhibit:
    block = shown.mistakes([stored], MISTAKE)
    assert isinstance(block, Exhibits)
    return block.exhibits[0]


def pixels(shown: Exhibit) -> np.ndarray:
    assert shown.png is not None
    return np.asarray(Pillow.open(io.BytesIO(shown.png)))


def test_bytes_and_shares_are_the_same_picture() -> None:
    stored = torch.arange(12, dtype=torch.uint8).view(1, 3, 4) * 20
    shown = Shown(Image(1, 3, 4), None)
    assert np.array_equal(pixels(exhibit(shown, stored)), stored[0].numpy())
    assert np.array_equal(pixels(exhibit(shown, stored / 255)), stored[0].numpy())


def test_other_numbers_are_stretched() -> None:
    found = pixels(exhibit(Shown(Image(1, 1, 3), None), torch.tensor([[[-2.0, 0, 2]]])))
    assert found.tolist() == [[0, 128, 255]]


def test_colours_stay_and_large_pictures_shrink() -> None:
    stored = torch.zeros(3, 512, 256, dtype=torch.uint8)
    stored[0] = 200
    found = pixels(exhibit(Shown(Image(3, 512, 256), None), stored))
    assert found.shape == (128, 64, 3)
    assert found[5, 5].tolist() == [200, 0, 0]


def test_a_spectrogram_has_time_across_and_high_pitches_above() -> None:
    rows = torch.zeros(5, 3)
    rows[4, 2] = 1.0  # the last moment, the highest pitch
    for shown, stored in (
        (Shown(Image(1, 5, 3), None, spectrogram=True), rows[None]),
        (Shown(Sequence(5, 3), None, spectrogram=True), rows),
    ):
        found = pixels(exhibit(shown, stored))
        assert found.shape == (3, 5)
        assert found[0, 4] == 255
        assert found.sum() == 255


def test_sequences_are_lines_and_many_features_a_picture() -> None:
    few = exhibit(Shown(Sequence(6, 2), None), torch.randn(6, 2))
    assert few.drawing is not None
    assert len(few.drawing.shapes) == 2
    wave = exhibit(Shown(Sequence(6, 20), None, waveform=True), torch.randn(6, 20))
    assert wave.drawing is not None
    assert len(wave.drawing.shapes) == 1
    assert pixels(exhibit(Shown(Sequence(6, 20), None), torch.randn(6, 20))).shape == (20, 6)


def test_features_are_rows() -> None:
    names = tuple(f"column {n}" for n in range(20))
    block = Shown(Features(20, names), None, names=["row 7"]).mistakes([torch.arange(20.0)], MISTAKE)
    assert isinstance(block, Table)
    assert block.heads == ["sample", "prediction", "truth", *names[:12]]
    assert block.rows == [["row 7", "p", "t", *(str(n) for n in range(12))]]


def test_tokens_without_a_reader_are_numbers() -> None:
    found = exhibit(Shown(Tokens(4, 9, pad=0), None), torch.tensor([3, 5, 0, 0]))
    assert found.text == "3 5"


@pytest.mark.parametrize(("text", "shown"), [("abc", "abc"), ("abcdef", "abcd…")])
def test_long_texts_are_cut(text: str, shown: str) -> None:
    assert cut(text, 4) == shown
