"""The column of a table that is asked for: classes or real values, and what its words stand for."""

from __future__ import annotations

import re
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor

from bigmodel.data.own import check_classes
from bigmodel.data.tabular.values import (
    first_without_number,
    kind_of,
    marks_of,
    numbers,
    strange_number,
    whole_numbers,
    words_without,
)
from bigmodel.errors import DataError, did_you_mean
from bigmodel.registry import Config
from bigmodel.spec import Classes, Values

Task = Literal["auto", "classes", "values"]
_MOST_CLASSES = 20  # whole numbers of more kinds than these are measured, not told apart


class TargetColumn(Config):
    """What was learnt of the target.

    Attributes:
        name: the column.
        labels: the classes in their order; None: real values.
        numeric: labels are numbers, so that 1 and 1.0 are the same.
        missing: words that stood for a missing value, such as R's NA.
    """

    name: str
    labels: list[str] | None = None
    numeric: bool = False
    missing: list[str] = Field(default=[])

    @classmethod
    def learn(cls, name: str, column: Any, task: Task, where: str) -> TargetColumn:
        """What kind of target a column is, with its classes.

        Raises:
            DataError: there is no value at all, there are words where values are wanted, or there is
                nothing to tell apart.
        """
        kind = kind_of(column)
        if kind in ("empty", "other"):
            holds = "no value at all" if kind == "empty" else f"{column.type}"
            raise DataError(f"{where}: target '{name}' holds {holds}. Choose another data.target.")
        values = numbers(column) if kind == "number" or task == "values" else None
        if task == "values" and values is None:
            row, value = first_without_number(column)
            raise DataError(
                f"{where}: target '{name}' holds {value!r} in row {row} (counted from 0), but"
                " data.task=values needs numbers. Say data.task=classes, or choose another data.target."
            )
        if values is not None and np.isnan(values).all():
            raise DataError(
                f"{where}: target '{name}' holds no value at all. Choose another data.target."
            )
        marks = marks_of(column, words_too=values is None)
        if task == "auto":
            _check_written(name, column, where)
            task = "values" if values is not None and _measured(column, values) else "classes"
        if task == "values":
            return cls(name=name, missing=marks)
        labels = _number_labels(values) if values is not None else _word_labels(column, marks)
        check_classes(labels, f"{where}: target '{name}'")
        rows = len(column) - column.null_count
        if len(labels) > max(_MOST_CLASSES, rows / 2):
            raise DataError(
                f"{where}: target '{name}' has {len(labels):,} different values in {rows:,} rows, such"
                f" as {labels[0]!r} and {labels[1]!r}, too many to tell apart. Is it the right column?"
                " For real values, say data.task=values."
            )
        return cls(name=name, labels=labels, numeric=values is not None, missing=marks)

    @property
    def spec(self) -> Classes | Values:
        """What the spec says of it; the training part's figures are filled in later."""
        if self.labels is None:
            return Values((self.name,), mean=(), std=())
        return Classes(tuple(self.labels), counts=())

    def encode(self, column: Any, where: str) -> tuple[Tensor, NDArray[np.bool_]]:
        """Class indices, (rows,) int64, or values, (rows, 1) float64; and which rows have one.

        Raises:
            DataError: a value is no number or infinite, or no class that training knew.
        """
        if self.labels is None or self.numeric:
            values = numbers(column)
            if values is None:
                self._refuse(*first_without_number(column), where)
            assert values is not None
            there = ~np.isnan(values)
            if self.labels is None:
                infinite = np.isinf(values)
                if infinite.any():
                    self._refuse(int(infinite.argmax()), str(values[infinite.argmax()]), where)
                return torch.from_numpy(np.where(there, values, 0.0))[:, None], there
            known = np.array([float(label) for label in self.labels])
            index = np.searchsorted(known, np.where(there, values, known[0])).clip(max=len(known) - 1)
            unknown = there & (known[index] != values)
            if unknown.any():
                self._refuse(int(unknown.argmax()), _written(values[unknown.argmax()]), where)
            return torch.from_numpy(index.astype(np.int64)), there
        marks = set(marks_of(column, words_too=True)).difference(self.labels)
        return self._encode_words(words_without(column, sorted(marks)), self.labels, where)

    def nothing(self, rows: int) -> Tensor:
        """Targets of rows that nothing is known of."""
        return torch.zeros(rows, 1) if self.labels is None else torch.zeros(rows, dtype=torch.int64)

    def _encode_words(
        self, text: Any, labels: list[str], where: str
    ) -> tuple[Tensor, NDArray[np.bool_]]:
        import pyarrow as pa
        import pyarrow.compute as pc

        found = pc.index_in(text, value_set=pa.array(labels, text.type))
        if found.null_count > text.null_count:
            row = pc.index(pc.and_(found.is_null(), text.is_valid()), True).as_py()
            self._refuse(row, text[row].as_py(), where)
        there = text.is_valid().to_numpy()
        return torch.from_numpy(pc.fill_null(found, 0).to_numpy().astype(np.int64)), there

    def _refuse(self, row: int, value: str, where: str) -> None:
        known, near = "a finite number", ""
        if self.labels is not None:
            more = ", …" if len(self.labels) > _MOST_CLASSES else ""
            known = f"one of the classes {', '.join(self.labels[:_MOST_CLASSES])}{more}"
            near = did_you_mean(value, self.labels)
        raise DataError(
            f"{where}: target '{self.name}' is {known}, but row {row} (counted from 0) holds {value!r}."
            f"{near}"
        )


def _measured(column: Any, values: NDArray[np.float64]) -> bool:
    """Whether numbers are real values rather than names of classes.

    Where some are missing, 1.0 may be a whole number that pandas has written so, as its columns of
    whole numbers have no place for a missing one.
    """
    missing = np.isnan(values)
    there = values[~missing]
    whole = whole_numbers(column) or (
        missing.any() and np.isfinite(there).all() and (there == np.trunc(there)).all()
    )
    return not whole or len(np.unique(there)) > _MOST_CLASSES


def _check_written(name: str, column: Any, where: str) -> None:
    """Refuses numbers that would pass for words."""
    strange = strange_number(column)
    if strange is not None:
        raise DataError(
            f"{where}: target '{name}' holds {strange[1]!r} in row {strange[0]} (counted from 0), which"
            " is not read as a number. Write decimals with a point, and no units or thousands' commas."
            " Where it is a word, say data.task=classes."
        )


def _number_labels(values: NDArray[np.float64]) -> list[str]:
    return [_written(value) for value in np.unique(values[~np.isnan(values)])]


def _written(value: float) -> str:
    return str(int(value)) if float(value).is_integer() else repr(float(value))


def _word_labels(column: Any, marks: list[str]) -> list[str]:
    return sorted(words_without(column, marks).drop_null().unique().to_pylist(), key=_natural)


def _natural(label: str) -> list[tuple[int, int, str]]:
    """Class 2 before class 10."""
    parts = re.split(r"(\d+)", label)
    return [(0, int(part), "") if part.isdecimal() else (1, 0, part) for part in parts]
