"""Which settings are secrets, and where their values are kept: in the environment, never in a file.

A secret's value is replaced by a reference, `${oc.env:BIGMODEL_DATA_API_KEY}`, before anything is
written or shown, and resolved where it is needed. Messages are searched for the values themselves, since
an error about a value may quote it.
"""

from __future__ import annotations

import itertools
import os
import re
from collections.abc import Mapping
from typing import Any

PER_INVOCATION = ("resume", "resume_changed", "profile", "sweep", "find")
"""Top-level keys of a single command line, not of the run. They are listed here instead of beside their
schema because the command line needs them before torch is loaded."""

_WORDS = {
    *("token", "password", "passwd", "passphrase", "secret", "secrets", "credential", "credentials"),
    *("pwd", "bearer", "authorization", "jwt"),
}
_PAIRS = {
    *((owner, "key") for owner in ("api", "access", "private", "secret", "auth", "ssh", "encryption")),
    ("connection", "string"),
}
_ENDS = (
    *("password", "passwd", "secret", "apikey", "secretkey", "privatekey", "accesskey"),
    *("accesstoken", "apitoken", "authtoken", "hubtoken"),
)
"""Endings of names without a separator: `dbpassword`."""

_VOCABULARY = {
    *("bos", "eos", "pad", "unk", "mask", "sep", "cls", "class", "start", "end", "stop", "special")
}
"""Words that mark a token of a text, not a secret: `eos_token`."""

MASK = "***"
REFERENCE = re.compile(r"\$\{oc\.env:\s*(\w+)[^}]*\}")
_PAIR = re.compile(r"""([\w.-]+)["']?\s*:\s+('[^']*'|"[^"]*"|\$\{[^}]*\}|[^\s,{}\[\]]+)""")
_SHORT = 4
"""Shorter values are not searched for in messages: they may occur in other words."""

_known: set[str] = set()


def looks_secret(key: str) -> bool:
    """Whether the name of a setting suggests a secret."""
    words = re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+", key.rsplit(".", 1)[-1])
    words = [word.lower() for word in words]
    pairs = set(itertools.pairwise(words))
    if pairs & _PAIRS or any(word.endswith(_ENDS) for word in words):
        return True
    return bool(_WORDS & set(words)) and not _VOCABULARY & set(words)


def is_count(key: str, value: object) -> bool:
    """Whether a number describes tokens of a text, as `token_dim` does, and is no secret."""
    number = isinstance(value, int | float)
    return number and "token" in key.lower() and not looks_secret(re.sub("(?i)token", "", key))


def redact(key: str, value: Any) -> Any:
    """The value as messages may show it; everything below a secret key is secret."""
    if isinstance(value, Mapping):
        below = looks_secret(key)
        return {name: redact(key if below else f"{key}.{name}", inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [redact(key, inner) for inner in value]
    if value in ("", None) or isinstance(value, bool) or is_count(key, value):
        return value
    return MASK if looks_secret(key) else value


def redact_text(key: str, text: str) -> str:
    """The same for a value as written in a file, such as `{user: me, password: abc}`."""
    if text in {"", "null", "???"} or text.isdigit() or text.startswith("${"):
        return text
    if looks_secret(key):
        return MASK
    return _PAIR.sub(lambda m: f"{m[1]}: {redact_text(m[1], m[2])}", text)


def store_secret(key: str, value: str) -> str:
    """Stores a secret in the environment, and returns a reference to it."""
    remember(value)
    os.environ[environment_variable(key)] = value
    return f"${{oc.env:{environment_variable(key)}}}"


def environment_variable(key: str) -> str:
    """The environment variable that holds the value of a dotted key."""
    return "BIGMODEL_" + re.sub(r"\W+", "_", key).strip("_").upper()


def remember(value: str) -> None:
    """Makes `masked` hide this value from now on."""
    if len(value) >= _SHORT:
        _known.update({value, repr(value)[1:-1]})


def remember_referenced(text: str) -> None:
    """The same for variables with a secret's name that interpolations refer to."""
    for name in REFERENCE.findall(text):
        if looks_secret(name):
            remember(os.environ.get(name, ""))


def masked(text: str) -> str:
    """A text with all known secrets hidden."""
    for value in sorted(_known, key=len, reverse=True):
        text = text.replace(value, MASK)
    return text


def holds_secret(text: str) -> bool:
    """Whether a text contains a known secret."""
    return masked(text) != text
