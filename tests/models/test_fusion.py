"""Several kinds of data in one model: what is missing counts for nothing, and who reads what."""

import pytest
import torch
from torch import Tensor, nn

from bigmodel.errors import ConfigError, SpecError
from bigmodel.models.attention import Attention
from bigmodel.models.cnn import CNN
from bigmodel.models.fnn import FNN
from bigmodel.models.fusion import drop_parts
from bigmodel.models.rnn import RNN
from bigmodel.spec import Features, Image, Multimodal, Tokens
from tests.models.cases import SEVERAL, build, samples, spec, stir

PARTS = range(len(SEVERAL.parts))


def without(inputs: Tensor, part: int, filling: float = 0.0) -> Tensor:
    """The same samples without a part, in whose place stands anything."""
    missing = inputs.clone()
    missing[:, part] = 0.0
    missing[:, SEVERAL.slices[part]] = filling
    return missing


@pytest.mark.parametrize("part", PARTS)
def test_a_missing_part_counts_for_nothing(part: int) -> None:
    model = build("fusion", spec(SEVERAL)).eval()
    stir(model)
    inputs = samples(SEVERAL, 6)
    outputs = model(without(inputs, part))
    assert torch.equal(outputs, model(without(inputs, part, filling=torch.nan)))
    assert not torch.allclose(outputs, model(inputs), atol=1e-3)
    stir(model.encoders[SEVERAL.names[part]])  # nor does whatever would read it
    stir(model.projections[SEVERAL.names[part]])
    assert torch.equal(outputs, model(without(inputs, part)))


def test_a_sample_without_any_part_has_an_output() -> None:
    model = build("fusion", spec(SEVERAL))
    outputs = model(torch.zeros(3, *SEVERAL.shape))
    assert outputs.isfinite().all()
    outputs.sum().backward()
    assert all(p.grad.isfinite().all() for p in model.parameters() if p.grad is not None)


def test_gradients_are_finite_where_parts_are_missing() -> None:
    model = build("fusion", spec(SEVERAL))
    inputs = samples(SEVERAL, 4)
    for part in PARTS:
        inputs[part, part] = 0.0
        inputs[part, SEVERAL.slices[part]] = torch.inf
    model(inputs).square().sum().backward()
    assert all(p.grad.isfinite().all() for p in model.parameters() if p.grad is not None)


def test_parts_are_dropped_in_training_but_never_all() -> None:
    present = torch.rand(4000, 3) < 0.7
    kept = drop_parts(present, 0.5)
    assert (kept <= present).all()
    assert torch.equal(kept.any(1), present.any(1))
    several = present.sum(1) == 3
    # Of three parts, all are lost with probability 1/8; then all are kept.
    assert kept[several].float().mean().item() == pytest.approx(0.5 + 1 / 8, abs=0.03)
    assert torch.equal(drop_parts(present, 0.0), present)


def test_dropping_parts_is_for_training_alone() -> None:
    still = {"dropout": 0.0, "encoders": {"text": {"dropout": 0.0}}}
    model = build("fusion", spec(SEVERAL), modality_dropout=0.6, **still)
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._NormBase):
            module.eval()
    inputs = samples(SEVERAL, 6)
    assert not torch.equal(model(inputs), model(inputs))
    model.eval()
    assert torch.equal(model(inputs), model(inputs))
    sure = build("fusion", spec(SEVERAL), modality_dropout=0.0, **still)
    assert torch.equal(sure(inputs), sure(inputs))


def test_each_part_is_read_by_the_encoder_of_its_kind_or_its_own() -> None:
    usual = build("fusion", spec(SEVERAL)).encoders
    assert [type(encoder) for encoder in usual.values()] == [FNN, CNN, CNN, CNN]
    chosen = {
        "image": "attention",
        "text": {"name": "rnn", "hidden_size": 12},
        "photo": {"channels": [4]},
    }
    encoders = build("fusion", spec(SEVERAL), encoders=chosen).encoders
    assert [type(encoder) for encoder in encoders.values()] == [FNN, CNN, CNN, RNN]
    assert [layer.conv.out_channels for layer in encoders["photo"].layers] == [4]
    del chosen["photo"]
    assert isinstance(build("fusion", spec(SEVERAL), encoders=chosen).encoders["photo"], Attention)


def test_the_encoders_heads_are_not_part_of_it() -> None:
    model = build("fusion", spec(SEVERAL))
    assert not [key for key in model.state_dict() if key.startswith("encoders.") and "head" in key]


@pytest.mark.parametrize("tokens", [1, 3])
def test_parts_become_tokens(tokens: int) -> None:
    model = build("fusion", spec(SEVERAL), tokens_per_part=tokens, dim=8, num_heads=2)
    seen: list[torch.Size] = []
    model.blocks[0].register_forward_hook(lambda _, inputs, __: seen.append(inputs[0].shape))
    model(samples(SEVERAL, 5))
    assert seen == [(5, 1 + 4 * tokens, 8)]


def test_columns_of_any_name_have_modules_of_their_own() -> None:
    names = ("type", "my photo", "my-photo", "größe", "2nd", "keys")
    kind = Multimodal(names, (Features(1),) * 6)
    model = build("fusion", spec(kind))
    assert len(model.encoders) == 6
    assert all(key.replace(".", "_").isidentifier() for key in model.state_dict())
    assert model(samples(kind, 2)).shape == (2, 3)


@pytest.mark.parametrize(
    ("encoders", "words"),
    [
        ({"phot": "cnn"}, r"model\.encoders\.phot: names neither.*Did you mean 'photo'"),
        ({"image": "cn"}, r"model\.encoders\.image\.name='cn': no such model.*Did you mean 'cnn'"),
        ({"image": {"channel": [4]}}, r"model\.encoders\.image\.channel: no such setting.*'channels'"),
        (
            {"photo": "fusion"},
            r"model\.encoders\.photo\.name='fusion': name a model that reads one kind",
        ),
        ({"photo": {"name": 3}}, r"model\.encoders\.photo\.name=3: name a model"),
        ({"photo": "fusio"}, r"name='fusio': no such model\. Known: attention, cnn, fnn, rnn"),
        ({"photo": "vit"}, r"name='vit': vit is model=transformer .*photo\.name=transformer"),
    ],
)
def test_wrong_encoders_are_refused_in_words(encoders: dict[str, object], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        build("fusion", spec(SEVERAL), encoders=encoders)


def test_a_key_that_means_a_kind_and_a_column_of_another_is_refused() -> None:
    kind, words = Tokens(9, 11, pad=0), r"encoders\.text: means both column 'text' .* 'body'\. Rename"
    both = spec(Multimodal(("text", "body"), (kind, kind)))
    with pytest.raises(ConfigError, match=words):
        build("fusion", both, encoders={"text": "rnn"})
    encoders = build("fusion", both, encoders={"body": "rnn"}).encoders
    assert [type(encoder) for encoder in encoders.values()] == [CNN, RNN]
    alone = build("fusion", spec(Multimodal(("text",), (kind,))), encoders={"text": "rnn"})
    assert isinstance(alone.encoders["text"], RNN)


def test_what_an_encoder_refuses_names_its_own_settings() -> None:
    encoders = {"image": {"name": "attention", "patch_size": 3}}
    with pytest.raises(
        SpecError, match=r"model\.encoders\.image\.patch_size=3.*image\.patch_size=1\|2\|4"
    ):
        build("fusion", spec(Image(1, 8, 8)), encoders=encoders)
    with pytest.raises(SpecError, match="model=rnn cannot read data=toy, which holds 2 features"):
        build("fusion", spec(SEVERAL), encoders={"features": "rnn"})
