"""Columns on disk: nothing is left behind, a full disk is reported, and views are read as text."""

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from bigmodel.data.tabular.table_file import as_strings, read_table
from bigmodel.errors import DataError

TABLE = "name,size,born\nAnn,1.5,7\n,2.0,8"


def saved(folder, name, content):
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def test_a_table_on_disk_leaves_no_file_behind(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "tmp"))
    (tmp_path / "tmp").mkdir()
    monkeypatch.setattr("bigmodel.data.tabular.column_storage._IN_MEMORY", 10)
    table = read_table(saved(tmp_path, "a.csv", TABLE), "data.path")
    assert as_strings(table.column("born")) == ["7", "8"]
    assert list((tmp_path / "tmp").iterdir()) == []


def test_a_full_disk_is_reported(tmp_path, monkeypatch):
    path = saved(tmp_path, "a.csv", TABLE)

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("bigmodel.data.tabular.column_storage.SpooledColumns._write", full)
    with pytest.raises(DataError, match=r"no space to unpack it in .*No space left.* TMPDIR"):
        read_table(path, "data.path")


@pytest.mark.parametrize(
    ("kind", "plain_kind"), [(pa.string_view(), pa.string()), (pa.binary_view(), pa.binary())]
)
def test_views_of_text_are_text(tmp_path, kind, plain_kind):
    pq.write_table(
        pa.table({"x": pa.array(["a", None, "b"]).cast(plain_kind).cast(kind)}), tmp_path / "a.parquet"
    )
    found = read_table(tmp_path / "a.parquet", "data.path").column("x")
    assert found.type == plain_kind
    assert as_strings(found) == ["a", None, "b"]
