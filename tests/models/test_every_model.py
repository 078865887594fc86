"""What holds for every model over every kind of data: a new one arrives tested."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from bigmodel.errors import SpecError
from bigmodel.registry import models
from tests.models.cases import INPUTS, TARGETS, build, samples, spec, stir

REFUSED = {("cnn", "features"), ("rnn", "features")}
ODD = {"attention": {"patch_size": 1}, "transformer": {"patch_size": 1}}
"""No patch but a pixel tiles 7×5."""


def options(model: str, kind: str) -> dict[str, Any]:
    return ODD.get(model, {}) if kind == "odd_image" else {}


BUILTIN = [n for n in models.names() if models.entry(n).factory.__module__.startswith("bigmodel.")]
READ = [(m, kind) for m in BUILTIN for kind in INPUTS if (m, kind) not in REFUSED]


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


@pytest.mark.parametrize(("name", "kind"), sorted(REFUSED))
def test_refuses_in_words_what_makes_no_sense(name: str, kind: str) -> None:
    with pytest.raises(
        SpecError, match=f"model={name} cannot read data=toy, which holds 4 features.*model=fnn"
    ):
        build(name, spec(kind))


@pytest.mark.parametrize(("name", "kind"), READ)
def test_gradients_reach_every_parameter(name: str, kind: str) -> None:
    of = spec(kind)
    model = build(name, of, **options(name, kind))
    stir(model)
    F.cross_entropy(model(samples(of.input, 8)), torch.arange(8) % 3).backward()
    for key, parameter in model.named_parameters():
        assert parameter.grad is not None, key
        assert parameter.grad.isfinite().all(), key
        assert parameter.grad.abs().sum() > 0, key


@pytest.mark.parametrize(("name", "kind"), READ)
def test_learns_one_batch_by_heart(name: str, kind: str) -> None:
    of = spec(kind)
    model = build(name, of, **options(name, kind))
    inputs, targets = samples(of.input, 8), torch.arange(8) % 3
    if kind == "tokens":  # eight different texts
        inputs = torch.arange(8)[:, None] + torch.arange(9) % 3
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    losses = []
    for _ in range(60):
        loss = F.cross_entropy(model(inputs), targets)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.2 * losses[0], losses


@pytest.mark.parametrize("name", BUILTIN)
def test_evaluation_is_repeatable_and_training_drops(name: str) -> None:
    of = spec("image")
    model = build(name, of, dropout=0.5)
    inputs = samples(of.input)
    assert not torch.equal(model(inputs), model(inputs))
    model.eval()
    assert torch.equal(model(inputs), model(inputs))


@pytest.mark.parametrize(("name", "kind"), READ)
def test_samples_do_not_see_each_other_in_evaluation(name: str, kind: str) -> None:
    of = spec(kind)
    model = build(name, of, **options(name, kind)).eval()
    inputs = samples(of.input, 4)
    alone = torch.cat([model(sample[None]) for sample in inputs])
    assert torch.allclose(model(inputs), alone, atol=1e-5)


@pytest.mark.parametrize(("name", "kind"), READ)
def test_bf16_autocast_is_close_to_fp32(name: str, kind: str) -> None:
    of = spec(kind)
    model = build(name, of, **options(name, kind)).eval()
    inputs = samples(of.input, 8)
    exact = model(inputs)
    with torch.autocast("cpu", torch.bfloat16):
        rough = model(inputs)
    F.cross_entropy(rough.float(), torch.arange(8) % 3).backward()
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


@pytest.mark.parametrize("name", BUILTIN)
def test_a_step_waits_for_nothing_that_a_meta_tensor_lacks(name: str) -> None:
    """Tensors on the meta device have no values: reading one (`.item()`, `if tensor`) would raise."""
    of = spec("image")
    model = build(name, of).to("meta")
    assert model(samples(of.input).to("meta")).shape == (5, 3)


@pytest.mark.parametrize("name", BUILTIN)
def test_the_compiler_can_trace_it(name: str) -> None:
    of = spec("image")
    model = build(name, of).eval()
    inputs: Tensor = samples(of.input)
    compiled = torch.compile(model, backend="eager", fullgraph=True)
    assert torch.allclose(compiled(inputs), model(inputs), atol=1e-6)


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize(("name", "kind"), READ)
def test_agrees_on_cuda(name: str, kind: str, dtype: torch.dtype) -> None:
    of = spec(kind)
    model = build(name, of, **options(name, kind)).eval()
    inputs = samples(of.input, 8)
    exact = model(inputs)
    model.to("cuda")
    assert torch.allclose(model(inputs.cuda()).cpu(), exact, atol=1e-2)
    with torch.autocast("cuda", dtype):
        rough = model(inputs.cuda()).float()
    assert (rough.cpu() - exact).abs().max() < 0.05 * exact.abs().max().clamp(min=1)
    F.cross_entropy(rough, torch.arange(8, device="cuda") % 3).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())
