"""Transformers that write and translate, against torch's own layers and the papers' formulas."""

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
import yaml
from torch import Tensor, nn

from bigmodel.errors import ConfigError, SpecError
from bigmodel.models.layers.blocks import Block, CrossAttention, FeedForward, SelfAttention
from bigmodel.models.transformer_config import TransformerConfig
from bigmodel.registry import models
from bigmodel.spec import DataSpec, NextTokens, Tokens
from tests.models.cases import PAIR, build, samples, spec, stir
from tests.models.test_transformer import NAMES

DECODER_NAMES = {
    "multihead_attn.out_proj.": "cross_attention.output.",
    "norm2.": "cross_attention_norm.",
    "norm3.": "feed_forward_norm.",
} | {key: value for key, value in NAMES.items() if key != "norm2."}
GPT2 = DataSpec("gpt2", Tokens(1024, 50257), NextTokens(50257))


def ours_of(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The weights of torch's decoder layer under our names."""
    renamed = {}
    for key, value in state.items():
        if ".in_proj_" in key and key.startswith("multihead_attn"):
            kind = key.rsplit("_", 1)[-1]
            size = len(value) // 3
            renamed[f"cross_attention.query.{kind}"] = value[:size]
            renamed[f"cross_attention.key_value.{kind}"] = value[size:]
            continue
        for theirs, mine in DECODER_NAMES.items():
            if key.startswith(theirs):
                key = key.replace(theirs, mine)
                break
        renamed[key] = value
    return renamed


@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("norm_first", [True, False])
def test_a_decoder_block_is_torch_decoder_layer(norm_first: bool, padded: bool) -> None:
    config = TransformerConfig(
        name="transformer", dim=16, num_heads=4, mlp_ratio=3.0, norm_first=norm_first, dropout=0.0
    )
    reference = nn.TransformerDecoderLayer(
        16, 4, 48, dropout=0.0, activation="gelu", batch_first=True, norm_first=norm_first
    )
    stir(reference)
    block = Block(config, causal=True, reads_source=True)
    block.load_state_dict(ours_of(reference.state_dict()))
    x, source = torch.randn(3, 5, 16), torch.randn(3, 7, 16)
    real = torch.arange(7) < torch.tensor([[7], [4], [1]])
    outputs = block(x, None, None, block.read(source), real[:, None, None] if padded else None)
    expected = reference(
        x, source, tgt_is_causal=True, tgt_mask=nn.Transformer.generate_square_subsequent_mask(5),
        memory_key_padding_mask=torch.zeros(3, 7).masked_fill(~real, -torch.inf) if padded else None,
    )  # fmt: skip
    assert torch.allclose(outputs, expected, atol=1e-5)
    upstream = torch.randn_like(outputs)
    outputs.backward(upstream)
    expected.backward(upstream)
    theirs = ours_of({key: p.grad for key, p in reference.named_parameters() if p.grad is not None})
    for key, parameter in block.named_parameters():
        assert torch.allclose(parameter.grad, theirs[key], atol=1e-4), key


def test_cross_attention_is_torch_multi_head_attention() -> None:
    reference = nn.MultiheadAttention(12, 3, batch_first=True)
    stir(reference)
    ours = CrossAttention(12, 3, 3, 0.0, True, False)
    state = {f"multihead_attn.{key}": value for key, value in reference.state_dict().items()}
    ours.load_state_dict(
        {key.removeprefix("cross_attention."): value for key, value in ours_of(state).items()}
    )
    x, source = torch.randn(2, 5, 12), torch.randn(2, 8, 12)
    expected = reference(x, source, source, need_weights=False)[0]
    assert torch.allclose(ours(x, ours.read(source)), expected, atol=1e-5)


@pytest.mark.parametrize("norm_first", [True, False])
def test_a_translator_is_torch_transformer(norm_first: bool) -> None:
    of = spec("pair", "next")
    model = build("transformer", of, norm_first=norm_first, dropout=0.0, activation="relu")
    stir(model)
    encoder = nn.TransformerEncoderLayer(64, 4, 256, 0.0, batch_first=True, norm_first=norm_first)
    decoder = nn.TransformerDecoderLayer(64, 4, 256, 0.0, batch_first=True, norm_first=norm_first)
    inputs = samples(of.input, 4)
    x, y = (model.positions(model.embedding(row)) for row in inputs.unbind(1))
    padding = inputs[:, 0] == PAIR.pad
    # the layers of torch, loaded with each block's weights in turn
    for block in model.encoder:
        names = {mine: theirs for theirs, mine in NAMES.items()}
        encoder.load_state_dict(renamed(block.state_dict(), names))
        x = encoder(x, src_key_padding_mask=padding)
    x = x if model.encoder_norm is None else model.encoder_norm(x)
    for block in model.decoder:
        state = dict(block.state_dict())
        for kind in ("weight", "bias"):
            parts = [state.pop(f"cross_attention.{name}.{kind}") for name in ("query", "key_value")]
            state[f"multihead_attn.in_proj_{kind}"] = torch.cat(parts)
        decoder.load_state_dict(renamed(state, {mine: theirs for theirs, mine in DECODER_NAMES.items()}))
        mask = nn.Transformer.generate_square_subsequent_mask(7)
        y = decoder(y, x, mask, memory_key_padding_mask=padding, tgt_is_causal=True)
    y = y if model.final_norm is None else model.final_norm(y)
    assert torch.allclose(model.features(inputs), y, atol=1e-4)


def renamed(state: dict[str, Tensor], names: dict[str, str]) -> dict[str, Tensor]:
    found = {}
    for key, value in state.items():
        start = next((mine for mine in names if key.startswith(mine)), "")
        found[names.get(start, "") + key.removeprefix(start)] = value
    return found


@pytest.mark.parametrize("norm_first", [True, False])
def test_a_language_model_is_torch_encoder_with_a_causal_mask(norm_first: bool) -> None:
    model = build("transformer", spec("tokens", "next"), norm_first=norm_first, dropout=0.0)
    stir(model)
    layer = nn.TransformerEncoderLayer(
        64, 4, 256, 0.0, activation="gelu", batch_first=True, norm_first=norm_first
    )
    inputs = samples(spec("tokens").input, 3)
    x = model.positions(model.embedding(inputs))
    for block in model.blocks:
        layer.load_state_dict(renamed(block.state_dict(), {mine: t for t, mine in NAMES.items()}))
        x = layer(x, nn.Transformer.generate_square_subsequent_mask(9), is_causal=True)
    x = x if model.final_norm is None else model.final_norm(x)
    assert torch.allclose(model(inputs), model.head(x), atol=1e-4)


def test_a_source_is_read_in_both_directions_and_by_every_position() -> None:
    model = build("transformer", spec("pair", "next")).eval()
    stir(model)
    inputs = torch.randint(3, 11, (1, 2, 7))
    outputs = model(inputs)
    for place in range(7):
        other = inputs.clone()
        other[0, 0, place] = (other[0, 0, place] - 2) % 8 + 3
        assert ((model(other) - outputs).abs().amax(-1) > 1e-4).all()


def test_queries_and_keys_are_normalised_in_each_head() -> None:
    layer = SelfAttention(12, 3, 3, qk_norm=True)
    stir(layer)
    x = torch.randn(2, 5, 12)
    query, key, value = (
        part.unflatten(-1, (3, 4)).transpose(1, 2) for part in layer.qkv(x).split(12, dim=-1)
    )
    for norm in (layer.query_norm, layer.key_norm):
        assert norm.weight.shape == (4,)
    query = query / (query.square().mean(-1, keepdim=True) + 1e-6).sqrt() * layer.query_norm.weight
    key = key / (key.square().mean(-1, keepdim=True) + 1e-6).sqrt() * layer.key_norm.weight
    mixed = torch.softmax(query @ key.transpose(-1, -2) / 2, dim=-1) @ value
    assert torch.allclose(layer(x), layer.output(mixed.transpose(1, 2).flatten(2)), atol=1e-5)


@pytest.mark.parametrize(
    ("activation", "formula"),
    [
        ("relu_squared", lambda x: x.clamp(min=0) ** 2),
        ("gelu_tanh", lambda x: 0.5 * x * (1 + (0.7978845608 * (x + 0.044715 * x**3)).tanh())),
    ],
)
def test_activations_are_their_formulas(activation: str, formula: Any) -> None:
    layer = FeedForward(8, 32, activation)
    x = torch.randn(3, 8)
    assert torch.allclose(layer(x), layer.contract(formula(layer.expand(x))), atol=1e-5)


def preset(name: str) -> dict[str, Any]:
    path = Path(__file__).parents[3] / "configs" / "model" / f"{name}.yaml"
    values: dict[str, Any] = yaml.safe_load(path.read_text(encoding="utf-8"))
    return values


def test_the_preset_has_the_parameters_of_gpt2() -> None:
    with torch.device("meta"):
        model = models.build(models.parse(preset("gpt2")), GPT2)
    assert sum(p.numel() for p in model.parameters()) == 124_439_808
    assert model(torch.zeros(1, 1024, dtype=torch.int64, device="meta")).shape == (1, 1024, 50257)


def test_weights_start_as_those_of_gpt2() -> None:
    of = DataSpec("text", Tokens(64, 500), NextTokens(500))
    values = preset("gpt2") | {"dim": 256, "depth": 3, "num_heads": 4}
    model = models.build(models.parse(values), of)
    for key, value in model.state_dict().items():
        if key.endswith("bias"):
            assert not value.any(), key
        elif "norm" not in key:
            small = key.endswith(("output.weight", "contract.weight"))
            expected = 0.02 / 6**0.5 if small else 0.02
            assert value.std().item() == pytest.approx(expected, rel=0.05), key
    loss = F.cross_entropy(model(torch.randint(500, (4, 64))).flatten(0, 1), torch.randint(500, (256,)))
    assert loss.item() == pytest.approx(torch.tensor(500.0).log().item(), abs=0.1)


@pytest.mark.parametrize("initialisation", ["xavier", "gpt2"])
@pytest.mark.parametrize("kind", ["tokens", "pair"])
def test_tied_embeddings_are_one_matrix(kind: str, initialisation: str) -> None:
    of = spec(kind, "next")
    options = {"tied_embeddings": True, "initialisation": initialisation, "dropout": 0.0}
    model = build("transformer", of, **options)
    plain = build("transformer", of, bias=True)
    count = sum(p.numel() for p in plain.parameters()) - sum(p.numel() for p in model.parameters())
    assert count == 64 * 11 + 11
    assert "head.weight" not in model.state_dict()
    assert model.head.weight is model.embedding.weight
    inputs = samples(of.input, 4)
    features = model.features(inputs)
    assert torch.allclose(model(inputs), features @ model.embedding.weight.T, atol=1e-5)
    assert 0.001 < model(inputs).std() < 2
    model(inputs).logsumexp(-1).sum().backward()
    assert model.embedding.weight.grad.abs().amin(1).gt(0).any()
    other = build("transformer", of, **options)
    other.load_state_dict(model.state_dict())
    assert torch.equal(other(inputs), model(inputs))


def test_outputs_can_start_at_zero() -> None:
    for kind in ("tokens", "pair"):
        of = spec(kind, "next")
        model = build("transformer", of, zero_init_outputs=True, initialisation="gpt2").eval()
        inputs = samples(of.input, 2)
        assert not model(inputs).any()
        known = inputs if kind == "tokens" else inputs[:, 1]
        entered = model.positions(model.embedding(known))
        assert torch.allclose(model.features(inputs), model.final_norm(entered), atol=1e-6)


@pytest.mark.parametrize("norm", ["layernorm", "rmsnorm"])
def test_biases_can_be_left_out(norm: str) -> None:
    for kind in ("tokens", "pair"):
        model = build("transformer", spec(kind, "next"), bias=False, norm=norm)
        assert not [key for key in model.state_dict() if key.endswith("bias")]


def test_the_encoder_may_have_a_depth_of_its_own() -> None:
    model = build("transformer", spec("pair", "next"), depth=1, encoder_depth=3)
    assert (len(model.encoder), len(model.decoder)) == (3, 1)
    same = build("transformer", spec("pair", "next"), depth=3)
    assert len(same.encoder) == 3


@pytest.mark.parametrize(
    ("of", "message"),
    [
        (spec("tokens"), r"model\.tied_embeddings=true needs tokens .*data=toy holds 9 tokens"),
        (spec("image"), r"model\.tied_embeddings=true"),
        (DataSpec("two", Tokens(4, 9), NextTokens(8)), r"model\.tied_embeddings=true"),
    ],
)
def test_embeddings_are_tied_only_where_tokens_are_asked_for(of: DataSpec, message: str) -> None:
    with pytest.raises(SpecError, match=message):
        build("transformer", of, tied_embeddings=True)


def test_pairs_have_the_next_token_as_target() -> None:
    with pytest.raises(SpecError, match=r"translates the pairs of data=toy.*3 classes"):
        build("transformer", spec("pair"))


def test_a_network_that_reads_backwards_cannot_write() -> None:
    with pytest.raises(SpecError, match=r"model\.bidirectional=true.*seen the next token"):
        build("rnn", spec("tokens", "next"), bidirectional=True)
    with pytest.raises(ConfigError, match=r"model\.encoder_depth=0"):
        build("transformer", spec("pair", "next"), encoder_depth=0)
