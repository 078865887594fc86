"""What was found out of a table, in words for the header of a run."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from bigmodel.data.tabular.columns import CategoryColumn, Learnt, MeasuredColumn, NumberColumn, Strange
from bigmodel.data.tabular.kinds import option
from bigmodel.data.tabular.odd import Odd
from bigmodel.data.tabular.target import TargetColumn


def columns_told(learnt: Iterable[Learnt], ignored: Mapping[str, str]) -> str:
    """What became of the columns, on one line."""
    kinds: dict[str, list[str]] = {"number": [], "category": [], "date": []}
    for found in learnt:
        size = f" {len(found.values):,}" if isinstance(found, CategoryColumn) else ""
        kinds[found.kind].append(found.name + size)
    parts = []
    for kind, names in kinds.items():
        word = kind if len(names) == 1 else _PLURALS[kind]
        within = f" ({_first(names)})" if kind != "number" else ""
        if names:
            parts.append(f"{len(names)} {word}{within}")
    left = _first([f"{name} ({why})" for name, why in ignored.items()])
    return ", ".join(parts) + (f"; ignored: {left}" if ignored else "")


def notations_told(learnt: Iterable[Learnt]) -> list[tuple[str, str]]:
    """The line that tells which columns of numbers are not written in the plainest way."""
    said = [
        f"{column.name} ({column.notation})"
        for column in learnt
        if isinstance(column, NumberColumn) and str(column.notation)
    ]
    return [("Numbers", _first(said))] if said else []


_PLURALS = {"number": "numbers", "category": "categories", "date": "dates"}
_TOLD = 8  # names on a line


def unseen_told(label: str, strange: Mapping[str, Strange]) -> list[tuple[str, str]]:
    """The line that tells in which columns there are categories that training has not kept."""
    unseen = {name: found.unseen for name, found in strange.items() if found.unseen}
    rows = (f"{name} in {count:,} {'row' if count == 1 else 'rows'}" for name, count in unseen.items())
    return [(label, ", ".join(rows))] if unseen else []


def odd_told(
    columns: Iterable[Learnt],
    target: TargetColumn,
    strange: Mapping[str, Strange],
    where: str = "",
    *,
    learning: bool = False,
) -> list[tuple[str, str]]:
    """A warning for each column of which some cells are taken for missing, the target among them.

    Args:
        where: the part that is meant, such as ` of val`; empty: the only one.
        learning: say what to type where they are no missing values.
    """
    lines = []
    for learnt in columns:
        odd = strange[learnt.name].odd
        if isinstance(learnt, MeasuredColumn) and odd.count:
            way_out = f" Where they are words: {option(learnt.name, 'category')}" if learning else ""
            cells = f"{_odd(odd, learnt.noun)} and taken for missing, {odd}."
            lines.append(f"column '{learnt.name}'{where}: {cells}{way_out}")
    if target.name in strange and (odd := strange[target.name].odd).count:
        way_out = " Where they are classes: data.task=classes" if learning else ""
        rows = "their rows are" if odd.count > 1 else "its row is"
        lines.append(
            f"target '{target.name}'{where}: {_odd(odd, 'number')} and {rows} left out, {odd}.{way_out}"
        )
    return [("Warning", line) for line in lines]


def too_odd(name: str, described: str, odd: Odd, noun: str, most: float) -> str:
    """What to say of a column of which too many cells are odd.

    Args:
        described: what the column is one of, such as `dates (ISO)`; `noun` is one of them.
        most: share that may be odd.
    """
    return (
        f"column '{name}' is one of {described}, but row {odd.row} (counted from 0) holds {odd.value!r};"
        f" {_odd(odd, noun)}, and {most:.0%} at most may be. Leave the field empty where the value is"
        f" missing; for words, train with {option(name, 'category')}"
    )


def _odd(odd: Odd, noun: str) -> str:
    """How many cells are not of their column's kind."""
    are = f"cells are no {noun}s" if odd.count > 1 else f"cells is no {noun}"
    return f"{odd.count:,} of {odd.there:,} {are}"


def _first(names: list[str]) -> str:
    return ", ".join(names[:_TOLD]) + (f", … ({len(names):,} in all)" if len(names) > _TOLD else "")


def target_told(target: TargetColumn) -> str:
    """What the target is, on one line."""
    missing = f"; {', '.join(target.missing)} taken for missing" if target.missing else ""
    if str(target.notation):
        missing = f"; {target.notation}{missing}"
    if target.labels is None:
        return f"{target.name}, a real value{missing}"
    return f"{target.name}, {len(target.labels):,} classes: {_first(target.labels)}{missing}"
