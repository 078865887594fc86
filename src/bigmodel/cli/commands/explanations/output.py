"""What `bigmodel explain` found, as files: tables, pictures, JSON, arrays."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from bigmodel.cli.commands.explanations.drawings import drawings_of
from bigmodel.cli.commands.explanations.subject import ExplainedPart
from bigmodel.cli.commands.loaded_run import LoadedRun
from bigmodel.cli.commands.output_files import (
    TABLES,
    check_kind,
    check_place,
    make_folder,
    write_bytes,
    write_columns,
)
from bigmodel.cli.messages import note
from bigmodel.errors import ConfigError, DataError, counted, require
from bigmodel.explain.results import Attributions, Importances, Result
from bigmodel.explain.subject import Subject, score_words
from bigmodel.reporting.formatting import shown_path
from bigmodel.reporting.report.raster import png_of_drawing
from bigmodel.reporting.summary import jsonable
from bigmodel.reporting.tensorboard import add_pictures
from bigmodel.spec import DataSpec, Features

MOST_DRAWN, MOST_IN_TENSORBOARD = 100, 20
"""Samples of which a folder, and TensorBoard, hold pictures, if `--samples` does not say how many."""


def most_drawn(path: Path | None, spec: DataSpec) -> int | None:
    """How many samples are explained if `--samples` does not say: no more than are drawn; None: all.

    Args:
        path: of the output; None: pictures go to TensorBoard.
    """
    if isinstance(spec.input, Features):
        return None
    return MOST_IN_TENSORBOARD if path is None else {"": MOST_DRAWN, ".png": 1}.get(path.suffix.lower())


def show_in_tensorboard(pictures: Mapping[str, bytes], loaded: LoadedRun, method: str) -> None:
    """Adds PNG files, by name, to the Images page of the run.

    Raises:
        DataError: they cannot be written.
    """
    folder, group = loaded.run_path.folder, f"explain-{method}"
    try:
        add_pictures(folder, group, pictures, loaded.step)
    except OSError as error:
        raise DataError(f"{folder}: cannot be written ({error.strerror}).") from error
    note(f"Wrote {counted(len(pictures), 'picture')} for TensorBoard's page Images, as ~{group}")


def pictures_of(
    result: Result, subject: Subject, part: ExplainedPart, samples: int | None
) -> dict[str, bytes]:
    """PNG files of a result by name.

    Args:
        samples: that are drawn, the first ones; None chooses.
    """
    drawn = drawings_of(result, subject, part, most=samples or MOST_IN_TENSORBOARD)
    return {name: png_of_drawing(drawing) for name, drawing in drawn}


def check_output(path: Path, method: str, spec: DataSpec, *, force: bool) -> None:
    """Checks that a file or folder can hold what a method finds, before anything is computed.

    Raises:
        ConfigError: it cannot, or is there already.
    """
    if path.suffix == "":
        _check_folder(path, method, spec, force=force)
        return
    suffixes: tuple[str, ...] = (*TABLES, ".json", ".png")
    if method == "partial_dependence":
        suffixes = (*TABLES, ".json")
    elif not isinstance(spec.input, Features):
        suffixes = (".png", ".npz", ".json")
    if path.suffix.lower() == ".png":
        require("PIL", "bigmodel explain --output NAME.png")
    if path.suffix.lower() not in suffixes and not isinstance(spec.input, Features):
        raise ConfigError(
            f"--output {path}: attributions of {spec.input} are no table. Name a folder, for a picture"
            f" of each sample, or a file: {', '.join(suffixes)}."
        )
    check_kind(path, suffixes)
    check_place(path, force=force)


def _check_folder(path: Path, method: str, spec: DataSpec, *, force: bool) -> None:
    if method != "partial_dependence" and isinstance(spec.input, Features):
        check_kind(path, (*TABLES, ".json", ".png"))
    require("PIL", "bigmodel explain --output FOLDER")
    if not path.is_dir():
        check_place(path, force=False)
    elif any(path.iterdir()) and not force:
        raise ConfigError(
            f"--output {path}: the folder is not empty. Name a new one, or add --force to replace"
            " pictures in it."
        )


def write_result(result: Result, subject: Subject, part: ExplainedPart, path: Path) -> None:
    """Writes a result.

    Raises:
        DataError: it cannot be written.
    """
    match path.suffix.lower():
        case "":
            drawn = drawings_of(result, subject, part)
            make_folder(path)
            for name, drawing in drawn:
                write_bytes(png_of_drawing(drawing), path / f"{name}.png")
            note(f"Wrote {counted(len(drawn), 'picture')} to {shown_path(path)}")
        case ".png":
            drawn = drawings_of(result, subject, part, most=1)
            write_bytes(png_of_drawing(drawn[0][1]), path)
        case ".json":
            content = json.dumps(jsonable(as_json(result, subject, part)), ensure_ascii=False, indent=1)
            write_bytes(f"{content}\n".encode(), path)
        case ".npz":
            assert isinstance(result, Attributions)
            file = io.BytesIO()
            np.savez_compressed(file, allow_pickle=False, **_arrays(result, subject))
            write_bytes(file.getvalue(), path)
        case _:
            write_columns(columns_of(result, subject, part), path)


def columns_of(result: Result, subject: Subject, part: ExplainedPart) -> dict[str, Any]:
    """A result as a table."""
    if isinstance(result, Attributions):
        own = dict(zip(result.names, result.values.flatten(1).numpy().T, strict=True))
        return _with_unused_names(_of_samples(result, subject, part), own) | own
    if isinstance(result, Importances):
        return {
            "column": list(result.names),
            "importance": result.drops.numpy(),
            "low": result.low.numpy(),
            "high": result.high.numpy(),
        }
    rows = [
        (each.name, value, float(mean), float(low), float(high))
        for each in result
        for value, mean, low, high in zip(each.values, each.mean, each.low, each.high, strict=True)
    ]
    heads = ("column", "value", "mean", "low", "high")
    return {head: [row[place] for row in rows] for place, head in enumerate(heads)}


def as_json(result: Result, subject: Subject, part: ExplainedPart) -> Any:
    """A result as plain values."""
    if isinstance(result, Attributions):
        about = _of_samples(result, subject, part)
        samples = [
            dict(zip(about, row, strict=True))
            for row in zip(*(_plain(cells) for cells in about.values()), strict=True)
        ]
        for sample, values in zip(samples, result.values.tolist(), strict=True):
            named = dict(zip(result.names, values, strict=True)) if result.names else values
            sample["attributions"] = named
        said = {"method": result.method, "score": score_words(subject.target)}
        return {**said, "baseline": result.baseline, "samples": samples}
    if isinstance(result, Importances):
        columns = columns_of(result, subject, part)
        rows = zip(*(_plain(cells) for cells in columns.values()), strict=True)
        return {
            "method": "permutation",
            "figure": result.figure,
            "value": result.value,
            "samples": result.samples,
            "columns": [dict(zip(columns, row, strict=True)) for row in rows],
        }
    return {
        "method": "partial_dependence",
        "columns": [
            {
                "column": each.name,
                "output": each.output,
                "values": list(each.numbers or each.values),
                **{name: getattr(each, name).tolist() for name in ("mean", "low", "high")},
            }
            for each in result
        ],
    }


def _of_samples(result: Attributions, subject: Subject, part: ExplainedPart) -> dict[str, Any]:
    """What is told of each sample beside its attributions."""
    return {
        **part.labels(len(result.scores)),
        "explained": [subject.output_name(index) for index in result.explained.tolist()],
        "score": result.scores.numpy(),
        "baseline": result.baseline_scores.numpy(),
    }


def _with_unused_names(columns: Mapping[str, Any], taken: Mapping[str, Any]) -> dict[str, Any]:
    """Columns renamed if the user's own have their names."""
    return {f"{name} (explained)" if name in taken else name: cells for name, cells in columns.items()}


def _plain(cells: Any) -> list[Any]:
    return cells.tolist() if isinstance(cells, np.ndarray) else list(cells)


def _arrays(result: Attributions, subject: Subject) -> dict[str, Any]:
    explained = [subject.output_name(index) for index in result.explained.tolist()]
    return {
        "attributions": result.values.numpy(),
        "explained": np.array(explained),
        "score": result.scores.numpy(),
        "baseline": result.baseline_scores.numpy(),
    }
