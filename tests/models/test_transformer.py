"""The transformer against torch's encoder layer and attention with the same weights."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bigmodel.errors import ConfigError, SpecError
from bigmodel.models.layers.blocks import Block, FeedForward, SelfAttention
from bigmodel.models.layers.positions import Rotary
from bigmodel.models.transformer_config import TransformerConfig
from bigmodel.spec import Features, Image, Sequence
from tests.models.cases import build, samples, spec, stir

NAMES = {
    "self_attn.in_proj_": "attention.qkv.",
    "self_attn.out_proj.": "attention.output.",
    "linear1.": "feed_forward.expand.",
    "linear2.": "feed_forward.contract.",
    "norm1.": "attention_norm.",
    "norm2.": "feed_forward_norm.",
}


def renamed(state: dict[str, Tensor]) -> dict[str, Tensor]:
    for theirs, ours in NAMES.items():
        state = {key.replace(theirs, ours): value for key, value in state.items()}
    return state


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("activation", ["gelu", "relu"])
@pytest.mark.parametrize("norm_first", [True, False])
def test_a_block_is_torch_encoder_layer(norm_first: bool, activation: str, causal: bool) -> None:
    config = TransformerConfig(
        name="transformer", dim=16, num_heads=4, mlp_ratio=3.0, activation=activation,
        norm_first=norm_first, causal=causal, dropout=0.0,
    )  # fmt: skip
    reference = nn.TransformerEncoderLayer(
        16, 4, 48, dropout=0.0, activation=activation, batch_first=True, norm_first=norm_first
    )
    stir(reference)
    block = Block(config)
    block.load_state_dict(renamed(reference.state_dict()))
    mask = nn.Transformer.generate_square_subsequent_mask(5) if causal else None
    x = torch.randn(3, 5, 16)
    outputs, expected = block(x), reference(x, src_mask=mask, is_causal=causal)
    assert torch.allclose(outputs, expected, atol=1e-5)
    upstream = torch.randn_like(outputs)
    outputs.backward(upstream)
    expected.backward(upstream)
    theirs = renamed({key: p.grad for key, p in reference.named_parameters() if p.grad is not None})
    for key, parameter in block.named_parameters():
        assert torch.allclose(parameter.grad, theirs[key], atol=1e-4), key


def test_attention_is_torch_multi_head_attention() -> None:
    reference = nn.MultiheadAttention(12, 3, batch_first=True)
    stir(reference)
    ours = SelfAttention(12, 3, 3)
    state = {f"self_attn.{key}": value for key, value in reference.state_dict().items()}
    state = {key.removeprefix("attention."): value for key, value in renamed(state).items()}
    ours.load_state_dict(state)
    x = torch.randn(2, 5, 12)
    assert torch.allclose(ours(x), reference(x, x, x, need_weights=False)[0], atol=1e-5)


@pytest.mark.parametrize("norm_first", [True, False])
def test_dropout_acts_on_the_layer_between_and_on_what_is_added(norm_first: bool) -> None:
    config = TransformerConfig(name="transformer", dim=64, norm_first=norm_first, dropout=0.4)
    block = Block(config)
    x = torch.randn(4, 40, 64)
    added: dict[str, Tensor] = {}
    block.attention_norm.register_forward_hook(lambda _m, given, _o: added.update(first=given[0]))
    block.feed_forward_norm.register_forward_hook(lambda _m, given, _o: added.update(second=given[0]))
    block.feed_forward.contract.register_forward_hook(
        lambda _m, given, _o: added.update(between=given[0])
    )
    outputs = block(x)
    first = added["second" if norm_first else "first"]
    second = outputs if norm_first else added["second"]
    before = first if norm_first else block.attention_norm(first)
    for share in ((first == x), (second == before), (added["between"] == 0)):
        assert share.float().mean().item() == pytest.approx(0.4, abs=0.02)


def test_dropped_weights_leave_the_others_larger() -> None:
    layer = SelfAttention(8, 1, 1, dropout=0.4)
    outputs = layer(torch.ones(4000, 1, 8))  # each sees itself alone, with weight 1, or not at all
    dropped = (outputs == 0).all(-1)
    assert dropped.float().mean().item() == pytest.approx(0.4, abs=0.03)
    kept = layer.eval()(torch.ones(1, 1, 8)) / 0.6
    assert torch.allclose(outputs[~dropped], kept[0].expand_as(outputs[~dropped]), atol=1e-5)


@pytest.mark.parametrize("num_kv_heads", [1, 2])
@pytest.mark.parametrize("causal", [False, True])
def test_grouped_heads_are_full_heads_with_repeated_weights(num_kv_heads: int, causal: bool) -> None:
    grouped = SelfAttention(16, 4, num_kv_heads, causal=causal)
    stir(grouped)
    full = SelfAttention(16, 4, 4, causal=causal)
    full.output.load_state_dict(grouped.output.state_dict())
    for name in ("weight", "bias"):
        query, key, value = (
            getattr(grouped.qkv, name).detach().split([16, 4 * num_kv_heads, 4 * num_kv_heads])
        )
        expanded = [
            part.unflatten(0, (num_kv_heads, 4)).repeat_interleave(4 // num_kv_heads, 0).flatten(0, 1)
            for part in (key, value)
        ]
        getattr(full.qkv, name).data = torch.cat([query, *expanded])
    x = torch.randn(2, 5, 16)
    assert torch.allclose(grouped(x), full(x), atol=1e-5)


def test_rotary_attention_turns_queries_and_keys_but_not_values() -> None:
    rotary = Rotary((5,), 4)
    layer = SelfAttention(8, 2, 2, rotary=rotary)
    x = torch.randn(2, 5, 8)
    query, key, value = (
        part.unflatten(-1, (2, 4)).transpose(1, 2) for part in layer.qkv(x).split(8, dim=-1)
    )
    weights = torch.softmax(rotary(query) @ rotary(key).transpose(-1, -2) / 2, dim=-1)
    expected = layer.output((weights @ value).transpose(1, 2).flatten(2))
    assert torch.allclose(layer(x), expected, atol=1e-5)


def test_swiglu_is_the_formula_at_the_same_cost() -> None:
    gated = FeedForward(48, 128, "swiglu")
    x = torch.randn(3, 48)
    gate, content = gated.expand(x).chunk(2, dim=-1)
    hidden = gate * torch.sigmoid(gate) * content
    assert torch.allclose(gated(x), hidden @ gated.contract.weight.T + gated.contract.bias, atol=1e-5)
    sizes = [
        sum(p.numel() for p in Block(TransformerConfig(name="", dim=48, activation=a)).parameters())
        for a in ("gelu", "swiglu")
    ]
    assert sizes[1] == pytest.approx(sizes[0], rel=0.01)


def test_rmsnorm_divides_by_the_root_mean_square() -> None:
    model = build("transformer", spec("sequence"), norm="rmsnorm")
    stir(model)
    x = torch.randn(2, 6, 64)
    norm = model.final_norm
    expected = x / (x.square().mean(-1, keepdim=True) + 1e-6).sqrt() * norm.weight
    assert torch.allclose(norm(x), expected, atol=1e-5)


@pytest.mark.parametrize("position", ["learned", "sinusoidal", "rotary"])
@pytest.mark.parametrize("norm_first", [True, False])
def test_causal_blocks_leak_nothing_from_the_future(position: str, norm_first: bool) -> None:
    of = spec(Sequence(8, 3))
    model = build("transformer", of, causal=True, position=position, norm_first=norm_first).eval()
    seen: list[Tensor] = []
    model.blocks[-1].register_forward_hook(lambda _m, _i, outputs: seen.append(outputs))
    inputs = samples(of.input, 1).requires_grad_()
    model(inputs)
    direction = torch.randn(64)  # a plain sum is constant after a norm
    for place in range(8):
        (gradient,) = torch.autograd.grad(seen[0][0, place] @ direction, inputs, retain_graph=True)
        reached = gradient[0].abs().sum(-1) > 0
        assert reached.tolist() == [step <= place for step in range(8)]


def test_an_encoder_sees_everything() -> None:
    of = spec(Sequence(8, 3))
    model = build("transformer", of).eval()
    seen: list[Tensor] = []
    model.blocks[-1].register_forward_hook(lambda _m, _i, outputs: seen.append(outputs))
    inputs = samples(of.input, 1).requires_grad_()
    model(inputs)
    (gradient,) = torch.autograd.grad(seen[0][0, 0] @ torch.randn(64), inputs)
    assert (gradient[0].abs().sum(-1) > 0).all()


@pytest.mark.parametrize(
    ("options", "last"),
    [
        ({}, False),
        ({"causal": True}, True),
        ({"readout": "last"}, True),
        ({"causal": True, "readout": "mean"}, False),
    ],
)
@pytest.mark.parametrize("norm_first", [True, False])
def test_readout_follows_from_causal(options: dict[str, object], last: bool, norm_first: bool) -> None:
    model = build("transformer", spec("sequence"), norm_first=norm_first, **options).eval()
    inputs = samples(spec("sequence").input, 2)
    x = model.positions(model.embedding(inputs))
    for block in model.blocks:
        x = block(x)
    if norm_first:
        x = F.layer_norm(x, (64,), model.final_norm.weight, model.final_norm.bias)
    assert torch.allclose(model.features(inputs), x[:, -1] if last else x.mean(1), atol=1e-5)


@pytest.mark.parametrize("position", ["learned", "sinusoidal", "rotary"])
def test_order_matters_for_steps_but_not_for_features(position: str) -> None:
    model = build("transformer", spec("tokens"), position=position).eval()
    inputs = samples(spec("tokens").input, 3)
    assert not torch.allclose(model(inputs), model(inputs.flip(1)), atol=1e-3)
    table = build("transformer", spec(Features(4)), position=position).eval()
    embedded = table.embedding(torch.randn(3, 4))
    swapped = embedded[:, [2, 0, 3, 1]]
    for block in table.blocks:
        embedded, swapped = block(embedded), block(swapped)
    assert torch.allclose(embedded.mean(1), swapped.mean(1), atol=1e-5)


@pytest.mark.parametrize("kind", ["image", "sequence", "tokens", "features"])
def test_all_choices_at_once(kind: str) -> None:
    of = spec(kind)
    model = build(
        "transformer", of, num_kv_heads=2, position="rotary", norm="rmsnorm", activation="swiglu",
        causal=True, dropout=0.2,
    )  # fmt: skip
    assert model.blocks[0].attention.qkv.out_features == 64 + 2 * 2 * 16
    inputs = samples(of.input, 4)
    model(inputs).square().sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_heads": 5}, r"model\.num_heads=5: does not divide dim=64; try 4 or 8"),
        ({"num_kv_heads": 3}, r"model\.num_kv_heads=3: does not divide num_heads=4; try 2 or 4"),
        ({"num_kv_heads": 8}, r"model\.num_kv_heads=8: does not divide num_heads=4; try 4"),
        ({"dim": 12, "position": "rotary"}, r"model\.position='rotary': .*dim=12.*try dim=24"),
        ({"mlp_ratio": 0.0}, r"model\.mlp_ratio=0\.0"),
    ],
)
def test_wrong_options_are_refused_by_name(options: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build("transformer", spec("image"), **options)


def test_rotary_over_an_image_needs_pairs_for_both_axes() -> None:
    with pytest.raises(
        SpecError, match=r"model\.position=rotary .*model\.dim=24 .*such as model\.dim=32"
    ):
        build("transformer", spec(Image(1, 8, 8)), dim=24, position="rotary")
    build("transformer", spec(Sequence(8, 2)), dim=24, position="rotary")
