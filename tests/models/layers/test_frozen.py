"""Low-rank updates against the formula, and matrices in fewer bits against those in fp32."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from bigmodel.models.layers.fast_linear import Linear
from bigmodel.models.layers.frozen import FrozenEmbedding, FrozenLinear, LoRALinear, compressed, restored


def layer(stacked=None, bias=True):
    torch.manual_seed(0)
    made = Linear(6, 10, bias=bias)
    made.stacked = stacked
    return made.requires_grad_(False)


def updated(stacked=None, **options):
    made = LoRALinear(layer(stacked), rank=2, scaling=0.5, **options)
    nn.init.normal_(made.lora_b)
    return made


@pytest.mark.parametrize("stacked", [None, [4, 3, 3]])
def test_it_begins_as_the_frozen_layer(stacked):
    inputs = torch.randn(4, 3, 6)
    assert torch.equal(LoRALinear(layer(stacked), 2, 8.0)(inputs), layer(stacked)(inputs))


def test_it_computes_the_formula():
    lora, inputs = updated(), torch.randn(4, 6)
    expected = F.linear(inputs, lora.weight, lora.bias) + 0.5 * inputs @ lora.lora_a.T @ lora.lora_b.T
    torch.testing.assert_close(lora(inputs), expected)


def test_each_stacked_layer_has_an_update_of_its_own():
    """As three layers apart would have, with the rows of A and B that are theirs."""
    lora, inputs = updated([4, 3, 3]), torch.randn(4, 6)
    assert (lora.lora_a.shape, lora.lora_b.shape) == ((6, 6), (10, 2))
    parts = []
    for number, (start, end) in enumerate([(0, 4), (4, 7), (7, 10)]):
        alone = nn.Linear(6, end - start)
        alone.weight, alone.bias = (
            nn.Parameter(lora.weight[start:end]),
            nn.Parameter(lora.bias[start:end]),
        )
        part = LoRALinear(alone, 2, 0.5)
        part.lora_a = nn.Parameter(lora.lora_a[2 * number : 2 * number + 2])
        part.lora_b = nn.Parameter(lora.lora_b[start:end])
        parts.append(part(inputs))
    torch.testing.assert_close(lora(inputs), torch.cat(parts, dim=1))
    assert torch.linalg.matrix_rank(lora.update()) == 6  # and not 2, as of one update for all


@pytest.mark.parametrize("stacked", [None, [4, 3, 3]])
@pytest.mark.parametrize("precision", ["fp32", "bf16", "int8"])
@pytest.mark.parametrize("bias", [True, False])
def test_merged_it_is_a_usual_layer_with_the_same_outputs(stacked, precision, bias):
    lora = LoRALinear(layer(stacked, bias), 2, 0.5)
    nn.init.normal_(lora.lora_b)
    lora.compress(precision)
    merged, inputs = lora.merged(), torch.randn(4, 6)
    assert (type(merged), merged.stacked) == (Linear, stacked)
    assert merged.state_dict().keys() == layer(stacked, bias).state_dict().keys()
    torch.testing.assert_close(merged(inputs), lora(inputs))


def test_only_the_update_has_gradients():
    lora = updated()
    inputs = torch.randn(4, 6, requires_grad=True)
    lora(inputs).sum().backward()
    assert {n for n, p in lora.named_parameters() if p.grad is not None} == {"lora_a", "lora_b"}
    expected = torch.ones(4, 10) @ (lora.weight + lora.update())
    torch.testing.assert_close(inputs.grad, expected)


def test_dropout_is_of_the_update_s_inputs_in_training_alone():
    lora, inputs = updated(dropout=0.5), torch.randn(4, 6)
    assert not torch.equal(lora(inputs), lora(inputs))
    lora.eval()
    assert torch.equal(lora(inputs), lora(inputs))
    plain = LoRALinear(layer(), 2, 0.5, dropout=0.5)  # an update of zero
    assert torch.equal(plain(inputs), layer()(inputs))


@pytest.mark.parametrize("precision", ["bf16", "int8"])
def test_gradients_go_through_a_compressed_weight(precision):
    frozen = FrozenLinear(layer())
    frozen.compress(precision)
    inputs = torch.randn(4, 3, 6, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: frozen(x), inputs)
    assert frozen.weight.dtype == {"bf16": torch.bfloat16, "int8": torch.int8}[precision]


def test_under_autocast_products_are_in_its_precision():
    frozen = FrozenLinear(layer())
    frozen.compress("int8")
    inputs = torch.randn(4, 6, requires_grad=True)
    with torch.autocast("cpu", torch.bfloat16):
        outputs = frozen(inputs)
    assert outputs.dtype == torch.bfloat16
    outputs.float().sum().backward()
    torch.testing.assert_close(outputs.float(), frozen.merged()(inputs), atol=0.05, rtol=0.02)


def test_no_number_in_int8_is_off_by_more_than_half_a_step():
    weight = torch.randn(50, 30) * torch.logspace(-3, 3, 50)[:, None]
    weight[7] = 0
    stored, scale = compressed(weight, "int8")
    assert (stored.dtype, scale.shape) == (torch.int8, (50, 1))
    error = (restored(stored, scale) - weight).abs()
    assert (error <= 0.5001 * weight.abs().amax(1, keepdim=True) / 127).all()
    assert stored.abs().amax() == 127


def test_what_is_stored_takes_less_memory():
    weight = nn.Linear(64, 256).weight
    sizes = [
        sum(t.nbytes for t in compressed(weight, p) if t is not None) for p in ("fp32", "bf16", "int8")
    ]
    assert sizes == [65536, 32768, 16384 + 1024]


@pytest.mark.parametrize("precision", ["bf16", "int8"])
def test_an_embedding_looks_up_the_same_rows(precision):
    """And can be shown, copied and saved like any other."""
    torch.manual_seed(0)
    embedding = nn.Embedding(20, 8, padding_idx=0)
    frozen, tokens = FrozenEmbedding(embedding, precision), torch.tensor([[0, 3], [19, 3]])
    found = frozen(tokens)
    assert (found.dtype, found.shape) == (torch.float32, (2, 2, 8))
    torch.testing.assert_close(found, embedding(tokens), atol=0.02, rtol=0.01)
    assert "20, 8, padding_idx=0" in repr(frozen)
    merged = frozen.merged()
    assert type(merged) is nn.Embedding
    assert merged.padding_idx == 0
    assert torch.equal(merged(tokens), found)


@pytest.mark.parametrize("precision", ["bf16", "int8"])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_in_half_precision_it_computes_what_the_merged_layer_does(precision, dtype):
    """Also where sums of unscaled int8 would be beyond fp16, whose largest number is 65,504."""
    torch.manual_seed(0)
    made = Linear(1024, 16)
    made.weight = nn.Parameter(torch.full((16, 1024), 0.02) + 0.001 * torch.randn(16, 1024))
    frozen, inputs = FrozenLinear(made.requires_grad_(False)), torch.rand(2, 1024)
    frozen.compress(precision)
    ours, theirs = (inputs.clone().requires_grad_() for _ in range(2))
    with torch.autocast("cpu", dtype):
        outputs, expected = frozen(ours), frozen.merged()(theirs)
    outputs.float().sum().backward()
    expected.float().sum().backward()
    assert outputs.isfinite().all()
    torch.testing.assert_close(outputs, expected, rtol=0, atol=2 * torch.finfo(dtype).eps * 16)
    assert torch.equal(ours.grad, theirs.grad)
