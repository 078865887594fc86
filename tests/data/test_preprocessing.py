"""What travels with a run comes back as it was, through the checkpoint's own form of JSON."""

import pytest
import torch

from bigmodel.checkpointing import exact_json
from bigmodel.data.arrays.reader import ArraysReader
from bigmodel.data.preprocessing import Preprocessing
from bigmodel.data.reader import from_plain, to_plain
from bigmodel.errors import DataError
from bigmodel.spec import (
    Classes,
    DataSpec,
    Features,
    Flags,
    Image,
    NextTokens,
    Sequence,
    TokenPair,
    Tokens,
    Values,
)
from tests.small_runs import model_inputs

SPECS = [
    DataSpec("a", Image(3, 8, 9), Classes(("cat", "dög"), (3, 4)), {"train": 7, "val": 2}),
    DataSpec("b", Sequence(5, 2), Flags(("x", "y"))),
    DataSpec("c", Features(2, ("age", "city"), (0, 5)), Values(("price",), (1 / 3,), (2e-9,))),
    DataSpec("d", Tokens(9, 70, pad=0), Values(("stars",), (0.1,), (1.0,))),
    DataSpec("e", Tokens(64, 65), NextTokens(65, characters=(1,) * 65)),
    DataSpec("f", TokenPair(40, 100, 0, 1, 2), NextTokens(100, end=2)),
]


def through_json(preprocessing: Preprocessing) -> Preprocessing:
    return Preprocessing.from_facts(exact_json.loads(exact_json.dumps(preprocessing.to_facts())))


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: type(spec.input).__name__)
def test_every_kind_of_spec_comes_back_equal(spec):
    assert through_json(Preprocessing(spec)) == Preprocessing(spec)


def test_statistics_come_back_to_the_bit():
    mean, std = torch.rand(3, 1, 1), torch.rand(3, 1, 1)
    back = through_json(Preprocessing(SPECS[0], mean, std, bytes=True))
    assert torch.equal(back.mean, mean)
    assert torch.equal(back.std, std)
    images = torch.randint(0, 256, (2, 3, 8, 9), dtype=torch.uint8)
    assert torch.equal(
        model_inputs(back, images), model_inputs(Preprocessing(SPECS[0], mean, std, True), images)
    )


def test_bytes_without_statistics_count_as_0_to_1():
    inputs = torch.tensor([[[[0, 51, 255]]]], dtype=torch.uint8)
    ready = model_inputs(Preprocessing(SPECS[0], bytes=True), inputs)
    assert ready.flatten().tolist() == pytest.approx([0.0, 0.2, 1.0])


def test_a_reader_comes_back_as_its_own_kind():
    back = through_json(Preprocessing(SPECS[1], reader=ArraysReader(mean=[0.5], std=[2.0]))).reader
    assert isinstance(back, ArraysReader)
    assert back == ArraysReader(mean=[0.5], std=[2.0])


def test_an_unknown_reader_is_told_with_the_way_out():
    plain = to_plain(ArraysReader()) | {"name": "arays"}
    with pytest.raises(DataError, match=r"read by 'arays'.*[Dd]id you mean 'arrays'.*--plugins module"):
        from_plain(plain)
