"""Files as samples: found by folders, names or lists, in a fixed order, and refused in words."""

import unicodedata

import pytest
import torch

from bigmodel.data.files.discovery import find_files
from bigmodel.data.files.name_patterns import FilePatterns
from bigmodel.data.files.samples import FilesConfig, check_unreadable, collect_files, file_messages
from bigmodel.errors import ConfigError, DataError
from bigmodel.registry import validate
from bigmodel.spec import Classes, Values

SUFFIXES = {".txt"}


def put(folder, *names):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(name, encoding="utf-8")
    return folder


def collected(path, **values):
    values = {"name": "files", "path": str(path), "val_fraction": 0.25, **values}
    return collect_files(validate(FilesConfig, values, "data"), SUFFIXES, "notes")


def refused(words, path, **values):
    with pytest.raises((DataError, ConfigError)) as caught:
        collected(path, **values)
    assert words in str(caught.value)


def pets(folder, top=""):
    return put(folder, *(f"{top}{kind}/{n}.txt" for kind in ("cat", "dog") for n in range(8)))


def test_a_folder_for_each_class(tmp_path):
    pets(tmp_path)
    put(tmp_path, "cat/deep/er/9.TXT", "cat/.hidden.txt", ".git/x.txt", "dog/readme.md", "list.csv")
    found = collected(tmp_path)
    assert found.target == Classes(("cat", "dog"), counts=())
    assert found.files.names == sorted(found.files.names)
    assert "cat/deep/er/9.TXT" in found.files.names
    assert len(found.files.paths) == 17
    assert found.files.ignored == {".md": 1, ".csv": 1}
    labels = ["cat" if name.startswith("cat") else "dog" for name in found.files.names]
    assert [found.target.names[index] for index in found.targets] == labels
    assert sorted(torch.cat(list(found.parts.values())).tolist()) == list(range(17))
    assert {name: len(rows) for name, rows in found.parts.items()} == {"train": 13, "val": 4}


LITTER = (
    "__MACOSX/cat/._0.txt",
    "__MACOSX/x.txt",
    "@eaDir/a/SYNOPHOTO.txt",
    "cat/@eaDir/0.txt",
    "$RECYCLE.BIN/x.txt",
    "lost+found/x.txt",
    ".ipynb_checkpoints/0-checkpoint.txt",
    "cat/.ipynb_checkpoints/0.txt",
    "cat/.DS_Store",
    "dog/Thumbs.db",
    "dog/desktop.ini",
    "dog/._1.txt",
    "System Volume Information/x.txt",
    "#recycle/x.txt",
)


def test_what_systems_leave_behind_is_neither_a_class_nor_a_file(tmp_path):
    plain = collected(pets(tmp_path / "plain"))
    found = collected(put(pets(tmp_path / "littered"), *LITTER))
    assert found.target == plain.target == Classes(("cat", "dog"), counts=())
    assert found.files.names == plain.files.names
    assert dict(file_messages(found.files))["Skipped"] == (
        "system files: #recycle, $RECYCLE.BIN, @eaDir, System Volume Information,"
        " Thumbs.db, __MACOSX, desktop.ini, lost+found"
    )
    assert found.files.ignored == {}


def test_folders_of_parts_may_have_it_beside_them(tmp_path):
    pets(tmp_path, "train/")
    pets(tmp_path, "test/")
    assert set(collected(put(tmp_path, *LITTER)).parts) == {"train", "val", "test"}


def test_a_list_may_name_it(tmp_path):
    pets(tmp_path)
    put(tmp_path, *LITTER)
    names = [f"{kind}/{n}.txt" for kind in ("cat", "dog") for n in range(8)]
    listed = [name for pair in zip(names, LITTER, strict=False) for name in pair] + names[len(LITTER) :]
    rows = [f"{name},{name.split('/')[0]},{place % 3}" for place, name in enumerate(listed)]
    (tmp_path / "all.csv").write_text("\n".join(["file,label,who", *rows]) + "\n")
    found = collected(tmp_path / "all.csv", group="who")
    assert found.files.names == names
    assert found.target == Classes(("cat", "dog"), counts=())
    assert found.files.groups == [str(listed.index(name) % 3) for name in names]
    assert "__MACOSX" in dict(file_messages(found.files))["Skipped"]
    new = find_files(tmp_path / "all.csv", SUFFIXES, "notes", FilePatterns(), "--input", labelled=False)
    assert new.names == names


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
    assert dict(file_messages(found.files))["Spellings"] == "Yes, yes = YES; cafe\\u0301 = café"


