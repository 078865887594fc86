"""The processor: its name, and the widest instructions that it multiplies with."""

from __future__ import annotations

import platform
import re
from functools import cache
from pathlib import Path

WIDEST = (
    ("amx_bf16", "AMX"),
    ("avx512_bf16", "AVX-512 BF16"),
    ("avx512f", "AVX-512"),
    ("avx2", "AVX2"),
)
"""Flags of Linux and what they stand for; the first that a processor has says what it can do."""


@cache
def described() -> str:
    """What Linux tells of the processor; empty elsewhere."""
    path = Path("/proc/cpuinfo")
    return path.read_text(errors="replace") if path.is_file() else ""


def processor() -> str:
    """The name, without trademarks and clock rate: `Intel Xeon Platinum 8488C`."""
    name = re.search(r"model name\s*:\s*(.+)", described())
    words = re.sub(r"\(R\)|\(TM\)|@.*|\bCPU\b|\bProcessor\b", " ", name[1] if name else "", flags=re.I)
    return " ".join(words.split()) or platform.processor() or platform.machine()


def flags() -> frozenset[str]:
    """The instruction sets, as Linux names them."""
    found = re.search(r"flags\s*:\s*(.+)", described())
    return frozenset(found[1].split() if found else ())


def widest() -> str:
    """The widest instruction set of note, or nothing."""
    return next((name for flag, name in WIDEST if flag in flags()), "")


def multiplies_bf16() -> bool:
    """Whether it has instructions for bf16 products."""
    return not flags().isdisjoint({"amx_bf16", "avx512_bf16"})
