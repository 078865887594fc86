"""Whole documents: read from files, lines or a column, framed, arranged in rows."""

import pytest

from bigmodel.data.texts.documents import Layout, framed, read_documents
from bigmodel.data.texts.vocabulary import Vocabulary
from bigmodel.errors import DataError


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "a.txt").write_text("one\n\ntwo\n")
    (tmp_path / "b.txt").write_text("three")
    (tmp_path / "empty.txt").write_text(" \n")
    (tmp_path / "rows.jsonl").write_text('{"body": "x"}\n{"body": null}\n{"body": "y\\nz"}\n')
    return tmp_path


def read(paths, max_bad=0, **layout):
    return read_documents(paths, "data.path", Layout(**layout), max_bad)


def test_documents_are_files_lines_or_cells(folder):
    texts = [folder / "a.txt", folder / "b.txt", folder / "empty.txt"]
    files, lines = read(texts), read(texts, document="line")
    cells = read([folder / "rows.jsonl"], column="body")
    assert files.texts == ["one\n\ntwo\n", "three"]
    assert lines.texts == ["one", "two", "three"]
    assert cells.texts == ["x", "y\nz"]
    assert [found.left_out for found in (files, lines, cells)] == [
        {"documents without text": 1},
        {"documents without text": 2},
        {"documents without text": 1},
    ]


def test_unreadable_files_are_refused_or_counted(folder):
    (folder / "wrong.txt").write_bytes(b"\xff")
    paths = [folder / "wrong.txt", folder / "b.txt"]
    with pytest.raises(DataError, match=r"wrong.txt: not utf-8: .* Of 2 files, 1 .* data.max_bad=1 le"):
        read(paths)
    found = read(paths, max_bad=1)
    assert found.texts == ["three"]
    assert found.left_out == {"files that cannot be read": 1}


def test_what_holds_no_text_is_refused(folder):
    with pytest.raises(DataError, match=r"data.path=.*empty.txt: there is no text in it"):
        read([folder / "empty.txt"], document="line")
    with pytest.raises(DataError, match=r"data.column=boby.*body"):
        read([folder / "rows.jsonl"], column="boby")


def test_an_end_stands_before_and_after_each_document():
    vocabulary = Vocabulary(unit="character", letters="abc", end=3)
    tokens, sizes = framed(["ab", "", "ca"], vocabulary)
    assert tokens.tolist() == [3, 0, 1, 3, 3, 3, 3, 2, 0, 3]
    assert sizes.tolist() == [4, 2, 4]


def test_what_a_pretrained_model_expects_stands_before(monkeypatch):
    vocabulary = Vocabulary(unit="character", letters="abc", end=3)
    monkeypatch.setitem(vars(vocabulary), "opening", [1, 0])
    tokens, sizes = framed(["ab", "c"], vocabulary)
    assert tokens.tolist() == [1, 0, 0, 1, 3, 1, 0, 2, 3]
    assert sizes.tolist() == [5, 4]
