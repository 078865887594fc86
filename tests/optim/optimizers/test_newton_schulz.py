"""Muon's own update against torch's, matrix by matrix, and against the singular value decomposition."""

import pytest
import torch
from torch import nn

from bigmodel.optim.optimizers.newton_schulz import Muon, orthogonal
from bigmodel.registry import models, optimizers
from bigmodel.spec import DataSpec, NextTokens, Tokens

SHAPES = [(12, 8), (8, 12), (8, 8), (12, 8), (8, 12), (24, 8)]
OPTIONS = {"lr": 0.02, "weight_decay": 0.1, "momentum": 0.9}


def matrices(seed: int = 0) -> list[nn.Parameter]:
    draw = torch.Generator().manual_seed(seed)
    return [nn.Parameter(torch.randn(shape, generator=draw)) for shape in SHAPES]


def descend(optimizer: torch.optim.Optimizer, parameters: list[nn.Parameter], steps: int = 4) -> None:
    for step in range(steps):
        draw = torch.Generator().manual_seed(step)
        for parameter in parameters:
            parameter.grad = torch.randn(parameter.shape, generator=draw)
        optimizer.step()


@pytest.mark.parametrize("nesterov", [True, False])
@pytest.mark.parametrize("adjust_lr_fn", ["original", "match_rms_adamw"])
def test_many_at_once_are_torchs_one_by_one(nesterov, adjust_lr_fn):
    ours, theirs = matrices(), matrices()
    options = OPTIONS | {"nesterov": nesterov, "adjust_lr_fn": adjust_lr_fn}
    descend(Muon(ours, **options), ours)
    descend(torch.optim.Muon(theirs, **options), theirs)
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=2e-3)  # a product in bf16 rounds its own way


def test_stacked_matrices_are_as_if_they_were_apart():
    draw = torch.Generator().manual_seed(3)
    parts = [torch.randn(rows, 8, generator=draw) for rows in (8, 4, 4)]
    whole = nn.Parameter(torch.cat(parts))
    apart = [nn.Parameter(part.clone()) for part in parts]
    together, separate = Muon([whole], {whole: [8, 4, 4]}, **OPTIONS), Muon(apart, **OPTIONS)
    for step in range(3):
        draw = torch.Generator().manual_seed(step)
        whole.grad = torch.randn(16, 8, generator=draw)
        for parameter, gradient in zip(apart, whole.grad.split([8, 4, 4]), strict=True):
            parameter.grad = gradient.clone()
        together.step()
        separate.step()
    assert torch.equal(whole, torch.cat([p.detach() for p in apart]))


@pytest.mark.parametrize("shape", [(3, 5, 5), (2, 4, 9), (2, 9, 4)])
def test_singular_values_come_near_1_and_their_vectors_stay(shape):
    given = torch.randn(shape, generator=torch.Generator().manual_seed(1))
    found = orthogonal(given, steps=5).float()
    assert found.shape == given.shape
    values = torch.linalg.svdvals(found)
    assert 0.3 < float(values.min()) < float(values.max()) < 1.4
    left, _, right = torch.linalg.svd(given, full_matrices=False)
    turned = left.mT @ found @ right.mT  # diagonal, where the vectors are the same
    assert (turned - torch.diag_embed(turned.diagonal(dim1=1, dim2=2))).abs().max() < 0.1


def test_a_matrix_without_a_gradient_stays():
    used, unused = matrices()[:2]
    before = unused.detach().clone()
    optimizer = Muon([used, unused], **OPTIONS)
    used.grad = torch.ones_like(used)
    optimizer.step()
    assert torch.equal(unused, before)
    assert unused not in optimizer.state


def test_attention_says_what_is_stacked():
    spec = DataSpec("t", Tokens(8, 11), NextTokens(11))
    options = {"name": "transformer", "dim": 16, "num_heads": 4, "num_kv_heads": 2, "depth": 1}
    model = models.build(models.parse(options | {"activation": "swiglu"}), spec)
    joined = optimizers.build(optimizers.parse({"name": "muon"}), model)
    muon = next(part for part in joined._parts if isinstance(part, Muon))
    named = {name: p for name, p in model.named_parameters() if p in muon._rows}
    assert {name: muon._rows[p] for name, p in named.items()} == {
        "blocks.0.attention.qkv.weight": [16, 8, 8],
        "blocks.0.feed_forward.expand.weight": [
            named["blocks.0.feed_forward.expand.weight"].shape[0] // 2
        ]
        * 2,
    }
