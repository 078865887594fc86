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

from bigmodel.data.canonical import canonical_names, count_values, index_of_values, too_many_values
from bigmodel.data.tabular.date_formats import DURATION, time_kind
from bigmodel.data.tabular.dates import parse_times
from bigmodel.data.tabular.missing_values import count_missing_words, missing_counts_summary
from bigmodel.data.tabular.number_formats import PLAIN, NumberFormat
from bigmodel.data.tabular.numeric import (
    MAX_EXACT_INTEGER,
    MAX_FLOAT32,
    ParsedCells,
    all_whole,
    missing_words_in,
    parse_numbers,
    text_values,
    text_without,
)
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
from bigmodel.data.user_data import check_classes
from bigmodel.errors import DataError, did_you_mean
from bigmodel.registry import Config
from bigmodel.spec import Classes, Values

Task = Literal["auto", "classes", "values"]
KEEP_MISSING_WORDS = "'data.missing=[]'"
"""What to type where NA and its like are words as others are."""

_MOST_CLASSES = 20  # whole numbers of more kinds than these are measured, not told apart


class EncodedTarget(NamedTuple):
    """What rows hold of the target.

    Attributes:
        values: class indices, (rows,) int64, or values, (rows, 1) float64; 0 where there is none.
        there: which rows have one.
        odd: cells that are no numbers.
    """

    values: Tensor
    there: NDArray[np.bool_]
    odd: InvalidCells = NONE_INVALID


