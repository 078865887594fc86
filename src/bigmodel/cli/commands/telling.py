"""What a command says beside its result: on standard error, so that a result can be piped."""

from __future__ import annotations

import sys

from bigmodel.redaction import masked
from bigmodel.runtime import activity
from bigmodel.runtime.escaping import escape_message


def tell(text: str) -> None:
    """Tells the user one thing."""
    activity.note_output()
    print(escape_message(masked(text)), file=sys.stderr, flush=True)  # noqa: T201


def tell_left_out(left_out: dict[str, int]) -> None:
    """Tells which samples have no prediction or were not judged by, and why."""
    if left_out:
        tell("Left out: " + ", ".join(f"{count:,} {why}" for why, count in left_out.items()))
