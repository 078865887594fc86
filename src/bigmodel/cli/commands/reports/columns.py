"""What a report tells of the columns that a model goes by."""

from __future__ import annotations

from bigmodel.cli.commands.eval import EvalData
from bigmodel.cli.commands.explanations.drawings import dependence_chart, importance_bars
from bigmodel.cli.commands.explanations.subject import ExplainedPart, subject_of
from bigmodel.cli.commands.loaded_run import LoadedRun
from bigmodel.explain.partial_dependence import partial_dependence
from bigmodel.explain.permutation import permutation
from bigmodel.explain.subject import Options
from bigmodel.reporting.report.content import Block, Chart, Charts, Note
from bigmodel.spec import Features

_BUDGET = 300_000  # rows that go through the model, so that a report takes seconds
_REPEATS = 5
_MOST_COLUMNS = 200  # more are not told apart in that time
_DEPENDENCE = 4  # columns with a chart of what the model says of their values


def column_blocks(loaded: LoadedRun, data: EvalData) -> list[Block]:
    """How much the run's figure depends on each column, and what the model says of the values of those
    that matter most; nothing if the samples have no columns, or there is only one."""
    kind = loaded.preprocessing.spec.input
    if not isinstance(kind, Features) or kind.count > _MOST_COLUMNS:
        return []
    part = ExplainedPart(data.dataset.part(data.part), data.source, True)
    if len(part.part) < 2:
        return []
    subject = subject_of(loaded, part, None, samples=None)
    found = permutation(subject, Options(repeats=_REPEATS, budget=_BUDGET))
    dependence = partial_dependence(subject, Options(columns=found.names[:_DEPENDENCE]))
    charts = [Chart("importances", importance_bars(found))]
    charts += [Chart(f"dependence-{each.name}", dependence_chart(each, subject)) for each in dependence]
    words = (
        f"How much worse {found.figure} is if the values of a column are shuffled among"
        f" {found.samples:,} rows of {data.source}, with 95 % intervals; then what the model says on"
        " average if all rows have the same value of a column, with a band that holds 80 % of the rows."
        " What a model goes by need not be a cause, and of columns that tell the same, each seems to"
        " matter less than they do together."
    )
    return [Charts(charts), Note(words)]
