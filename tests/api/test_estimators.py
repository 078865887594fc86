"""Estimators of scikit-learn: its own checks, and what people do with estimators."""

import copy
import io
import pickle
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pytest
from sklearn.base import clone
from sklearn.datasets import load_diabetes, load_iris
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

import bigmodel as bm
from bigmodel.errors import ConfigError
from bigmodel.sklearn import Classifier, Regressor

QUICK = ["device=cpu", "device.engine=eager", "model.hidden_sizes=[32]"]
FAST = [*QUICK, "data.batch_size=32", "trainer.epochs=30", "trainer.eval_every=30", "optimizer.lr=0.02"]
SHORT = [*QUICK, "trainer.max_steps=5"]
IRIS = load_iris(return_X_y=True)


@pytest.mark.filterwarnings("ignore")  # scikit-learn's checks warn on purpose
@parametrize_with_checks([Classifier(FAST), Regressor(FAST)])
def test_scikit_learns_checks(estimator: Any, check: Any) -> None:
    """All of them: none is expected to fail. Some are skipped for lack of a package."""
    check(estimator)


@pytest.mark.parametrize("store", ["pickle", "joblib", "deepcopy"])
def test_a_fitted_one_is_stored_and_loaded(store: str) -> None:
    fitted = Classifier(SHORT).fit(*IRIS)
    buffer = io.BytesIO()
    if store == "pickle":
        again = pickle.loads(pickle.dumps(fitted))
    elif store == "joblib":
        joblib.dump(fitted, buffer)
        buffer.seek(0)
        again = joblib.load(buffer)
    else:
        again = copy.deepcopy(fitted)
    np.testing.assert_array_equal(again.predict_proba(IRIS[0]), fitted.predict_proba(IRIS[0]))


def test_a_clone_is_not_fitted() -> None:
    fitted = Classifier(SHORT, settings={"optimizer.lr": 0.1}).fit(*IRIS)
    other = clone(fitted)
    assert other.get_params() == fitted.get_params()
    assert not hasattr(other, "run_")


def test_settings_are_parameters() -> None:
    network = Classifier(SHORT).set_params(**{"optimizer.lr": 0.5, "model": "fnn"})
    assert network.settings == {"optimizer.lr": 0.5, "model": "fnn"}
    assert network.get_params()["optimizer.lr"] == 0.5
    assert network.fit(*IRIS).run_.config["optimizer"]["lr"] == 0.5
    with pytest.raises(ValueError, match="Invalid parameter 'lr'"):
        network.set_params(lr=0.5)


def test_searches_try_settings() -> None:
    pipeline = make_pipeline(StandardScaler(), Classifier(QUICK))
    grid = {"classifier__trainer.max_steps": [1, 60]}
    search = GridSearchCV(pipeline, grid, cv=2).fit(*IRIS)
    assert search.best_params_ == {"classifier__trainer.max_steps": 60}
    assert search.best_score_ > 0.6
    grid = {"overrides": [SHORT, [*SHORT, "seed=1"]]}
    assert len(GridSearchCV(Classifier(), grid, cv=2).fit(*IRIS).cv_results_["params"]) == 2


def test_cross_validation_scores() -> None:
    X, y = load_diabetes(return_X_y=True)  # noqa: N806
    assert cross_val_score(Regressor(QUICK), X, y, cv=2).mean() > 0.3


@pytest.mark.parametrize("labels", [["x", "y", "z"], [-1, 5, 10]], ids=["words", "numbers"])
def test_labels_come_back_as_they_were(labels: list[Any]) -> None:
    X, y = np.repeat(np.eye(3), 20, axis=0), np.repeat(labels, 20)  # noqa: N806
    fitted = Classifier([*QUICK, "trainer.epochs=30"]).fit(X, y)
    assert fitted.classes_.tolist() == labels
    assert fitted.score(X, y) > 0.9


def test_a_threshold_that_was_found_decides() -> None:
    X = np.linspace(-3, 3, 200)[:, None]  # noqa: N806
    y = np.where(np.random.default_rng(0).random(200) < 0.5 / (1 + np.exp(-X[:, 0])), "rare", "common")
    fitted = Classifier([*FAST, "threshold=f1"]).fit(X, y)
    shares, chosen = fitted.predict_proba(X)[:, 1], fitted.predict(X)
    least = fitted.run_.predict({"x0": X[:, 0]})["prediction"]
    assert chosen.tolist() == [["common", "rare"][int(label)] for label in least]
    assert len(set(chosen)) == 2  # or there is nothing to see
    assert shares[chosen == "rare"].min() > shares[chosen == "common"].max()
    assert not np.array_equal(chosen, fitted.classes_[fitted.predict_proba(X).argmax(1)])
    again = pickle.loads(pickle.dumps(fitted))
    assert again.predict(X).tolist() == chosen.tolist()


def test_runs_are_kept_where_asked(tmp_path: Path) -> None:
    fitted = Classifier(SHORT, output_dir=str(tmp_path)).fit(*IRIS)
    assert fitted.run_.folder.is_relative_to(tmp_path)
    assert bm.load(fitted.run_.folder, device="cpu").step == fitted.run_.step
    assert not Classifier(SHORT).fit(*IRIS).run_.folder.exists()


def test_a_seed_gives_the_same_run() -> None:
    first, second = (Regressor(SHORT, random_state=3).fit(*IRIS).predict(IRIS[0]) for _ in range(2))
    other = Regressor(SHORT, random_state=np.random.RandomState(1)).fit(*IRIS).predict(IRIS[0])
    assert first.tolist() == second.tolist()
    assert first.tolist() != other.tolist()


def test_a_frame_may_hold_categories() -> None:
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame({"city": ["Rome", "Oslo", None] * 20, "area": [1.5, None, 2.5] * 20})
    fitted = Classifier(QUICK).fit(frame, ["a", "b", "c"] * 20)
    assert fitted.feature_names_in_.tolist() == ["city", "area"]
    assert fitted.score(frame, ["a", "b", "c"] * 20) > 0.9


def test_wrong_settings_are_told() -> None:
    with pytest.raises(ConfigError, match="Did you mean"):
        Classifier(["modle=cnn"]).fit(*IRIS)
    assert bm.sklearn.Classifier is Classifier
