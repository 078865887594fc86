"""What was found out of a table, in words for the header of a run."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from bigmodel.data.tabular.columns import CategoryColumn, Learnt
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


_PLURALS = {"number": "numbers", "category": "categories", "date": "dates"}
_TOLD = 8  # names on a line


def _first(names: list[str]) -> str:
    return ", ".join(names[:_TOLD]) + (f", … ({len(names):,} in all)" if len(names) > _TOLD else "")


def target_told(target: TargetColumn) -> str:
    """What the target is, on one line."""
    missing = f"; {', '.join(target.missing)} taken for missing" if target.missing else ""
    if target.labels is None:
        return f"{target.name}, a real value{missing}"
    return f"{target.name}, {len(target.labels):,} classes: {_first(target.labels)}{missing}"
