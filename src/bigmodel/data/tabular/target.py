"""The target of a table: its classes or real values, and how its cells are read."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor

from bigmodel.data.custom_data import check_classes
from bigmodel.data.fitted_state import FittedState
from bigmodel.data.libraries import pa, pc
from bigmodel.data.spelling_variants import (
    canonical_names,
    count_values,
    index_of_values,
    too_many_values,
)
from bigmodel.data.tabular import numeric
from bigmodel.data.tabular.date_formats import DURATION
from bigmodel.data.tabular.dates import parse_times
from bigmodel.data.tabular.missing_values import count_missing_words, missing_counts_summary
from bigmodel.data.tabular.number_formats import PLAIN, NumberFormat
from bigmodel.data.tabular.numeric import MAX_EXACT_INTEGER, MAX_FLOAT32, ParsedCells
from bigmodel.data.tabular.type_inference import (
    MAX_INVALID,
    MAX_INVALID_IF_CHOSEN,
    NONE_INVALID,
    InferredType,
    InvalidCells,
    as_numbers,
    as_times,
    infer_type,
    invalid_values,
)
from bigmodel.errors import DataError, did_you_mean
from bigmodel.spec import Classes, Values

Task = Literal["auto", "classes", "values"]
KEEP_MISSING_WORDS = "'data.missing=[]'"
"""What to type if NA and its like are classes."""

_MAX_CLASSES = 20  # more different integers than these are real values, not classes


class EncodedTarget(NamedTuple):
    """The targets of some rows.

    Attributes:
        values: class indices, (rows,) int64, or values, (rows, 1) float64; 0 if missing.
        filled: which rows have one.
        invalid: cells that are not numbers.
    """

    values: Tensor
    filled: NDArray[np.bool_]
    invalid: InvalidCells = NONE_INVALID


class TargetColumn(FittedState):
    """The target as learnt from the training set.

    Attributes:
        name: the column.
        labels: the classes in their order; None: real values.
        numeric: labels are numbers, so that 1 and 1.0 are the same.
        missing: words for missing values, such as R's NA.
        default_missing: whether NA and its like are missing among labels that are words.
        aliases: other spellings of labels, with their label; see `spelling_variants`.
        number_format: of its numbers.
        duration: values are durations, in seconds.
        invalid, max_invalid: see `columns.MeasuredColumn`.
    """

    name: str
    labels: list[str] | None = None
    numeric: bool = False
    missing: list[str] = Field([])
    default_missing: bool = True
    aliases: dict[str, str] = Field({})
    number_format: NumberFormat = PLAIN
    duration: bool = False
    invalid: list[str] = Field([])
    max_invalid: float = MAX_INVALID

    @classmethod
    def fit(
        cls,
        name: str,
        column: Any,
        task: Task,
        where: str,
        number_format: NumberFormat | None = None,
        *,
        default_missing: bool = True,
        inferred: InferredType | None = None,
    ) -> TargetColumn:
        """Infers what kind of target a column is, and its classes.

        Args:
            name: of the column.
            column: its cells.
            task: set by the user.
            where: the file, for messages.
            number_format: of its numbers, if the user sets it.
            default_missing: see the class.
            inferred: the result of `infer_type`, if it is known.

        Raises:
            DataError: all cells are empty, there are words although values are asked for, or there is
                only one class, or too many.
        """
        inferred, what = inferred or infer_type(column), f"{where}: target '{name}'"
        if inferred.kind in ("empty", "other"):
            holds = "no value at all" if inferred.kind == "empty" else column.type
            raise DataError(f"{what} holds {holds}. Choose another data.target.")
        measured = inferred.kind in ("number", "duration")
        if number_format is not None or (task == "values" and not measured):
            timed = number_format is None and inferred.measured_kind == "duration"
            inferred = as_times(column, "duration") if timed else as_numbers(column, number_format)
            invalid = inferred.invalid
            if not invalid.are_few(MAX_INVALID_IF_CHOSEN):
                raise DataError(
                    f"{what} holds {invalid.value!r} in row {invalid.row} (counted from 0), but"
                    " values are numbers. Set data.task=classes, or choose another"
                    " data.target."
                )
        missing = numeric.missing_words_in(column, words_too=True, cells=inferred.cells)
        named = bool(missing) and not default_missing  # NA is a word, as classes are
        if task == "classes" and (inferred.invalid.count or str(inferred.number_format) or named):
            inferred = InferredType("text")  # that the user names
        if inferred.kind == "number" or (inferred.kind == "duration" and task != "classes"):
            return cls._of_numbers(name, column, task, inferred, what)
        fitted = cls(name=name, missing=[] if named else missing, default_missing=default_missing)
        fitted = fitted._of_words(column, what)
        rare = 2 * len(fitted.labels or ()) > inferred.invalid.filled
        noun = inferred.measured_kind
        if task == "auto" and rare and inferred.mostly_measured and noun in ("number", "duration"):
            raise DataError(
                f"{what} is read as words, almost all of them different:"
                f" {inferred.invalid.summary(noun)}, {inferred.invalid}. To leave these rows out:"
                " data.task=values"
            )
        return fitted

    def _of_words(self, column: Any, what: str) -> TargetColumn:
        """The same target with the classes of a column of words."""
        text = numeric.text_without(column, [*self.missing, *self.invalid])
        if (different := too_many_values(text, _max_classes(column))) is not None:
            raise _too_many_classes(what, different, text.unique().slice(0, 3).drop_null(), column)
        names = canonical_names(count_values(text))
        if len(set(names.values())) == 1 and self.missing:
            missing = missing_counts_summary(count_missing_words(column, self.missing))
            raise DataError(
                f"{what} holds only {next(iter(names.values()))!r}, with {missing} taken for missing, so"
                f" there is nothing to predict. If that is a class: {KEEP_MISSING_WORDS}"
            )
        labels = sorted(set(names.values()), key=_natural_key)
        _check_labels(labels, column, what)
        aliases = {word: label for word, label in names.items() if word != label}
        return self.model_copy(update={"labels": labels, "aliases": aliases})

    @classmethod
    def _of_numbers(
        cls, name: str, column: Any, task: Task, inferred: InferredType, what: str
    ) -> TargetColumn:
        number_format, duration = inferred.number_format, inferred.kind == "duration"
        cells = inferred.cells or _parse_cells(column, number_format, duration)
        values = cells.values[~np.isnan(cells.values)]
        if not len(values):
            raise DataError(f"{what} holds no value at all. Choose another data.target.")
        fitted = cls(
            name=name,
            missing=numeric.missing_words_in(column, words_too=False, cells=inferred.cells),
            number_format=number_format,
            duration=duration,
            invalid=invalid_values(column, cells.invalid & ~cells.infinite),
            max_invalid=MAX_INVALID if inferred.invalid.are_few() else MAX_INVALID_IF_CHOSEN,
        )
        real = task == "auto" and _is_real_valued(column, cells, number_format)
        if duration or task == "values" or real:
            return fitted
        if np.abs(values).max() >= MAX_EXACT_INTEGER:
            return fitted._of_words(column, what)
        labels = [_number_text(value) for value in np.unique(values)]
        _check_labels(labels, column, what)
        return fitted.model_copy(update={"labels": labels, "numeric": True})

    @property
    def noun(self) -> str:
        """What a cell is, if the target is a number."""
        return "duration" if self.duration else "number"

    @property
    def spec(self) -> Classes | Values:
        """The spec of the target; counts and statistics of the training set are filled in later."""
        if self.labels is None:
            return Values((self.name,), mean=(), std=())
        return Classes(tuple(self.labels), counts=())

    def encode(self, column: Any, where: str) -> EncodedTarget:
        """The targets of some rows; `where` is the file, for messages.

        Raises:
            DataError: a value is not a number, infinite, or a class that training did not have.
        """
        if self.labels is not None and not self.numeric:
            return self._encode_words(column, self.labels, where)
        cells = _parse_cells(column, self.number_format, self.duration)
        too_large = cells.too_large & (self.labels is None)
        values, filled = cells.values, ~(np.isnan(cells.values) | too_large)
        mask, beyond = cells.invalid | too_large, cells.infinite | too_large
        invalid = InvalidCells.of(column, mask, cells.filled, known=self.invalid, too_large=beyond)
        if not invalid.are_few(self.max_invalid if self.labels is None else 0):
            most = f" A model can hold {MAX_FLOAT32:.2g} at most." if invalid.too_large else ""
            self._refuse(invalid.row, invalid.value, where, most)
        if self.labels is None:
            numbers = torch.from_numpy(np.where(filled, values, 0.0))
            return EncodedTarget(numbers[:, None], filled, invalid)
        known = np.array([float(label) for label in self.labels])
        index = np.searchsorted(known, np.where(filled, values, known[0])).clip(max=len(known) - 1)
        unknown = filled & (known[index] != values)
        if unknown.any():
            self._refuse(int(unknown.argmax()), _number_text(values[unknown.argmax()]), where)
        return EncodedTarget(torch.from_numpy(index.astype(np.int64)), filled, invalid)

    def _encode_words(self, column: Any, labels: list[str], where: str) -> EncodedTarget:
        words = numeric.missing_words_in(column, words_too=True) if self.default_missing else []
        missing = {*words, *self.missing, *self.invalid}.difference(labels)
        text = numeric.text_without(column, sorted(missing))
        places, _ = index_of_values(text, labels)
        if places.null_count > text.null_count:
            row = pc.index(pc.and_(places.is_null(), text.is_valid()), True).as_py()
            self._refuse(row, text[row].as_py(), where)
        index, filled = pc.fill_null(places, 0).to_numpy().astype(np.int64), text.is_valid().to_numpy()
        text = numeric.text_values(column)
        matches = pc.is_in(text, value_set=pa.array(self.invalid, text.type))
        invalid = pc.fill_null(matches, False).to_numpy()
        cells = InvalidCells.of(column, invalid, int((filled | invalid).sum()), known=self.invalid)
        return EncodedTarget(torch.from_numpy(index), filled, cells)

    def missing_summary(self, column: Any) -> str:
        """How many rows hold words for missing values, as the continuation of a sentence."""
        words = numeric.missing_words_in(column, words_too=self.labels is not None and not self.numeric)
        missing = [word for word in words if word not in (self.labels or ())]
        counts = count_missing_words(column, missing if self.default_missing else [])
        return f" ({missing_counts_summary(counts)} taken for missing)" if counts else ""

    def blank(self, rows: int) -> Tensor:
        """Targets of rows whose answers are unknown."""
        return torch.zeros(rows, 1) if self.labels is None else torch.zeros(rows, dtype=torch.int64)

    def _refuse(self, row: int, value: str, where: str, near: str = "") -> None:
        known = "a duration" if self.duration else "a finite number"
        if self.labels is not None:
            more = ", …" if len(self.labels) > _MAX_CLASSES else ""
            known = f"one of the classes {', '.join(self.labels[:_MAX_CLASSES])}{more}"
            near = did_you_mean(value, self.labels)
        raise DataError(
            f"{where}: target '{self.name}' is {known}, but row {row} (counted from 0) holds {value!r}."
            f"{near}"
        )


def _parse_cells(column: Any, number_format: NumberFormat, duration: bool) -> ParsedCells:
    return parse_times(column, DURATION) if duration else numeric.parse_numbers(column, number_format)


def _max_classes(column: Any) -> float:
    return max(_MAX_CLASSES, int(len(column) - column.null_count) / 2)


def _check_labels(labels: Sequence[str], column: Any, what: str) -> None:
    check_classes(labels, what)
    if len(labels) > _max_classes(column):
        raise _too_many_classes(what, len(labels), labels, column)


def _too_many_classes(what: str, count: int, labels: Sequence[Any], column: Any) -> DataError:
    return DataError(
        f"{what} has {count:,} different values in {len(column) - column.null_count:,} rows, such as"
        f" {str(labels[0])!r} and {str(labels[1])!r}, too many for classes. Is it the right column? For"
        " real values, set data.task=values."
    )


def _is_real_valued(column: Any, cells: ParsedCells, number_format: NumberFormat) -> bool:
    """Whether numbers are real values rather than names of classes.

    If some are missing, 1.0 may be an integer: pandas stores integers as floats then.
    """
    if cells.infinite.any():
        return True
    missing = np.isnan(cells.values)
    filled = cells.values[~missing]
    if (filled != np.trunc(filled)).any():
        return True
    whole = missing.any() or numeric.all_whole(column, number_format)
    return not whole or len(np.unique(filled)) > _MAX_CLASSES


def _number_text(value: float) -> str:
    return str(int(value)) if float(value).is_integer() else repr(float(value))


def _natural_key(label: str) -> list[tuple[int, int, str]]:
    """Sorts class 2 before class 10."""
    pieces = re.split(r"(\d+)", label)
    return [(0, int(piece), "") if piece.isdecimal() else (1, 0, piece) for piece in pieces]
