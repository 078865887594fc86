"""Recurrent networks against torch.nn.RNN, LSTM and GRU with the same weights."""

from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor, nn

from bigmodel.models.layers import fast_recurrent
from bigmodel.models.layers.recurrent import Recurrent
from bigmodel.spec import Image, Sequence
from tests.models.cases import build, samples, spec

TORCH = {"rnn": nn.RNN, "lstm": nn.LSTM, "gru": nn.GRU}


def pair(cell: str, fused: bool, **options: object) -> tuple[Recurrent, nn.RNNBase]:
    """Ours and torch's with the same weights."""
    reference = TORCH[cell](5, 7, batch_first=True, **options)
    ours = Recurrent(cell, 5, 7, fused=fused, **options)
    ours.load_state_dict(reference.state_dict())
    return ours, reference


@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("num_layers", [1, 2])
@pytest.mark.parametrize("cell", TORCH)
def test_outputs_and_gradients_are_those_of_torch(
    cell: str, num_layers: int, bidirectional: bool, fused: bool
) -> None:
    ours, reference = pair(cell, fused, num_layers=num_layers, bidirectional=bidirectional)
    assert list(ours.state_dict()) == list(reference.state_dict())
    inputs = torch.randn(3, 6, 5, requires_grad=True)
    copy = inputs.detach().clone().requires_grad_()
    outputs, expected = ours(inputs), reference(copy)[0]
    assert torch.allclose(outputs, expected, atol=1e-6)
    upstream = torch.randn_like(outputs)
    outputs.backward(upstream)
    expected.backward(upstream)
    assert torch.allclose(inputs.grad, copy.grad, atol=1e-5)
    for (key, mine), theirs in zip(ours.named_parameters(), reference.parameters(), strict=True):
        assert torch.allclose(mine.grad, theirs.grad, atol=1e-5), key


