"""How a user sets the kinds of columns, whatever their names are.

Hydra's grammar allows few names as keys: letters of ASCII, digits and some signs. So kinds may also be
given as one text, `{my num: category, größe: number}`, which Hydra does not parse. Nothing here needs
torch.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Literal, cast, get_args

from bigmodel.errors import escape_interpolations, shell_quoted

PLAIN_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_-]*")
_KEY = re.compile(r"[A-Za-z_][A-Za-z0-9_./-]*( [A-Za-z0-9_./-]+)*")  # within braces, without quotes
_VALUES = ("true", "false", "null", "nan", "inf")  # which Hydra does not read as text
MediaKind = Literal["text", "image", "audio"]
"""What only some models read: texts, and paths of pictures and recordings."""

Kind = Literal["number", "category", "date", "time", "duration", "text", "image", "audio", "ignore"]
MEDIA_KINDS: tuple[MediaKind, ...] = get_args(MediaKind)
KINDS: tuple[str, ...] = get_args(Kind)
WrittenForm = dict[Literal["number", "date"], str]
"""A kind and how its values are written: `{number: "1.200,5"}`, `{date: "%d/%m/%Y"}`."""

_NAME = r"""(?P<mark>["']?)(?P<name>.+?)(?P=mark)"""
_FORM = r"""\{\s*(?P<written>number|date)\s*:\s*(?P<quote>["']?)(?P<form>[^{}"]*?)(?P=quote)\s*\}"""
_ENTRY = re.compile(rf"\s*{_NAME}\s*:\s*(?:(?P<kind>{'|'.join(KINDS)})|{_FORM})\s*(?:,|$)")


def column_option(name: str, kind: str | WrittenForm) -> str:
    """The option for one column, quoted for the shell."""
    return shell_quoted(assignment("data.columns", name, _kind_text(kind)))


def column_options(names: Iterable[str], kind: str | WrittenForm) -> str:
    """The option for several columns, quoted for the shell."""
    first, *more = names
    if not more:
        return column_option(first, kind)
    literal = map(escape_interpolations, (first, *more))
    return shell_quoted(as_one_text("data.columns", dict.fromkeys(literal, kind)))


def assignment(key: str, name: str, value: str) -> str:
    """One entry of a setting, as Hydra's command line reads it."""
    if PLAIN_NAME.fullmatch(name):
        return f"{key}.{name}={value}"
    if _KEY.fullmatch(name) and name.lower() not in _VALUES:
        return f"{key}={{{name}: {value}}}"
    return as_one_text(key, {escape_interpolations(name): value})


def as_one_text(key: str, entries: Mapping[str, str | WrittenForm]) -> str:
    """Several entries of a setting as one text, as Hydra's command line reads it."""
    text = ", ".join(f"{name}: {_kind_text(value)}" for name, value in entries.items())
    if not _reads_back(text, entries):
        text = ", ".join(f'"{name}": {_kind_text(value)}' for name, value in entries.items())
    text = text.replace('"', '\\"')
    return f'{key}="{{{text}}}"'


def _reads_back(text: str, entries: Iterable[str]) -> bool:
    """Whether a text is parsed as entries of these names."""
    try:
        return [*parse_entries(f"{{{text}}}")] == [*entries]
    except ValueError:
        return False


def _kind_text(kind: str | WrittenForm) -> str:
    if isinstance(kind, str):
        return kind
    return "{" + ", ".join(f'{name}: "{form}"' for name, form in kind.items()) + "}"


def parse_entries(text: str) -> dict[str, str | WrittenForm]:
    """The entries of one text, with or without braces and quotation marks around it.

    Raises:
        ValueError: a name has no kind.
    """
    rest = text.strip()
    if rest[:1] in ("'", '"') and rest[-1:] == rest[:1] and len(rest) > 1:
        rest = rest[1:-1].replace(f"\\{rest[0]}", rest[0]).strip()
    if rest.startswith("{") and rest.endswith("}"):
        rest = rest[1:-1].strip()
    entries: dict[str, str | WrittenForm] = {}
    while rest:
        entry = _ENTRY.match(rest)
        if entry is None:
            raise ValueError(
                f"{rest!r} is not a name with its kind, such as {{my column: category}}; kinds are"
                f" {', '.join(KINDS)}"
            )
        entries[entry["name"]] = entry["kind"] or cast(WrittenForm, {entry["written"]: entry["form"]})
        rest = rest[entry.end() :].strip()
    return entries
