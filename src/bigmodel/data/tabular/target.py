"""The column of a table that is asked for: classes or real values, and what its words stand for."""

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
from bigmodel.data.tabular.date_formats import DURATION, time_kind
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
"""What to type where NA and its like are words as others are."""

_MOST_CLASSES = 20  # whole numbers of more kinds than these are measured, not told apart


class EncodedTarget(NamedTuple):
    """What rows hold of the target.

    Attributes:
        values: class indices, (rows,) int64, or values, (rows, 1) float64; 0 where there is none.
        filled: which rows have one.
        invalid: cells that are no numbers.
    """

    values: Tensor
    filled: NDArray[np.bool_]
    invalid: InvalidCells = NONE_INVALID


class TargetColumn(FittedState):
    """What was learnt of the target.

    Attributes:
        name: the column.
        labels: the classes in their order; None: real values.
        numeric: labels are numbers, so that 1 and 1.0 are the same.
        missing: words that stood for a missing value, such as R's NA.
        default_missing: whether NA and its like are missing among labels that are words.
        aliases: other spellings of labels, with the label that they are; see `spelling_variants`.
        number_format: how its numbers are written.
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
        """What kind of target a column is, with its classes.

        Args:
            name, column, task: of it.
            where: the file, for messages.
            number_format: how its numbers are written, where that is said.
            default_missing: see the class.
            inferred: what `infer_type` found, if it is known.

        Raises:
            DataError: there is no value at all, there are words where values are wanted, or there is
                nothing to tell apart.
        """
        inferred = inferred or infer_type(column)
        if inferred.kind in ("empty", "other"):
            holds = "no value at all" if inferred.kind == "empty" else f"{column.type}"
            raise DataError(f"{where}: target '{name}' holds {holds}. Choose another data.target.")
        measured = inferred.kind in ("number", "duration")
        if number_format is not None or (task == "values" and not measured):
            timed = number_format is None and _measured_noun(inferred) == "duration"
            inferred = as_times(column, "duration") if timed else as_numbers(column, number_format)
            invalid = inferred.invalid
            if not invalid.are_few(MAX_INVALID_IF_CHOSEN):
                raise DataError(
                    f"{where}: target '{name}' holds {invalid.value!r} in row {invalid.row} (counted"
                    " from 0), but data.task=values needs numbers. Set data.task=classes, or choose"
                    " another data.target."
                )
        missing = numeric.missing_words_in(column, words_too=True)
        named = bool(missing) and not default_missing  # NA is a word, as classes are
        if task == "classes" and (inferred.invalid.count or str(inferred.number_format) or named):
            inferred = InferredType("text")  # that the user names
        if inferred.kind == "number" or (inferred.kind == "duration" and task != "classes"):
            return cls._of_numbers(name, column, task, inferred, where)
        fitted = cls(name=name, missing=[] if named else missing, default_missing=default_missing)
        fitted = fitted._of_words(column, where)
        rare = 2 * len(fitted.labels or ()) > inferred.invalid.filled
        if task == "auto" and inferred.mostly_measured and rare:
            fitted._check_no_values(inferred, where)
        return fitted

    def _check_no_values(self, inferred: InferredType, where: str) -> None:
        """Refuses words of which hardly any is there twice, where most could be real values."""
        noun, invalid = _measured_noun(inferred), inferred.invalid
        are = f"are not {noun}s" if invalid.count > 1 else f"is not a {noun}"
        if noun in ("number", "duration"):
            raise DataError(
                f"{where}: target '{self.name}' is read as words, almost all of them different:"
                f" {invalid.count:,} of {invalid.filled:,} cells {are}, {invalid}. To leave these rows"
                " out: data.task=values"
            )

    def _of_words(self, column: Any, where: str) -> TargetColumn:
        """The same with the classes of a column of words."""
        text = numeric.text_without(column, [*self.missing, *self.invalid])
        if (different := too_many_values(text, _max_classes(column))) is not None:
            raise self._too_many(different, text.unique().slice(0, 3).drop_null(), column, where)
        names = canonical_names(count_values(text))
        if len(set(names.values())) == 1 and self.missing:
            missing = missing_counts_summary(count_missing_words(column, self.missing))
            raise DataError(
                f"{where}: target '{self.name}' holds only {next(iter(names.values()))!r}, with"
                f" {missing} taken for missing, so there is nothing to predict. If that is a class:"
                f" {KEEP_MISSING_WORDS}"
            )
        labels = self._known(sorted(set(names.values()), key=_natural_key), column, where)
        aliases = {word: label for word, label in names.items() if word != label}
        return self.model_copy(update={"labels": labels, "aliases": aliases})

    @classmethod
    def _of_numbers(
        cls, name: str, column: Any, task: Task, inferred: InferredType, where: str
    ) -> TargetColumn:
        duration = inferred.kind == "duration"
        number_format = inferred.number_format
        cells = _parse_cells(column, number_format, duration)
        values = cells.values[~np.isnan(cells.values)]
        if not len(values):
            holds = "no value at all"
            raise DataError(f"{where}: target '{name}' holds {holds}. Choose another data.target.")
        wrong = cells.invalid & ~cells.infinite
        fitted = cls(
            name=name,
            missing=numeric.missing_words_in(column, words_too=False),
            number_format=number_format,
            duration=duration,
            invalid=invalid_values(column, wrong) if inferred.invalid.count else [],
            max_invalid=MAX_INVALID if inferred.invalid.are_few() else MAX_INVALID_IF_CHOSEN,
        )
        real = task == "auto" and _is_real_valued(column, cells, number_format)
        if duration or task == "values" or real:
            return fitted
        if np.abs(values).max() >= MAX_EXACT_INTEGER:
            return fitted._of_words(column, where)
        labels = fitted._known([_number_text(value) for value in np.unique(values)], column, where)
        return fitted.model_copy(update={"labels": labels, "numeric": True})

    def _known(self, labels: list[str], column: Any, where: str) -> list[str]:
        """Classes that can be told apart.

        Raises:
            DataError: they are too many, or there is but one.
        """
        check_classes(labels, f"{where}: target '{self.name}'")
        if len(labels) > _max_classes(column):
            raise self._too_many(len(labels), labels, column, where)
        return labels

    def _too_many(self, different: int, some: Sequence[Any], column: Any, where: str) -> DataError:
        rows = len(column) - column.null_count
        return DataError(
            f"{where}: target '{self.name}' has {different:,} different values in {rows:,} rows, such as"
            f" {str(some[0])!r} and {str(some[1])!r}, too many for classes. Is it the right column?"
            " For real values, set data.task=values."
        )

    @property
    def noun(self) -> str:
        """What one of its cells is, where they are measured."""
        return "duration" if self.duration else "number"

    @property
    def spec(self) -> Classes | Values:
        """What the spec says of it; the training part's figures are filled in later."""
        if self.labels is None:
            return Values((self.name,), mean=(), std=())
        return Classes(tuple(self.labels), counts=())

    def encode(self, column: Any, where: str) -> EncodedTarget:
        """What the rows hold.

        Raises:
            DataError: a value is no number or infinite, or no class that training knew.
        """
        if self.labels is None or self.numeric:
            cells = _parse_cells(column, self.number_format, self.duration)
            too_large = cells.too_large & (self.labels is None)
            values, filled = cells.values, ~(np.isnan(cells.values) | too_large)
            beyond = too_large | cells.infinite
            invalid = InvalidCells.of(
                column, cells.invalid | too_large, cells.filled, known=self.invalid, too_large=beyond
            )
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
        words = numeric.missing_words_in(column, words_too=True) if self.default_missing else []
        missing = {*words, *self.missing, *self.invalid}.difference(self.labels)
        encoded = self._encode_words(numeric.text_without(column, sorted(missing)), self.labels, where)
        if not self.invalid:
            return encoded
        text = numeric.text_values(column)
        found = pc.is_in(text, value_set=pa.array(self.invalid, text.type))
        invalid = pc.fill_null(found, False).to_numpy()
        holding = int(encoded.filled.sum() + invalid.sum())
        return encoded._replace(invalid=InvalidCells.of(column, invalid, holding, known=self.invalid))

    def missing_told(self, column: Any) -> str:
        """How many rows hold which words that are taken for missing, to go on with a sentence."""
        words = numeric.missing_words_in(column, words_too=self.labels is not None and not self.numeric)
        missing = [word for word in words if word not in (self.labels or ())]
        counts = count_missing_words(column, missing if self.default_missing else [])
        return f" ({missing_counts_summary(counts)} taken for missing)" if counts else ""

    def nothing(self, rows: int) -> Tensor:
        """Targets of rows that nothing is known of."""
        return torch.zeros(rows, 1) if self.labels is None else torch.zeros(rows, dtype=torch.int64)

    def _encode_words(self, text: Any, labels: list[str], where: str) -> EncodedTarget:
        found, _ = index_of_values(text, labels)
        if found.null_count > text.null_count:
            row = pc.index(pc.and_(found.is_null(), text.is_valid()), True).as_py()
            self._refuse(row, text[row].as_py(), where)
        index = pc.fill_null(found, 0).to_numpy().astype(np.int64)
        return EncodedTarget(torch.from_numpy(index), text.is_valid().to_numpy())

    def _refuse(self, row: int, value: str, where: str, near: str = "") -> None:
        known = "a duration" if self.duration else "a finite number"
        if self.labels is not None:
            more = ", …" if len(self.labels) > _MOST_CLASSES else ""
            known = f"one of the classes {', '.join(self.labels[:_MOST_CLASSES])}{more}"
            near = did_you_mean(value, self.labels)
        raise DataError(
            f"{where}: target '{self.name}' is {known}, but row {row} (counted from 0) holds {value!r}."
            f"{near}"
        )


