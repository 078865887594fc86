"""Which settings are secrets, and where their values are kept: in the environment, never in a file.

A secret's value is replaced by a reference, `${oc.env:BIGMODEL_DATA_API_KEY}`, before anything is
written or shown; whoever needs the value resolves it.
"""

from __future__ import annotations

import itertools
import os
import re

_WORDS = {
    *("token", "password", "passwd", "passphrase", "secret", "secrets", "credential", "credentials"),
    "apikey",
}
_PAIRS = {("api", "key"), ("access", "key"), ("private", "key"), ("secret", "key"), ("auth", "key")}
_VOCABULARY = {
    *("bos", "eos", "pad", "unk", "mask", "sep", "cls", "class", "start", "end", "stop", "special"),
}
"""What makes a token a word of a text: `eos_token`."""

MASK = "***"


def looks_secret(key: str) -> bool:
    """Whether a setting of this dotted key has a name as secrets have."""
    words = re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+", key.rsplit(".", 1)[-1])
    words = [word.lower() for word in words]
    pairs = set(itertools.pairwise(words))
    if pairs & _PAIRS:
        return True
    return bool(_WORDS & set(words)) and not _VOCABULARY & set(words)


def shown(key: str, value: object) -> object:
    """The value as messages may show it."""
    return MASK if looks_secret(key) and isinstance(value, str) and value else value


def hidden(key: str, value: str) -> str:
    """Puts the value of a secret into the environment; returns the reference to it."""
    os.environ[variable(key)] = value
    return f"${{oc.env:{variable(key)}}}"


def variable(key: str) -> str:
    """The environment variable that holds the value of a dotted key."""
    return "BIGMODEL_" + re.sub(r"\W+", "_", key).strip("_").upper()
