"""A user's own table, one sample a row: what its columns hold is found out and told.

Whatever is learnt of the columns is learnt from the training part alone: what missing values are filled
up with, mean and deviation, which categories there are. Only how a column is to be read at all, as
numbers, dates or words, is decided by all of the file's rows.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from itertools import chain
from typing import Any, cast

import numpy as np
import torch
from pydantic import Field, field_validator
from torch import Tensor

from bigmodel.data.assemble import completed
from bigmodel.data.base import Dataset, PartName
from bigmodel.data.class_counts import class_warnings, counts_in
from bigmodel.data.content import Content
from bigmodel.data.parts import Part
from bigmodel.data.plain_files import Encoding
from bigmodel.data.tabular.columns import (
    CategoryColumn,
    DateColumn,
    Learnt,
    LeftOut,
    MeasuredColumn,
    NumberColumn,
    Rows,
    Strange,
)
from bigmodel.data.tabular.date_formats import TIME_KINDS, TimeKind, check_format, described, kind_of
from bigmodel.data.tabular.deciding import Decided, as_numbers, as_times, decide
from bigmodel.data.tabular.kinds import Form, Kind, entries_of, option
from bigmodel.data.tabular.missing import counts_of, unfound_told
from bigmodel.data.tabular.notation import Notation, Ways
from bigmodel.data.tabular.odd import MOST, MOST_IF_SAID
from bigmodel.data.tabular.reader import TableReader
from bigmodel.data.tabular.reading import Columns, column, known_column, listed, read_columns
from bigmodel.data.tabular.sources import give_back
from bigmodel.data.tabular.target import Asked, TargetColumn, Task
from bigmodel.data.tabular.telling import (
    AS_ASKED,
    AS_BEFORE,
    columns_told,
    groups_told,
    left_out_told,
    missing_told,
    mostly_left_out,
    mostly_told,
    notations_told,
    odd_told,
    respelt_told,
    target_told,
    target_warnings,
    times_told,
    too_odd,
    two_times_told,
    two_ways_told,
    unseen_told,
    zeros_left_out,
    zeros_told,
)
from bigmodel.data.tabular.values import counts_rows, groups_alike, marks_of, words
from bigmodel.data.targets import Answers
from bigmodel.data.user_data import OwnConfig, Words, check_learnt, elsewhere, place, split
from bigmodel.errors import ConfigError, DataError
from bigmodel.registry import data
from bigmodel.spec import DataSpec


class TableConfig(OwnConfig):
    """A table in a CSV, TSV, Parquet or JSON lines file, gzip or not."""

    batch_size: int = Field(default=256, ge=1, description="samples in a batch")
    normalize: bool = Field(
        default=True,
        description="standardise numbers with mean and deviation of the training part",
    )
    encoding: Encoding = Field(
        default="utf-8",
        description="how CSV and JSON lines are written: utf-8, cp1252, utf-16, …;"
        " a byte-order mark is found",
    )
    target: str | None = Field(default=None, description="the column that is asked for")
    task: Task = Field(
        default="auto",
        description="what the target holds: classes, values, or auto: by what it looks like",
    )
    columns: dict[str, Kind | Form] = Field(
        default={},
        description="kind of a column, where it is not found out: number, category, date, time,"
        ' duration, ignore; or as it is written: {number: "1.200,5"}, {date: "%d/%m/%Y"}',
    )
    ignore: list[str] = Field(default=[], description="columns that are not learnt from")
    missing: Words | None = Field(
        default=None,
        description="words that stand for a missing value, besides NA, n/a, null, ? and their like in"
        " targets and numbers; []: NA and its like may be classes",
    )
    split: str | None = Field(
        default=None, description="column that says of each row: train, val or test; null: by fraction"
    )
    group: str | None = Field(
        default=None,
        description="column whose equal values all go to one part, such as a patient; null: none",
    )
    max_categories: int = Field(
        default=1000, ge=2, description="most categories of a column; rarer values count as unseen"
    )
    min_count: int = Field(
        default=2, ge=1, description="training rows that a category needs, or it counts as unseen"
    )

    @field_validator("columns", mode="before")
    @classmethod
    def _in_one_text(cls, columns: Any) -> Any:
        """Names that Hydra's grammar does not take as keys come in a text."""
        return entries_of(columns) if isinstance(columns, str) else columns

    @field_validator("columns")
    @classmethod
    def _with_examples(cls, columns: dict[str, Kind | Form]) -> dict[str, Kind | Form]:
        for name, kind in columns.items():
            if isinstance(kind, dict) and len(kind) != 1:
                raise ValueError(f"{name} is said to be of {len(kind)} kinds. Give one")
            if isinstance(kind, dict) and "number" in kind:
                Notation.of_example(kind["number"])
            if isinstance(kind, dict) and "date" in kind:
                check_format(kind["date"])
        return columns

    def notation_of(self, name: str) -> Notation | None:
        """How a column's numbers are written, where that is said."""
        said = self.columns.get(name)
        example = said.get("number") if isinstance(said, dict) else None
        return None if example is None else Notation.of_example(example)


