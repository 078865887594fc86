"""Plugins written for earlier versions: former names of what they may import, pass and read."""

from dataclasses import replace

import pytest
import torch

from bigmodel.data.base import Dataset
from bigmodel.data.parts import PLAINLY, Giving, Part, Stored, Windows
from bigmodel.data.reader import Found, NewSamples, Reader
from bigmodel.spec import DataSpec, Features, Values

PART = Part(torch.zeros(3, 2), torch.zeros(3, 1))
SPEC = DataSpec("mine", Features(2), Values(("y",), (0.0,), (1.0,)), {"train": 3, "val": 3})
LINE = ("Sensors", "three")


def test_a_dataset_takes_told_for_its_header_rows():
    dataset = Dataset(SPEC, PART, PART, told=[LINE])
    assert dataset.header_rows == dataset.told == [LINE]
    dataset.told.append(("More", "lines"))
    assert len(dataset.header_rows) == 2
    dataset.told = []
    assert dataset.header_rows == []


def test_a_dataset_without_told_has_a_list_of_its_own():
    first, second = Dataset(SPEC, PART, PART), Dataset(SPEC, PART, PART)
    first.told.append(LINE)
    assert second.told == []


@pytest.mark.parametrize("name", ["told", "header_rows"])
def test_replace_takes_either_name(name):
    dataset = replace(Dataset(SPEC, PART, PART, header_rows=[("Old", "line")]), **{name: [LINE]})
    assert dataset.header_rows == dataset.told == [LINE]
    assert replace(dataset, left_out={"bad": 1}).told == [LINE]


def test_a_dataset_has_its_preprocessing_as_prepared():
    dataset = Dataset(SPEC, PART, PART, mean=torch.tensor(1.0))
    assert dataset.prepared == dataset.preprocessing
    assert dataset.prepared.mean == 1.0


def test_new_samples_are_found_and_take_told():
    assert isinstance(Found(PART), NewSamples)
    assert NewSamples(PART, told=[LINE]).header_rows == [LINE]
    assert NewSamples(PART, header_rows=[LINE]).told == [LINE]


def test_an_unknown_name_is_still_refused():
    with pytest.raises(TypeError, match="tolled"):
        Dataset(SPEC, PART, PART, tolled=[LINE])


def test_samples_are_taken_by_a_draw():
    windows = Windows.side_by_side(torch.arange(23), 4, whole=False)
    inputs, _ = windows.take(slice(0, 1), Giving(draw=3, pinned=False, width=0))
    assert inputs.tolist() == [[3, 4, 5, 6]]
    assert Giving(3).draw == Giving(3).key == 3
    assert Giving(draw=2) == Giving(2)


def test_a_part_of_a_plugin_reads_how_it_is_to_give():
    class Doubled(Stored):
        def __len__(self):
            return 3

        def take(self, chosen, how=PLAINLY):
            inputs, targets = PART.take(chosen)
            return how.kept(inputs * 2 + how.draw, targets)

        def select(self, index):
            return PART.select(index)

    inputs, targets = Doubled().take(slice(0, 2), Giving(draw=5))
    assert inputs.tolist() == [[5.0, 5.0], [5.0, 5.0]]
    assert len(targets) == 2


def test_a_reader_may_take_answers_for_with_targets(tmp_path):
    class Mine(Reader):
        def read(self, path, *, answers, max_bad=0):
            assert path == tmp_path
            return NewSamples(PART, {"answers": [answers], "max_bad": [max_bad]})

    found = Mine().read(tmp_path, with_targets=True, max_bad=3)
    assert found.columns == {"answers": [True], "max_bad": [3]}
