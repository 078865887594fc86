"""Text files: as they are written, and refused in words that say which byte is wrong."""

import codecs
import gzip

import pytest

from bigmodel.data.texts import files
from bigmodel.data.texts.files import (
    Passage,
    TextFilesConfig,
    measure_files,
    read_lines,
    read_text,
    text_files,
    text_files_in,
    text_pieces,
)
from bigmodel.errors import ConfigError, DataError
from bigmodel.registry import validate


def config(path, **values):
    return TextFilesConfig(name="text", path=str(path), **values)


def read_texts(config):
    """The passages of all files, and how many were left out."""
    return measure_files(text_files(config), config.encoding, config.max_bad)


def texts(passages):
    return ["".join(passage) for passage in passages]


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("name", ["a.txt", "a.txt.gz"])
def test_a_file_gzip_or_not_whatever_its_name(tmp_path, packed, name):
    content = "señor\r\n🙂".encode()
    (tmp_path / name).write_bytes(gzip.compress(content) if packed else content)
    passages, bad = read_texts(config(tmp_path / name))
    assert passages == [Passage(tmp_path / name, "utf-8", 0, 8)]
    assert texts(passages) == ["señor\r\n🙂"]
    assert bad == 0


@pytest.mark.parametrize("encoding", ["utf-8", "latin-1", "utf-16", "cp1252"])
def test_other_encodings(tmp_path, encoding):
    (tmp_path / "a.txt").write_bytes("señor".encode(encoding))
    assert read_text(tmp_path / "a.txt", encoding) == "señor"
    if encoding == "utf-16":  # whose mark is found
        assert read_text(tmp_path / "a.txt", "utf-8") == "señor"
        assert read_text(tmp_path / "a.txt", "cp1252") == "señor"


def test_a_byte_order_mark_is_no_text(tmp_path):
    (tmp_path / "a.txt").write_bytes(codecs.BOM_UTF8 + b"a")
    assert read_text(tmp_path / "a.txt", "UTF8") == "a"


def test_a_folder_in_the_order_of_names_with_what_lies_deeper(tmp_path):
    (tmp_path / "b").mkdir()
    for name in ("c.txt", "a.TXT", "b/x.txt.gz", "notes.md", ".hidden.txt"):
        (tmp_path / name).write_text(name)
    assert [file.name for file in text_files_in(tmp_path, "data.path")] == ["a.TXT", "x.txt.gz", "c.txt"]


def test_what_systems_leave_behind_is_no_text(tmp_path):
    left = (
        "__MACOSX/._a.txt",
        "__MACOSX/b.txt",
        ".ipynb_checkpoints/a-checkpoint.txt",
        "x/@eaDir/a.txt",
    )
    for name in ("a.txt", "x/b.txt", "._a.txt", *left):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name)
    own = [tmp_path / "a.txt", tmp_path / "x/b.txt"]
    assert text_files_in(tmp_path, "data.path") == own
    passages, _ = read_texts(config(f"{tmp_path}/**/*.txt"))
    assert [passage.file for passage in passages] == own


def test_a_pattern_names_files_of_any_kind(tmp_path):
    for name in ("b.md", "a.md", "c.txt"):
        (tmp_path / name).write_text(name)
    passages, _ = read_texts(config(tmp_path / "*.md"))
    assert texts(passages) == ["a.md", "b.md"]
    with pytest.raises(DataError, match=r"data.path=.*\*.rst: no file matches this pattern"):
        read_texts(config(tmp_path / "*.rst"))


def test_a_name_with_brackets_is_a_name_where_it_is_there(tmp_path):
    (tmp_path / "a[1].txt").write_text("x")
    assert texts(read_texts(config(tmp_path / "a[1].txt"))[0]) == ["x"]


def test_a_folder_without_texts_says_what_it_holds(tmp_path):
    for name in ("a.md", "b.md", "c.pdf", "README"):
        (tmp_path / name).write_text("x")
    words = r"holds no files that end in .txt or .txt.gz. Found: 2 × .md, 1 × .*such as 'data.path=.*md'"
    with pytest.raises(DataError, match=words):
        text_files_in(tmp_path, "data.path")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="Found: nothing"):
        text_files_in(tmp_path / "empty", "data.path")


def test_a_link_out_of_the_folder_is_refused(tmp_path):
    (tmp_path / "texts").mkdir()
    (tmp_path / "secret.txt").write_text("x")
    (tmp_path / "texts" / "a.txt").symlink_to(tmp_path / "secret.txt")
    with pytest.raises(DataError, match="points outside its folder"):
        text_files_in(tmp_path / "texts", "data.path")


