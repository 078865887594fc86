"""Packed texts: what a model computes for each is what it computes for the text alone."""

import pytest
import torch

from bigmodel.data.packing import Documents, PackedDocuments, pieces
from bigmodel.data.parts import GatherOptions
from bigmodel.errors import SpecError
from bigmodel.models.layers.packing import Packing, kernel
from bigmodel.registry import losses
from bigmodel.spec import DataSpec, NextTokens, PackedTokens, Tokens
from tests.models.cases import TARGETS, build, stir

LENGTHS = [[5, 3, 4], [12], [1, 7, 2]]


def packed_rows():
    """Rows of texts, (3, 2, 12), and the texts."""
    texts = [[torch.randint(11, (length,)) for length in row] for row in LENGTHS]
    rows = []
    for row in texts:
        tokens, positions = torch.cat(row), torch.cat([torch.arange(len(text)) for text in row])
        rest = 12 - len(tokens)
        tokens = torch.cat([tokens, torch.zeros(rest, dtype=torch.int64)])
        rows.append(torch.stack([tokens, torch.cat([positions, torch.arange(rest)])]))
    return torch.stack(rows), texts


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"position": "rotary", "num_kv_heads": 2, "qk_norm": True, "norm": "rmsnorm"},
        {"position": "sinusoidal", "norm_first": False, "tied_embeddings": True},
    ],
)
def test_each_packed_text_is_read_as_if_it_were_alone(options):
    spec = DataSpec("toy", PackedTokens(12, 11, pad=0), NextTokens(11))
    model = build("transformer", spec, dim=16, dropout=0.0, **options)
    stir(model)
    inputs, texts = packed_rows()
    outputs = model(inputs)
    loss = torch.zeros(())
    total = torch.zeros(())
    for row, some in zip(outputs, texts, strict=True):
        first = 0
        for text in some:
            alone = model(text.unsqueeze(0))[0]
            torch.testing.assert_close(row[first : first + len(text)], alone, rtol=0, atol=1e-5)
            loss = loss + alone.square().sum()
            total = total + row[first : first + len(text)].square().sum()
            first += len(text)
    parameters = list(model.parameters())
    both = [torch.autograd.grad(one, parameters) for one in (loss, total)]
    for ours, theirs in zip(*both, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)


def test_the_mask_shows_each_position_its_own_text_up_to_itself():
    mask = Packing(torch.tensor([[0, 1, 0, 1, 2]])).mask[0, 0]
    assert mask.int().tolist() == [
        [1, 0, 0, 0, 0],
        [1, 1, 0, 0, 0],
        [0, 0, 1, 0, 0],
        [0, 0, 1, 1, 0],
        [0, 0, 1, 1, 1],
    ]


def test_bounds_are_where_texts_begin_and_then_the_end():
    bounds = Packing(torch.tensor([[0, 1, 0], [0, 0, 1]])).bounds
    assert bounds.tolist() == [0, 2, 3, 4, 6, 6, 6]
    assert bounds.dtype == torch.int32


def test_a_kernel_is_taken_only_in_half_precision_on_a_gpu():
    heads = torch.zeros(1, 2, 4, 8)
    packing = Packing(torch.tensor([[0, 1, 0, 1]]), kernel())
    assert not packing.can_split(heads.bfloat16())
    assert not packing.can_split(heads)


def test_a_packed_step_is_one_graph():
    spec = DataSpec("toy", PackedTokens(12, 11, pad=0), NextTokens(11))
    model = build("transformer", spec, dim=16, dropout=0.0, position="rotary")
    inputs, _ = packed_rows()
    whole = torch.compile(model, backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(whole(inputs), model(inputs))


def test_models_that_would_mix_texts_say_so():
    spec = DataSpec("toy", PackedTokens(12, 11, pad=0), NextTokens(11))
    with pytest.raises(SpecError, match=r"model=rnn cannot read .* the next: .* data.packing=padded"):
        build("rnn", spec)
    with pytest.raises(SpecError, match="no single place"):
        build("transformer", DataSpec("toy", spec.input, TARGETS["classes"]))
    build("rnn", DataSpec("toy", Tokens(12, 11), NextTokens(11)))


@pytest.mark.parametrize("position", ["learned", "rotary"])
def test_loss_and_gradient_are_those_of_a_document_in_each_row(position):
    sizes = torch.randint(3, 14, (40,), generator=torch.Generator().manual_seed(0))
    tokens = torch.randint(11, (int(sizes.sum()),), generator=torch.Generator().manual_seed(1))
    starts, rows = pieces(sizes, 16)
    padded = Documents(tokens, starts, rows, 0)
    packed = PackedDocuments.packed(padded, 16)
    spec = DataSpec("toy", PackedTokens(16, 11, pad=0), NextTokens(11))
    model = build("transformer", spec, dim=16, dropout=0.0, position=position)
    loss = losses.build(losses.parse({"name": "cross_entropy"}), spec)
    results = []
    for part, key in ((padded, 0), (packed, 0), (packed, 5)):
        inputs, targets = part.take(slice(0, len(part)), GatherOptions(key))
        mean = loss(model(inputs), targets) / loss.normaliser(targets)
        results.append((mean, *torch.autograd.grad(mean, list(model.parameters()))))
    assert len(packed) < len(padded) / 1.5
    for other in results[1:]:
        for ours, theirs in zip(other, results[0], strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)
