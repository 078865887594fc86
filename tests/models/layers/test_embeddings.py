"""Embeddings of each kind of input, against independent formulas."""

import itertools

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from bigmodel.errors import SpecError
from bigmodel.models.layers.embeddings import (
    ColumnEmbedding,
    FeatureEmbedding,
    PatchEmbedding,
    embed,
    grid_of,
)
from bigmodel.spec import Features, Image, Input, Sequence, Tokens
from tests.models.cases import build, samples, spec


@pytest.mark.parametrize("size", [1, 2, 4])
def test_patches_are_a_strided_convolution(size: int) -> None:
    embedding = PatchEmbedding(3, size, 10)
    nn.init.normal_(embedding.project.bias)
    inputs = torch.randn(2, 3, 8, 4)
    kernel = embedding.project.weight.view(10, 3, size, size)
    expected = F.conv2d(inputs, kernel, embedding.project.bias, stride=size).flatten(2).transpose(1, 2)
    assert torch.allclose(embedding(inputs), expected, atol=1e-5)


@pytest.mark.parametrize("kind", [Image(2, 4, 6), Sequence(5, 3), Tokens(7, 9), Features(4)])
def test_embeddings_give_a_vector_at_each_position_of_the_grid(kind: object) -> None:
    embedding = embed(spec(kind), 12, 2, "any")
    positions = 1
    for size in grid_of(kind, 2):
        positions *= size
    assert embedding(samples(kind, 3)).shape == (3, positions, 12)


def test_features_become_their_value_times_a_vector_plus_another() -> None:
    embedding = embed(spec(Features(3)), 4, 1, "any")
    inputs = torch.randn(2, 3)
    outputs = embedding(inputs)
    for sample in range(2):
        for feature in range(3):
            expected = inputs[sample, feature] * embedding.weight[feature] + embedding.bias[feature]
            assert torch.allclose(outputs[sample, feature], expected)


def test_standardised_inputs_come_out_with_unit_variance() -> None:
    for kind in (Image(3, 16, 16), Sequence(20, 12), Tokens(50, 40)):
        outputs = embed(spec(kind), 256, 4, "any")(samples(kind, 64))
        assert 0.7 < outputs.var().item() < 1.4


def test_patches_that_do_not_tile_are_refused_with_those_that_do() -> None:
    with pytest.raises(SpecError) as error:
        embed(spec(Image(1, 28, 42)), 8, 3, "attention")
    message = str(error.value)
    assert "model.patch_size=3" in message
    assert "28×42" in message
    assert "model.patch_size=1|2|7|14" in message


@pytest.mark.parametrize(
    ("kind", "expected"),
    [(Image(2, 4, 6), (2, 3)), (Sequence(5, 3), (5,)), (Tokens(7, 9), (7,)), (Features(4), (4,))],
    ids=str,
)
def test_grid_is_rows_by_columns_or_a_line(kind: Input, expected: tuple[int, ...]) -> None:
    assert grid_of(kind, 2) == expected


TABLE = Features(5, (), (3, 0, 4, 0, 2))


def test_a_category_becomes_its_own_vector_plus_that_of_its_column() -> None:
    embedding = FeatureEmbedding(TABLE, 6)
    inputs = samples(TABLE, 4)
    outputs = embedding(inputs)
    starts, numbers = {0: 0, 2: 3, 4: 7}, {1: 0, 3: 1}
    for sample, column in itertools.product(range(4), range(5)):
        value, expected = inputs[sample, column], embedding.bias[column]
        if column in numbers:
            expected = expected + value * embedding.weight[numbers[column]]
        else:
            expected = expected + embedding.lookup.weight[starts[column] + int(value)]
        assert torch.allclose(outputs[sample, column], expected)


def test_a_table_of_nothing_but_categories_is_read() -> None:
    table = Features(2, (), (3, 4))
    assert FeatureEmbedding(table, 6)(samples(table, 4)).shape == (4, 2, 6)
    assert ColumnEmbedding(table, 6)(samples(table, 4)).shape == (4, ColumnEmbedding(table, 6).width)


def test_a_category_that_training_never_saw_says_nothing() -> None:
    embedding, columns = FeatureEmbedding(TABLE, 6), ColumnEmbedding(TABLE, 9)
    unseen = torch.zeros(1, 5)
    assert torch.equal(embedding(unseen)[0], embedding.bias)
    assert not columns(unseen).any()
    seen = torch.tensor([[1.0, 0.0, 3.0, 0.0, 1.0]])
    assert columns(seen)[0, 2:].ne(0).all()


@pytest.mark.parametrize(("most", "sizes"), [(64, (3, 21, 2, 64)), (4, (3, 4, 2, 4))])
def test_vectors_of_a_row_are_as_long_as_the_rule_says(most: int, sizes: tuple[int, ...]) -> None:
    table = Features(5, (), (3, 0, 100, 2, 10_000))
    embedding = ColumnEmbedding(table, most)
    assert embedding.width == 1 + sum(sizes)
    inputs = samples(table, 3)
    outputs = embedding(inputs)
    assert torch.equal(outputs[:, 0], inputs[:, 1])
    assert outputs.shape == (3, embedding.width)


def test_columns_of_one_size_share_a_table_and_not_their_rows() -> None:
    table = Features(3, (), (5, 5, 5))
    embedding = ColumnEmbedding(table, 8)
    assert len(embedding.lookups) == 1
    same = embedding(torch.full((1, 3), 2.0)).view(3, -1)
    assert not torch.allclose(same[0], same[1])
    assert torch.equal(same[1], embedding.lookups[0].weight[5 + 2])


def test_the_fnn_reads_numbers_and_categories_side_by_side() -> None:
    of = spec("categories")
    model = build("fnn", of, embedding_dim=2)
    inputs = samples(of.input, 3)
    assert model.layers[0].in_features == 2 + 3 * 2
    assert torch.allclose(model._flat(inputs)[:, :2], inputs[:, [1, 3]])
    assert "embedding" not in "".join(model.state_dict())


@pytest.mark.parametrize(("name", "target"), [("fnn", "classes"), ("cnn", "classes"), ("rnn", "values")])
def test_tokens_of_whole_texts_start_with_small_vectors(name: str, target: str) -> None:
    model = build(name, spec(Tokens(9, 5000, pad=0), target))
    assert model.embedding.weight.std().item() == pytest.approx(0.1, rel=0.02)
