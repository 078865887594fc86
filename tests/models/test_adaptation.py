import pytest
import torch
from torch import nn

from bigmodel.errors import ConfigError, SpecError
from bigmodel.losses import cross_entropy
from bigmodel.models.adaptation import add_updates, compress_frozen, merge_updates
from bigmodel.models.fine_tuning import FineTuningConfig, LoRAConfig
from bigmodel.models.layers.fast_linear import Linear
from bigmodel.models.layers.frozen import FrozenEmbedding, FrozenLinear, LoRALinear
from bigmodel.registry import losses, models
from tests.models.cases import spec
from tests.test_model_parts import Stack


def tuning(rank=2, freeze=(), **lora):
    lora = {"train": ["head"]} | lora
    return FineTuningConfig(freeze=list(freeze), lora=LoRAConfig(rank=rank, **lora))


def updated(model):
    return [name for name, layer in model.named_modules() if isinstance(layer, LoRALinear)]


def trained(model):
    return {name for name, p in model.named_parameters() if p.requires_grad}


def test_all_linear_layers_in_blocks_have_updates_and_a_new_head_is_trained():
    model = Stack()
    add_updates(model, tuning(train=[]), new=["head.weight", "head.bias"])
    assert updated(model) == [f"blocks.{n}.linear" for n in range(3)]
    updates = {f"blocks.{n}.linear.lora_{m}" for n in range(3) for m in "ab"}
    assert trained(model) == {"head.weight", "head.bias"} | updates


def test_targets_and_what_is_trained_beside_can_be_named():
    model = Stack()
    add_updates(
        model, tuning(targets=["blocks.1-2"], train=["*norm", "head.bias"], freeze=["final_norm"])
    )
    assert updated(model) == ["blocks.1.linear", "blocks.2.linear"]
    assert {"blocks.0.norm.bias", "embedding_norm.weight", "head.bias"} <= trained(model)
    assert not {"head.weight", "final_norm.bias"} & trained(model)


def test_what_was_not_loaded_is_trained_too():
    model = Stack()
    add_updates(model, tuning(), new=["embedding_norm.bias"])
    assert "embedding_norm.bias" in trained(model)


def test_scaling_is_by_the_rank_or_by_its_root():
    factors = [LoRAConfig(rank=16, alpha=8.0, scaling=kind).factor for kind in ("standard", "rslora")]
    assert factors == [0.5, 2.0]


def test_without_a_rank_a_model_stays_as_it_is():
    model = Stack()
    add_updates(model, FineTuningConfig())
    assert (updated(model), len(trained(model))) == ([], len(list(model.parameters())))


def test_targets_that_are_no_linear_layers_are_refused():
    with pytest.raises(ConfigError, match=r"lora.targets: 'blocks.7' is no part .*blocks.0-2"):
        add_updates(Stack(), tuning(targets=["blocks.7"]))
    with pytest.raises(ConfigError, match=r"'blocks.0.norm' has no linear layer that is frozen"):
        add_updates(Stack(), tuning(targets=["blocks.0.norm"]))
    with pytest.raises(ConfigError, match=r"Did you mean '\*.linear'"):
        add_updates(Stack(), tuning(targets=["linear"]))
    with pytest.raises(ConfigError, match=r"lora.train: 'haed' is no part .*Did you mean 'head'"):
        add_updates(Stack(), tuning(train=["haed"]))
    with pytest.raises(ConfigError, match=r"'head' has no linear layer that is frozen"):
        add_updates(Stack(), tuning(targets=["head"]))
    with pytest.raises(ConfigError, match=r"lora.rank=2: this model has no linear layer that is frozen"):
        add_updates(nn.Sequential(nn.Linear(2, 2), nn.ReLU()), tuning(train=["0"]))


def test_without_blocks_all_linear_layers_have_updates():
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    add_updates(model, tuning(train=[]))
    assert updated(model) == ["0", "1"]


