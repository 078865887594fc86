"""Options of `data=table`."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field, field_validator

from bigmodel.data.custom_data import CustomDataConfig, Words
from bigmodel.data.tabular.column_options import MEDIA_KINDS, Kind, MediaKind, WrittenForm, parse_entries
from bigmodel.data.tabular.date_formats import check_format
from bigmodel.data.tabular.number_formats import NumberFormat
from bigmodel.data.tabular.target import Task
from bigmodel.data.text_encoding import Encoding

TASKS: dict[str, Task] = {"number": "values", "category": "classes"}
"""What a target of each kind of column holds."""

MEDIA_OPTIONS: dict[str, MediaKind] = {
    "image_size": "image",
    "text_length": "text",
    "vocab_size": "text",
    "sample_rate": "audio",
    "seconds": "audio",
}
"""The kind of column that each option is for."""


class TableConfig(CustomDataConfig):
    """A table in a CSV, TSV, Parquet or JSON lines file, gzip or not."""

    batch_size: int = Field(256, ge=1, description="samples in a batch")
    normalize: bool = Field(
        True, description="standardise numbers with mean and deviation of the training set"
    )
    encoding: Encoding = Field(
        "utf-8",
        description="encoding of CSV and JSON lines: utf-8, cp1252, utf-16, …;"
        " a byte-order mark is recognised",
    )
    target: str | list[str] | None = Field(
        None, description="the column to predict, or several: [price, kind]"
    )
    task: Task = Field(
        "auto", description="what the target holds: classes, values, or auto: by what it looks like"
    )
    columns: dict[str, Kind | WrittenForm] = Field(
        {},
        description="kind of a column, instead of the detected one: number, category, date, time,"
        " duration, text, image, audio, ignore; or as it is written:"
        ' {number: "1.200,5"}, {date: "%d/%m/%Y"}',
    )
    ignore: list[str] = Field([], description="columns to leave out")
    missing: Words | None = Field(
        None,
        description="words that stand for a missing value, besides NA, n/a, null, ? and their like in"
        " targets and numbers; []: NA and its like may be classes",
    )
    split: str | None = Field(
        None, description="column that says of each row: train, val or test; null: by fraction"
    )
    group: str | None = Field(
        None, description="column whose equal values all go to one set, such as a patient; null: none"
    )
    max_categories: int = Field(
        1000, ge=2, description="most categories of a column; rarer values count as unseen"
    )
    min_count: int = Field(
        2, ge=1, description="training rows that a category needs, or it counts as unseen"
    )
    image_size: Annotated[int, Field(ge=1, le=65535)] | None = Field(
        None,
        description="height and width that pictures get; null: their own if it is the same for all and"
        " at most 64, else 64",
    )
    text_length: Annotated[int, Field(ge=1)] | None = Field(
        None,
        description="most tokens of a text; null: enough for 95 % of the training set, 256 at most",
    )
    vocab_size: int = Field(
        8000, ge=260, description="subwords that are learnt for a column of texts, at most"
    )
    sample_rate: int = Field(
        16000, ge=100, le=384000, description="samples per second that recordings are resampled to"
    )
    seconds: Annotated[float, Field(gt=0)] | None = Field(
        None,
        description="recordings are cut or padded to; null: the 95th percentile of the training set",
    )
    cache: str | None = Field(
        "auto",
        description="folder that stores decoded files; auto: the user's cache folder; null: none",
    )

    @field_validator("columns", mode="before")
    @classmethod
    def _in_one_text(cls, columns: Any) -> Any:
        """Names that Hydra's grammar does not allow as keys come in one text."""
        return parse_entries(columns) if isinstance(columns, str) else columns

    @field_validator("columns")
    @classmethod
    def _with_examples(cls, columns: dict[str, Kind | WrittenForm]) -> dict[str, Kind | WrittenForm]:
        for name, kind in columns.items():
            if isinstance(kind, dict) and len(kind) != 1:
                raise ValueError(f"{name} has {len(kind)} kinds. Set one")
            if isinstance(kind, dict) and "number" in kind:
                NumberFormat.of_example(kind["number"])
            if isinstance(kind, dict) and "date" in kind:
                check_format(kind["date"])
        return columns

    @property
    def media(self) -> dict[str, MediaKind]:
        """The columns of texts, pictures and recordings, with their kinds."""
        return {name: kind for name, kind in self.columns.items() if kind in MEDIA_KINDS}

    @property
    def targets(self) -> list[str]:
        """The columns to predict."""
        return [self.target] if isinstance(self.target, str) else self.target or []

    def task_of(self, target: str) -> Task:
        """What a target holds: as `columns` says of it, else as `task` says of all."""
        chosen = self.columns.get(target)
        if isinstance(chosen, dict):
            return "values" if self.task == "auto" else self.task
        return TASKS.get(chosen or "", self.task)

    def number_format_of(self, name: str) -> NumberFormat | None:
        """The format that the user sets for a column of numbers."""
        chosen = self.columns.get(name)
        example = chosen.get("number") if isinstance(chosen, dict) else None
        return None if example is None else NumberFormat.of_example(example)
