"""`TrainedRun.explain`: in the form of the data, as the command says."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from PIL import Image

import bigmodel as bm
from bigmodel.errors import ConfigError, DataError
from tests.api.test_trained_run import COLUMNS, ROWS, opened
from tests.cli.commands.cli import Bigmodel
from tests.cli.commands.conftest import Run


def rows_of(table: Any) -> list[dict[str, Any]]:
    return table if isinstance(table, list) else table.to_dict("records")


def test_rows_in_any_form_are_explained_as_by_the_command(
    made: Run, bigmodel: Bigmodel, tmp_path: Path
) -> None:
    new, output = tmp_path / "new.csv", tmp_path / "why.parquet"
    lines = [",".join(value or "" for value in row.values()) for row in ROWS]
    new.write_text("\n".join(["city,area,built", *lines, ""]))
    result = bigmodel("explain", made("table"), "--data", new, "--output", output, "--device", "cpu")
    assert result.status == 0, result.err

    expected = pa.parquet.read_table(output).select(["city", "area", "built"]).to_pylist()
    run = opened(made("table"))
    by_rows = run.explain(ROWS)
    assert by_rows.attributions == [pytest.approx(row, rel=1e-5) for row in expected]
    assert isinstance(run.explain(pa.table(COLUMNS)).attributions, pa.Table)
    assert list(run.explain(COLUMNS).attributions) == ["city", "area", "built"]
    assert "; 1 sample;" in repr(run.explain(ROWS[:1]))
    sums = np.array([sum(row.values()) for row in by_rows.attributions])
    np.testing.assert_allclose(sums, by_rows.scores - by_rows.baseline_scores, rtol=1e-3)
    prices = [row["prediction"] for row in run.predict(ROWS)]
    np.testing.assert_allclose(by_rows.scores, prices, rtol=1e-4)
    assert by_rows.explained == ["price"] * 3
    assert [row["column"] for row in rows_of(by_rows.importances)] == [
        name for _, name in sorted(((-abs(v), k) for k, v in mean_sizes(expected).items()))
    ]


def mean_sizes(rows: list[dict[str, float]]) -> dict[str, float]:
    return {name: float(np.mean([abs(row[name]) for row in rows])) for name in rows[0]}


def test_a_frame_gives_a_frame_with_its_index(made: Run) -> None:
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame(ROWS, index=["x", "y", "z"])
    why = opened(made("table")).explain(frame)
    assert why.attributions.index.tolist() == ["x", "y", "z"]
    assert why.attributions.columns.tolist() == ["city", "area", "built"]
    assert "<table" in why._repr_html_()
    assert opened(made("table")).explain(frame, samples=2).attributions.index.tolist() == ["x", "y"]


def test_of_a_series_so_many_are_explained_as_were_asked_for(
    tmp_path: Path,
) -> None:
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame({"x": [*[None] * 8, *map(float, range(12))], "y": np.arange(20) + 0.5})
    run = bm.train(
        *(
            "data.target=y",
            "model=fnn",
            "trainer.max_steps=2",
            "device=cpu",
            f"hydra.run.dir={tmp_path}/run",
        ),
        frame=frame,
        progress=False,
    )
    why = run.explain(frame["x"], samples=3)
    assert why.attributions.index.tolist() == [0, 1, 2]
    missing = run.explain(frame.head(1)[["x"]], "partial_dependence")  # there are no values to tell of
    assert rows_of(missing.dependence) == []


def test_arrays_and_pictures_give_arrays_in_the_shape_of_the_models_inputs(made: Run) -> None:
    features = np.random.default_rng(0).normal(size=(5, 5))
    why = opened(made("classes")).explain(features)
    assert why.attributions.shape == (5, 5)
    assert set(why.explained) <= set(opened(made("classes")).classes)
    picture = Image.fromarray(np.full((9, 11, 3), 90, np.uint8))
    run = opened(made("photos"))
    seen = run.explain([picture], class_name="high")
    assert [each.shape for each in seen.attributions] == [(3, 8, 8)]
    assert seen.explained == ["high"]
    assert run.explain([picture], "occlusion").attributions[0].shape == (3, 8, 8)


def test_its_own_data_says_what_the_model_depends_on(made: Run) -> None:
    run = opened(made("table"))
    found = run.explain(method="permutation", repeats=2)
    rows = rows_of(found.importances)
    assert {row["column"] for row in rows} == {"city", "area", "built"}
    assert all(row["low"] <= row["importance"] <= row["high"] for row in rows)
    assert found.figure == "rmse"
    assert found.value == pytest.approx(run.evaluate()["rmse"], rel=1e-5)
    assert "permutation; rmse" in repr(found)
    targets = [20.5, 21.5, 22.5]
    new = run.explain(ROWS, "permutation", targets=targets, repeats=2)
    assert new.value == pytest.approx(run.evaluate(ROWS, targets)["rmse"], rel=1e-5)
    curves = rows_of(run.explain(method="partial_dependence").dependence)
    assert {row["value"] for row in curves if row["column"] == "city"} >= {"Rome", "Oslo"}


def test_mistakes_are_told_in_words(made: Run) -> None:
    run = opened(made("table"))
    with pytest.raises(ConfigError, match=r"method=permutatoin: no such method\. Did you mean"):
        run.explain(ROWS, "permutatoin")
    with pytest.raises(ConfigError, match=r"class_name=prize: .* Did you mean 'price'"):
        run.explain(ROWS, class_name="prize")
    with pytest.raises(DataError, match="no column 'price', which holds the answers"):
        run.explain(ROWS, "permutation")
    with pytest.raises(ConfigError, match=r"method=permutation: tells .* it is not for images"):
        opened(made("photos")).explain(method="permutation")
    for option, value in [("samples", 0), ("samples", -1), ("repeats", 0), ("repeats", 1.5)]:
        with pytest.raises(ConfigError, match=f"{option}={value}: must be a whole number, at least 1"):
            run.explain(ROWS, **{option: value})
    with pytest.raises(ConfigError, match="class_name=True: the run knows no such value"):
        run.explain(ROWS, class_name=True)  # type: ignore[arg-type]


def test_nothing_is_said_of_what_is_undefined(made: Run) -> None:
    run = bm.load(made("classes"), device="cpu")
    run.model.head.bias.data[0] = torch.nan
    with pytest.warns(UserWarning, match="3 of 3 samples have no explanation") as told:
        why = run.explain(np.zeros((3, 5)))
    assert told[0].filename == __file__  # the line that asked
    assert np.isnan(why.scores).all()
