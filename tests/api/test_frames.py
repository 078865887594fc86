"""DataFrames of pandas: what they may hold, and that predictions come back in the same form."""

import datetime
import decimal
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pandas
import pyarrow as pa
import pytest
from pandas import testing
from sklearn.compose import ColumnTransformer, make_column_transformer
from sklearn.impute import SimpleImputer
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

import bigmodel as bm
from bigmodel.api.new_data import GivenData, to_arrow
from bigmodel.errors import DataError
from bigmodel.sklearn import Classifier, Regressor
from tests.cli.commands.conftest import Run

N = 60
PLACES = np.arange(N)
CITIES = np.array(["Oslo", "Rome", "Paris"])[PLACES % 3]
DAYS = pandas.date_range("2024-01-01", periods=N, freq="37h")
HOLES = PLACES % 7 != 0


def with_holes(values: Any, dtype: Any = object) -> Any:
    return pandas.Series(values).astype(object).where(HOLES, None).astype(dtype)


COLUMNS: dict[str, Any] = {
    "float": PLACES / 7,
    "float16": (PLACES % 11).astype("float16"),
    "unsigned": (PLACES % 5).astype("uint8"),
    "nan": np.where(HOLES, PLACES / 3, np.nan),
    "Int64": with_holes(PLACES % 5, "Int64"),
    "Float64": with_holes(PLACES / 5, "Float64"),
    "boolean": with_holes(PLACES % 4 == 0, "boolean"),
    "bool": PLACES % 3 == 0,
    "sparse": pandas.arrays.SparseArray(np.where(PLACES % 4 == 0, 1.5, 0.0)),
    "decimal": pandas.Series([decimal.Decimal(place) / 4 for place in range(N)], dtype=object),
    "category": pandas.Categorical(CITIES, categories=["Bonn", "Oslo", "Rome", "Paris"]),
    "numbered": pandas.Categorical(PLACES % 4),
    "ordered": pandas.Categorical(with_holes(CITIES), ordered=True),
    "bins": pandas.cut(PLACES, 4),
    "text": with_holes(CITIES, "string"),
    "arrow_text": with_holes(CITIES, "string[pyarrow]"),
    "object": with_holes(CITIES),
    "missing_kinds": pandas.Series(
        [[None, np.nan, pandas.NA, pandas.NaT, "x", "y"][p % 6] for p in PLACES]
    ),
    "mixed": pandas.Series([1 if p % 2 else ["a", True, 2.5][p % 3] for p in PLACES], dtype=object),
    "dates": DAYS,
    "zone": DAYS.tz_localize("Europe/Rome"),
    "not_a_time": pandas.Series(DAYS).where(HOLES),
    "days": pandas.Series([day.date() for day in DAYS], dtype=object),
    "months": pandas.period_range("2010-01", periods=N, freq="M"),
    "took": pandas.to_timedelta(PLACES * 17 % 23, unit="min"),
    7: PLACES % 8,
}
USELESS = {"empty": np.full(N, np.nan), "lists": pandas.Series([[1, 2]] * N)}
QUICK = ("device=cpu", "model.hidden_sizes=[8]", "trainer.tensorboard=false", "trainer.max_steps=4")


def frame() -> Any:
    return pandas.DataFrame(COLUMNS | USELESS | {"y": np.sin(PLACES)})


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> bm.TrainedRun:
    """One that has learnt from all these columns."""
    given = frame()
    folder = f"output_dir={tmp_path_factory.mktemp('runs')}"
    made = bm.train(*QUICK, "data.target=y", folder, frame=given, progress=False)
    testing.assert_frame_equal(given, frame())  # it is not changed
    return made


def test_columns_of_every_type_are_learnt(run: bm.TrainedRun) -> None:
    names = {name.partition(" (")[0] for name in run._loaded.preprocessing.spec.input.names}
    assert names == {str(name) for name in COLUMNS}


