"""Decoded files are cached; what is wrong with the cache is reported, and never stops a run."""

import pytest
import torch

from bigmodel.data.files import decode_cache
from bigmodel.data.files.decode_cache import (
    RowFormat,
    UnreadableFileError,
    cache_folder,
    decode_files,
    file_digests,
)


def decode(path, row):
    content = path.read_bytes()
    if not content:
        raise UnreadableFileError("it is empty")
    row.copy_(torch.tensor(list(content[:4])))
    return len(content)


ROW = RowFormat((4,), torch.uint8, decode)


@pytest.fixture
def paths(tmp_path):
    (tmp_path / "in").mkdir()
    for n in range(10):
        (tmp_path / "in" / f"{n}.txt").write_bytes(bytes(range(n, n + 4 + n)))
    return sorted((tmp_path / "in").iterdir())


def decoded(paths, cache, **values):
    return decode_files(paths, ROW, cache=cache, digests=file_digests(paths), **values)


def entries(cache):
    return sorted(path for path in cache.iterdir() if not path.name.startswith("."))


def test_unreadable_files_are_left_out_and_the_gaps_closed(paths, tmp_path):
    paths[0].write_bytes(b"")
    paths[7].write_bytes(b"")
    plain = decode_files(paths, ROW)
    assert plain.kept == [1, 2, 3, 4, 5, 6, 8, 9]
    assert plain.bad == [(0, "it is empty"), (7, "it is empty")]
    assert plain.rows[:, 0].tolist() == plain.kept
    assert plain.notes == [4 + n for n in plain.kept]
    for _ in range(2):  # written, then read
        cached = decoded(paths, tmp_path / "cache", max_bad=2)
        assert torch.equal(cached.rows, plain.rows)
        assert (cached.kept, cached.bad, cached.notes) == (plain.kept, plain.bad, plain.notes)
        assert cached.trouble == ""
    assert len(entries(tmp_path / "cache")) == 1
    decoded(paths, tmp_path / "other", max_bad=1)
    assert list((tmp_path / "other").iterdir()) == []


def test_options_files_and_suffixes_have_entries_of_their_own(paths, tmp_path):
    cache = tmp_path / "cache"
    decoded(paths, cache, options=[1])
    decoded(paths, cache, options=[2])
    decoded(paths[:-1], cache, options=[1])
    paths[0] = paths[0].rename(paths[0].with_suffix(".md"))
    decoded(paths, cache, options=[1])
    assert len(entries(cache)) == 4


def test_files_that_change_while_they_are_read_are_not_cached(paths, tmp_path, monkeypatch):
    fill = decode_cache._decode_all

    def filled(*args):
        rows = fill(*args)
        paths[0].write_bytes(paths[0].read_bytes() + b"more")
        return rows

    monkeypatch.setattr(decode_cache, "_decode_all", filled)
    result = decoded(paths, tmp_path / "cache")
    assert list((tmp_path / "cache").iterdir()) == []
    assert result.trouble == "files changed while they were read: kept in memory only"
    assert result.rows[:, 0].tolist() == list(range(10))


DAMAGE = {
    "cut short": lambda entry: (entry / "rows").write_bytes(b"x"),
    "changed": lambda entry: (entry / "rows").write_bytes(bytes((entry / "rows").stat().st_size)),
    "no about": lambda entry: (entry / "about.json").unlink(),
    "no json": lambda entry: (entry / "about.json").write_text("{", encoding="utf-8"),
    "other json": lambda entry: (entry / "about.json").write_text("[]", encoding="utf-8"),
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_a_damaged_entry_is_rebuilt(paths, tmp_path, damage):
    cache = tmp_path / "cache"
    rows = decoded(paths, cache).rows.clone()  # mapped: damage would show
    damage(entries(cache)[0])
    second = decoded(paths, cache)
    assert torch.equal(rows, second.rows)
    assert "is damaged" in second.trouble
    assert second.trouble.endswith("rebuilt")
    assert decoded(paths, cache).trouble == ""


def test_without_a_writable_cache_rows_are_in_memory_only(paths, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("", encoding="utf-8")
    assert decoded(paths, tmp_path / "file").trouble.endswith("kept in memory only")

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(decode_cache, "_reserve", full)
    result = decoded(paths, tmp_path / "cache")
    assert torch.equal(result.rows, decode_files(paths, ROW).rows)
    assert "No space left on device" in result.trouble
    assert list((tmp_path / "cache").iterdir()) == []


def test_the_option_names_the_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_folder("auto") == tmp_path / "xdg" / "bigmodel" / "decoded"
    assert cache_folder(str(tmp_path / "own")) == tmp_path / "own"
    assert cache_folder(None) is None
