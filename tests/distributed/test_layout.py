import itertools
import json
import random

import pytest
import torch
from torch import Tensor

from bigmodel.distributed.layout import Part

DTYPES = (torch.float32, torch.bfloat16, torch.int64, torch.bool)


def whole(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    count = torch.Size(shape).numel()
    return torch.arange(count).reshape(shape).to(dtype)


def random_parts(shape: tuple[int, ...], count: int, chance: random.Random) -> list[Part]:
    """Parts that cover a tensor once: two dimensions are cut up, and runs of the first are dealt out."""
    if not shape:
        return [Part((), (), kept=number == 0) for number in range(count)]
    columns = 2 if len(shape) > 1 and count % 2 == 0 else 1
    rows = count // columns
    cuts = sorted([0, shape[0], *(chance.randint(0, shape[0]) for _ in range(chance.randrange(6)))])
    runs = [run for run in itertools.pairwise(cuts) if run[0] < run[1]]
    chance.shuffle(runs)
    dealt: list[list[tuple[int, int]]] = [[] for _ in range(rows)]
    for run in runs:
        dealt[chance.randrange(rows)].append(run)
    middle = chance.randint(0, shape[1]) if columns == 2 else 0
    rest = tuple(((0, size),) for size in shape[1:])
    halves = (
        [(((0, middle),), *rest[1:]), (((middle, shape[1]),), *rest[1:])] if columns == 2 else [rest]
    )
    return [Part(shape, (tuple(own), *half)) for own in dealt for half in halves]


def test_a_part_of_interleaved_runs() -> None:
    part = Part((6, 2), (((4, 6), (0, 1)), ((1, 2),)))
    assert part.cut(whole(6, 2)).tolist() == [[9.0], [11.0], [1.0]]
    assert part.part_shape == (3, 1)
    filled = torch.zeros(6, 2)
    part.paste(torch.tensor([[9.0], [11.0], [1.0]]), filled)
    assert filled.tolist() == [[0, 1], [0, 0], [0, 0], [0, 0], [0, 9], [0, 11]]


def test_rows() -> None:
    assert torch.equal(Part.rows((4, 3), 1, 3).cut(whole(4, 3)), whole(4, 3)[1:3])


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", [(), (7,), (0,), (5, 4), (12, 3, 2), (3, 0)], ids=str)
@pytest.mark.parametrize("count", [1, 2, 3, 4])
def test_what_is_cut_up_is_put_together_again(
    shape: tuple[int, ...], count: int, dtype: torch.dtype
) -> None:
    chance = random.Random(count)
    for _ in range(10):
        before = whole(*shape, dtype=dtype)
        after = torch.full_like(before, 1)
        for part in random_parts(shape, count, chance):
            assert tuple(part.cut(before).shape) == part.part_shape
            part.paste(part.cut(before), after)
        assert torch.equal(before, after)


def test_json_keeps_it() -> None:
    for part in random_parts((6, 5), 3, random.Random(0)):
        assert Part.from_json(json.loads(json.dumps(part.to_json()))) == part
    empty = Part.rows((4, 3), 2, 2)
    assert Part.from_json(empty.to_json()).part_shape == (0, 3)


@pytest.mark.parametrize(
    "value",
    [
        None,
        {"shape": [2]},
        {"shape": [2], "index": []},
        {"shape": [2], "index": [[[0, 3]]]},
        {"shape": [2], "index": [[[-1, 1]]]},
        {"shape": [2], "index": [[[2, 1]]]},
        {"shape": [2], "index": [[[1, 1]]]},
        {"shape": [2], "index": [[[1]]]},
        {"shape": [-2], "index": [[]]},
        {"shape": ["many"], "index": [[]]},
    ],
    ids=str,
)
def test_what_describes_no_part_is_refused(value: object) -> None:
    with pytest.raises(ValueError):  # noqa: PT011
        Part.from_json(value)


def test_another_shape_is_refused() -> None:
    part = Part.rows((4, 3), 1, 3)
    with pytest.raises(ValueError, match=r"shape \(3, 3\), where \(4, 3\)"):
        part.cut(whole(3, 3))
    with pytest.raises(ValueError, match=r"shape \(3, 3\), where \(2, 3\)"):
        part.paste(whole(3, 3), whole(4, 3))
