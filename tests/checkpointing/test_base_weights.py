import pytest
import torch

from bigmodel.checkpointing.base_weights import BaseWeights, digest_of
from bigmodel.errors import CheckpointError

WEIGHTS = {"a": torch.arange(6.0).view(2, 3), "b": torch.ones(()), "c": torch.zeros(0)}


def test_the_digest_is_of_names_numbers_shapes_and_formats() -> None:
    digest = digest_of(WEIGHTS)
    others = [
        WEIGHTS | {"a": torch.arange(6.0).view(3, 2)},
        WEIGHTS | {"b": -torch.ones(())},
        WEIGHTS | {"a": torch.arange(6.0).view(2, 3).bfloat16()},
        {name.upper(): value for name, value in WEIGHTS.items()},
        {"a": WEIGHTS["a"]},
    ]
    assert len({digest, *map(digest_of, others)}) == 6


def test_nor_order_nor_layout_matter() -> None:
    strided = torch.arange(6.0).view(2, 3).T.contiguous().T
    same = {"b": WEIGHTS["b"], "c": WEIGHTS["c"], "a": torch.nn.Parameter(strided)}
    assert digest_of(same) == digest_of(WEIGHTS)


def test_other_weights_are_refused() -> None:
    base = BaseWeights("there", digest_of(WEIGHTS), frozenset(WEIGHTS))
    base.check({"base": base.facts()})
    with pytest.raises(CheckpointError, match="updates of other weights than those in there"):
        base.check({"base": {"path": "there", "digest": "0"}})
    for without in ({}, {"base": None}):
        with pytest.raises(CheckpointError, match=r"has no low-rank updates, and model\.lora asks"):
            base.check(without)
