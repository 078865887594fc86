import json
import random
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from bigmodel.checkpointing import tensor_files
from bigmodel.checkpointing.serialization import TensorGroups
from bigmodel.distributed.layout import Part
from bigmodel.errors import DamagedError
from tests.distributed.test_layout import random_parts

WHOLE: Mapping[str, Tensor] = {
    "weight": torch.arange(84.0).reshape(7, 12),
    "bf16": torch.arange(30.0).reshape(5, 3, 2).bfloat16(),
    "flags": torch.arange(9) % 2 == 0,
    "counts": torch.arange(10),
    "nothing": torch.zeros(0, 3),
    "scalar": torch.tensor(3.0),
    "whole": torch.arange(4.0),
}


def save(folder: Path, group: str, ranks: Sequence[Mapping[str, Part]]) -> None:
    """Writes `WHOLE` in parts; a tensor that has none is written by the first rank."""
    folder.mkdir(exist_ok=True)
    for rank, parts in enumerate(ranks):
        local = {name: parts[name].cut(w) if name in parts else w for name, w in WHOLE.items()}
        own = tensor_files.own_tensors({group: local}, {group: parts}, rank)
        tensor_files.write(folder, own, {group: parts}, rank, len(ranks))


def dealt(count: int, chance: random.Random) -> list[dict[str, Part]]:
    """Random parts of all but one tensor, for so many ranks."""
    parts = {
        name: random_parts(tuple(w.shape), count, chance) for name, w in WHOLE.items() if name != "whole"
    }
    return [{name: of[rank] for name, of in parts.items()} for rank in range(count)]


def read(folder: Path) -> TensorGroups:
    return tensor_files.read(folder, sorted(path.name for path in folder.iterdir()))


def halves(name: str = "weight") -> list[dict[str, Part]]:
    shape = tuple(WHOLE[name].shape)
    return [{name: Part.rows(shape, 0, 3)}, {name: Part.rows(shape, 3, shape[0])}]


def test_any_number_of_ranks_reads_what_any_other_wrote(tmp_path: Path) -> None:
    chance, tensors = random.Random(0), WHOLE
    for number, count in enumerate([1, 2, 4, 3, 1] * 4):
        save(tmp_path / str(number), "model", dealt(count, chance))
        found = read(tmp_path / str(number))["model"]
        assert found.keys() == WHOLE.keys()
        for name, whole in tensors.items():
            assert found[name].dtype == whole.dtype
            assert torch.equal(found[name], whole), name
        tensors = found


def test_a_group_is_a_mapping(tmp_path: Path) -> None:
    save(tmp_path / "a", "model", halves())
    found = read(tmp_path / "a")["model"]
    assert "weight" in found
    assert "other" not in found
    assert found.get("other") is None
    assert len(found) == len(WHOLE)
    assert {name: value.shape for name, value in found.items()} == {
        name: value.shape for name, value in WHOLE.items()
    }
    with pytest.raises(KeyError):
        found["other"]
    module = torch.nn.Linear(12, 7, bias=False)
    module.load_state_dict({"weight": found["weight"]})


