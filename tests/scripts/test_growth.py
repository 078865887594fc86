"""How cost grows: what is run, what is fitted, and what is shown."""

import json
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import growth
import pytest
from benchmarks.ours import composed
from costs import files, page
from costs.draw import picture
from costs.fit import exponent
from costs.fit import growth as growth_of
from costs.measure import Point, _expected
from costs.series import SERIES, Transformer, fnn_of

from bigmodel.build.new_run import build_run
from bigmodel.config import parse

BY_KEY = {series.key: series for series in SERIES}


def points(sizes: list[int], seconds: list[float | None], peaks: list[float | None]) -> list[Any]:
    return [
        {
            "size": size,
            "seconds": s,
            "bytes": b,
            "whole": 9.0,
            "note": "" if s else "left out, about 95 s",
        }
        for size, s, b in zip(sizes, seconds, peaks, strict=True)
    ]


KEPT = {
    "width": {
        "eager": points(
            [64, 128, 256, 512, 1024], [0.1, 0.1, 0.2, 0.8, 3.2], [5e7, 6e7, 1e8, 8e8, 6.4e9]
        ),
    },
    "rows": {"eager": points([10**4, 10**5, 10**6, 10**7], [1, 2, 9, None], [0, 0, 5e7, None])},
}


def test_exponents_are_slopes_of_logarithms() -> None:
    assert exponent([1, 10, 100], [3, 300, 30_000]) == pytest.approx(2)
    assert exponent([5], [3]) is None


def test_only_the_upper_half_counts_and_what_grows_faster_than_its_work_is_found() -> None:
    width = BY_KEY["width"]
    seconds = growth_of(width, KEPT["width"]["eager"], "seconds")
    assert seconds.cost == pytest.approx(2)
    assert 1.8 < seconds.work < 2.1
    assert not seconds.faster
    assert growth_of(width, KEPT["width"]["eager"], "bytes").faster


def test_what_is_no_more_than_a_start_does_not_grow() -> None:
    assert growth_of(BY_KEY["rows"], KEPT["rows"]["eager"], "bytes").cost is None


def test_the_table_names_what_was_left_out(tmp_path: Path) -> None:
    text = [" ".join(row) for row in page.rows(KEPT)]
    assert "bytes" in text[0].split()[-1]
    assert "10,000,000: left out, about 95 s" in text[1]
    (tmp_path / "page.md").write_text("<!-- growth -->\n<!-- /growth -->\n")
    file = {"processor": "made", "date": "2026-01-01", "versions": {"torch": "2"}, "points": KEPT}
    page.update(tmp_path / "page.md", tmp_path, [file])
    assert "| width of a transformer" in (tmp_path / "page.md").read_text()
    for name in page.NAMES.values():
        ET.parse(tmp_path / name)


def test_a_picture_has_a_panel_for_each_series() -> None:
    drawn = ET.fromstring(picture(KEPT, "seconds"))
    texts = [element.text or "" for element in drawn.iter() if element.tag.endswith("text")]
    assert "width: seconds a step" in texts
    assert "rows: seconds a run" in texts


def test_a_size_is_left_out_by_what_the_one_before_took() -> None:
    rows, start = BY_KEY["rows"], Point(0, cpu=5.0)
    before = [Point(10**6, seconds=10.0)]
    assert _expected(rows, 10**7, before, start) == pytest.approx(105)
    assert _expected(rows, 10**4, [], start) == 0


@pytest.mark.parametrize("series", SERIES, ids=lambda series: series.key)
def test_settings_are_those_of_the_command(series: Any, tmp_path: Path) -> None:
    words = [word for word in series.words(series.tiny[0], tmp_path) if word != "-m"]
    words = [word for word in words if not word.startswith(("seed=", "sweep."))]
    parse(composed(*words, "data.cache=null") if "data=text" in words else composed(*words))


def test_parameters_are_about_as_many_as_asked_for(tmp_path: Path) -> None:
    for asked in (10**3, 10**4):
        run = build_run(parse(composed(*BY_KEY["parameters"].words(asked, tmp_path))), tmp_path / "run")
        assert run.summary.parameters == pytest.approx(asked, rel=0.1)
    assert 9_000 < fnn_of(10**8) < 10_000
    words = [*Transformer(64, 2).words(tmp_path), "data.cache=null"]
    run = build_run(parse(composed(*words)), tmp_path / "other")
    assert run.summary.parameters == pytest.approx(Transformer(64, 2).parameters, rel=0.1)


def test_data_has_the_size_that_is_asked_for(tmp_path: Path) -> None:
    assert files.text(tmp_path, 1234).stat().st_size == 1234
    lines = files.table(tmp_path, 50).read_text().splitlines()
    assert len(lines) == 51
    assert {len(line.split(",")) for line in lines} == {21}


def test_it_measures_keeps_and_shows(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "kept.json"
    growth.main(["--tiny", "--only", "width", "--output", str(output)])
    kept = json.loads(output.read_text())["points"]["width"]["eager"]
    assert [point["size"] for point in kept] == [32, 64]
    assert all(0 < point["seconds"] < 10 and point["whole"] > point["seconds"] for point in kept)
    assert "width of a transformer" in " ".join(capsys.readouterr().out.split())