@data.register("table", TableConfig)
def table(config: TableConfig) -> Dataset:
    """A table of numbers, categories and dates, and the column that is asked for."""
    _check_local(config)
    dataset = _read(config)
    give_back()  # when nothing of the file is left in memory
    return dataset


def _read(config: TableConfig) -> Dataset:
    found = read_columns(place(config), "data.path", config.max_bad, config.encoding)
    found.missing = config.missing or ()
    left_out = dict(found.left_out)
    target, asked, index = _asked(config, found, left_out)
    reader, lines, told = _learn(config, found, target, index["train"])
    content = Content().files(found.files)
    for part, rows in index.items():
        content.tensor(part, torch.from_numpy(rows))
    named, strange = _parts(found, reader, asked.values, index)
    strange[target.name] = Strange(odd=asked.odd)
    told = [*respelt_told(_respelt(reader)), *told, *found.told]
    if config.task == "auto" and target.name not in config.columns:
        told += target_warnings(target, decide(found.column(target.name)))
    told += missing_told(found.taken, reader.columns, target, found.missing)
    told += unfound_told(found.missing, found.taken, str(found.path))
    told += odd_told(reader.columns, target, strange, learning=True)
    for part in elsewhere(config, named):
        key = f"{part}_path"
        other = read_columns(place(config, key), f"data.{key}", config.max_bad, config.encoding)
        other.missing = found.missing
        content.files(other.files)
        told += other.told
        samples = reader.samples(other, answers=True)
        named[part] = samples.part
        left_out = _added(_added(left_out, other.left_out), samples.left_out)
        told += unseen_told(f"Unseen in {part}", samples.strange)
        told += respelt_told(
            {name: found.respelt for name, found in samples.strange.items()}, f"Spellings in {part}"
        )
        told += odd_told(reader.columns, target, samples.strange, f" of {part}")
    counts = (
        None
        if target.labels is None
        else counts_in((part.targets for part in named.values()), len(target.labels))
    )
    lines.append(("Target", target_told(target, counts)))
    told += class_warnings(target.labels or (), counts or ())
    spec = DataSpec(config.name, reader.spec, target.spec)
    done = completed(spec, named, config.learnt(spec.input))
    reader = reader.model_copy(update={"answers": Answers.of(done.spec.target)})
    return replace(done, reader=reader, told=lines + told, left_out=left_out, read=content.read())


def _respelt(reader: TableReader) -> dict[str, dict[str, str]]:
    """What training spelt in several ways, the target at the end."""
    categories = {column.name: column.respelt for column in reader.columns if column.kind == "category"}
    return {**categories, reader.target.name: reader.target.respelt}


def _check_local(config: TableConfig) -> None:
    """Refuses what lies on the Hugging Face Hub, in words: nothing is fetched while a run starts."""
    for key in ("path", "val_path", "test_path"):
        name = (getattr(config, key) or "").partition("hub:")
        if not name[0] and name[1]:
            raise ConfigError(
                f"data.{key}=hub:{name[2]}: a data set of the Hugging Face Hub is downloaded first:"
                f" hf download --repo-type dataset {name[2]} --local-dir {name[2]}; then say"
                f" data.{key}={name[2]}/<file>."
            )