def test_only_the_tensor_asked_for_is_put_together(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save(tmp_path / "a", "model", halves())
    found = read(tmp_path / "a")["model"]
    pasted: list[tuple[int, ...]] = []
    monkeypatch.setattr(Part, "paste", lambda part, *_: pasted.append(part.shape))
    assert list(found)
    assert "weight" in found
    _ = found["whole"]
    assert pasted == []
    _ = found["weight"]
    assert pasted == [(7, 12)] * 2


def test_files_are_named_and_read_as_elsewhere(tmp_path: Path) -> None:
    save(tmp_path / "a", "model", halves())
    names = sorted(path.name for path in (tmp_path / "a").iterdir())
    assert names == ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"]
    first, second = (load_file(tmp_path / "a" / name) for name in names)
    assert first.keys() == WHOLE.keys()
    assert second.keys() == {"weight"}
    with safe_open(tmp_path / "a" / names[1], "pt") as file:
        header = json.loads(file.metadata()["parts"])
    assert header == {"weight": {"shape": [7, 12], "index": [[[3, 7]], [[0, 12]]]}}


def test_of_equal_parts_one_is_written(tmp_path: Path) -> None:
    shape = tuple(WHOLE["weight"].shape)
    own = [
        Part.rows(shape, start, stop, kept=kept)
        for kept in (True, False)
        for start, stop in [(0, 3), (3, 7)]
    ]
    save(tmp_path / "a", "model", [{"weight": part} for part in own])
    assert load_file(tmp_path / "a" / "model-00003-of-00004.safetensors") == {}
    assert torch.equal(read(tmp_path / "a")["model"]["weight"], WHOLE["weight"])


def test_a_group_without_parts_is_the_first_ranks(tmp_path: Path) -> None:
    groups: TensorGroups = {"model": {"a": torch.ones(2)}}
    for rank in range(2):
        own = tensor_files.own_tensors(groups, {}, rank)
        written = tensor_files.write(tmp_path, own, {}, rank, 2)
        assert [path.name for path in written] == (["model.safetensors"] if rank == 0 else [])


@pytest.mark.parametrize(
    ("second", "message"),
    [
        (
            Part.rows((7, 12), 2, 7),
            "00001-of-00002.safetensors and model-00002-of-.*same part of weight",
        ),
        (Part.rows((7, 12), 4, 7), "12 of the 84 values of weight are missing in model-00001-of-00002"),
        (Part.rows((9, 12), 3, 9), "model-00001.* and model-00002.*parts of two kinds of weight"),
        (
            Part((7, 12), (((3, 5), (4, 6)), ((0, 12),))),
            ": model-00002-of-00002.safetensors hold the same",
        ),
        (Part((7, 12), (((3, 7),), ((0, 4), (4, 8)))), "16 of the 84 values of weight are missing"),
    ],
    ids=["overlapping", "gap", "another shape", "twice in one", "fewer columns"],
)
def test_parts_that_do_not_fit_are_named(tmp_path: Path, second: Part, message: str) -> None:
    save(tmp_path / "a", "model", halves())
    tensors: TensorGroups = {"model": {"weight": torch.zeros(second.part_shape)}}
    tensor_files.write(tmp_path / "a", tensors, {"model": {"weight": second}}, 1, 2)
    with pytest.raises(DamagedError, match=message):
        read(tmp_path / "a")


def test_parts_of_two_types_are_named(tmp_path: Path) -> None:
    save(tmp_path / "a", "model", halves())
    parts = {"model": halves()[1]}
    tensor_files.write(tmp_path / "a", {"model": {"weight": torch.zeros(4, 12).half()}}, parts, 1, 2)
    with pytest.raises(DamagedError, match="two kinds of weight"):
        read(tmp_path / "a")


@pytest.mark.parametrize("missing", [1, 2, 3])
def test_a_missing_file_is_named(tmp_path: Path, missing: int) -> None:
    save(tmp_path / "a", "model", dealt(3, random.Random(0)))
    (tmp_path / "a" / f"model-0000{missing}-of-00003.safetensors").unlink()
    with pytest.raises(DamagedError, match=f"model-0000{missing}-of-00003.safetensors is missing"):
        read(tmp_path / "a")


@pytest.mark.parametrize(
    "parts", [{}, {"weight": Part.rows((7, 12), 0, 7)}], ids=["whole", "one rank's"]
)
def test_files_of_two_sets_are_refused(tmp_path: Path, parts: dict[str, Part]) -> None:
    save(tmp_path / "a", "model", halves())
    save(tmp_path / "a", "model", [parts])
    with pytest.raises(DamagedError, match=r"model-00001-of-0000.\.safetensors does not belong to"):
        read(tmp_path / "a")


@pytest.mark.parametrize(
    "header",
    [
        "[]",
        '{"weight": 3}',
        '{"weight": {"shape": [7, 12], "index": [[[3, 7]], [[0, 11]]]}}',
        '{"weight": {"shape": [7, 12], "index": [[[3, 8]], [[0, 12]]]}}',
    ],
)
def test_a_header_that_describes_no_part_is_named(tmp_path: Path, header: str) -> None:
    save(tmp_path / "a", "model", halves())
    path = tmp_path / "a" / "model-00002-of-00002.safetensors"
    save_file({"weight": torch.zeros(4, 12)}, path, {"parts": header})
    with pytest.raises(DamagedError, match=r"model-00002-of-00002\.safetensors: "):
        read(tmp_path / "a")
