"""Configurations nobody would write; shared by the tests and `scripts/prove_reliability.py`."""

from __future__ import annotations

import contextlib
import io
import os
import shutil
import sys
import tempfile
import traceback
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import get_args
from unittest.mock import patch

import torch
from hydra.core.global_hydra import GlobalHydra
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from pydantic import BaseModel

from bigmodel import registry
from bigmodel.cli import invocation, train
from bigmodel.runtime.device import DeviceConfig
from bigmodel.training.plan import TrainerConfig

FIRST = (
    "trainer.max_steps=1",
    "trainer.limit.train=1",
    "trainer.limit.val=1",
    "trainer.tensorboard=false",
    "device=cpu",
)
"""One step on one batch, whatever follows."""

SLOW = {"device.compile", "data.samples", "trainer.max_steps", "data.workers"}
ODD = (
    *("0", "1", "2", "3", "7", "-1", "64", "1000000000000", "9223372036854775808"),
    *("0.0", "0.5", "1.0", "-0.5", "1e-9", "1e30", "nan", "inf", "-inf"),
    *("1" * 400, "1" * 5001, "9223372036854775807", "1e400", "[" * 200, f"[{'8,' * 3000}8]"),
    *("true", "false", "null", "???", "", "abc", "auto", "'two words'", "ü", "'1'"),
    *("[]", "[1]", "[2,3]", "[0]", "[0.5,0.9]", "[[1]]", "[a]", "{}", "{a: 1}", "{name: fnn}"),
    *("${seed}", "${nowhere}", "${model.name}", "1,2", "[", "a=b", "a b", "'", "\\"),
)
"""Values for any key; most are wrong for most of them."""


PLAUSIBLE = {"int": ("1", "2", "3", "7"), "float": ("0.1", "0.5", "1.0"), "bool": ("true", "false")}


def keys(schema: type[BaseModel], prefix: str) -> Iterator[tuple[str, list[str]]]:
    """Every dotted key of a schema, with values that may do."""
    for name, field in schema.model_fields.items():
        nested = field.annotation
        if isinstance(nested, type) and issubclass(nested, BaseModel):
            yield from keys(nested, f"{prefix}.{name}")
        elif f"{prefix}.{name}" not in SLOW:
            words = [word for word in get_args(nested) if isinstance(word, str)]
            words += [word for kind, some in PLAUSIBLE.items() if kind in str(nested) for word in some]
            yield f"{prefix}.{name}", words or ["null"]


@st.composite
def overrides(draw: st.DrawFn) -> list[str]:
    """A choice from some groups, then keys that fit the choices, or do not, with any value."""
    words, known = list(FIRST), dict(keys(TrainerConfig, "trainer")) | dict(keys(DeviceConfig, "device"))
    for kind, entries in registry.REGISTRIES.items():
        names = [name for name in entries.names() if not name.endswith("mnist")]
        name = draw(st.sampled_from(names))
        if draw(st.booleans()):
            words.append(f"{kind}={name}")
            known |= dict(keys(entries.entry(name).config, kind))
    odd = ["seed", "no.such.key", "model.nam", "trainer", "+extra", "~seed", *registry.REGISTRIES]
    for _ in range(draw(st.integers(0, 4))):
        if draw(st.integers(0, 3)):
            key = draw(st.sampled_from(sorted(known)))
            words.append(f"{key}={draw(st.sampled_from(known[key]))}")
        else:
            key = draw(st.sampled_from([*sorted(known), *odd]))
            words.append(f"{key}={draw(st.sampled_from(ODD))}")
    return words


def ended_in_a_traceback(argv: list[str], count: Counter[str] | None = None) -> str | None:
    """Calls the command in this process; the traceback, where it ended neither well nor in a message.

    Args:
        count: is told how it ended: `trained` or `refused`.
    """
    folder, before = tempfile.mkdtemp(), Path.cwd()
    printed = io.StringIO()
    os.chdir(folder)
    try:
        with (
            patch.object(sys, "argv", ["bigmodel-train", *argv]),
            patch.object(invocation, "current", invocation.Invocation()),
            contextlib.redirect_stdout(printed),
            contextlib.redirect_stderr(printed),
        ):
            GlobalHydra.instance().clear()
            train.main()
        if count is not None:
            count["trained"] += 1
    except SystemExit as end:
        text = printed.getvalue()
        if count is not None:
            count["refused"] += 1
        if end.code != 1 or "bigmodel-train: " not in text or "Traceback" in text:
            return f"{argv}: status {end.code}:\n{text}"
    except BaseException:
        return f"{argv}:\n{traceback.format_exc()}"
    finally:
        os.chdir(before)
        shutil.rmtree(folder)
    return None


def many(count: int) -> tuple[list[str], str]:
    """Tries that many configurations.

    Returns:
        What ended in a traceback, and how the rest ended, in words.
    """
    faults: list[str] = []
    ends: Counter[str] = Counter()

    @seed(0)
    @settings(
        max_examples=count,
        deadline=None,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(overrides())
    def attempt(argv: list[str]) -> None:
        if fault := ended_in_a_traceback(argv, ends):
            faults.append(fault)
        reset_torch()

    attempt()
    return faults, ", ".join(f"{number} {end}" for end, number in sorted(ends.items()))


def reset_torch() -> None:
    """What a configuration may have set for the whole process, back to what tests expect."""
    torch.use_deterministic_algorithms(False)
    torch.set_num_threads(1)
