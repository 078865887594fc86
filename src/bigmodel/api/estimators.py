"""Estimators of scikit-learn: `fit` trains a run on a table, `predict` uses it.

They follow scikit-learn's developer guide (https://scikit-learn.org/stable/developers/develop.html).
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin
from sklearn.utils import check_consistent_length, check_random_state
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, validate_data

from bigmodel.api.new_data import GivenData, to_arrow
from bigmodel.api.trained_run import TrainedRun, load
from bigmodel.api.training import train
from bigmodel.config import GROUPS
from bigmodel.errors import UndefinedError, hydra_value
from bigmodel.reporting.predictions import unused_name


class _Estimator(BaseEstimator):  # type: ignore[misc]
    """What both estimators share.

    Attributes:
        run_: the trained run; its folder is kept only with `output_dir`.
        n_features_in_: how many columns it reads.
        feature_names_in_: their names, if it was fitted to a DataFrame.
    """

    def __init__(
        self,
        overrides: Sequence[str] = (),
        *,
        settings: Mapping[str, Any] | None = None,
        output_dir: str | None = None,
        random_state: Any = 0,
        progress: bool = False,
    ) -> None:
        self.overrides = overrides
        self.settings = settings
        self.output_dir = output_dir
        self.random_state = random_state
        self.progress = progress

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """The parameters; if `deep`, also each of `settings` by its key, such as `optimizer.lr`."""
        params: dict[str, Any] = super().get_params(deep)
        settings = self.settings if isinstance(self.settings, Mapping) else {}
        return params | dict(settings) if deep else params

    def set_params(self, **params: Any) -> Self:
        """Sets parameters, and settings by their keys: `set_params(**{"optimizer.lr": 0.01})`."""
        own = {key: value for key, value in params.items() if "." in key or key in GROUPS}
        super().set_params(**{key: value for key, value in params.items() if key not in own})
        if own:
            self.settings = {**(self.settings or {}), **own}
        return self

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "run_")

    def __getstate__(self) -> dict[str, Any]:
        state = dict(super().__getstate__())
        state.pop("run_", None)  # it is loaded again, from its checkpoint
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        if "checkpoint_" in state:
            self.run_ = _run_of(self.checkpoint_)

    def _fit(self, table: Any, target: Any, task: str) -> None:
        """Trains on a table without its target, and keeps the best weights."""
        import pyarrow as pa

        name = unused_name("target", table.column_names)
        frame = table.append_column(name, pa.array(target))
        with tempfile.TemporaryDirectory(prefix="bigmodel-") as temporary:
            folder = self.output_dir or temporary
            run = train(*self._words(name, task, folder), frame=frame, progress=self.progress)
            self.checkpoint_ = _files_of(run.folder)
        self.run_ = run

    def _words(self, target: str, task: str, folder: str) -> list[str]:
        seed = self.random_state
        if not isinstance(seed, int | np.integer):
            seed = check_random_state(seed).randint(2**31 - 1)
        usual = {
            "data": "table",
            "data.target": hydra_value(target, literal=True),
            "data.task": task,
            "seed": int(seed),
            "trainer.tensorboard": "false",
            "output_dir": hydra_value(folder, literal=True),
        }
        own = {key: hydra_value(value, literal=True) for key, value in (self.settings or {}).items()}
        typed = {word.partition("=")[0].lstrip("+~") for word in self.overrides} | set(own)
        words = [f"{key}={value}" for key, value in usual.items() if key not in typed]
        return [*words, *self.overrides, *(f"{key}={value}" for key, value in own.items())]

    def _training_data(self, X: Any, y: Any) -> tuple[Any, Any]:  # noqa: N803
        """The rows as a table, and their targets, (rows,)."""
        y = validate_data(self, y=y)
        table = self._table(X, reset=True)
        check_consistent_length(X, y)
        return table, y

    def _table(self, X: Any, *, reset: bool) -> Any:  # noqa: N803
        """A DataFrame as it is, categories and missing values included; anything else as numbers."""
        if hasattr(X, "columns") and hasattr(X, "dtypes"):
            validate_data(self, X, reset=reset, skip_check_array=True)
            return to_arrow(GivenData.of(X))
        least = 2 if reset else 1  # one to train on, and one to hold out
        kinds = [np.float64, np.float32]
        array = validate_data(self, X, reset=reset, dtype=kinds, ensure_min_samples=least)
        return to_arrow(
            GivenData("columns", {f"x{place}": column for place, column in enumerate(array.T)})
        )


class Classifier(ClassifierMixin, _Estimator):  # type: ignore[misc]
    """A classifier that is trained as `bigmodel-train data=table` is.

    Args:
        overrides: settings as on the command line, such as `["model=fnn", "trainer.epochs=50"]`.
        settings: more settings, by key: `{"optimizer.lr": 0.01}`; `set_params` and searches over
            parameters take each by its key.
        output_dir: folder that keeps the runs; None keeps none.
        random_state: seed of weights and of the order of samples.
        progress: whether to print what happens.

    Attributes:
        classes_: the labels.
        run_, n_features_in_, feature_names_in_: the trained run, and the columns that it reads.
    """

    def fit(self, X: Any, y: Any) -> Self:  # noqa: N803
        """Trains on rows and their labels; a share of them is held out to choose the best weights.

        Args:
            X: (rows, features) numbers; or a DataFrame, with categories, dates and missing values.
            y: (rows,) labels.

        Raises:
            ValueError: they are not of that form, or all labels are the same.
            BigModelError: a setting is wrong, or nothing can be learnt from the data.
        """
        table, y = self._training_data(X, y)
        check_classification_targets(y)
        self.classes_, index = np.unique(y, return_inverse=True)
        if len(self.classes_) < 2:
            raise ValueError("y: all labels are the same, 1 class. A classifier needs two or more.")
        self._fit(table, index.astype(str), "classes")
        return self

    def predict_proba(self, X: Any) -> Any:  # noqa: N803
        """The probability of each class: (rows, classes) float64, in the order of `classes_`."""
        check_is_fitted(self)
        shares = self.run_.predict_proba(self._table(X, reset=False))
        places = {name: place for place, name in enumerate(shares.column_names)}
        columns = [shares.column(places[str(label)]).to_numpy() for label in range(len(self.classes_))]
        return np.stack(columns, axis=1).astype(np.float64)

    def predict(self, X: Any) -> Any:  # noqa: N803
        """The label of each row, (rows,): the likeliest, or of two by the `threshold` that was found.

        Raises:
            UndefinedError: the model gives NaN or infinity for a row.
        """
        check_is_fitted(self)
        found = self.run_.predict(self._table(X, reset=False)).column("prediction")
        if found.null_count:
            raise UndefinedError(
                f"{found.null_count:,} rows have no label: the model gives NaN for them."
            )
        return self.classes_[found.to_numpy().astype(np.int64)]


class Regressor(RegressorMixin, _Estimator):  # type: ignore[misc]
    """A regressor that is trained as `bigmodel-train data=table` is. See `Classifier`."""

    def fit(self, X: Any, y: Any) -> Self:  # noqa: N803
        """Trains on rows and their values; a share of them is held out to choose the best weights.

        Args:
            X: (rows, features) numbers; or a DataFrame, with categories, dates and missing values.
            y: (rows,) numbers.

        Raises:
            ValueError: they are not of that form.
            BigModelError: a setting is wrong, or nothing can be learnt from the data.
        """
        table, y = self._training_data(X, y)
        self._fit(table, y.astype(np.float64), "values")
        return self

    def predict(self, X: Any) -> Any:  # noqa: N803
        """The value of each row, (rows,) float64."""
        check_is_fitted(self)
        return self.run_.predict(self._table(X, reset=False)).column("prediction").to_numpy()


def _files_of(folder: Path) -> dict[str, bytes]:
    """The checkpoint with a run's best weights, as the content of its files."""
    checkpoints = folder / "checkpoints"
    best = next(path for name in ("best", "last") if (path := checkpoints / name).is_dir())
    return {path.name: path.read_bytes() for path in best.iterdir()}


def _run_of(files: Mapping[str, bytes]) -> TrainedRun:
    with tempfile.TemporaryDirectory(prefix="bigmodel-") as temporary:
        checkpoint = Path(temporary) / "checkpoints" / "best"
        checkpoint.mkdir(parents=True)
        for name, content in files.items():
            (checkpoint / name).write_bytes(content)
        return load(checkpoint)
