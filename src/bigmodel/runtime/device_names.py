"""Names of devices: a kind, `cuda`, or one of several, `cuda:1`."""

from __future__ import annotations

import re

ALLOWED = "auto, cpu, cuda or mps, or one of several by its index, such as cuda:1"


def is_device(name: str) -> bool:
    """Whether a name is a valid device; this machine may lack it."""
    return re.fullmatch(r"auto|(cpu|cuda|mps)(:\d{1,4})?", name, re.ASCII) is not None
