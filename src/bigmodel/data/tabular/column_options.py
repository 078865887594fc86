"""How a user says what the columns of a table hold, whatever their names are.

Hydra's grammar takes few names as keys: letters of ASCII, digits and some signs. So kinds may also come
as one text, `{my num: category, größe: number}`, which Hydra leaves as it is. Nothing here needs torch.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Literal, cast, get_args

from bigmodel.errors import escape_interpolations, shell_quoted

PLAIN_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_-]*")
_KEY = re.compile(r"[A-Za-z_][A-Za-z0-9_./-]*( [A-Za-z0-9_./-]+)*")  # within braces, without quotes
_VALUES = ("true", "false", "null", "nan", "inf")  # which Hydra takes for what they say
Kind = Literal["number", "category", "date", "time", "duration", "ignore"]
KINDS: tuple[str, ...] = get_args(Kind)
WrittenForm = dict[Literal["number", "date"], str]
"""A kind and how its values are written: `{number: "1.200,5"}`, `{date: "%d/%m/%Y"}`."""

_FORM = r"""\{\s*(number|date)\s*:\s*(?:"([^"]*)"|'([^']*)'|([^"'{}]*?))\s*\}"""
_NAME = r"""(?:"(.+?)"|'(.+?)'|(.+?))"""
_ENTRY = re.compile(rf"\s*{_NAME}\s*:\s*(?:({'|'.join(KINDS)})|{_FORM})\s*(?:,|$)")


def column_option(name: str, kind: str | WrittenForm) -> str:
    """What to type for one column, as a shell takes it."""
    return shell_quoted(assignment("data.columns", name, _kind_text(kind)))


def column_options(names: Iterable[str], kind: str | WrittenForm) -> str:
    """What to type for many columns."""
    first, *more = names
    if not more:
        return column_option(first, kind)
    themselves = map(escape_interpolations, (first, *more))
    return shell_quoted(as_one_text("data.columns", dict.fromkeys(themselves, kind)))


def assignment(key: str, name: str, value: str) -> str:
    """One entry of a setting, as Hydra takes it."""
    if PLAIN_NAME.fullmatch(name):
        return f"{key}.{name}={value}"
    if _KEY.fullmatch(name) and name.lower() not in _VALUES:
        return f"{key}={{{name}: {value}}}"
    return as_one_text(key, {escape_interpolations(name): value})


def as_one_text(key: str, entries: Mapping[str, str | WrittenForm]) -> str:
    """Many entries of a setting as one text, as Hydra takes it."""
    text = ", ".join(f"{name}: {_kind_text(value)}" for name, value in entries.items())
    if not _reads_back(text, entries):
        text = ", ".join(f'"{name}": {_kind_text(value)}' for name, value in entries.items())
    text = text.replace('"', '\\"')
    return f'{key}="{{{text}}}"'


def _reads_back(text: str, entries: Iterable[str]) -> bool:
    """Whether a text is read as one of entries of these names."""
    try:
        return [*parse_entries(f"{{{text}}}")] == [*entries]
    except ValueError:
        return False


def _kind_text(kind: str | WrittenForm) -> str:
    """A kind, as Hydra takes it."""
    if isinstance(kind, str):
        return kind
    return "{" + ", ".join(f'{name}: "{form}"' for name, form in kind.items()) + "}"


def parse_entries(text: str) -> dict[str, str | WrittenForm]:
    """The entries of one text, with or without braces and quotation marks around it.

    Raises:
        ValueError: it does not say a kind for each name.
    """
    rest = text.strip()
    if rest[:1] in ("'", '"') and rest[-1:] == rest[:1] and len(rest) > 1:
        rest = rest[1:-1].replace(f"\\{rest[0]}", rest[0]).strip()
    if rest.startswith("{") and rest.endswith("}"):
        rest = rest[1:-1].strip()
    found: dict[str, str | WrittenForm] = {}
    while rest:
        entry = _ENTRY.match(rest)
        if entry is None:
            raise ValueError(
                f"{rest!r} is not a name with its kind, such as {{my column: category}}; kinds are"
                f" {', '.join(KINDS)}"
            )
        *names, kind, formed, double, single, bare = entry.groups()
        name = next(name for name in names if name is not None)
        forms = (double, single, bare)
        form = next((form for form in forms if form is not None), "")
        found[name] = kind or cast(WrittenForm, {formed: form})
        rest = rest[entry.end() :].strip()
    return found
