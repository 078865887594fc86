"""What messages advise to type, so that it works when it is pasted: into a shell, and so to Hydra.

Two languages read the same words. Hydra's grammar takes letters, digits and a few signs as they are; all
else of a text has to stand in quotation marks. Then the shell, which takes quotation marks, brackets and
blanks for its own, has to be kept from all of it.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import sys
from pathlib import Path
from typing import Any

_PLAIN = re.compile(r"[A-Za-z_./][\w./+%@-]*( [\w./+%@-]+)*", re.ASCII)
_MEANT = re.compile(r"true|false|null|nan|inf", re.IGNORECASE)  # what Hydra takes for what it says
_NUMBER = re.compile(r"[+-]?\.?\d[\d_.eE+-]*")


def setting(key: str, value: Any) -> str:
    """`key=value` to be pasted, whatever the value is: `'data.path="a, b.csv"'`, `'plugins=[mine]'`."""
    return pasted(f"{key}={in_grammar(value, literal=True)}")


def pasted(word: str) -> str:
    """A word that bash, zsh and other shells give to a program as it is."""
    return shlex.quote(word)


def program(name: str) -> str:
    """How to call a program that was installed beside this one: by its name where the shell finds it so,
    or else by its path, from the current folder where it lies below that."""
    beside, here = Path(os.path.abspath(sys.executable)).with_name(name), Path.cwd()  # noqa: PTH100
    if shutil.which(name) is not None or not beside.is_file():
        return name
    return pasted(str(beside.relative_to(here) if beside.is_relative_to(here) else beside))


def in_grammar(value: Any, *, literal: bool = False) -> str:
    """A value of text, numbers, lists and mappings as Hydra's command line reads it.

    Args:
        value: the value.
        literal: a text stands for itself, `${…}` in it too, and has quotation marks only where it needs
            them; otherwise `${…}` refers to another setting.
    """
    if isinstance(value, dict):
        entries = (f"{key}:{in_grammar(item, literal=literal)}" for key, item in value.items())
        return "{" + ",".join(entries) + "}"
    if isinstance(value, list | tuple):
        return "[" + ",".join(in_grammar(item, literal=literal) for item in value) + "]"
    if not isinstance(value, str):
        return "null" if value is None else str(value).lower()
    if not literal:
        return _quoted(value, "'")
    if _is_plain(value):
        return value
    mark = "'" if '"' in value else '"'  # the shell's are single ones
    return _quoted(standing_for_itself(value), mark)


def standing_for_itself(text: str) -> str:
    """A text in which no `${…}` refers to another setting."""
    return re.sub(r"(\\*)\$\{", r"\1\1\\${", text)


def _is_plain(text: str) -> bool:
    return bool(_PLAIN.fullmatch(text)) and not (_MEANT.fullmatch(text) or _NUMBER.fullmatch(text))


def _quoted(text: str, mark: str) -> str:
    # A backslash means itself, but for those before a quotation mark.
    inside = re.sub(rf"(\\*){mark}", rf"\1\1\\{mark}", text)
    return mark + re.sub(r"(\\+)\Z", r"\1\1", inside) + mark