def test_a_frame_is_predicted_as_what_the_run_has_kept_of_it(run: bm.TrainedRun) -> None:
    predicted = run.predict(frame().drop(columns="y").set_index(DAYS[::-1]))
    assert isinstance(predicted, pandas.DataFrame)
    assert predicted.columns.tolist() == ["prediction"]
    assert predicted.index.equals(DAYS[::-1])
    assert predicted.prediction.notna().all()
    kept = run.predict(run.folder / "data.parquet")
    assert isinstance(kept, pandas.DataFrame)
    np.testing.assert_array_equal(predicted.prediction, kept.prediction)


@pytest.mark.parametrize("backend", ["numpy_nullable", "pyarrow"])
def test_the_types_of_the_same_values_do_not_matter(run: bm.TrainedRun, backend: Any) -> None:
    plain = frame().drop(columns=["sparse", "bins", "months"])
    others = frame()[["sparse", "bins", "months"]]
    converted = pandas.concat([plain.convert_dtypes(dtype_backend=backend), others], axis=1)
    testing.assert_frame_equal(run.predict(converted), run.predict(frame()))


@pytest.mark.parametrize(
    "index",
    [
        pandas.MultiIndex.from_product([range(N // 10), list("abcdefghij")], names=["n", "letter"]),
        np.zeros(N),
        pandas.Index([f"row {place}" for place in PLACES]),
    ],
    ids=["levels", "all alike", "words"],
)
def test_any_index_is_kept(run: bm.TrainedRun, index: Any) -> None:
    given = frame().set_index(index)
    testing.assert_index_equal(run.predict(given).index, given.index)
    assert run.evaluate(given) == run.evaluate(frame())


def test_a_part_of_a_frame_is_predicted_alike(run: bm.TrainedRun) -> None:
    whole = run.predict(frame())
    np.testing.assert_allclose(run.predict(frame()[::-3]), whole[::-3], rtol=1e-5)
    np.testing.assert_allclose(run.predict(frame().iloc[[5]]), whole.iloc[[5]], rtol=1e-5)


def test_classes_have_columns_of_probabilities(tmp_path: Path) -> None:
    given = frame()[["float", "category"]].assign(y=pandas.Categorical(CITIES))
    made = bm.train(*QUICK, "data.target=y", f"output_dir={tmp_path}", frame=given, progress=False)
    predicted, shares = made.predict(given), made.predict_proba(given)
    assert predicted.columns.tolist() == ["prediction", "probability"]
    assert shares.columns.tolist() == list(made.classes) == ["Oslo", "Paris", "Rome"]
    assert (shares.idxmax(axis=1) == predicted.prediction).all()
    np.testing.assert_allclose(shares.sum(axis=1), 1, rtol=1e-5)
    figures = made.evaluate(given)
    assert figures["accuracy"] == pytest.approx((predicted.prediction == given.y).mean())
    assert made.evaluate(given.drop(columns="y"), given.y) == figures


def test_the_records_are_a_frame(run: bm.TrainedRun) -> None:
    records = run.metrics
    assert isinstance(records, pandas.DataFrame)
    assert records.step.iloc[-1] == 4
    assert records["val/loss"].notna().any()


def test_a_series_is_a_column(made: Run) -> None:
    reviews = bm.load(made("reviews"), device="cpu")
    texts = pandas.Series(["good, nice", "awful poor bad"], index=["a", "b"], name="text")
    predicted = reviews.predict(texts)
    assert isinstance(predicted, pandas.Series)
    assert predicted.to_dict() == dict(zip("ab", reviews.predict(list(texts)), strict=True))
    assert reviews.predict_proba(texts).index.tolist() == ["a", "b"]
    table = bm.load(made("table"), device="cpu")
    with pytest.raises(DataError, match=r"a Series is one column.*frame\.iloc\[\[0\]\]"):
        table.predict(pandas.Series({"city": "Oslo", "area": 3.5}))


def test_levels_of_column_names_are_joined(tmp_path: Path) -> None:
    names = pandas.MultiIndex.from_tuples([("width", "min"), ("width", "max"), ("y", "")])
    given = pandas.DataFrame(np.arange(3 * N).reshape(N, 3) % 7, columns=names)
    made = bm.train(*QUICK, "data.target=y", f"output_dir={tmp_path}", frame=given, progress=False)
    assert made._loaded.preprocessing.spec.input.names == ("width_min", "width_max")
    assert len(made.predict(given)) == N


@pytest.mark.parametrize(
    ("more", "told"),
    [
        (frame()[["nan"]], "column 'nan' occurs twice"),
        (pandas.DataFrame({"7": PLACES}), "column '7' occurs twice"),
        (pandas.DataFrame({"c": PLACES + 1j}), "column 'c' holds values such as .*1j.* of type complex"),
        (pandas.DataFrame({"c": [object()] * N}), "column 'c' holds values such as .* of type object"),
        (pandas.DataFrame({"c": [{1}, *[0] * (N - 1)]}), "column 'c' holds .* of type set"),
    ],
    ids=["same name", "same as text", "complex", "object", "mixed with sets"],
)
def test_what_no_column_can_be_is_refused(run: bm.TrainedRun, more: Any, told: str) -> None:
    given = pandas.concat([frame(), more], axis=1)
    with pytest.raises(DataError, match=told):
        bm.train(*QUICK, "data.target=y", frame=given, progress=False)
    with pytest.raises(DataError, match=told):
        run.predict(given)


def test_a_frame_without_rows_is_refused() -> None:
    with pytest.raises(DataError, match="frame: it has no rows"):
        bm.train(*QUICK, "data.target=y", frame=frame()[:0], progress=False)


class Capsule:
    """A table of another library, of which only the Arrow interface is known."""

    def __init__(self, table: Any) -> None:
        self._table = table

    def __arrow_c_stream__(self, schema: Any = None) -> Any:
        return self._table.__arrow_c_stream__(schema)


def test_any_table_with_the_arrow_interface_is_read(tmp_path: Path) -> None:
    words_of = pa.array(["Oslo", "Rome", "Paris"]).cast(pa.string_view())
    kinds = pa.DictionaryArray.from_arrays(pa.array(PLACES % 3, pa.int32()), words_of)  # as in polars
    table = pa.table(
        {"x": PLACES % 7, "city": pa.array(CITIES).cast(pa.string_view()), "kind": kinds, "y": PLACES}
    )
    words = (*QUICK, "data.target=y", f"output_dir={tmp_path}")
    made = bm.train(*words, frame=Capsule(table), progress=False)
    predicted = made.predict(Capsule(table))
    assert isinstance(predicted, pa.Table)
    assert predicted == made.predict(table)
    np.testing.assert_array_equal(predicted["prediction"], made.predict(table.to_pandas()).prediction)
    polars = pytest.importorskip("polars")
    found = made.predict(polars.from_arrow(table))
    assert isinstance(found, polars.DataFrame)
    assert found["prediction"].to_list() == predicted["prediction"].to_pylist()


def test_frames_go_through_pipelines() -> None:
    given = frame()[["nan", "float", "category"]]
    labels = pandas.Series(CITIES, name="y")
    encode = make_column_transformer(
        (make_pipeline(SimpleImputer(), StandardScaler()), ["nan", "float"]),
        (OneHotEncoder(sparse_output=False), ["category"]),
        verbose_feature_names_out=False,
    )
    network = Classifier(
        ["device=cpu", "model.hidden_sizes=[16]", "optimizer.lr=0.05", "trainer.epochs=20"]
    )
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        pipeline = make_pipeline(encode, network).set_output(transform="pandas").fit(given, labels)
        assert pipeline.score(given, labels) > 0.9
        names = pipeline[-1].feature_names_in_.tolist()
        assert names[:3] == ["nan", "float", "category_Oslo"]
        assert pipeline.predict_proba(given[:4]).shape == (4, 3)
        part = ColumnTransformer([("as it is", "passthrough", ["category", "nan"])])
        whole = make_pipeline(part.set_output(transform="pandas"), Regressor(["device=cpu", QUICK[3]]))
        assert whole.fit(given, pandas.Series(PLACES, dtype="Int64")).predict(given).shape == (N,)


def test_rows_may_hold_values_of_several_kinds() -> None:
    day = datetime.date(2024, 2, 29)
    rows = [{"at": day, "x": 1}, {"at": None, "x": "many"}]
    table = to_arrow(GivenData.of(rows))
    assert table.to_pylist() == [{"at": day, "x": "1"}, {"at": None, "x": "many"}]