def test_layers_of_another_kind_are_refused():
    class Own(nn.Linear):
        pass

    model = Stack()
    model.blocks[1].linear = Own(2, 2)
    with pytest.raises(SpecError, match=r"blocks.1.linear is a Own, and only a torch.nn.Linear"):
        add_updates(model, tuning())


def wide():
    model = nn.Module()
    model.embedding = nn.Embedding(300, 64)
    model.blocks = nn.ModuleList([nn.Linear(128, 128), nn.Linear(128, 128), nn.Linear(8, 8)])
    model.tied = nn.Linear(64, 300, bias=False)
    return model


def test_large_frozen_matrices_are_compressed():
    model = wide()
    model.requires_grad_(False)
    model.blocks[1].requires_grad_(True)
    compress_frozen(model, "int8")
    kinds = [type(part) for part in (model.embedding, *model.blocks, model.tied)]
    assert kinds == [FrozenEmbedding, FrozenLinear, nn.Linear, nn.Linear, FrozenLinear]
    merge_updates(model)
    kinds = [type(part) for part in (model.embedding, *model.blocks, model.tied)]
    assert kinds == [nn.Embedding, Linear, nn.Linear, nn.Linear, Linear]
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    assert all(parameter.requires_grad for parameter in model.parameters())
    assert model.state_dict().keys() == wide().state_dict().keys()


def test_fewer_bits_need_something_that_is_frozen():
    with pytest.raises(ConfigError, match="frozen_precision=bf16: nothing is frozen"):
        compress_frozen(wide(), "bf16")
    compress_frozen(wide(), "fp32")


def test_a_matrix_of_two_layers_is_not():
    model = wide()
    model.tied.weight = model.embedding.weight
    model.requires_grad_(False)
    compress_frozen(model, "bf16")
    assert type(model.embedding) is nn.Embedding
    assert type(model.blocks[0]) is FrozenLinear


@pytest.mark.parametrize("precision", ["fp32", "bf16", "int8"])
def test_a_transformer_with_updates_is_the_same_when_they_are_merged(precision):
    """With the stacked layers of attention and of a gated feed-forward."""
    options = {"name": "transformer", "dim": 128, "num_heads": 4, "depth": 2, "activation": "swiglu"}
    kind = spec("tokens")
    model = models.build(models.parse(options), kind).eval()
    inputs = torch.randint(1, 5, (3, *kind.input.shape))
    before = model(inputs)
    add_updates(model, tuning(rank=3))
    compress_frozen(model, precision)
    tolerance = {"fp32": 1e-5, "bf16": 0.05, "int8": 0.05}[precision]
    torch.testing.assert_close(model(inputs), before, atol=tolerance, rtol=tolerance)
    for name, parameter in model.named_parameters():
        if name.endswith("lora_b"):
            nn.init.normal_(parameter, std=0.1)
    changed = model(inputs)
    assert not torch.allclose(changed, before, atol=1e-2)
    names = model.state_dict().keys()
    merge_updates(model)
    torch.testing.assert_close(model(inputs), changed, atol=1e-4, rtol=1e-4)
    assert model.state_dict().keys() == {
        n for n in names if not n.endswith(("lora_a", "lora_b", "scale"))
    }


def test_a_frozen_head_in_fewer_bits_is_called_by_the_loss(monkeypatch):
    """Which otherwise multiplies by its weight."""
    monkeypatch.setattr(cross_entropy, "_MANY_LOGITS", 0)
    kind = spec("tokens", "next")  # of 11 words
    loss = cross_entropy.CrossEntropy(losses.parse({"name": "cross_entropy"}), kind)
    head = nn.Linear(64, 11).requires_grad_(False)
    features, targets = torch.randn(3, 5, 64), torch.randint(0, 11, (3, 5))
    before = loss.with_head(features, head, targets)
    frozen = FrozenLinear(head)
    frozen.compress("int8")
    torch.testing.assert_close(loss.with_head(features, frozen, targets), before, rtol=1e-2, atol=0)
