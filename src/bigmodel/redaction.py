"""Which settings are secrets, and where their values are kept: in the environment, never in a file.

A secret's value is replaced by a reference, `${oc.env:BIGMODEL_DATA_API_KEY}`, before anything is
written or shown; whoever needs the value resolves it. Messages are searched for the values themselves,
since whoever refuses a value may quote it.
"""

from __future__ import annotations

import itertools
import os
import re
from collections.abc import Mapping
from typing import Any

PER_INVOCATION = ("resume", "resume_changed", "profile", "sweep")
"""Top-level keys that belong to one command line and not to the run. They are named here, and not beside
their schema, because the command line needs them before torch is loaded."""

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
"""How such a name ends that is written without a break: `dbpassword`."""

_VOCABULARY = {
    *("bos", "eos", "pad", "unk", "mask", "sep", "cls", "class", "start", "end", "stop", "special")
}
"""What makes a token a word of a text: `eos_token`."""

MASK = "***"
REFERENCE = re.compile(r"\$\{oc\.env:\s*(\w+)[^}]*\}")
_PAIR = re.compile(r"""([\w.-]+)["']?\s*:\s+('[^']*'|"[^"]*"|\$\{[^}]*\}|[^\s,{}\[\]]+)""")
_SHORT = 4
"""Shorter values are not searched for in messages: they would be found in other words."""

_known: set[str] = set()


def looks_secret(key: str) -> bool:
    """Whether a setting of this dotted key has a name as secrets have."""
    words = re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+", key.rsplit(".", 1)[-1])
    words = [word.lower() for word in words]
    pairs = set(itertools.pairwise(words))
    if pairs & _PAIRS or any(word.endswith(_ENDS) for word in words):
        return True
    return bool(_WORDS & set(words)) and not _VOCABULARY & set(words)


def is_count(key: str, value: object) -> bool:
    """Whether a number is one of tokens in a text, such as `token_dim`, rather than a secret one."""
    number = isinstance(value, int | float)
    return number and "token" in key.lower() and not looks_secret(re.sub("(?i)token", "", key))


def redact(key: str, value: Any) -> Any:
    """The value as messages may show it; what lies below a secret key is as secret."""
    if isinstance(value, Mapping):
        below = looks_secret(key)
        return {name: redact(key if below else f"{key}.{name}", inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [redact(key, inner) for inner in value]
    if value in ("", None) or isinstance(value, bool) or is_count(key, value):
        return value
    return MASK if looks_secret(key) else value


def redact_text(key: str, text: str) -> str:
    """The same for a value as it stands in a file, `{user: me, password: abc}` included."""
    if text in {"", "null", "???"} or text.isdigit() or text.startswith("${"):
        return text
    if looks_secret(key):
        return MASK
    return _PAIR.sub(lambda m: f"{m[1]}: {redact_text(m[1], m[2])}", text)


def store_secret(key: str, value: str) -> str:
    """Puts the value of a secret into the environment; returns the reference to it."""
    remember(value)
    os.environ[environment_variable(key)] = value
    return f"${{oc.env:{environment_variable(key)}}}"


def environment_variable(key: str) -> str:
    """The environment variable that holds the value of a dotted key."""
    return "BIGMODEL_" + re.sub(r"\W+", "_", key).strip("_").upper()


def remember(value: str) -> None:
    """Has `masked` find this value from now on."""
    if len(value) >= _SHORT:
        _known.update({value, repr(value)[1:-1]})


def remember_referenced(text: str) -> None:
    """The same for what an interpolation takes from a variable with a secret's name."""
    for name in REFERENCE.findall(text):
        if looks_secret(name):
            remember(os.environ.get(name, ""))


def masked(text: str) -> str:
    """A text without the secrets that are known, whoever wrote them into it."""
    for value in sorted(_known, key=len, reverse=True):
        text = text.replace(value, MASK)
    return text


def holds_secret(text: str) -> bool:
    """Whether a text quotes a secret that is known."""
    return masked(text) != text