@pytest.mark.parametrize("cell", TORCH)
def test_stepwise_equations_are_exact(cell: str) -> None:
    ours = Recurrent(cell, 3, 4, fused=False).double()
    inputs = torch.randn(2, 3, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(ours, inputs)


@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize("cell", TORCH)
def test_dropout_acts_between_the_layers_in_training_only(cell: str, fused: bool) -> None:
    ours, reference = pair(cell, fused, num_layers=2, dropout=0.5)
    inputs = torch.randn(3, 6, 5)
    assert not torch.equal(ours(inputs), ours(inputs))
    inputs.requires_grad_()
    ours(inputs).sum().backward()
    assert (inputs.grad == 0).float().mean() < 0.2  # the layers' outputs are dropped, not the inputs
    ours.eval()
    reference.eval()
    assert torch.allclose(ours(inputs), reference(inputs)[0], atol=1e-6)


@pytest.mark.parametrize("cell", TORCH)
def test_weights_put_in_place_of_its_own_count(cell: str) -> None:
    ours, other = Recurrent(cell, 5, 7, num_layers=2), Recurrent(cell, 5, 7, num_layers=2)
    inputs = torch.randn(3, 6, 5)
    replaced = torch.func.functional_call(ours, dict(other.named_parameters()), inputs)
    assert torch.equal(replaced, other(inputs))
    assert not torch.equal(replaced, ours(inputs))


@pytest.mark.parametrize("readout", ["last", "mean"])
@pytest.mark.parametrize("cell", TORCH)
def test_readout_of_both_directions(cell: str, readout: str) -> None:
    of = spec(Sequence(6, 5))
    model = build("rnn", of, cell=cell, hidden_size=7, bidirectional=True, readout=readout)
    reference = TORCH[cell](5, 7, batch_first=True, bidirectional=True)
    reference.load_state_dict(model.recurrent.state_dict())
    inputs = samples(of.input)
    outputs, state = reference(inputs)
    final: Tensor = state[0] if cell == "lstm" else state  # (directions, batch, hidden)
    expected = torch.cat([final[0], final[1]], 1) if readout == "last" else outputs.mean(1)
    assert torch.allclose(model.features(inputs), expected, atol=1e-6)


def test_images_are_read_row_by_row_from_the_top() -> None:
    model = build("rnn", spec(Image(2, 3, 4)))
    rows = build("rnn", spec(Sequence(3, 8)))
    rows.load_state_dict(model.state_dict())
    image = torch.randn(5, 2, 3, 4)
    steps = torch.stack([torch.cat([image[:, 0, row], image[:, 1, row]], 1) for row in range(3)], 1)
    assert torch.allclose(model(image), rows(steps), atol=1e-6)


def test_the_last_state_sees_the_first_step() -> None:
    model = build("rnn", spec("sequence"))
    inputs = samples(spec("sequence").input, 1).requires_grad_()
    model(inputs).sum().backward()
    assert (inputs.grad.abs().sum(-1) > 0).all()


def test_starts_orthogonal_and_remembering() -> None:
    ours = Recurrent("lstm", 5, 7, num_layers=2, bidirectional=True)
    for key, parameter in ours.named_parameters():
        if key.startswith("weight_hh"):
            for gate in parameter.split(7):
                assert torch.allclose(gate @ gate.T, torch.eye(7), atol=1e-5), key
        if key.startswith("bias"):
            forget = 1.0 if "_ih_" in key else 0.0
            assert parameter.tolist() == [0.0] * 7 + [forget] * 7 + [0.0] * 14, key


@pytest.mark.gpu
@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("cell", TORCH)
def test_fused_kernels_on_cuda_agree_without_a_warning(cell: str) -> None:
    fused = Recurrent(cell, 5, 7, num_layers=2, bidirectional=True).to("cuda")
    loop = Recurrent(cell, 5, 7, num_layers=2, bidirectional=True, fused=False).to("cuda")
    loop.load_state_dict(fused.state_dict())
    inputs = torch.randn(3, 6, 5, device="cuda")
    outputs, expected = fused(inputs), loop(inputs)
    assert torch.allclose(outputs, expected, atol=1e-4)
    assert torch.allclose(outputs.cpu(), loop.cpu()(inputs.cpu()), atol=1e-4)
    loop.cuda()
    outputs.square().sum().backward()
    loop(inputs).square().sum().backward()
    for mine, theirs in zip(fused.parameters(), loop.parameters(), strict=True):
        assert torch.allclose(mine.grad, theirs.grad, atol=1e-3)


@pytest.mark.parametrize("bidirectional", [False, True])
def test_dropout_between_layers_is_torchs_own_to_the_bit(bidirectional: bool) -> None:
    """On a CPU torch draws it between the layers too; on CUDA cuDNN would, from a state of its own."""
    ours, reference = pair("lstm", True, num_layers=3, dropout=0.5, bidirectional=bidirectional)
    inputs = torch.randn(4, 6, 5)
    torch.manual_seed(3)
    outputs, state = ours.run(inputs)
    torch.manual_seed(3)
    expected, ends = reference(inputs)
    assert torch.equal(outputs, expected)
    assert all(map(torch.equal, state, ends))
    for mine, theirs in zip(
        torch.autograd.grad(outputs.square().sum(), list(ours.parameters())),
        torch.autograd.grad(expected.square().sum(), list(reference.parameters())),
        strict=True,
    ):
        assert torch.equal(mine, theirs)


class Kernel:
    """Stands for torch's kernel on CUDA: notes what it is called with, and gives zeros."""

    def __init__(self, lstm: bool) -> None:
        self.lstm = lstm
        self.calls: list[dict[str, object]] = []

    def __call__(
        self,
        inputs: Tensor,
        state: Tensor | tuple[Tensor, Tensor],
        weights: list[Tensor],
        *options: object,
    ) -> tuple[Tensor, ...]:
        _, layers, dropout, _, both, _ = options
        parts = state if isinstance(state, tuple) else (state,)
        self.calls.append(
            {
                "dtypes": {tensor.dtype for tensor in (inputs, *parts, *weights)},
                "autocast": torch.is_autocast_enabled("cuda"),
                "layers": layers,
                "dropout": dropout,
                "weights": len(weights),
            }
        )
        width = parts[0].shape[2] * (2 if both else 1)
        return (inputs.new_zeros(*inputs.shape[:2], width), *parts)


@pytest.fixture
def mixed() -> Iterator[Callable[[torch.dtype | None], None]]:
    """Switches mixed precision on CUDA on, which needs no GPU."""
    before = torch.is_autocast_enabled("cuda"), torch.get_autocast_dtype("cuda")

    def switch(dtype: torch.dtype | None) -> None:
        torch.set_autocast_enabled("cuda", dtype is not None)
        torch.set_autocast_dtype("cuda", dtype or before[1])

    yield switch
    torch.set_autocast_enabled("cuda", before[0])
    torch.set_autocast_dtype("cuda", before[1])


@pytest.mark.filterwarnings("ignore:User provided device_type of 'cuda'")
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize(
    ("asked", "computed"),
    [(None, torch.float32), (torch.bfloat16, torch.float32), (torch.float16, torch.float16)],
    ids=str,
)
@pytest.mark.parametrize("cell", TORCH)
def test_cudnn_computes_in_what_was_asked_for_and_drops_nothing(
    cell: str,
    asked: torch.dtype | None,
    computed: torch.dtype,
    training: bool,
    mixed: Callable[[torch.dtype | None], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    kernel = Kernel(cell == "lstm")
    monkeypatch.setattr(torch, {"rnn": "rnn_tanh"}.get(cell, cell), kernel)
    ours = Recurrent(cell, 5, 7, num_layers=2, dropout=0.5).train(training)
    monkeypatch.setattr(torch.Tensor, "is_cuda", True)
    monkeypatch.setattr(fast_recurrent, "is_quicker", lambda *_: False)
    mixed(asked)
    outputs, _ = ours.run(torch.randn(3, 6, 5))
    assert outputs.shape == (3, 6, 7)
    of = {"dtypes": {computed}, "autocast": False, "dropout": 0.0}
    each, whole = of | {"layers": 1, "weights": 4}, of | {"layers": 2, "weights": 8}
    assert kernel.calls == ([each, each] if training else [whole])
