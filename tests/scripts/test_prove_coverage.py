"""How often intervals and sets hold the truth: a small form of the measurement, and its table."""

import statistics
from pathlib import Path
from typing import Any

import numpy as np
import prove_coverage
import pyarrow as pa
import pytest
from prove_coverage import LEVELS, Rows, markdown, measure

SPLITS = 4


def table(task: str) -> pa.Table:
    """Rows whose truth is uncertain, for values the more the larger `x` is."""
    draw = np.random.default_rng(0)
    x, z = draw.uniform(0, 2, 4000), draw.normal(size=4000)
    if task == "values":
        return pa.table({"x": x, "z": z, "y": x + z + x * draw.normal(size=4000)})
    names = np.array(["low", "middle", "high"])
    return pa.table({"x": x, "z": z, "y": names[np.digitize(x + draw.normal(size=4000), [0.7, 1.3])]})


@pytest.fixture(scope="module", params=["values", "classes"])
def splits(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp(request.param)
    data = Rows(table(request.param), "y", 1500, 2000, ("trainer.epochs=6",))
    return [measure(request.param, data, seed, folder / str(seed)) for seed in range(SPLITS)]


def test_the_truth_is_held_as_often_as_asked(splits: list[dict[str, Any]]) -> None:
    for level in LEVELS:
        each = [split[f"{level:g}"] for split in splits]
        # 300 validation samples and 2,000 held out vary by 1.9 points; the mean of four by half of that.
        assert statistics.mean(one["coverage"] for one in each) == pytest.approx(level, abs=0.02)
        assert statistics.mean(one["fresh"] for one in each) == pytest.approx(level, abs=0.02)
    sizes = [splits[0][f"{level:g}"]["size"] for level in LEVELS]
    assert sizes == sorted(set(sizes))
    if splits[0]["data"] == "values":
        grouped, same = (
            statistics.mean(find(split["0.9"])["least"] for split in splits)
            for find in (lambda found: found, lambda found: found["one_width"])
        )
        assert grouped > same, "groups have widths of their own"


def test_the_tables_name_what_was_measured(splits: list[dict[str, Any]]) -> None:
    name = splits[0]["data"]
    shown = markdown({"data": {name: splits}, "how": "a processor"})
    rows = [line for line in shown.splitlines() if line.startswith(f"| {name} ")]
    assert len(rows) == len(LEVELS) + (name == "classes")
    mean = statistics.mean(split["0.9"]["coverage"] for split in splits)
    assert f"| {name} | 0.9 | {mean:.3f} |" in rows[0]
    assert shown.endswith(f"Means over {SPLITS} splits. Validation samples: {name} 300. a processor.")


def test_digits_are_there_without_files() -> None:
    options = prove_coverage.parser().parse_args([])
    assert prove_coverage.chosen(options) == ["digits"]
    data = prove_coverage.digits(options)
    assert (data.size, data.learn + data.held) == (1797, 1797)
    every = prove_coverage.parser().parse_args(["--diamonds", "d.csv", "--fashion", str(Path("idx"))])
    assert prove_coverage.chosen(every) == list(prove_coverage.DATA)
