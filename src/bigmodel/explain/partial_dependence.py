"""Partial dependence (Friedman 2001): what a model says on average if all rows have the same value.

How differently rows react (individual conditional expectation, Goldstein et al. 2015, arXiv:1309.6392)
is told by a band in which 80 % of their curves lie, once each is moved to the mean level of all.
"""

from __future__ import annotations

import torch
from torch import Tensor

from bigmodel.explain.groups import Columns
from bigmodel.explain.results import Dependence
from bigmodel.explain.subject import Options, Subject
from bigmodel.reporting.predictions import decode_outputs
from bigmodel.runtime import progress_messages
from bigmodel.spec import Classes, Flags

_GRID = 21  # values of a column
_ROWS = 300  # in which it has each of them


def partial_dependence(subject: Subject, options: Options) -> tuple[Dependence, ...]:
    """What the model says on average of each value of each column: a class's or label's probability, or
    a value in its own unit.

    Raises:
        UndefinedError: the model gives NaN or infinity.
    """
    subject.check_defined()
    columns = Columns.from_preprocessing(subject.preprocessing)
    draw = torch.Generator().manual_seed(options.seed)
    rows = torch.randperm(len(subject), generator=draw)[:_ROWS].sort().values
    inputs, every = subject.inputs(rows), subject.inputs()
    output = _output(subject)
    found, done = [], 0
    with progress_messages.report_progress(lambda: f"Varying: {done} of {len(columns):,} columns"):
        for column, name in enumerate(columns.names):
            places = columns.inputs(column).to(inputs.device)
            values = every[:, places]
            values = values[columns.known(column, values)]
            if not len(values) or (options.columns is not None and name not in options.columns):
                continue
            grid = _grid(values, category=columns.categories[column])
            said = torch.stack([_said(subject, inputs, places, each, output) for each in grid])
            own = said - said.mean(0) + said.mean()  # without the rows' own levels
            low, high = own.quantile(torch.tensor([0.1, 0.9], dtype=said.dtype), dim=1)
            if isinstance(subject.target, Classes | Flags):  # moved curves may leave that
                low, high = low.clamp(0, 1), high.clamp(0, 1)
            grid = grid.cpu()
            words, numbers = columns.words(column, grid), columns.numbers(column, grid)
            mean, low, high = said.mean(1).float(), low.float(), high.float()
            said_of = subject.output_name(output)
            found.append(Dependence(name, said_of, words, mean, low, high, numbers))
            done += 1
    return tuple(found)


def _output(subject: Subject) -> int:
    """The output that is told of: the chosen one, the second of two classes, or what is predicted most
    often."""
    if subject.output is not None:
        return subject.output
    if isinstance(subject.target, Classes) and subject.target.count == 2:
        return 1
    return int(subject.explained.bincount().argmax())


def _grid(values: Tensor, *, category: bool) -> Tensor:
    """Values of a column as they occur, in order: (at most `_GRID`, inputs of the column).

    Of a category those that are most frequent; of a number or date evenly spread over the rows, without
    the outermost hundredths, of which a model knows little.
    """
    # In order of the first input, then of the second: of dates, years come first.
    found: tuple[Tensor, Tensor, Tensor] = torch.unique(
        values, dim=0, return_inverse=True, return_counts=True
    )
    different, place, counts = found
    if category:
        return different[counts.argsort(descending=True, stable=True)[:_GRID]]
    if len(different) <= _GRID:
        return different
    shares = torch.linspace(0.01, 0.99, _GRID, device=values.device) * (len(values) - 1)
    return different[torch.unique(place.sort().values[shares.round().long()])]


def _said(subject: Subject, inputs: Tensor, places: Tensor, value: Tensor, output: int) -> Tensor:
    """What the model says of rows with a value in a column: (rows,)."""
    changed = inputs.clone()
    changed[:, places] = value
    return decode_outputs(subject.outputs_of(changed), subject.target)[:, output].double()
