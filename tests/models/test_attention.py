"""Attention scores against loops written out from the formulas, and against torch."""

import math

import pytest
import torch
from torch import Tensor, nn

from bigmodel.errors import ConfigError, SpecError
from bigmodel.models.attention import ScoredAttention
from bigmodel.spec import Features, Image, Sequence
from tests.models.cases import INPUTS, build, samples, spec, stir

SCORES = ["dot", "scaled_dot", "general", "additive"]


def score(layer: ScoredAttention, head: int, q: Tensor, k: Tensor) -> Tensor:
    match layer.score:
        case "dot":
            return q @ k
        case "scaled_dot":
            return q @ k / math.sqrt(layer.head_dim)
        case "general":
            return q @ layer.general[head] @ k
        case _:
            return layer.additive[head] @ torch.tanh(q + k)


def by_hand(layer: ScoredAttention, x: Tensor) -> Tensor:
    """Outputs of one sample (positions, dim), number by number."""
    positions, dim = x.shape
    size = layer.head_dim
    query, key, value = (x @ layer.qkv.weight.T + layer.qkv.bias).split(dim, dim=1)
    mixed = torch.zeros(positions, dim)
    for head in range(dim // size):
        own = slice(head * size, (head + 1) * size)
        for i in range(positions):
            scores = []
            for j in range(positions):
                q, k = query[i, own], key[j, own]
                scores.append(score(layer, head, q, k).exp())
            for j in range(positions):
                mixed[i, own] += scores[j] / sum(scores) * value[j, own]
    return mixed @ layer.output.weight.T + layer.output.bias


@pytest.mark.parametrize("num_heads", [1, 3])
@pytest.mark.parametrize("score", SCORES)
def test_scores_and_sums_are_the_formulas(score: str, num_heads: int) -> None:
    layer = ScoredAttention(6, num_heads, score)
    stir(layer)
    x = torch.randn(2, 4, 6)
    with torch.no_grad():
        for sample in range(2):
            outputs = by_hand(layer, x[sample])
            assert torch.allclose(layer(x)[sample], outputs, atol=1e-5)


def test_scaled_dot_is_torch_multi_head_attention() -> None:
    reference = nn.MultiheadAttention(12, 4, batch_first=True)
    stir(reference)
    layer = ScoredAttention(12, 4, "scaled_dot")
    names = {"in_proj_": "qkv.", "out_proj.": "output."}
    state = reference.state_dict()
    for theirs, ours in names.items():
        state = {key.replace(theirs, ours): value for key, value in state.items()}
    layer.load_state_dict(state)
    x = torch.randn(3, 5, 12)
    outputs, _ = reference(x, x, x)
    assert torch.allclose(layer(x), outputs, atol=1e-5)


@pytest.mark.parametrize("score", SCORES)
def test_general_starts_as_scaled_dot_and_all_scores_learn(score: str) -> None:
    layer = ScoredAttention(8, 2, score)
    plain = ScoredAttention(8, 2, "scaled_dot")
    plain.load_state_dict(layer.state_dict(), strict=False)
    x = torch.randn(2, 3, 8)
    same = torch.allclose(layer(x), plain(x), atol=1e-6)
    assert same == (score in {"general", "scaled_dot"})
    layer(x).square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in layer.parameters())


@pytest.mark.parametrize("score", SCORES)
def test_dropout_keeps_the_mean(score: str) -> None:
    layer = ScoredAttention(8, 2, score, dropout=0.4)
    x = torch.randn(1, 3, 8).expand(4000, 3, 8)
    noisy = layer(x)
    assert not torch.allclose(noisy[0], noisy[1])
    assert torch.allclose(noisy.mean(0), layer.eval()(x)[0], atol=0.1)


def test_dropout_acts_on_what_is_added_and_on_the_readout() -> None:
    of = spec(Sequence(30, 3))
    model = build("attention", of, depth=1, dropout=0.4)
    model.layers[0].dropout = 0.0
    inputs = samples(of.input, 8)
    seen: list[Tensor] = []
    model.final_norm.register_forward_hook(lambda _m, given, _o: seen.append(given[0]))
    dropped = (model.features(inputs) == 0).float().mean().item()
    assert dropped == pytest.approx(0.4, abs=0.06)
    unchanged = (seen[0] == model.positions(model.embedding(inputs))).float().mean().item()
    assert unchanged == pytest.approx(0.4, abs=0.03)


@pytest.mark.parametrize("position", ["learned", "sinusoidal", "none"])
def test_order_matters_only_where_positions_are_told(position: str) -> None:
    model = build("attention", spec("tokens"), position=position).eval()
    inputs = samples(spec("tokens").input, 3)
    assert torch.allclose(model(inputs), model(inputs.flip(1)), atol=1e-5) == (position == "none")


@pytest.mark.parametrize(
    ("readout", "hidden_size", "width"),
    [("mean", 0, 8), ("mean", 5, 5), ("flatten", 0, 16 * 8), ("flatten", 5, 16 * 5)],
)
def test_width_of_the_readout(readout: str, hidden_size: int, width: int) -> None:
    of = spec(Image(1, 8, 8))
    model = build("attention", of, dim=8, readout=readout, hidden_size=hidden_size)
    assert model.features(samples(of.input, 2)).shape == (2, width)


def test_images_of_any_number_of_channels_meet_the_queries() -> None:
    for channels in (1, 3, 32):
        of = spec(Image(channels, 8, 8))
        assert build("attention", of, dim=64)(samples(of.input, 2)).shape == (2, 3)


def test_features_need_no_position_beyond_their_own_vectors() -> None:
    assert build("attention", spec(Features(4))).positions is None
    assert build("attention", spec(Sequence(4, 2))).positions is not None


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_heads": 5}, r"model\.num_heads=5: does not divide dim=64; try 4 or 8"),
        ({"dim": 30}, r"model\.num_heads=4: does not divide dim=30; try 3 or 5"),
        ({"score": "scaled"}, r"model\.score='scaled'.*additive"),
        ({"patch_size": 0}, r"model\.patch_size=0"),
    ],
)
def test_wrong_options_are_refused_by_name(options: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build("attention", spec("image"), **options)


@pytest.mark.parametrize("name", ["attention", "transformer"])
def test_patches_have_to_tile_the_image(name: str) -> None:
    with pytest.raises(SpecError, match=rf"model={name} .*model\.patch_size=1\|2\|4\|8"):
        build(name, spec("image"), patch_size=3)
    assert INPUTS["image"] == Image(1, 8, 8)
