"""How a user says what the columns of a table hold, whatever their names are.

Hydra's grammar takes few names as keys: letters of ASCII, digits and some signs. So kinds may also come
as one text, `{my num: category, größe: number}`, which Hydra leaves as it is. Nothing here needs torch.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from typing import Literal, get_args

PLAIN = re.compile(r"[A-Za-z_][A-Za-z0-9_-]*")
_KEY = re.compile(r"[A-Za-z_][A-Za-z0-9_./-]*( [A-Za-z0-9_./-]+)*")  # within braces, without quotes
_VALUES = ("true", "false", "null", "nan", "inf")  # which Hydra takes for what they say
Kind = Literal["number", "category", "date", "ignore"]
KINDS: tuple[str, ...] = get_args(Kind)
_ENTRY = re.compile(rf"\s*(.+?)\s*:\s*({'|'.join(KINDS)})\s*(?:,|$)")


def option(name: str, kind: str) -> str:
    """What to type for one column, as a shell takes it."""
    return shlex.quote(assigned("data.columns", name, kind))


def assigned(key: str, name: str, value: str) -> str:
    """One entry of a setting, as Hydra takes it."""
    if PLAIN.fullmatch(name):
        return f"{key}.{name}={value}"
    if _KEY.fullmatch(name) and name.lower() not in _VALUES:
        return f"{key}={{{name}: {value}}}"
    return in_one(key, {name: value})


def in_one(key: str, entries: Mapping[str, str]) -> str:
    """Many entries of a setting as one text, as Hydra takes it."""
    text = ", ".join(f"{name}: {value}" for name, value in entries.items()).replace('"', '\\"')
    return f'{key}="{{{text}}}"'


def entries_of(text: str) -> dict[str, str]:
    """The entries of one text, with or without braces and quotation marks around it.

    Raises:
        ValueError: it does not say a kind for each name.
    """
    rest = text.strip()
    if rest[:1] in ("'", '"') and rest[-1:] == rest[:1] and len(rest) > 1:
        rest = rest[1:-1].replace(f"\\{rest[0]}", rest[0]).strip()
    if rest.startswith("{") and rest.endswith("}"):
        rest = rest[1:-1].strip()
    found: dict[str, str] = {}
    while rest:
        entry = _ENTRY.match(rest)
        if entry is None:
            raise ValueError(
                f"{rest!r} is no name with its kind, such as {{my column: category}}; kinds are"
                f" {', '.join(KINDS)}"
            )
        found[entry[1]] = entry[2]
        rest = rest[entry.end() :].strip()
    return found
