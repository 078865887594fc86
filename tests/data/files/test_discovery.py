"""Files as samples are found in folders, by names or by lists; wrong layouts are refused."""

import pytest
import torch

from bigmodel.data.files.discovery import find_files
from bigmodel.data.files.name_patterns import FilePatterns
from bigmodel.data.files.samples import file_messages
from bigmodel.spec import Classes, Values
from tests.data.files.made_files import SUFFIXES, collected, pets, put, refused


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


def test_system_files_are_neither_classes_nor_samples(tmp_path):
    plain = collected(pets(tmp_path / "plain"))
    found = collected(put(pets(tmp_path / "littered"), *LITTER))
    assert found.target == plain.target == Classes(("cat", "dog"), counts=())
    assert found.files.names == plain.files.names
    assert dict(file_messages(found.files))["Skipped"] == (
        "system files: #recycle, $RECYCLE.BIN, @eaDir, System Volume Information,"
        " Thumbs.db, __MACOSX, desktop.ini, lost+found"
    )
    assert found.files.ignored == {}


def test_system_files_may_be_next_to_folders_of_sets(tmp_path):
    pets(tmp_path, "train/")
    pets(tmp_path, "test/")
    assert set(collected(put(tmp_path, *LITTER)).parts) == {"train", "val", "test"}


def test_a_list_may_name_system_files(tmp_path):
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


def test_empty_folders_of_classes_are_reported(tmp_path):
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


def test_folders_of_sets(tmp_path):
    for part in ("train", "valid", "test"):
        pets(tmp_path, f"{part}/")
    found = collected(tmp_path)
    assert found.target.names == ("cat", "dog")
    for part, folder in (("train", "train"), ("val", "valid"), ("test", "test")):
        names = [found.files.names[index] for index in found.parts[part]]
        assert len(names) == 16
        assert all(name.startswith(f"{folder}/") for name in names)


def test_a_single_folder_of_a_set_is_not_a_class(tmp_path):
    found = collected(pets(tmp_path, "train/"))
    assert found.target.names == ("cat", "dog")
    assert set(found.parts) == {"train", "val"}


def test_a_class_may_have_the_name_of_a_set(tmp_path):
    put(tmp_path, *(f"{kind}/{n}.txt" for kind in ("train", "car") for n in range(8)))
    assert collected(tmp_path).target.names == ("car", "train")


def test_names_give_labels_groups_and_the_test_set(tmp_path):
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


def test_labels_with_fractions_are_values_and_integers_if_the_task_says_so(tmp_path):
    path = listed(tmp_path, *(f"{n}.txt,{n // 2 / 2}" for n in range(8)))
    found = collected(path)
    assert isinstance(found.target, Values)
    assert found.targets[:, 0].tolist() == [n // 2 / 2 for n in range(8)]
    assert isinstance(collected(path, task="classes").target, Classes)
    path = listed(tmp_path, *(f"{n}.txt,{n % 2}" for n in range(8)))
    assert isinstance(collected(path).target, Classes)
    assert isinstance(collected(path, task="values").target, Values)


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
def test_wrong_folders_are_refused(tmp_path, names, values, words):
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
def test_wrong_lists_are_refused(tmp_path, rows, words):
    refused(words, listed(tmp_path / "in", *rows))


def test_a_missing_column_of_a_list_is_refused(tmp_path):
    path = listed(tmp_path, "0.txt,a", "1.txt,b")
    refused("data.label=lable", path, label="lable")


def test_paths_of_new_lists_start_at_the_list_or_at_the_root_of_training(tmp_path):
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


def test_a_list_must_give_the_group_and_set_of_each_file(tmp_path):
    pets(tmp_path)
    path = tmp_path / "list.csv"
    lines = [f"{kind}/{n}.txt,{kind},{n if n else ''}" for kind in ("cat", "dog") for n in range(8)]
    path.write_text("\n".join(["file,label,who", *lines]))
    refused("data.group: is empty for 2 of 16 samples", path, group="who")
    refused("data.split: is empty in row 0 (counted from 0)", path, split="who")


def test_paths_of_a_list_may_start_at_a_root(tmp_path):
    path = listed(tmp_path / "in", *(f"{n}.txt,{n % 2}" for n in range(8)))
    moved = tmp_path / "list.csv"
    path.rename(moved)
    found = collected(moved, root=str(tmp_path / "in"))
    assert all(path.exists() for path in found.files.paths)


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_links_out_of_the_folder_are_refused(tmp_path, kind):
    pets(tmp_path / "in")
    secret = put(tmp_path / "out", "secret.txt")
    target = secret / "secret.txt" if kind == "file" else secret
    (tmp_path / "in" / ("cat/s.txt" if kind == "file" else "eel")).symlink_to(target)
    refused("points outside its folder", tmp_path / "in")


def test_a_link_to_a_folder_within_is_refused(tmp_path):
    pets(tmp_path)
    (tmp_path / "cats").symlink_to(tmp_path / "cat")
    refused("would count twice", tmp_path)


def test_without_labels_any_layout_is_allowed(tmp_path):
    put(tmp_path, "1.txt", "a/2.txt")
    found = find_files(tmp_path, SUFFIXES, "notes", FilePatterns(), "here", labelled=False)
    assert found.names == ["1.txt", "a/2.txt"]
    assert found.labels == []
    assert find_files(tmp_path / "a/2.txt", SUFFIXES, "notes", FilePatterns(), "here").labels == ["a"]