def test_labels_of_a_part_that_lies_elsewhere_may_be_spelt_otherwise(tmp_path):
    own, other = ("Cat", CAFE, "true", "1.0"), ("cat", DECOMPOSED, "True", "1")
    put(tmp_path / "own", *(f"{kind}/{n}.txt" for kind in own for n in range(4)))
    put(tmp_path / "test", *(f"{kind}/{n}.txt" for kind in other for n in range(2)))
    found = collected(tmp_path / "own", test_path=str(tmp_path / "test"))
    assert found.target.names == ("1.0", "Cat", CAFE, "true")
    assert sorted(found.targets[found.parts["test"]].tolist()) == [0, 0, 1, 1, 2, 2, 3, 3]
    put(tmp_path / "bad", "cot/1.txt")
    refused("no label 'cot'", tmp_path / "own", test_path=str(tmp_path / "bad"))


def test_folders_of_classes_that_hold_nothing_are_told(tmp_path):
    pets(tmp_path / "flat")
    put(tmp_path / "flat", "owl/readme.md")
    (tmp_path / "flat" / "fox" / "deep").mkdir(parents=True)
    (tmp_path / "flat" / "cat" / "empty").mkdir()
    found = collected(tmp_path / "flat")
    assert found.target == Classes(("cat", "dog"), counts=())
    assert dict(file_messages(found.files))["Empty folders"] == "fox, owl"
    pets(tmp_path / "parted", "train/")
    pets(tmp_path / "parted", "test/")
    (tmp_path / "parted" / "test" / "fox").mkdir()
    (tmp_path / "parted" / "val").mkdir()
    assert dict(file_messages(collected(tmp_path / "parted").files))["Empty folders"] == "test/fox, val"
    assert "Empty folders" not in dict(file_messages(collected(pets(tmp_path / "whole")).files))


def test_the_order_and_the_split_do_not_depend_on_the_file_system(tmp_path):
    first = collected(pets(tmp_path / "a"))
    names = [f"{kind}/{n}.txt" for kind in ("dog", "cat") for n in reversed(range(8))]
    second = collected(put(tmp_path / "b", *names))
    assert first.files.names == second.files.names
    assert torch.equal(first.parts["train"], second.parts["train"])


def test_folders_of_parts(tmp_path):
    for part in ("train", "valid", "test"):
        pets(tmp_path, f"{part}/")
    found = collected(tmp_path)
    assert found.target.names == ("cat", "dog")
    for part, folder in (("train", "train"), ("val", "valid"), ("test", "test")):
        names = [found.files.names[index] for index in found.parts[part]]
        assert len(names) == 16
        assert all(name.startswith(f"{folder}/") for name in names)


def test_a_single_folder_of_a_part_is_no_class(tmp_path):
    found = collected(pets(tmp_path, "train/"))
    assert found.target.names == ("cat", "dog")
    assert set(found.parts) == {"train", "val"}


def test_one_class_may_be_called_like_a_part(tmp_path):
    put(tmp_path, *(f"{kind}/{n}.txt" for kind in ("train", "car") for n in range(8)))
    assert collected(tmp_path).target.names == ("car", "train")


def test_names_tell_labels_groups_and_the_test_part(tmp_path):
    names = [f"{digit}_{who}_{n}.txt" for digit in (2, 10) for who in "abcd" for n in range(4)]
    found = collected(
        put(tmp_path, *names),
        label_pattern=r"^(\d+)_",
        group_pattern=r"_([a-d])_",
        test_pattern=r"_0\.txt$",
    )
    assert found.target.names == ("2", "10")
    held_out = {found.files.names[index].split("_")[1] for index in found.parts["val"]}
    learnt = {found.files.names[index].split("_")[1] for index in found.parts["train"]}
    assert held_out
    assert not held_out & learnt
    tests = [found.files.names[index] for index in found.parts["test"]]
    assert sorted(tests) == sorted(name for name in names if name.endswith("_0.txt"))


