"""Why a run's model says what it says, in the form of the data that was asked about."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bigmodel.api.new_data import GivenData
from bigmodel.errors import counted
from bigmodel.explain.results import Attributions, Dependence, Importances
from bigmodel.explain.subject import Subject

_MOST_NAMES = 8


@dataclass(frozen=True, repr=False)
class Explanation:
    """Why a model says what it says; `TrainedRun.explain` gives one.

    Attributes:
        method: such as `integrated_gradients`.
        attributions: how much each part of a sample added to its score, in the form of the data: for a
            DataFrame one with its index and a column for each column that the model reads; for an array,
            or a list, arrays in the shape of the model's inputs. None if samples were not told apart.
        importances: of the columns of a table, the most important first: a DataFrame if pandas is
            installed, else a list of dicts. By `permutation` how much worse the model is without the
            column, with 95 % intervals; otherwise the mean size of its attributions. None without
            columns.
        dependence: by `partial_dependence` what the model says on average of each value of each column:
            a DataFrame, or a list of dicts. None otherwise.
        explained: the class, label or value that was explained of each sample.
        scores, baseline_scores: its score, and that of the baseline, (samples,). Attributions by
            integrated gradients add up to the difference.
        baseline: what samples are compared with, in words.
        figure, value: by `permutation` the figure that gets worse, and what it is as it stands.
        tokens: the pieces of each text, for attributions of texts.
    """

    method: str
    attributions: Any = None
    importances: Any = None
    dependence: Any = None
    explained: list[str] = field(default_factory=list)
    scores: NDArray[np.float64] | None = None
    baseline_scores: NDArray[np.float64] | None = None
    baseline: str = ""
    figure: str = ""
    value: float = float("nan")
    tokens: tuple[tuple[str, ...], ...] = ()

    def __repr__(self) -> str:
        about = counted(len(self.explained), "sample") if self.explained else self.figure
        ranked = [row["column"] for row in _rows(self.importances)]
        more = ", …" if len(ranked) > _MOST_NAMES else ""
        words = [self.method, about, ", ".join(ranked[:_MOST_NAMES]) + more]
        return f"<Explanation by {'; '.join(word for word in words if word)}>"

    def _repr_html_(self) -> str | None:
        """For notebooks: the table that matters most."""
        for table in (self.importances, self.dependence, self.attributions):
            if hasattr(table, "_repr_html_"):
                html: str = table._repr_html_()
                return html
        return self._coloured() if self.tokens else None

    def _coloured(self) -> str:
        """Texts, each token in the colour of its number: blue speaks for what is explained."""
        from bigmodel.reporting.html_text import LIGHT, html_text, variables
        from bigmodel.reporting.report.coloured_text import ColouredText, html_of

        texts = []
        for named, pieces, values in zip(self.explained, self.tokens, self.attributions, strict=True):
            coloured = html_of(ColouredText(pieces, values.tolist()))
            texts.append(f"<p><small>{html_text(named)}</small><br>{coloured}</p>")
        style = (
            f"{variables(LIGHT)}color:{LIGHT['ink']};background:{LIGHT['paper']};white-space:pre-wrap"
        )
        return f'<div style="{style}">{"".join(texts)}</div>'


def explanation(method: str, result: Any, subject: Subject, given: GivenData) -> Any:
    """A result in the form of the data; one of other kinds, such as attention, as it is."""
    if isinstance(result, Attributions):
        return Explanation(
            method,
            attributions=_like(result, given),
            importances=_sizes(result),
            explained=[subject.output_name(index) for index in result.explained.tolist()],
            scores=result.scores.double().numpy(),
            baseline_scores=result.baseline_scores.double().numpy(),
            baseline=result.baseline,
            tokens=result.tokens,
        )
    if isinstance(result, Importances):
        columns = {
            "column": list(result.names),
            "importance": result.drops.double().numpy(),
            "low": result.low.double().numpy(),
            "high": result.high.double().numpy(),
        }
        frame = _frame(columns)
        return Explanation(method, importances=frame, figure=result.figure, value=result.value)
    if isinstance(result, tuple) and all(isinstance(each, Dependence) for each in result):
        rows = [
            (each.name, each.output, value, float(mean), float(low), float(high))
            for each in result
            for value, mean, low, high in zip(
                each.numbers or each.values, each.mean, each.low, each.high, strict=True
            )
        ]
        heads = ("column", "output", "value", "mean", "low", "high")
        columns = {head: [row[place] for row in rows] for place, head in enumerate(heads)}
        return Explanation(method, dependence=_frame(columns))
    return result


def _like(result: Attributions, given: GivenData) -> Any:
    values = result.values.double().numpy()
    if result.tokens:
        return [row[~np.isnan(row)] for row in values]
    if given.kind in ("frame", "series"):
        given = GivenData(given.kind, given.data.iloc[: len(values)])
    if result.names and given.kind != "array":
        return given.like(dict(zip(result.names, values.T, strict=True)))
    return list(values) if given.kind == "list" else values


def _sizes(result: Attributions) -> Any:
    if not result.names:
        return None
    sizes = np.abs(result.values.double().numpy()).mean(axis=0)
    order = np.argsort(-sizes, kind="stable")
    names = [result.names[index] for index in order]
    return _frame({"column": names, "importance": sizes[order]})


def _frame(columns: dict[str, Any]) -> Any:
    """Columns as a DataFrame if pandas is installed, else as a list of dicts."""
    from importlib.util import find_spec

    if find_spec("pandas") is None:
        cells = (each.tolist() if isinstance(each, np.ndarray) else each for each in columns.values())
        return [dict(zip(columns, row, strict=True)) for row in zip(*cells, strict=True)]
    import pandas

    return pandas.DataFrame(columns)


def _rows(table: Any) -> list[dict[str, Any]]:
    if table is None:
        return []
    rows: list[dict[str, Any]] = table if isinstance(table, list) else table.to_dict("records")
    return rows