def _parse_cells(column: Any, number_format: NumberFormat, duration: bool) -> ParsedCells:
    return parse_times(column, DURATION) if duration else numeric.parse_numbers(column, number_format)


def _max_classes(column: Any) -> float:
    """More different values than these are no classes."""
    return max(_MOST_CLASSES, int(len(column) - column.null_count) / 2)


def _is_real_valued(column: Any, cells: ParsedCells, number_format: NumberFormat) -> bool:
    """Whether numbers are real values rather than names of classes.

    Where some are missing, 1.0 may be a whole number that pandas has written so, as its columns of
    whole numbers have no place for a missing one.
    """
    if cells.infinite.any():
        return True
    missing = np.isnan(cells.values)
    filled = cells.values[~missing]
    whole = missing.any() and (filled == np.trunc(filled)).all()
    whole = whole or numeric.all_whole(column, number_format)
    return not whole or len(np.unique(filled)) > _MOST_CLASSES


def _measured_noun(inferred: InferredType) -> str:
    """What most of the cells are that are not words."""
    return "number" if inferred.date_format is None else time_kind(inferred.date_format.time_format)


def _number_text(value: float) -> str:
    return str(int(value)) if float(value).is_integer() else repr(float(value))


def _natural_key(label: str) -> list[tuple[int, int, str]]:
    """Class 2 before class 10."""
    parts = re.split(r"(\d+)", label)
    return [(0, int(part), "") if part.isdecimal() else (1, 0, part) for part in parts]