class TargetColumn(Config):
    """What was learnt of the target.

    Attributes:
        name: the column.
        labels: the classes in their order; None: real values.
        numeric: labels are numbers, so that 1 and 1.0 are the same.
        missing: words that stood for a missing value, such as R's NA.
        usual: whether NA and its like are missing among labels that are words.
        respelt: other spellings of labels, with the label that they are; see `spellings`.
        notation: how its numbers are written.
        duration: values are durations, in seconds.
        odd, most_odd: see `columns.MeasuredColumn`.
    """

    name: str
    labels: list[str] | None = None
    numeric: bool = False
    missing: list[str] = Field(default=[])
    usual: bool = True
    respelt: dict[str, str] = Field(default={})
    notation: NumberFormat = PLAIN
    duration: bool = False
    odd: list[str] = Field(default=[])
    most_odd: float = MAX_INVALID

    @classmethod
    def learn(
        cls,
        name: str,
        column: Any,
        task: Task,
        where: str,
        notation: NumberFormat | None = None,
        *,
        usual: bool = True,
    ) -> TargetColumn:
        """What kind of target a column is, with its classes.

        Args:
            name, column, task: of it.
            where: the file, for messages.
            notation: how its numbers are written, where that is said.
            usual: see the class.

        Raises:
            DataError: there is no value at all, there are words where values are wanted, or there is
                nothing to tell apart.
        """
        decided = infer_type(column)
        if decided.kind in ("empty", "other"):
            holds = "no value at all" if decided.kind == "empty" else f"{column.type}"
            raise DataError(f"{where}: target '{name}' holds {holds}. Choose another data.target.")
        if notation is not None or (task == "values" and decided.kind not in ("number", "duration")):
            timed = notation is None and decided.when and time_kind(decided.when.way) == "duration"
            decided = as_times(column, "duration") if timed else as_numbers(column, notation)
            if not decided.odd.are_few(MAX_INVALID_IF_CHOSEN):
                raise DataError(
                    f"{where}: target '{name}' holds {decided.odd.value!r} in row {decided.odd.row}"
                    " (counted from 0), but data.task=values needs numbers. Say data.task=classes, or"
                    " choose another data.target."
                )
        marks = missing_words_in(column, words_too=True)
        named = bool(marks) and not usual  # NA is a word, as classes are
        if task == "classes" and (decided.odd.count or str(decided.notation) or named):
            decided = InferredType("text")  # by the user's word
        if decided.kind == "number" or (decided.kind == "duration" and task != "classes"):
            return cls._of_numbers(name, column, task, decided, where)
        learnt = cls(name=name, missing=marks if usual else [], usual=usual)._of_words(column, where)
        if task == "auto" and decided.nearly and 2 * len(learnt.labels or ()) > decided.odd.there:
            learnt._check_no_values(decided, where)
        return learnt

    def _check_no_values(self, decided: InferredType, where: str) -> None:
        """Refuses words of which hardly any is there twice, where most could be real values."""
        noun = "number" if decided.when is None else time_kind(decided.when.way)
        if noun not in ("number", "duration"):
            return
        odd = decided.odd
        are = f"are no {noun}s" if odd.count > 1 else f"is no {noun}"
        raise DataError(
            f"{where}: target '{self.name}' is read as words, of which hardly any is there twice:"
            f" {odd.count:,} of {odd.there:,} cells {are}, {odd}. To leave these rows out:"
            " data.task=values"
        )

    def _of_words(self, column: Any, where: str) -> TargetColumn:
        """The same with the classes of a column of words."""
        text = text_without(column, [*self.missing, *self.odd])
        if (different := too_many_values(text, _max_classes(column))) is not None:
            raise self._too_many(different, text.unique().slice(0, 3).drop_null(), column, where)
        names = canonical_names(count_values(text))
        if len(set(names.values())) == 1 and self.missing:
            raise DataError(
                f"{where}: target '{self.name}' holds {next(iter(names.values()))!r} alone, with"
                f" {missing_counts_summary(count_missing_words(column, self.missing))} taken for"
                " missing, so that there is"
                f" nothing to tell apart. Where that is a class: {KEEP_MISSING_WORDS}"
            )
        labels = self._known(sorted(set(names.values()), key=_natural_key), column, where)
        respelt = {word: label for word, label in names.items() if word != label}
        return self.model_copy(update={"labels": labels, "respelt": respelt})

    @classmethod
    def _of_numbers(
        cls, name: str, column: Any, task: Task, decided: InferredType, where: str
    ) -> TargetColumn:
        duration = decided.kind == "duration"
        cells = _parse_cells(column, decided.notation, duration)
        if np.isnan(cells.values).all():
            raise DataError(
                f"{where}: target '{name}' holds no value at all. Choose another data.target."
            )
        learnt = cls(
            name=name,
            missing=missing_words_in(column, words_too=False),
            notation=decided.notation,
            duration=duration,
            odd=invalid_values(column, cells.odd & ~cells.infinite) if decided.odd.count else [],
            most_odd=MAX_INVALID if decided.odd.are_few() else MAX_INVALID_IF_CHOSEN,
        )
        if (
            duration
            or task == "values"
            or (task == "auto" and _is_real_valued(column, cells, decided.notation))
        ):
            return learnt
        if np.nanmax(np.abs(cells.values)) >= MAX_EXACT_INTEGER:
            return learnt._of_words(column, where)
        labels = learnt._known(_number_labels(cells.values), column, where)
        return learnt.model_copy(update={"labels": labels, "numeric": True})

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
            f" {str(some[0])!r} and {str(some[1])!r}, too many to tell apart. Is it the right column?"
            " For real values, say data.task=values."
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
        import pyarrow as pa
        import pyarrow.compute as pc

        if self.labels is None or self.numeric:
            cells = _parse_cells(column, self.notation, self.duration)
            too_large = cells.too_large & (self.labels is None)
            values, there = cells.values, ~(np.isnan(cells.values) | too_large)
            beyond = too_large | cells.infinite
            odd = InvalidCells.of(
                column, cells.odd | too_large, cells.there, known=self.odd, too_large=beyond
            )
            if not odd.are_few(self.most_odd if self.labels is None else 0):
                most = f" A model can hold {MAX_FLOAT32:.2g} at most." if odd.too_large else ""
                self._refuse(odd.row, odd.value, where, most)
            if self.labels is None:
                return EncodedTarget(torch.from_numpy(np.where(there, values, 0.0))[:, None], there, odd)
            known = np.array([float(label) for label in self.labels])
            index = np.searchsorted(known, np.where(there, values, known[0])).clip(max=len(known) - 1)
            unknown = there & (known[index] != values)
            if unknown.any():
                self._refuse(int(unknown.argmax()), _number_text(values[unknown.argmax()]), where)
            return EncodedTarget(torch.from_numpy(index.astype(np.int64)), there, odd)
        usual = missing_words_in(column, words_too=True) if self.usual else []
        marks = {*usual, *self.missing, *self.odd}.difference(self.labels)
        asked = self._encode_words(text_without(column, sorted(marks)), self.labels, where)
        if not self.odd:
            return asked
        text = text_values(column)
        odd = pc.fill_null(pc.is_in(text, value_set=pa.array(self.odd, text.type)), False).to_numpy()
        holding = int(asked.there.sum() + odd.sum())
        return asked._replace(odd=InvalidCells.of(column, odd, holding, known=self.odd))

    def missing_told(self, column: Any) -> str:
        """How many rows hold which words that are taken for missing, to go on with a sentence."""
        marks = missing_words_in(column, words_too=self.labels is not None and not self.numeric)
        marks = marks if self.usual else []
        counts = count_missing_words(column, [mark for mark in marks if mark not in (self.labels or ())])
        return f" ({missing_counts_summary(counts)} taken for missing)" if counts else ""

    def nothing(self, rows: int) -> Tensor:
        """Targets of rows that nothing is known of."""
        return torch.zeros(rows, 1) if self.labels is None else torch.zeros(rows, dtype=torch.int64)

    def _encode_words(self, text: Any, labels: list[str], where: str) -> EncodedTarget:
        import pyarrow.compute as pc

        found, _ = index_of_values(text, labels)
        if found.null_count > text.null_count:
            row = pc.index(pc.and_(found.is_null(), text.is_valid()), True).as_py()
            self._refuse(row, text[row].as_py(), where)
        there = text.is_valid().to_numpy()
        return EncodedTarget(torch.from_numpy(pc.fill_null(found, 0).to_numpy().astype(np.int64)), there)

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


def _parse_cells(column: Any, notation: NumberFormat, duration: bool) -> ParsedCells:
    return parse_times(column, DURATION) if duration else parse_numbers(column, notation)


def _max_classes(column: Any) -> float:
    """More different values than these are no classes."""
    return max(_MOST_CLASSES, int(len(column) - column.null_count) / 2)


def _is_real_valued(column: Any, cells: ParsedCells, notation: NumberFormat) -> bool:
    """Whether numbers are real values rather than names of classes.

    Where some are missing, 1.0 may be a whole number that pandas has written so, as its columns of
    whole numbers have no place for a missing one.
    """
    if cells.infinite.any():
        return True
    missing = np.isnan(cells.values)
    there = cells.values[~missing]
    whole = all_whole(column, notation) or (missing.any() and (there == np.trunc(there)).all())
    return not whole or len(np.unique(there)) > _MOST_CLASSES


def _number_labels(values: NDArray[np.float64]) -> list[str]:
    return [_number_text(value) for value in np.unique(values[~np.isnan(values)])]


def _number_text(value: float) -> str:
    return str(int(value)) if float(value).is_integer() else repr(float(value))


def _natural_key(label: str) -> list[tuple[int, int, str]]:
    """Class 2 before class 10."""
    parts = re.split(r"(\d+)", label)
    return [(0, int(part), "") if part.isdecimal() else (1, 0, part) for part in parts]