def _asked(
    config: TableConfig, found: Columns, left_out: dict[str, int]
) -> tuple[TargetColumn, Asked, dict[PartName, Rows]]:
    """The target, what all rows hold of it, and which rows that have one go to which part."""
    name = _target_name(config, found)
    values, where = column(found, name, "data.target"), str(found.path)
    before = config.learnt_reader(TableReader)
    if before is not None and before.target.name == name:
        target = before.target
    else:
        usual, notation = config.missing != [], config.notation_of(name)
        target = TargetColumn.learn(name, values, config.task, where, notation, usual=usual)
    asked = target.encode(values, where)
    found.note(name, counts_of(values, target.missing))
    rows = np.flatnonzero(asked.there)
    if len(rows) < found.num_rows:
        left_out["no target"] = found.num_rows - len(rows)
    places = split(
        config,
        len(rows),
        labels=None if target.labels is None else asked.values[torch.from_numpy(rows)],
        groups=_marks(found, config.group, "data.group", rows),
        marks=_marks(found, config.split, "data.split", rows),
        named=lambda sample: f"row {rows[sample]}",
    )
    if target.labels is not None:
        answers = asked.values[torch.from_numpy(rows)]
        check_learnt(target.labels, answers[places["train"]], where, "rows")
    return target, asked, {part: rows[chosen.numpy()] for part, chosen in places.items()}


def _parts(
    found: Columns, reader: TableReader, answers: Tensor, index: dict[PartName, Rows]
) -> tuple[dict[PartName, Part], dict[str, Strange]]:
    """Each part's rows, and what is strange in them all: one after another in one tensor, so that none
    is ever there twice."""
    order = np.concatenate(list(index.values()))
    inputs, strange = reader.inputs(found, order)
    targets = answers[torch.from_numpy(order)]
    sizes = [len(rows) for rows in index.values()]
    pairs = zip(torch.split(inputs, sizes), torch.split(targets, sizes), strict=True)
    return {name: Part(*pair) for name, pair in zip(index, pairs, strict=True)}, strange


def _target_name(config: TableConfig, found: Columns) -> str:
    """The target, where what the options say of columns can be."""
    if config.target is None:
        raise ConfigError(
            "data.target: say which column is asked for, such as data.target="
            f"{found.column_names[-1]}. {found.path} has {listed(found.column_names)}."
        )
    for name in config.columns:
        known_column(found, name, "data.columns")
    for name in config.ignore:
        known_column(found, name, "data.ignore")
    if config.target in config.ignore or config.columns.get(config.target) == "ignore":
        raise ConfigError(f"data.target={config.target}: the target cannot be ignored as well.")
    if config.target in config.columns and config.notation_of(config.target) is None:
        raise ConfigError(
            f"data.columns.{config.target}: this is the target, whose kind data.task says: classes or"
            " values."
        )
    return config.target


def _marks(found: Columns, name: str | None, key: str, rows: Rows) -> Any:
    """What an option's column says of each of some rows; None where the option names none."""
    return None if name is None else words(column(found, name, key)).take(rows).to_pylist()


def _learn(
    config: TableConfig, found: Columns, target: TargetColumn, rows: Rows
) -> tuple[TableReader, list[tuple[str, str]], list[tuple[str, str]]]:
    """What the training part's rows tell of each column; the lines that tell it, and warnings.

    Raises:
        DataError: there is no column to learn from.
    """
    learnt: list[Learnt] = []
    left: dict[str, LeftOut] = {}
    told: dict[str, list[tuple[str, str]]] = {}
    ways: dict[str, Ways] = {}
    as_asked = set(config.ignore)
    for nth, name in enumerate(found.column_names):
        kind = config.columns.get(name)
        if name == target.name or (name in (config.split, config.group) and kind is None):
            continue
        if name in as_asked or kind == "ignore":
            left[name] = LeftOut(AS_ASKED)
            continue
        values = found.column(name)
        decided = decide(values)
        known, told[name] = _learn_column(config, name, values, decided, rows, nth, str(found.path))
        if isinstance(known, LeftOut):
            left[name] = known
            continue
        learnt.append(known)
        if kind is None and decided.kind == "number":
            ways[name] = decided.ways
        if isinstance(known, MeasuredColumn):
            found.note(name, counts_of(values, marks_of(values, words_too=False)))
    if not learnt:
        reasons = [line for _, line in (*chain(*told.values()), *left_out_told(left))]
        why = "; ".join(reasons) or ("all are left out, as asked." if left else "there is no other.")
        raise DataError(f"{found.path}: no column is left to learn '{target.name}' from: {why}")
    reader = TableReader(
        columns=learnt, target=target, missing=list(found.missing), encoding=config.encoding
    )
    before = config.learnt_reader(TableReader)
    if before is not None and all(known.name in found for known in before.columns):
        reader = before.model_copy(update={"target": target})
        left |= {column.name: LeftOut(AS_BEFORE) for column in learnt}
    read = {column.name for column in reader.columns}
    left = {name: why for name, why in left.items() if name not in read}
    lines = [("Columns", columns_told(reader.columns, left))]
    lines += [*notations_told(reader.columns), *times_told(reader.columns)]
    warnings = two_ways_told({name: some for name, some in ways.items() if name in read})
    warnings += chain(*(told[name] for name in told if name in read), left_out_told(left))
    return reader, lines, warnings


