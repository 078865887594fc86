"""What holds for every model over every kind of data: a new one arrives tested."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from bigmodel.errors import SpecError
from bigmodel.registry import models
from tests.models.cases import INPUTS, TARGETS, build, samples, spec, stir

REFUSED = {(m, kind) for m in ("cnn", "rnn") for kind in ("features", "categories")}
WRITTEN = [
    *((m, kind, "next") for m in ("rnn", "transformer") for kind in ("tokens", "padded")),
    ("transformer", "pair", "next"),
]
"""What can write, and from what."""
ODD = {"attention": {"patch_size": 1}, "transformer": {"patch_size": 1}}
"""No patch but a pixel tiles 7×5."""


def options(model: str, kind: str) -> dict[str, Any]:
    return ODD.get(model, {}) if kind == "odd_image" else {}


EXTRA: dict[str, dict[str, Any]] = {
    "none": {},
    "flatten": {"readout": "flatten"},
    "mean": {"readout": "mean"},
    "last": {"readout": "last"},
    "max": {"readout": "max"},
    "averages": {"channels": [32, 64, 64, 128], "pooling": "avg", "pool_after": [1, 2, 3, 4]},
    "residual": {"channels": [32, 64, 64, 128], "residual": True},
    "plain": {"channels": [32, 64, 64, 128], "batch_norm": False, "pool_after": [1, 2]},
    "additive": {"score": "additive"},
    "general": {"score": "general", "position": "sinusoidal"},
    "causal": {"causal": True},
    "rotary": {"position": "rotary", "num_kv_heads": 2, "qk_norm": True, "norm_first": False},
    "both_ways": {"bidirectional": True, "num_layers": 2},
    "stepwise": {"bidirectional": True, "num_layers": 2, "fused": False},
    "both_ways_mean": {"bidirectional": True, "readout": "mean", "cell": "lstm"},
}
EXTRA_OF = {
    "attention": ["none", "flatten", "additive", "general"],
    "cnn": ["none", "flatten", "max", "averages", "residual", "plain"],
    "rnn": ["none", "mean", "both_ways", "stepwise", "both_ways_mean"],
    "transformer": ["none", "mean", "last", "causal", "rotary"],
}
"""Options under which padding has to change nothing."""


def score(outputs: Tensor, inputs: Tensor) -> Tensor:
    """A loss: of three classes in turn, or of the next token."""
    if outputs.ndim == 2:
        return F.cross_entropy(outputs, torch.arange(len(outputs), device=outputs.device) % 3)
    asked = (inputs if inputs.ndim == 2 else inputs[:, 1]).roll(-1, 1)
    return F.cross_entropy(outputs.flatten(0, 1), asked.flatten())


SEVERAL = [("fusion", "several")]
"""What reads several kinds of data at once."""

BUILTIN = [n for n in models.names() if models.entry(n).factory.__module__.startswith("bigmodel.")]
READ = [*((m, kind) for m in BUILTIN for kind in INPUTS if (m, kind) not in REFUSED), *SEVERAL]
CASES = [*((m, kind, "classes") for m, kind in READ), *WRITTEN]


def test_the_five_families_are_registered() -> None:
    assert {"attention", "cnn", "fnn", "rnn", "transformer"} <= set(BUILTIN)


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize(("name", "kind"), READ)
def test_outputs_have_the_width_of_the_target(name: str, kind: str, target: str) -> None:
    of = spec(kind, target)
    model = build(name, of, **options(name, kind)).eval()
    for batch in (1, 5):
        inputs = samples(of.input, batch)
        outputs = model(inputs)
        assert outputs.shape == (batch, of.target.output_size)
        assert outputs.dtype == torch.float32
        assert torch.equal(outputs, model.head(model.features(inputs)))


@pytest.mark.parametrize(("name", "kind", "target"), WRITTEN)
def test_what_writes_scores_every_token_at_every_position(name: str, kind: str, target: str) -> None:
    of = spec(kind, target)
    model = build(name, of).eval()
    for length in (1, 4, of.input.length):
        inputs = samples(of.input, 3)[..., :length]
        features = model.features(inputs)
        assert features.shape[:2] == (3, length)
        assert model(inputs).shape == (3, length, 11)
        assert torch.equal(model(inputs), model.head(features))


@pytest.mark.parametrize(("name", "kind"), sorted(REFUSED))
def test_refuses_in_words_what_makes_no_sense(name: str, kind: str) -> None:
    with pytest.raises(
        SpecError, match=rf"model={name} cannot read data=toy, which holds \d features.*model=fnn"
    ):
        build(name, spec(kind))


@pytest.mark.parametrize("name", [name for name in BUILTIN if (name, "several") not in SEVERAL])
def test_refuses_in_words_several_kinds_of_data(name: str) -> None:
    words = (
        rf"model={name} cannot read data=toy, which holds columns \(2 features\), photo.*model=fusion"
    )
    with pytest.raises(SpecError, match=words):
        build(name, spec("several"))


@pytest.mark.parametrize("name", BUILTIN)
def test_refuses_in_words_to_write_where_it_cannot(name: str) -> None:
    if name != "transformer":
        with pytest.raises(
            SpecError, match=f"model={name} cannot read data=toy, which holds pairs.*model=transformer"
        ):
            build(name, spec("pair", "next"))
    if name not in {"rnn", "transformer"}:
        with pytest.raises(
            SpecError, match=f"model={name} cannot write: data=toy.*model=transformer or model=rnn"
        ):
            build(name, spec("tokens", "next"))


@pytest.mark.parametrize("name", ["rnn", "transformer"])
def test_writing_needs_a_text(name: str) -> None:
    with pytest.raises(SpecError, match=f"model={name} writes tokens after tokens.*of images"):
        build(name, spec("image", "next"))


@pytest.mark.parametrize(("name", "kind", "target"), CASES)
def test_gradients_reach_every_parameter(name: str, kind: str, target: str) -> None:
    of = spec(kind, target)
    model = build(name, of, **options(name, kind))
    stir(model)
    inputs = samples(of.input, 8)
    score(model(inputs), inputs).backward()
    for key, parameter in model.named_parameters():
        assert parameter.grad is not None, key
        assert parameter.grad.isfinite().all(), key
        assert parameter.grad.abs().sum() > 0, key


@pytest.mark.parametrize(("name", "kind", "target"), CASES)
def test_learns_one_batch_by_heart(name: str, kind: str, target: str) -> None:
    of = spec(kind, target)
    model = build(name, of, **options(name, kind))
    inputs = samples(of.input, 8)
    if kind in {"tokens", "padded"}:  # eight different texts
        inputs = torch.arange(8)[:, None] + torch.arange(9) % 3
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    losses = []
    for _ in range(60):
        loss = score(model(inputs), inputs)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.2 * losses[0], losses


PADDED = [(m, "padded", "classes") for m in BUILTIN] + [w for w in WRITTEN if w[1] != "tokens"]
PADDED_WITH = [
    (*case, extra)
    for case in PADDED
    for extra in EXTRA_OF.get(case[0], ["none"])
    if not (case[2] == "next" and EXTRA[extra].get("bidirectional"))
]


@pytest.mark.parametrize(("name", "kind", "target", "extra"), PADDED_WITH)
def test_padding_changes_nothing(name: str, kind: str, target: str, extra: str) -> None:
    """Each sample alone and unpadded gives what it gives among longer ones."""
    of = spec(kind, target)
    model = build(name, of, **EXTRA[extra]).eval()
    stir(model)
    inputs = samples(of.input, 6)
    outputs = model(inputs)
    for sample, output in zip(inputs, outputs, strict=True):
        width = int((sample != 0).sum(-1).max())
        alone = model(sample[None, ..., :width])[0]
        assert torch.allclose(output[:width] if target == "next" else output, alone, atol=1e-5)


@pytest.mark.parametrize(("name", "kind", "target"), PADDED)
def test_nothing_but_padding_is_finite_whatever_its_width(name: str, kind: str, target: str) -> None:
    of = spec(kind, target)
    model = build(name, of)
    inputs = torch.zeros(3, *of.input.shape, dtype=torch.int64)
    outputs = model(inputs)
    assert outputs.isfinite().all()
    outputs.sum().backward()
    assert all(p.grad.isfinite().all() for p in model.parameters() if p.grad is not None)
    model.eval()
    assert torch.allclose(model(inputs)[:, :1], model(inputs[..., :2])[:, :1], atol=1e-5)


@pytest.mark.parametrize(("name", "kind", "target"), WRITTEN)
def test_a_later_token_never_changes_what_came_before(name: str, kind: str, target: str) -> None:
    of = spec(kind, target)
    model = build(name, of).eval()
    stir(model)
    inputs = samples(of.input, 2)
    outputs = model(inputs)
    for place in range(1, of.input.length):
        other = inputs.clone()
        other[..., place] = (other[..., place] + 1) % 11
        if kind == "pair":
            other[:, 0] = inputs[:, 0]
        changed = (model(other) - outputs).abs().amax(-1)
        assert (changed[:, :place] < 1e-6).all()
        assert (changed[:, place] > 1e-4).all()


@pytest.mark.parametrize("name", BUILTIN)
def test_evaluation_is_repeatable_and_training_drops(name: str) -> None:
    of = spec("image")
    model = build(name, of, dropout=0.5)
    inputs = samples(of.input)
    assert not torch.equal(model(inputs), model(inputs))
    model.eval()
    assert torch.equal(model(inputs), model(inputs))


@pytest.mark.parametrize(("name", "kind", "target"), CASES)
def test_samples_do_not_see_each_other_in_evaluation(name: str, kind: str, target: str) -> None:
    of = spec(kind, target)
    model = build(name, of, **options(name, kind)).eval()
    inputs = samples(of.input, 4)
    alone = torch.cat([model(sample[None]) for sample in inputs])
    assert torch.allclose(model(inputs), alone, atol=1e-5)


@pytest.mark.parametrize(("name", "kind", "target"), CASES)
def test_bf16_autocast_is_close_to_fp32(name: str, kind: str, target: str) -> None:
    of = spec(kind, target)
    model = build(name, of, **options(name, kind)).eval()
    inputs = samples(of.input, 8)
    exact = model(inputs)
    with torch.autocast("cpu", torch.bfloat16):
        rough = model(inputs)
    score(rough.float(), inputs).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())
    assert (rough.float() - exact).abs().max() < 0.05 * exact.abs().max().clamp(min=1)


@pytest.mark.parametrize("name", BUILTIN)
def test_a_state_comes_back_under_plain_names(name: str) -> None:
    of = spec("image")
    model, other = build(name, of), build(name, of)
    stir(model)
    state = model.state_dict()
    assert all(key.replace(".", "_").isidentifier() for key in state), list(state)
    assert all(value.is_contiguous() for value in state.values())
    other.load_state_dict(state)
    inputs = samples(of.input)
    assert torch.equal(model.eval()(inputs), other.eval()(inputs))


@pytest.mark.parametrize(("name", "kind", "target"), CASES)
def test_a_step_waits_for_nothing_that_a_meta_tensor_lacks(name: str, kind: str, target: str) -> None:
    """Tensors on the meta device have no values: reading one (`.item()`, `if tensor`) would raise."""
    of = spec(kind, target)
    model = build(name, of, **options(name, kind)).to("meta")
    inputs = samples(of.input)
    expected = (5, 3) if target == "classes" else (5, of.input.length, 11)
    assert model(inputs.to("meta")).shape == expected


@pytest.mark.parametrize(("name", "kind", "target"), CASES)
def test_the_compiler_can_trace_it(name: str, kind: str, target: str) -> None:
    of = spec(kind, target)
    model = build(name, of, **options(name, kind)).eval()
    inputs: Tensor = samples(of.input)
    torch.compiler.reset()  # it gives up on a function that it has compiled too often
    compiled = torch.compile(model, backend="eager", fullgraph=True)
    assert torch.allclose(compiled(inputs), model(inputs), atol=1e-6)


@pytest.mark.parametrize(
    ("kind", "target"),
    [case[1:] for case in CASES if case[0] == "transformer" and case[1] in {"tokens", "padded", "pair"}],
)
def test_the_compiler_traces_a_transformer_once_for_all_widths(kind: str, target: str) -> None:
    of = spec(kind, target)
    model = build("transformer", of, **options("transformer", kind)).eval()
    inputs: Tensor = samples(of.input)
    torch.compiler.reset()
    compiled = torch.compile(model, backend="eager", fullgraph=True, dynamic=True)
    for width in (inputs.shape[-1], inputs.shape[-1] - 1):
        narrow = inputs[..., :width]
        assert torch.allclose(compiled(narrow), model(narrow), atol=1e-6)


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize(("name", "kind", "target"), CASES)
def test_agrees_on_cuda(name: str, kind: str, target: str, dtype: torch.dtype) -> None:
    of = spec(kind, target)
    model = build(name, of, **options(name, kind)).eval()
    inputs = samples(of.input, 8)
    exact = model(inputs)
    model.to("cuda")
    assert torch.allclose(model(inputs.cuda()).cpu(), exact, atol=1e-2)
    with torch.autocast("cuda", dtype):
        rough = model(inputs.cuda()).float()
    assert (rough.cpu() - exact).abs().max() < 0.05 * exact.abs().max().clamp(min=1)
    score(rough, inputs.cuda()).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())
