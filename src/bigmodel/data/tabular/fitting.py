"""Fits the columns of a table: infers how each is read and what a model reads of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import Any, cast

from bigmodel.data.tabular import report, type_inference
from bigmodel.data.tabular.column_options import column_option
from bigmodel.data.tabular.columns import (
    CategoryColumn,
    DateColumn,
    ExcludedColumn,
    FittedColumn,
    MeasuredColumn,
    NumberColumn,
    RowIndex,
)
from bigmodel.data.tabular.config import TableConfig
from bigmodel.data.tabular.date_formats import TIME_KINDS, TimeKind, describe_format, time_kind
from bigmodel.data.tabular.missing_values import count_missing_words
from bigmodel.data.tabular.number_formats import FormatChoice
from bigmodel.data.tabular.numeric import identifier_groups, is_row_index, missing_words_in
from bigmodel.data.tabular.reader import TableReader
from bigmodel.data.tabular.table_file import Table
from bigmodel.data.tabular.target import TargetColumn
from bigmodel.data.tabular.type_inference import MAX_INVALID, MAX_INVALID_IF_CHOSEN, InferredType
from bigmodel.errors import DataError


def fit_columns(
    config: TableConfig, table: Table, targets: Sequence[TargetColumn], rows: RowIndex
) -> tuple[TableReader, list[tuple[str, str]], list[tuple[str, str]]]:
    """Fits each column to the rows of the training set, except those of texts, pictures and recordings.

    Args:
        targets: the columns to predict.
        rows: those of the training set.

    Returns:
        A reader of such tables; a summary and warnings, as header rows.

    Raises:
        DataError: there is no column to learn from.
    """
    columns: list[FittedColumn] = []
    excluded: dict[str, ExcludedColumn] = {}
    warnings: dict[str, list[str]] = {}
    choices: dict[str, FormatChoice] = {}
    ignored = {*config.ignore, *(name for name, kind in config.columns.items() if kind == "ignore")}
    for position, name in enumerate(table.column_names):
        splits = name in (config.split, config.group) and name not in config.columns
        if splits or name in config.targets:
            continue
        if name in ignored:
            excluded[name] = ExcludedColumn(report.AS_REQUESTED)
            continue
        if name in config.media:
            continue
        values = table.column(name)
        inferred, where = type_inference.infer_type(values), str(table.path)
        fit = _ColumnFit(config, name, position, values, inferred, rows, where)
        column, warnings[name] = fit.column(), fit.warnings
        if isinstance(column, ExcludedColumn):
            excluded[name] = column
            continue
        columns.append(column)
        if fit.chosen is None and fit.inferred.kind == "number":
            choices[name] = fit.inferred.choice
        if isinstance(column, MeasuredColumn):
            words = missing_words_in(values, words_too=False, cells=inferred.cells)
            table.count_missing(name, count_missing_words(values, words))
    if not columns and not config.media:
        reasons = [*chain(*warnings.values()), *report.excluded_warnings(excluded)]
        why = "; ".join(reasons) or ("all are left out, as asked." if excluded else "there is no other.")
        names = "' and '".join(config.targets)
        raise DataError(f"{table.path}: no column is left to predict '{names}' from: {why}")
    missing, encoding = list(table.missing), config.encoding
    first, *more = targets
    reader = TableReader(
        columns=columns, target=first, more_targets=more, missing=missing, encoding=encoding
    )
    before = config.learnt_reader(TableReader)
    if before is not None and all(column.name in table for column in before.columns):
        reader = before.model_copy(update={"target": first, "more_targets": more})
        excluded |= {column.name: ExcludedColumn(report.AS_IN_CHECKPOINT) for column in columns}
    read = {column.name for column in reader.columns}
    excluded = {name: why for name, why in excluded.items() if name not in read}
    summary = report.columns_summary(reader.columns, excluded)
    lines = [("Columns", summary)] if summary else []
    lines += report.written_lines(reader.columns)
    texts = report.number_format_warnings({name: choices[name] for name in choices if name in read})
    texts += chain(*(warnings[name] for name in warnings if name in read))
    texts += report.excluded_warnings(excluded)
    return reader, lines, [("Warning", text) for text in texts]


@dataclass
class _ColumnFit:
    """Fits one column to the rows of the training set.

    Attributes:
        position: of the column in its file, from 0.
        inferred: its type, from all of its cells.
        where: the file, for messages.
        warnings: other ways to read it, once it is fitted.
    """

    config: TableConfig
    name: str
    position: int
    values: Any
    inferred: InferredType
    rows: RowIndex
    where: str
    warnings: list[str] = field(default_factory=list)

    @property
    def chosen(self) -> str | None:
        """The kind that the user sets."""
        chosen = self.config.columns.get(self.name)
        return next(iter(chosen)) if isinstance(chosen, dict) else chosen

    def column(self) -> FittedColumn | ExcludedColumn:
        """The fitted column, or why it cannot be an input."""
        kind: str = self.inferred.kind
        if kind in ("empty", "other"):  # whatever the user sets
            return ExcludedColumn("empty" if kind == "empty" else str(self.values.type))
        kind = self.chosen or kind
        if kind == "number":
            return self._numbers()
        return self._times() if kind in TIME_KINDS else self._categories()

    def _check_invalid(self, inferred: InferredType, limit: float, holds: str, noun: str) -> None:
        if not inferred.invalid.are_few(limit):
            message = report.too_many_invalid(self.name, holds, inferred.invalid, noun, limit)
            raise DataError(f"{self.where}: {message}")

    def _numbers(self) -> NumberColumn | ExcludedColumn:
        if self.chosen is None and is_row_index(self.name, self.values, self.position):
            return ExcludedColumn("counts the rows", "number")
        inferred = self.inferred
        asked = self.config.number_format_of(self.name)
        if inferred.kind != "number" or asked is not None:
            inferred = type_inference.as_numbers(self.values, asked)
        limit = MAX_INVALID if inferred.invalid.are_few() else MAX_INVALID_IF_CHOSEN
        self._check_invalid(inferred, limit, "numbers", "number")
        if self.chosen is None:
            what, words = f"column '{self.name}'", f"words: {column_option(self.name, 'category')}"
            self.warnings += report.leading_zero_warning(what, inferred.zero_led, words)
            cell = identifier_groups(self.values, inferred.number_format)
            self.warnings += report.identifier_warning(self.name, cell)
        cells, number_format = (self.name, self.values, self.rows), inferred.number_format
        normalize, where, parsed = self.config.normalize, self.where, inferred.cells
        return NumberColumn.fit(*cells, normalize, where, number_format, limit, parsed)

    def _times(self) -> DateColumn | ExcludedColumn:
        chosen, inferred, limit = self.config.columns.get(self.name), self.inferred, MAX_INVALID
        if isinstance(chosen, dict):
            inferred = type_inference.as_times(self.values, time_format=chosen["date"])
        elif chosen is not None:
            inferred = type_inference.as_times(self.values, cast(TimeKind, chosen))
            limit = MAX_INVALID if inferred.invalid.are_few() else MAX_INVALID_IF_CHOSEN
        date_format = inferred.date_format
        assert date_format is not None
        noun = time_kind(date_format.time_format)
        self._check_invalid(inferred, limit, describe_format(date_format.time_format), noun)
        if date_format.other:
            self.warnings.append(report.date_format_warning(self.name, date_format))
        normalize = self.config.normalize
        return DateColumn.fit(self.name, self.values, self.rows, normalize, date_format, limit)

    def _categories(self) -> CategoryColumn | ExcludedColumn:
        chosen, limits = self.chosen is not None, (self.config.max_categories, self.config.min_count)
        column = CategoryColumn.fit(self.name, self.values, self.rows, *limits, chosen)
        if isinstance(column, ExcludedColumn):
            if column.possible_kind == "category" and not chosen:
                kind = type_inference.media_kind(self.values)
                column = column._replace(possible_kind=kind or "category")
            return report.excluded_words(column, self.inferred, chosen=chosen)
        if self.inferred.mostly_measured and not chosen:
            self.warnings.append(report.mostly_measured_warning(self.name, self.inferred))
        return column
