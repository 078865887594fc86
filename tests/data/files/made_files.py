"""Small folders of files, and what is collected from them."""

import pytest

from bigmodel.data.files.samples import FilesConfig, collect_files
from bigmodel.errors import ConfigError, DataError
from bigmodel.registry import validate

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
