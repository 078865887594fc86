"""Files as samples: spellings of labels, a fixed order, sets in folders of their own."""

import unicodedata

import pytest
import torch

from bigmodel.data.files.samples import FilesConfig, check_unreadable, collect_files, file_messages
from bigmodel.errors import ConfigError, DataError
from bigmodel.spec import Classes
from tests.data.files.made_files import SUFFIXES, collected, pets, put, refused

CAFE, DECOMPOSED = (unicodedata.normalize(form, "café") for form in ("NFC", "NFD"))


def test_one_label_is_one_class_however_it_is_spelt(tmp_path):
    names = [f"{n}.txt" for n in range(24)]
    put(tmp_path, *names)
    labels = ["Yes", "yes", "YES", "No", CAFE, DECOMPOSED]
    rows = [f"{name},{labels[n % 6]}" for n, name in enumerate(names)]
    (tmp_path / "a.csv").write_text("\n".join(["file,label", *rows, ""]), encoding="utf-8")
    found = collected(tmp_path / "a.csv")
    assert found.target == Classes(("No", "YES", CAFE), counts=())
    of_each = [found.target.names[index] for index in found.targets[:6]]
    assert of_each == ["YES", "YES", "YES", "No", CAFE, CAFE]
    rows = [("Spellings", "Yes, yes = YES; cafe\\u0301 = café"), ("Cache", "it is full")]
    assert file_messages(found.files, "it is full") == rows


def test_labels_of_a_part_that_lies_elsewhere_may_be_spelt_otherwise(tmp_path):
    own, other = ("Cat", CAFE, "true", "1.0"), ("cat", DECOMPOSED, "True", "1")
    put(tmp_path / "own", *(f"{kind}/{n}.txt" for kind in own for n in range(4)))
    put(tmp_path / "test", *(f"{kind}/{n}.txt" for kind in other for n in range(2)))
    found = collected(tmp_path / "own", test_path=str(tmp_path / "test"))
    assert found.target.names == ("1.0", "Cat", CAFE, "true")
    assert sorted(found.targets[found.parts["test"]].tolist()) == [0, 0, 1, 1, 2, 2, 3, 3]
    put(tmp_path / "bad", "cot/1.txt")
    refused("no label 'cot'", tmp_path / "own", test_path=str(tmp_path / "bad"))


def test_the_order_and_the_split_do_not_depend_on_the_file_system(tmp_path):
    first = collected(pets(tmp_path / "a"))
    names = [f"{kind}/{n}.txt" for kind in ("dog", "cat") for n in reversed(range(8))]
    second = collected(put(tmp_path / "b", *names))
    assert first.files.names == second.files.names
    assert torch.equal(first.parts["train"], second.parts["train"])


def test_parts_that_lie_elsewhere(tmp_path):
    pets(tmp_path / "a")
    pets(tmp_path / "b")
    found = collected(tmp_path / "a", test_path=str(tmp_path / "b"))
    assert found.parts["test"].tolist() == list(range(16, 32))
    assert found.files.paths[16].is_relative_to(tmp_path / "b")
    put(tmp_path / "b", "dgo/1.txt")
    refused("has no label 'dgo'; its labels are cat, dog. Did you mean 'dog'?", tmp_path / "a",
            val_path=str(tmp_path / "b"))  # fmt: skip
    refused("are in another set too", tmp_path / "a", val_path=str(tmp_path))
    refused("it is data.path as well", tmp_path / "a", val_path=str(tmp_path / "a"))


def test_the_path_must_be_given_and_there(tmp_path):
    with pytest.raises(ConfigError, match=r"data\.path: is required. Set data.path"):
        collect_files(FilesConfig(name="files"), SUFFIXES, "notes")
    pets(tmp_path / "photos")
    refused("Did you mean 'photos'?", tmp_path / "photo")


def test_unreadable_files_are_counted_and_named():
    bad = [(f"{n}.txt", "it is empty") for n in range(7)]
    with pytest.raises(DataError) as caught:
        check_unreadable(bad, 1234, 3, "notes")
    words = str(caught.value)
    assert "7 of 1,234 notes cannot be read: 0.txt (it is empty), 1.txt" in words
    assert words.endswith("set data.max_bad=7 to skip them.")
    assert check_unreadable(bad, 1234, 7, "notes") == {"notes that cannot be read": 7}
    assert check_unreadable([], 1234, 0, "notes") == {}