@pytest.mark.parametrize("ending", ["csv", "tsv", "jsonl", "parquet"])
def test_lists_of_files(tmp_path, ending):
    import pyarrow as pa
    from pyarrow import csv, parquet

    put(tmp_path, *(f"notes/{n}.txt" for n in range(8)))
    table = pa.table(
        {
            "file": [f"notes/{n}.txt" for n in range(8)],
            "label": ["good" if n % 2 else "bad" for n in range(8)],
            "part": ["test" if n < 2 else "train" for n in range(8)],
            "who": [str(n // 2) for n in range(8)],
        }
    )
    path = tmp_path / f"list.{ending}"
    if ending == "parquet":
        parquet.write_table(table, path)
    elif ending == "jsonl":
        import json

        path.write_text("\n".join(json.dumps(row) for row in table.to_pylist()), encoding="utf-8")
    else:
        delimiter = "\t" if ending == "tsv" else ","
        csv.write_csv(table, path, csv.WriteOptions(delimiter=delimiter))
    found = collected(path, split="part", group="who")
    assert found.target.names == ("bad", "good")
    assert found.files.paths[0].read_text(encoding="utf-8") == "notes/0.txt"
    assert sorted(found.parts["test"].tolist()) == [0, 1]
    assert len({int(index) // 2 for index in found.parts["val"]}) == 1


def listed(folder, *rows, name="list.csv"):
    put(folder, *(f"{n}.txt" for n in range(8)))
    (folder / name).write_text("\n".join(("file,label", *rows)) + "\n", encoding="utf-8")
    return folder / name


def test_labels_with_fractions_are_values_and_whole_ones_where_it_is_said(tmp_path):
    path = listed(tmp_path, *(f"{n}.txt,{n // 2 / 2}" for n in range(8)))
    found = collected(path)
    assert isinstance(found.target, Values)
    assert found.targets[:, 0].tolist() == [n // 2 / 2 for n in range(8)]
    assert isinstance(collected(path, task="classes").target, Classes)
    path = listed(tmp_path, *(f"{n}.txt,{n % 2}" for n in range(8)))
    assert isinstance(collected(path).target, Classes)
    assert isinstance(collected(path, task="values").target, Values)


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


WRONG = {
    "empty": ([], {}, "holds no notes (.txt): it is empty"),
    "others": (["cat/1.jpg", "cat/2.jpg"], {}, "holds no notes (.txt), but 2 other files: 2 .jpg"),
    "no folders": (["1.txt", "2.txt"], {}, "2 notes, such as 1.txt, are in no class folder"),
    "loose": (["cat/1.txt", "dog/2.txt", "3.txt"], {}, "1 notes are outside the class folders"),
    "one class": (["cat/1.txt", "cat/2.txt"], {}, "all samples have the same label, 'cat'"),
    "too high": (["pets/cat/1.txt", "pets/dog/2.txt"], {}, "If the folders within it are the classes"),
    "beside parts": (
        ["train/cat/1.txt", "test/dog/1.txt", "more/dog/1.txt"],
        {},
        "its folders test, train are sets of the data, but 'more' next to them is not one",
    ),
    "pattern": (
        ["a_1.txt", "b_2.txt", "3.txt"],
        {"label_pattern": "([a-z]+)_"},
        "data.label_pattern='([a-z]+)_': finds nothing in 1 of 3 paths",
    ),
    "no test": (
        ["cat/1.txt", "dog/2.txt"],
        {"test_pattern": "tset"},
        "data.test_pattern='tset': finds none of 2 paths",
    ),
    "only in test": (
        [*(f"cat/{n}.txt" for n in range(4)), *(f"dog/{n}.txt" for n in range(4)), "eel/t.txt"],
        {"test_pattern": "t.txt"},
        "no notes of label 'eel' are in the training set",
    ),
    "no regular expression": (
        ["cat/1.txt"],
        {"label_pattern": "("},
        "data.label_pattern='(': it is not a regular expression",
    ),
    "no group": (["cat/1.txt"], {"label_pattern": "x"}, "needs exactly one capturing group"),
    "two tests": (
        ["cat/1.txt", "dog/2.txt", "cat/3.txt", "dog/4.txt", "cat/5.txt"],
        {"test_pattern": "5", "test_path": "."},
        "data.path has a test set of its own",
    ),
}


@pytest.mark.parametrize(("names", "values", "words"), WRONG.values(), ids=WRONG)
def test_what_is_wrong_with_a_folder_is_said(tmp_path, names, values, words):
    refused(words, put(tmp_path, *names), **values)


LISTS = {
    "missing label": (["0.txt,a", "1.txt,", "2.txt,b"], "column 'label' is empty in 1 of 3 rows: 1 "),
    "twice": (["0.txt,a", "1.txt,b", "0.txt,b"], "lists 1 notes more than once, such as 0.txt"),
    "twice, written in two ways": (
        ["0.txt,a", "1.txt,b", "./x/../0.txt,b"],
        "lists 2 notes more than once, such as 0.txt",
    ),
    "leads out": (["0.txt,a", "../1.txt,b"], "points outside its folder"),
    "other kind": (["0.txt,a", "1.jpg,b"], "lists 1 files that are not notes, such as 1.jpg"),
}


@pytest.mark.parametrize(("rows", "words"), LISTS.values(), ids=LISTS)
def test_what_is_wrong_with_a_list_is_said(tmp_path, rows, words):
    refused(words, listed(tmp_path / "in", *rows))


def test_a_column_that_a_list_has_not(tmp_path):
    path = listed(tmp_path, "0.txt,a", "1.txt,b")
    refused("data.label=lable", path, label="lable")


def test_new_lists_lie_beside_their_files_or_start_where_that_of_training_did(tmp_path):
    pets(tmp_path / "in")
    path = tmp_path / "list.csv"
    path.write_text("file,label\ncat/1.txt,cat\ndog/1.txt,dog\n")
    kept = FilePatterns(root=str(tmp_path / "in")).for_new_files()
    files = find_files(path, SUFFIXES, "notes", kept, "x", new=True)
    assert files.paths[0] == tmp_path / "in" / "cat/1.txt"
    pets(tmp_path)
    files = find_files(path, SUFFIXES, "notes", kept, "x", new=True)
    assert files.paths[0] == tmp_path / "cat/1.txt"
    assert find_files(path, SUFFIXES, "notes", kept, "x").paths[0] == tmp_path / "in" / "cat/1.txt"


def test_a_list_says_of_each_file_where_it_belongs(tmp_path):
    pets(tmp_path)
    path = tmp_path / "list.csv"
    lines = [f"{kind}/{n}.txt,{kind},{n if n else ''}" for kind in ("cat", "dog") for n in range(8)]
    path.write_text("\n".join(["file,label,who", *lines]))
    refused("data.group: is empty for 2 of 16 samples", path, group="who")
    refused("data.split: is empty in row 0 (counted from 0)", path, split="who")


def test_paths_may_start_elsewhere(tmp_path):
    path = listed(tmp_path / "in", *(f"{n}.txt,{n % 2}" for n in range(8)))
    moved = tmp_path / "list.csv"
    path.rename(moved)
    found = collected(moved, root=str(tmp_path / "in"))
    assert all(path.exists() for path in found.files.paths)


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_links_that_lead_out_are_refused(tmp_path, kind):
    pets(tmp_path / "in")
    secret = put(tmp_path / "out", "secret.txt")
    target = secret / "secret.txt" if kind == "file" else secret
    (tmp_path / "in" / ("cat/s.txt" if kind == "file" else "eel")).symlink_to(target)
    refused("points outside its folder", tmp_path / "in")


def test_a_link_to_a_folder_within_would_count_twice(tmp_path):
    pets(tmp_path)
    (tmp_path / "cats").symlink_to(tmp_path / "cat")
    refused("would count twice", tmp_path)


def test_the_path_must_be_given_and_there(tmp_path):
    with pytest.raises(ConfigError, match=r"data\.path: is required. Set data.path"):
        collect_files(FilesConfig(name="files"), SUFFIXES, "notes")
    pets(tmp_path / "photos")
    refused("Did you mean 'photos'?", tmp_path / "photo")


def test_without_labels_anything_goes(tmp_path):
    put(tmp_path, "1.txt", "a/2.txt")
    found = find_files(tmp_path, SUFFIXES, "notes", FilePatterns(), "here", labelled=False)
    assert found.names == ["1.txt", "a/2.txt"]
    assert found.labels == []
    assert find_files(tmp_path / "a/2.txt", SUFFIXES, "notes", FilePatterns(), "here").labels == ["a"]


def test_unreadable_files_are_counted_and_named():
    bad = [(f"{n}.txt", "it is empty") for n in range(7)]
    with pytest.raises(DataError) as caught:
        check_unreadable(bad, 1234, 3, "notes")
    words = str(caught.value)
    assert "7 of 1,234 notes cannot be read: 0.txt (it is empty), 1.txt" in words
    assert words.endswith("set data.max_bad=7 to skip them.")
    assert check_unreadable(bad, 1234, 7, "notes") == {"notes that cannot be read": 7}
    assert check_unreadable([], 1234, 0, "notes") == {}
