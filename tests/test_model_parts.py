import pytest
from torch import nn

from bigmodel.errors import ConfigError
from bigmodel.model_parts import layer_numbers, main_parts, selected


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear, self.norm = nn.Linear(2, 2), nn.LayerNorm(2)


class Stack(nn.Module):
    def __init__(self, depth=3):
        super().__init__()
        self.token = nn.Parameter(nn.init.zeros_(nn.Linear(2, 1).weight))
        self.embedding = nn.Embedding(4, 2)
        self.embedding_norm = nn.LayerNorm(2)
        self.blocks = nn.ModuleList(Block() for _ in range(depth))
        self.final_norm = nn.LayerNorm(2)
        self.head = nn.Linear(2, 3)


def names(pattern, model=None):
    return selected(model or Stack(), [pattern], "model.freeze")[pattern]


def test_a_name_means_everything_in_the_part():
    assert names("head") == ["head.weight", "head.bias"]
    assert names("blocks.1.linear") == ["blocks.1.linear.weight", "blocks.1.linear.bias"]
    assert names("token") == ["token"]
    assert names("embedding") == ["embedding.weight"]  # and not embedding_norm


def test_a_range_has_both_ends():
    assert {name.split(".")[1] for name in names("blocks.0-1")} == {"0", "1"}
    twelve = Stack(12)
    assert {name.split(".")[1] for name in names("blocks.9-11", twelve)} == {"9", "10", "11"}
    assert {name.split(".")[1] for name in names("blocks.1", twelve)} == {"1"}


def test_a_star_is_any_text():
    assert names("embedding*") == [
        "embedding.weight",
        "embedding_norm.weight",
        "embedding_norm.bias",
    ]
    assert len(names("*.bias")) == 9
    assert names("blocks.*.norm.weight") == [f"blocks.{n}.norm.weight" for n in range(3)]
    assert len(names("*")) == len(list(Stack().parameters()))


def test_other_characters_stand_for_themselves():
    with pytest.raises(ConfigError):
        names("hea.")
    with pytest.raises(ConfigError):
        names("head|token")


def test_a_part_that_there_is_not_is_refused():
    with pytest.raises(ConfigError) as raised:
        names("embeding")
    assert str(raised.value) == (
        "model.freeze: 'embeding' is no part of this model. Did you mean 'embedding'? Its parts: token,"
        " embedding, embedding_norm, blocks.0-2, final_norm, head."
    )
    for near in ("linear", "liner"):
        with pytest.raises(ConfigError, match=r"Did you mean '\*.linear'"):
            names(near)
    with pytest.raises(ConfigError, match=r"'blocks.3-5' is no part .* blocks.0-2, "):
        names("blocks.3-5")
    with pytest.raises(ConfigError, match="2-0 should run from low to high"):
        names("blocks.2-0")


def test_a_part_without_parameters_is_known():
    model = Stack()
    model.head = nn.Identity()
    assert names("head", model) == []


def test_main_parts_of_a_short_list():
    assert list(main_parts(nn.Sequential(nn.ModuleList([nn.Linear(1, 1)]), nn.ReLU()))) == ["0.0", "1"]


def test_layers_are_numbered_from_the_embeddings_to_the_head():
    numbers = layer_numbers(Stack())
    assert {name.partition(".")[0]: n for name, n in numbers.items() if "blocks" not in name} == {
        "token": 0,
        "embedding": 0,
        "embedding_norm": 0,
        "final_norm": 4,
        "head": 4,
    }
    assert [numbers[f"blocks.{n}.norm.bias"] for n in range(3)] == [1, 2, 3]


def test_a_head_is_above_all_blocks_wherever_it_is_defined():
    model = nn.Module()
    model.head = nn.Linear(2, 2)
    model.blocks = nn.ModuleList([Block(), Block()])
    numbers = layer_numbers(model)
    assert (numbers["head.weight"], numbers["blocks.0.norm.bias"]) == (3, 1)


def test_what_is_between_two_stacks_belongs_to_the_first():
    model = nn.Module()
    model.encoder = nn.ModuleList([Block(), Block()])
    model.encoder_norm = nn.LayerNorm(2)
    model.decoder = nn.ModuleList([Block(), Block()])
    model.head = nn.Linear(2, 2)
    numbers = layer_numbers(model)
    found = [numbers[f"{name}.weight"] for name in ("encoder.1.norm", "encoder_norm", "decoder.0.norm")]
    assert found == [2, 2, 3]
    assert numbers["head.weight"] == 5


def test_a_single_block_is_a_stack_too():
    numbers = layer_numbers(Stack(1))
    assert [numbers[f"{n}.weight"] for n in ("embedding", "blocks.0.norm", "head")] == [0, 1, 2]


def test_a_model_without_a_stack_has_no_layers():
    assert layer_numbers(nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))) == {}