def _learn_column(
    config: TableConfig, name: str, values: Any, decided: Decided, rows: Rows, nth: int, where: str
) -> tuple[Learnt | LeftOut, list[tuple[str, str]]]:
    """What one column tells, or why it tells a model nothing; and what is to be told of it."""
    said = config.columns.get(name)
    chosen = said if said is None or isinstance(said, str) else next(iter(said))
    kind: str = decided.kind
    if kind not in ("empty", "other"):  # of which a user's word makes nothing else
        kind = chosen or kind
    if kind == "number":
        if chosen is None and counts_rows(name, values, nth):
            return LeftOut("counts the rows", "number"), []
        if decided.kind != "number" or isinstance(said, dict):
            decided = as_numbers(values, config.notation_of(name))
        most = MOST if decided.odd.are_few() else MOST_IF_SAID
        if not decided.odd.are_few(most):
            raise DataError(f"{where}: {too_odd(name, 'numbers', decided.odd, 'number', most)}")
        told = zeros_told(f"column '{name}'", decided.zeros, f"words: {option(name, 'category')}")
        told += groups_told(name, groups_alike(values, decided.notation))
        return NumberColumn.learn(
            name, values, rows, config.normalize, where, decided.notation, most
        ), told if chosen is None else []
    if kind in TIME_KINDS:
        return _learn_times(config, name, values, rows, where, decided)
    if kind in ("category", "text"):
        known = CategoryColumn.learn(
            name, values, rows, config.max_categories, config.min_count, chosen is not None
        )
        zeros = decided.zeros  # where most have one, they are identifiers, which is nothing odd
        if zeros.count and zeros.are_few(MOST_IF_SAID) and isinstance(known, LeftOut) and known.said:
            return zeros_left_out(known, zeros), []
        if not decided.nearly or chosen is not None:
            return known, []
        if isinstance(known, LeftOut):
            return (mostly_left_out(known, decided) if known.said else known), []
        return known, [mostly_told(name, decided)]
    return LeftOut("empty" if kind == "empty" else str(values.type)), []


def _learn_times(
    config: TableConfig, name: str, values: Any, rows: Rows, where: str, decided: Decided
) -> tuple[Learnt | LeftOut, list[tuple[str, str]]]:
    """See `_learn_column`."""
    said, most = config.columns.get(name), MOST
    if isinstance(said, dict):
        decided = as_times(values, way=said["date"])
    elif said is not None:
        decided = as_times(values, cast(TimeKind, said))
        most = MOST if decided.odd.are_few() else MOST_IF_SAID
    when = decided.when
    assert when is not None
    if not decided.odd.are_few(most):
        message = too_odd(name, described(when.way), decided.odd, kind_of(when.way), most)
        raise DataError(f"{where}: {message}")
    told = [two_times_told(name, when)] if when.other else []
    return DateColumn.learn(name, values, rows, config.normalize, when, most), told


def _added(counts: Mapping[str, int], more: Mapping[str, int]) -> dict[str, int]:
    return {key: counts.get(key, 0) + more.get(key, 0) for key in [*counts, *more]}
