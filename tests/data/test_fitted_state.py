"""Readers in checkpoints of earlier versions are read, whatever their fields were called."""

from typing import Any

import pytest

from bigmodel.data.files.name_patterns import FilePatterns
from bigmodel.data.reader import from_plain, to_plain
from bigmodel.data.sources.audio import AudioReader
from bigmodel.data.sources.images import ImagesReader
from bigmodel.data.tabular.columns import CategoryColumn, DateColumn, NumberColumn
from bigmodel.data.tabular.number_formats import NumberFormat
from bigmodel.data.tabular.reader import TableReader

SCALE = {"fill": 1.0, "mean": 2.0, "std": 3.0}
ANSWERS = {"kind": "classes", "names": ["no", "yes"], "mean": [], "std": []}
NAMING = FilePatterns(label="class").model_dump()
FRAMING = {"height": 8, "width": 8, "channels": 3, "fit": "crop", "background": "white"}
HEARING = {
    "rate": 8000, "samples": 800, "form": "raw", "layout": "sequence",
    "n_mels": 8, "window": 200, "hop": 80, "fold": 1,
}  # fmt: skip


def test_a_table_of_an_earlier_version() -> None:
    columns = [
        {
            "kind": "number", "name": "n", "flag": True, "odd": ["?!"], "most_odd": 0.5, "scale": SCALE,
            "notation": {"decimal": ",", "thousands": "", "before": "", "after": "", "brackets": False},
        },
        {
            "kind": "date", "name": "d", "flag": False, "odd": [], "most_odd": 0.05,
            "way": "%d/%m/%Y", "other": "%m/%d/%Y", "parts": {"month": SCALE},
        },
        {"kind": "category", "name": "c", "values": ["a", None], "respelt": {"odd": "a"}},
    ]  # fmt: skip
    target: dict[str, Any] = {
        "name": "y", "labels": ["no", "yes"], "numeric": False, "missing": ["NA"], "usual": False,
        "respelt": {"way": "no"}, "notation": NumberFormat().model_dump(), "duration": False,
        "odd": ["x"], "most_odd": 0.5,
    }  # fmt: skip
    learnt = {
        "columns": columns,
        "target": target,
        "answers": ANSWERS,
        "missing": [],
        "encoding": "utf-8",
    }
    reader = from_plain({"name": "table", "learnt": learnt})
    assert isinstance(reader, TableReader)
    number, date, category = reader.columns
    assert isinstance(number, NumberColumn)
    assert (number.invalid, number.max_invalid, number.number_format.decimal) == (["?!"], 0.5, ",")
    assert isinstance(date, DateColumn)
    assert (date.time_format, date.other) == ("%d/%m/%Y", "%m/%d/%Y")
    assert isinstance(category, CategoryColumn)
    assert category.aliases == {"odd": "a"}
    assert (reader.target.aliases, reader.target.default_missing) == ({"way": "no"}, False)
    assert (reader.target.invalid, reader.target.max_invalid) == (["x"], 0.5)
    assert reader.target_encoder.names == ["no", "yes"]
    assert from_plain(to_plain(reader)) == reader


@pytest.mark.parametrize(
    ("name", "kind", "more"),
    [
        ("images", ImagesReader, {"framing": FRAMING}),
        ("audio", AudioReader, {"hearing": HEARING, "sounding": {"rates": [8000], "levels": [-20.0]}}),
    ],
)
def test_files_of_an_earlier_version(name: str, kind: type, more: dict[str, Any]) -> None:
    reader = from_plain({"name": name, "learnt": {"naming": NAMING, "answers": ANSWERS, **more}})
    assert isinstance(reader, kind)
    stored = to_plain(reader)["learnt"]
    assert stored["patterns"] == NAMING
    assert stored["settings"] in (FRAMING, HEARING)
    assert stored["target_encoder"] == ANSWERS
    assert stored.get("training_statistics") == more.get("sounding")
