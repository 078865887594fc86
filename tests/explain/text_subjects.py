"""Small subjects of texts, and a classifier that has learnt what words mean."""

from __future__ import annotations

import functools
from typing import Any

import torch
from torch import Tensor, nn

from bigmodel.data.parts import SplitData, Texts
from bigmodel.data.preprocessing import Preprocessing
from bigmodel.explain.subject import Subject
from bigmodel.runtime.device import DeviceConfig, prepare
from bigmodel.spec import Classes, DataSpec, Tokens
from tests.models.cases import build

VOCABULARY, LENGTH, PAD = 40, 16, 0
GOOD, BAD = range(1, 6), range(6, 11)  # tokens that speak for the second class, and for the first
SPEC = DataSpec("words", Tokens(LENGTH, VOCABULARY, pad=PAD), Classes(("bad", "good"), (1, 1)))


def subject_of(model: nn.Module, spec: DataSpec, part: SplitData, **more: Any) -> Subject:
    runtime = prepare(DeviceConfig(name="cpu"), 0)
    return Subject(model.eval(), Preprocessing(spec), runtime, part, **more)


def texts(count: int, seed: int) -> Texts:
    """Texts of 8 to 16 tokens: the class is whether more of them are good than bad."""
    draw = torch.Generator().manual_seed(seed)
    sizes = torch.randint(8, LENGTH + 1, (count,), generator=draw)
    tokens = torch.randint(1, VOCABULARY, (int(sizes.sum()),), generator=draw)
    part = Texts(tokens, sizes.cumsum(0) - sizes, sizes, torch.zeros(count, dtype=torch.int64), PAD)
    inputs = part.take(slice(0, count))[0]
    balance = sum((inputs == token).sum(1) for token in GOOD) - sum((inputs == t).sum(1) for t in BAD)
    assert isinstance(balance, Tensor)
    part.targets = (balance > 0).long()
    return part.select((balance != 0).nonzero()[:, 0])


@functools.cache
def trained(name: str) -> nn.Module:
    """A classifier of these texts."""
    torch.manual_seed(0)
    sizes: dict[str, Any] = {"dim": 32, "depth": 2} if name in ("transformer", "attention") else {}
    model = build(name, SPEC, dropout=0.0, **sizes)
    part = texts(600, seed=1)
    optimizer = torch.optim.AdamW(model.parameters(), 3e-3, weight_decay=0.05)
    order = torch.Generator().manual_seed(0)
    for _ in range(80):
        inputs, targets = part.take(torch.randint(len(part), (64,), generator=order))
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(inputs), targets).backward()
        optimizer.step()
    return model.eval()