WRONG = {
    "latin-1": (
        b"abc se\xf1or",
        "utf-8",
        r"byte 0xf1 in line 1, at position 6 \(.*of 9\).* data.encoding=cp1252",
    ),
    "after a mark": (codecs.BOM_UTF8 + b"a\xff", "utf-8", "byte 0xff in line 1, at position 4 "),
    "no text": (b"\x89PNG\0\0\0", "utf-8", "does not look like a text file"),
    "ascii": ("señor".encode(), "ascii", "byte 0xc3 in line 1, at position 2 .* data.encoding=utf-8"),
    "cut in a character": (
        "é".encode()[:1],
        "utf-8",
        "byte 0xc3 in line 1, at position 0 .* unexpected end",
    ),
    "an odd byte": (b"abc", "utf-16", "Set data.encoding=utf-8"),
    "gzip cut short": (gzip.compress(b"abc")[:-9], "utf-8", "gzip file is damaged or cut short"),
}


@pytest.mark.parametrize(("content", "encoding", "words"), WRONG.values(), ids=WRONG)
def test_damage_is_named_with_file_byte_and_what_to_do(tmp_path, content, encoding, words):
    (tmp_path / "a.txt").write_bytes(content)
    with pytest.raises(DataError, match=rf"a\.txt: .*{words}") as whole:
        read_text(tmp_path / "a.txt", encoding)
    with pytest.raises(DataError) as in_pieces:
        list(text_pieces(tmp_path / "a.txt", encoding))
    assert str(in_pieces.value) == str(whole.value)


@pytest.mark.parametrize(
    "encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-be", "gb18030", "shift_jis"]
)
@pytest.mark.parametrize("size", [1, 2, 7])
def test_pieces_are_cut_between_characters(tmp_path, monkeypatch, encoding, size):
    monkeypatch.setattr(files, "_PIECE", size)
    monkeypatch.setattr(files, "_HEAD", 8)
    text = "a文字b\r\n" * 20 + ("" if encoding == "shift_jis" else "é🙂")
    (tmp_path / "a.txt").write_bytes(text.encode(encoding))
    pieces = list(text_pieces(tmp_path / "a.txt", encoding))
    assert "".join(pieces) == text
    assert len(pieces) > 10
    for first, last in ((0, 9), (7, 60), (50, len(text))):
        assert "".join(Passage(tmp_path / "a.txt", encoding, first, last)) == text[first:last]


@pytest.mark.parametrize("encoding", ["utf-8", "gb18030"])
def test_damage_far_into_a_file_is_named_by_line_and_position(tmp_path, monkeypatch, encoding):
    monkeypatch.setattr(files, "_PIECE", 5)
    monkeypatch.setattr(files, "_HEAD", 8)
    content = b"eine Zeile\n" * 30 + b"ab\xff" + b"more" * 10
    (tmp_path / "a.txt").write_bytes(content)
    words = rf"byte 0xff in line 31, at position 332 \(counted from 0, of {len(content)}\)"
    with pytest.raises(DataError, match=words):
        list(text_pieces(tmp_path / "a.txt", encoding))


def test_files_that_cannot_be_read_are_left_out_where_that_is_allowed(tmp_path):
    for name, content in (("a.txt", b"\xff"), ("b.txt", b"fine"), ("c.txt", b"\xfe")):
        (tmp_path / name).write_bytes(content)
    passages, bad = read_texts(config(tmp_path, max_bad=2))
    assert texts(passages) == ["fine"]
    assert bad == 2
    with pytest.raises(DataError, match=r"a.txt: .*Of 3 files, 2 cannot be read: data.max_bad=2 leaves"):
        read_texts(config(tmp_path, max_bad=1))
    (tmp_path / "b.txt").unlink()
    with pytest.raises(DataError, match=r"a.txt: not utf-8"):
        read_texts(config(tmp_path, max_bad=9))


@pytest.mark.parametrize("encoding", ["utf9", "base64", ""])
def test_an_encoding_that_is_none(encoding):
    with pytest.raises(ConfigError, match=r"data.encoding=.*there is no such text encoding"):
        validate(TextFilesConfig, {"name": "text", "encoding": encoding}, "data")


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("a\nb\n", ["a", "b"]),
        ("a\nb", ["a", "b"]),
        ("a\r\n\r\nb\r\n", ["a", "", "b"]),
        ("a\u2028b\x0bc\x85d\n", ["a\u2028b\x0bc\x85d"]),
        ("\n\n", ["", ""]),
        ("", []),
    ],
)
def test_lines_end_where_lines_end_and_nowhere_else(tmp_path, content, expected):
    (tmp_path / "a.txt").write_bytes(content.encode())
    assert read_lines(tmp_path / "a.txt", "utf-8") == expected


def test_nothing_there(tmp_path):
    with pytest.raises(ConfigError, match=r"data.path: is required. Set data.path"):
        read_texts(TextFilesConfig(name="text"))
    (tmp_path / "shakespeare.txt").write_text("x")
    with pytest.raises(DataError, match=r"data.path=.*shakespear.txt: there is no .* Did you mean"):
        read_texts(config(tmp_path / "shakespear.txt"))
    with pytest.raises(DataError, match=r"path=.*: there is no such file or folder"):
        text_files_in(tmp_path / "x", "path")
