"""Reads rows of a table some of whose columns hold texts, pictures or recordings."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from bigmodel.data.media.images import checked_image_sizes
from bigmodel.data.multimodal.cells import Cells
from bigmodel.data.multimodal.columns import KINDS, MediaColumn
from bigmodel.data.parts import MultimodalPart
from bigmodel.data.reader import reads
from bigmodel.data.tabular.columns import MISSING, RowIndex
from bigmodel.data.tabular.config import TableConfig
from bigmodel.data.tabular.numeric import is_text
from bigmodel.data.tabular.reader import TableReader, TableSamples
from bigmodel.data.tabular.table_file import Table
from bigmodel.data.tabular.type_inference import infer_type
from bigmodel.errors import DataError
from bigmodel.spec import Modality, Multimodal

_FEATURES = "features"
"""The name of all numbers, categories and dates together."""


@reads("multimodal_table")
class MultimodalReader(TableReader):
    """Reads tables with the columns of the training set.

    Attributes:
        media: the columns of texts, pictures and recordings.
    """

    media: list[MediaColumn]

    @property
    def spec(self) -> Multimodal:
        """See `TableReader.spec`: numbers, categories and dates as one part, then each other column."""
        parts: dict[str, Modality] = {column.name: column.input for column in self.media}
        if self.columns:
            parts = {self._features_name: self.features, **parts}
        return Multimodal(tuple(parts), tuple(parts.values()))

    @property
    def column_names(self) -> list[str]:
        """See `TableReader.column_names`."""
        return [*super().column_names, *(column.name for column in self.media)]

    def encode(self, table: Table, targets: Tensor, order: RowIndex | None = None) -> TableSamples:
        """See `TableReader.encode`.

        Raises:
            DataError: a file that a cell names cannot be read, too.
        """
        stored, present, header_rows, digests = {}, [], [], list[str]()
        inputs, new_cells = self.inputs(table, order)
        if self.columns:
            stored[self._features_name] = inputs
            present.append(torch.ones(len(inputs), dtype=torch.bool))
        with checked_image_sizes():
            for column in self.media:
                cells = Cells.of(table, column.name, self.column(table, column.name), order)
                encoded = column.encode(cells)
                stored[column.name] = encoded.values
                present.append(encoded.present)
                header_rows += encoded.header_rows
                digests += encoded.digests
        part = MultimodalPart(stored, torch.stack(present, dim=1), targets, self.scaling)
        return TableSamples(part, new_cells, header_rows=header_rows, digests=digests)

    def cells(self, inputs: Tensor) -> dict[str, str]:
        """See `TableReader.cells`: texts as they are read, and what pictures and recordings become."""
        kind, media = self.spec, {column.name: column for column in self.media}
        shown: dict[str, str] = {}
        for name, columns, present in zip(kind.names, kind.slices, inputs.tolist(), strict=False):
            if name not in media:
                shown |= super().cells(inputs[columns])
            else:
                shown[name] = media[name].cell(inputs[columns]) if present else MISSING
        return shown

    @property
    def scaling(self) -> dict[str, tuple[Tensor, Tensor]]:
        """See `MultimodalPart`."""
        return {column.name: column.scaling for column in self.media if column.scaling is not None}

    def with_statistics(self, training: MultimodalPart) -> MultimodalReader:
        """A reader that standardises by the training set."""
        present = dict(zip(training.stored, training.present.unbind(1), strict=True))
        media = [
            column.with_statistics(training.stored[column.name][present[column.name]])
            for column in self.media
        ]
        return self.model_copy(update={"media": media})

    @property
    def _features_name(self) -> str:
        name = _FEATURES
        while any(column.name == name for column in self.media):
            name += "_"
        return name


def fit_media(config: TableConfig, table: Table, reader: TableReader, rows: RowIndex) -> TableReader:
    """A reader of the columns that `data.columns` says are texts, pictures or recordings, too; the same
    if there are none, or if it is a resumed run's, which has them.

    Args:
        reader: of the other columns.
        rows: those of the training set.

    Raises:
        DataError: a column holds something else, or nothing.
    """
    if not config.media or isinstance(reader, MultimodalReader):
        return reader
    media = []
    with checked_image_sizes():
        for name, kind in config.media.items():
            column = table.column(name)
            _check_cells(table, name, kind, column)
            training = Cells.of(table, name, column, rows)
            if not training.filled:
                raise DataError(
                    f"{training.where}: all of its cells in the training set are empty. Leave it out:"
                    f" data.columns.{name}=ignore"
                )
            media.append(KINDS[kind].fit(config, training))
    return MultimodalReader(**dict(reader), media=media)


def _check_cells(table: Table, name: str, kind: str, column: Any) -> None:
    """Raises DataError if a column holds no texts, or no paths."""
    inferred = infer_type(column)
    measured = inferred.kind not in ("text", "empty", "other") and not str(inferred.number_format)
    # `7.png` would do as a number with a unit, and `3 chairs`, too.
    if (is_text(column.type) and not (kind == "text" and measured)) or inferred.kind == "empty":
        return
    holds = f"{inferred.kind}s" if measured else column.type
    example = next((str(cell) for cell in column.to_pylist() if cell is not None), "")
    needs = "texts" if kind == "text" else f"paths of {kind} files"
    raise DataError(
        f"{table.path}: column '{name}' holds {holds}, such as {example}, but data.columns.{name}={kind}"
        f" needs {needs}. Leave the setting out, or choose another column."
    )
