"""Losses against torch's mean reductions, scikit-learn's weights, and what must be refused."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn.utils.class_weight import compute_class_weight
from torch.utils._python_dispatch import TorchDispatchMode

from bigmodel.errors import ConfigError, SpecError
from bigmodel.losses import Loss, chunked, cross_entropy
from bigmodel.models.transformer import TiedHead
from bigmodel.registry import losses
from bigmodel.spec import IGNORED, Classes, DataSpec, Features, Flags, Multitask, NextTokens, Values

CLASSES = Classes(names=("a", "b", "c"), counts=(50, 30, 20))
FLAGS = Flags(names=("x", "y"))
VALUES = Values(names=("price", "size"), mean=(3.0, 5.0), std=(2.0, 7.0))


def spec(target):
    return DataSpec(name="toy", input=Features(4), target=target)


def build(target, name, **options) -> Loss:
    return losses.build(losses.parse({"name": name, **options}), spec(target))


def batch(target, size=11, seed=0):
    draw = torch.Generator().manual_seed(seed)
    outputs = torch.randn(size, target.output_size, generator=draw, requires_grad=True)
    match target:
        case Classes(count=count):
            targets = torch.randint(count, (size,), generator=draw)
        case Flags(count=count):
            targets = torch.randint(2, (size, count), generator=draw).float()
        case Values(count=count):
            targets = torch.randn(size, count, generator=draw)
    return outputs, targets


def one_hot(targets):
    return torch.eye(3)[targets]


WEIGHTS = [0.5, 1.0, 2.5]
CASES = {
    "cross_entropy": (CLASSES, {}, lambda o, t: F.cross_entropy(o, t)),
    "cross_entropy, smooth": (
        CLASSES,
        {"label_smoothing": 0.1},
        lambda o, t: F.cross_entropy(o, t, label_smoothing=0.1),
    ),
    "cross_entropy, weighted and smooth": (
        CLASSES,
        {"class_weights": WEIGHTS, "label_smoothing": 0.2},
        lambda o, t: F.cross_entropy(o, t, weight=torch.tensor(WEIGHTS), label_smoothing=0.2),
    ),
    "mse": (VALUES, {}, lambda o, t: F.mse_loss(o, t)),
    "l1": (VALUES, {}, lambda o, t: F.l1_loss(o, t)),
    "huber": (VALUES, {"delta": 0.3}, lambda o, t: F.huber_loss(o, t, delta=0.3)),
    "bce_with_logits": (FLAGS, {}, lambda o, t: F.binary_cross_entropy_with_logits(o, t)),
    "bce_with_logits, one weight": (
        FLAGS,
        {"pos_weight": 3},
        lambda o, t: F.binary_cross_entropy_with_logits(o, t, pos_weight=torch.tensor(3.0)),
    ),
    "bce_with_logits, a weight each": (
        FLAGS,
        {"pos_weight": [3.0, 0.5]},
        lambda o, t: F.binary_cross_entropy_with_logits(o, t, pos_weight=torch.tensor([3.0, 0.5])),
    ),
    "bce_with_logits of classes": (
        CLASSES,
        {},
        lambda o, t: F.binary_cross_entropy_with_logits(o, one_hot(t)),
    ),
}
every_case = pytest.mark.parametrize("case", CASES)


def of_case(case):
    target, options, reference = CASES[case]
    return target, build(target, case.split(",")[0].split(" ")[0], **options), reference


@every_case
def test_sum_over_normaliser_is_torchs_mean(case):
    target, loss, reference = of_case(case)
    outputs, targets = batch(target)
    total = loss(outputs, targets)
    assert total.shape == ()
    assert total.dtype == torch.float32
    torch.testing.assert_close(total / loss.normaliser(targets), reference(outputs, targets))


@every_case
def test_gradients_of_unequal_pieces_add_up_to_the_whole_batchs(case):
    target, loss, reference = of_case(case)
    outputs, targets = batch(target)
    (expected,) = torch.autograd.grad(reference(outputs, targets), outputs)
    normaliser = loss.normaliser(targets)
    for piece, truth in zip(outputs.split([4, 4, 3]), targets.split([4, 4, 3]), strict=True):
        (loss(piece, truth) / normaliser).backward()
    torch.testing.assert_close(outputs.grad, expected)


@every_case
def test_low_precision_outputs_are_summed_in_float32(case):
    target, loss, reference = of_case(case)
    outputs, targets = batch(target)
    low = outputs.detach().bfloat16()
    total = loss(low, targets)
    assert total.dtype == torch.float32
    torch.testing.assert_close(total / loss.normaliser(targets), reference(low.float(), targets))


@every_case
def test_never_waits_for_the_device(case):
    """Tensors without data would raise at any look at their values."""
    target, loss, _ = of_case(case)
    outputs, targets = (tensor.detach().to("meta") for tensor in batch(target))
    loss = loss.to("meta")
    assert (loss(outputs, targets) / loss.normaliser(targets)).shape == ()


@pytest.mark.parametrize(
    ("target", "name"), [(CLASSES, "cross_entropy"), (FLAGS, "bce_with_logits"), (VALUES, "mse")]
)
def test_auto_is_the_usual_loss_of_the_target(target, name):
    chosen, named = build(target, "auto"), build(target, name)
    assert type(chosen) is type(named)
    assert chosen.name == name
    outputs, targets = batch(target)
    assert torch.equal(chosen(outputs, targets), named(outputs, targets))


@pytest.mark.parametrize(
    ("target", "name", "words"),
    [
        (CLASSES, "mse", "loss=mse needs real values, but toy has 3 classes. Use loss=cross_entropy"),
        (CLASSES, "huber", "loss=huber needs real values"),
        (VALUES, "cross_entropy", "needs classes or tokens, but toy has 2 real values. Use loss=mse"),
        (FLAGS, "cross_entropy", "toy has 2 yes/no labels. Use loss=bce_with_logits"),
        (FLAGS, "l1", "loss=l1 needs real values"),
        (VALUES, "bce_with_logits", "needs yes/no labels or classes, but toy has 2 real values"),
    ],
)
def test_a_loss_refuses_a_target_it_cannot_score(target, name, words):
    with pytest.raises(SpecError, match=words):
        build(target, name)


@every_case
def test_shapes_are_never_broadcast(case):
    target, loss, _ = of_case(case)
    outputs, targets = batch(target, size=8)
    wrong = [
        (outputs[:, :1], targets),
        (outputs[:4], targets),
        (outputs[:, 0], targets),
        (outputs, targets[:4]),
        (outputs, targets[0]),
        (outputs[:, :1], targets.reshape(8, -1)[:, 0]),
    ]
    for bad_outputs, bad_targets in wrong:
        if (bad_outputs.shape, bad_targets.shape) == (outputs.shape, targets.shape):
            continue
        with pytest.raises(
            SpecError, match=rf"do not go with targets of shape .*batch, {loss.output_size}"
        ):
            loss(bad_outputs, bad_targets)


def test_a_column_is_not_a_row():
    single = Values(names=("y",), mean=(0.0,), std=(1.0,))
    with pytest.raises(SpecError, match=r"\(8, 1\) do not go with targets of shape \(8,\)"):
        build(single, "mse")(torch.zeros(8, 1), torch.zeros(8))


def test_balanced_weights_are_scikit_learns():
    loss = build(CLASSES, "cross_entropy", class_weights="balanced")
    truths = np.repeat([0, 1, 2], CLASSES.counts)
    expected = compute_class_weight("balanced", classes=np.arange(3), y=truths)
    np.testing.assert_allclose(loss.class_weights.numpy(), expected, rtol=1e-6)


def test_weights_move_with_the_loss_but_are_not_saved():
    for loss in (
        build(CLASSES, "cross_entropy", class_weights="balanced"),
        build(FLAGS, "bce_with_logits", pos_weight=2.0),
    ):
        assert loss.state_dict() == {}
        assert [buffer.device.type for buffer in loss.to("meta").buffers()] == ["meta"]


def test_weights_that_do_not_fit_the_data_are_refused():
    with pytest.raises(SpecError, match=r"class_weights=\[1.0, 2.0\]: 2 weights, but toy has 3 classes"):
        build(CLASSES, "cross_entropy", class_weights=[1.0, 2.0])
    with pytest.raises(SpecError, match=r"pos_weight=\[1.0\]: 1 numbers, but toy has 2 yes/no labels"):
        build(FLAGS, "bce_with_logits", pos_weight=[1.0])
    empty = Classes(names=("a", "b"), counts=(5, 0))
    with pytest.raises(SpecError, match="class 'b' of toy has no training sample"):
        build(empty, "cross_entropy", class_weights="balanced")


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        ("cross_entropy", {"label_smoothing": 1.0}, "loss.label_smoothing=1.0: should be less than 1"),
        ("cross_entropy", {"label_smoothing": -0.1}, "greater than or equal to 0"),
        ("cross_entropy", {"class_weights": [1.0, 0.0, 1.0]}, "every weight must be above 0"),
        ("cross_entropy", {"class_weights": "even"}, "should be 'balanced'"),
        ("huber", {"delta": 0.0}, "loss.delta=0.0: should be greater than 0"),
        ("huber", {"delta": float("inf")}, "finite"),
        ("bce_with_logits", {"pos_weight": -1.0}, "loss.pos_weight=-1.0: must be at least 0"),
        ("bce_with_logits", {"pos_weight": [1.0, -1.0]}, "must be at least 0"),
        ("mse", {"delta": 1.0}, "loss.delta: no such setting"),
    ],
)
def test_options_out_of_range_are_refused(name, options, words):
    with pytest.raises(ConfigError, match=words):
        losses.parse({"name": name, **options})


NEXT = NextTokens(vocab_size=7)


def token_batch(size=(3, 5), seed=0):
    draw = torch.Generator().manual_seed(seed)
    outputs = torch.randn(*size, 7, generator=draw, requires_grad=True)
    targets = torch.randint(7, size, generator=draw)
    targets[0, 2:] = IGNORED
    return outputs, targets


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_the_mean_over_tokens_leaves_out_what_nothing_is_asked_of(smoothing):
    loss = build(NEXT, "cross_entropy", label_smoothing=smoothing)
    outputs, targets = token_batch()
    mean = loss(outputs, targets) / loss.normaliser(targets)
    expected = F.cross_entropy(outputs.flatten(0, 1), targets.flatten(), label_smoothing=smoothing)
    torch.testing.assert_close(mean, expected)
    assert int(loss.normaliser(targets)) == 12


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("bias", [True, False])
def test_the_same_loss_and_gradients_where_logits_are_never_all_there(monkeypatch, smoothing, bias):
    monkeypatch.setattr(cross_entropy, "_MANY_LOGITS", 1)
    monkeypatch.setattr(chunked, "POSITIONS", 4)
    draw = torch.Generator().manual_seed(1)
    head = torch.nn.Linear(6, 7, bias=bias)
    features = torch.randn(3, 5, 6, generator=draw, requires_grad=True)
    _, targets = token_batch()
    loss = build(NEXT, "cross_entropy", label_smoothing=smoothing)
    wanted = (features, *head.parameters())
    plain = loss(head(features), targets)
    fused = loss.with_head(features, head, targets)
    torch.testing.assert_close(fused, plain)
    for one, other in zip(
        *(torch.autograd.grad(total, wanted) for total in (fused, plain)), strict=True
    ):
        torch.testing.assert_close(one, other)


def test_weights_of_classes_are_refused_for_tokens():
    with pytest.raises(SpecError, match=r"class_weights='balanced': toy has the next"):
        build(NEXT, "cross_entropy", class_weights="balanced")


def test_auto_scores_tokens_by_cross_entropy():
    assert build(NEXT, "auto").name == "cross_entropy"


def test_tokens_and_outputs_that_do_not_go_together():
    loss, (outputs, targets) = build(NEXT, "cross_entropy"), token_batch()
    with pytest.raises(SpecError, match=r"do not go with targets"):
        loss(outputs[:, :-1], targets)


def test_a_head_that_shares_its_matrix_is_linear_too(monkeypatch):
    monkeypatch.setattr(cross_entropy, "_MANY_LOGITS", 1)
    called = []
    plain = cross_entropy.total_cross_entropy

    def counted(*args):
        called.append(args)
        return plain(*args)

    monkeypatch.setattr(cross_entropy, "total_cross_entropy", counted)
    embedding = torch.nn.Embedding(7, 6)
    features = torch.randn(3, 5, 6, generator=torch.Generator().manual_seed(1))
    _, targets = token_batch()
    loss, head = build(NEXT, "cross_entropy"), TiedHead(embedding)
    torch.testing.assert_close(loss.with_head(features, head, targets), loss(head(features), targets))
    assert len(called) == 1


def many_positions(count=300, width=16, classes=50, seed=0):
    torch.manual_seed(seed)
    targets = torch.randint(classes, (count,))
    targets[::7] = IGNORED
    head = torch.nn.Linear(width, classes)
    return torch.randn(count, width, requires_grad=True), head, targets


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_logits_in_pieces_are_in_mixed_precision_and_sums_are_not(monkeypatch, dtype, smoothing):
    monkeypatch.setattr(chunked, "POSITIONS", 64)
    features, head, targets = many_positions()
    wanted = (features, *head.parameters())
    with torch.autocast("cpu", dtype):
        plain = F.cross_entropy(
            head(features).float(), targets, reduction="sum", label_smoothing=smoothing
        )
        total = chunked.total_cross_entropy(features, head.weight, head.bias, targets, smoothing)
    assert total.dtype == torch.float32
    torch.testing.assert_close(total, plain, rtol=1e-5, atol=0)
    exact = chunked.total_cross_entropy(features, head.weight, head.bias, targets, smoothing)
    assert not torch.equal(total, exact), "those in fp32 are others"
    for ours, theirs in zip(
        *(torch.autograd.grad(value, wanted) for value in (total, plain)), strict=True
    ):
        assert ours.dtype == theirs.dtype == torch.float32
        assert float((ours - theirs).norm() / theirs.norm()) < 0.01


def test_no_sum_leaves_the_range_of_fp16():
    """9,000 positions of a loss of some 9 each; and a weight's gradient of more than 65,504."""
    features, head, _ = many_positions(9000, 8, 8000)
    targets = torch.zeros(9000, dtype=torch.int64)
    rows = (100 * features.detach().abs()).requires_grad_()
    with torch.autocast("cpu", torch.float16):
        total = chunked.total_cross_entropy(rows, head.weight, head.bias, targets)
    gradient, *others = torch.autograd.grad(total, (head.weight, head.bias, rows))
    assert float(total.detach()) > 65504
    assert float(gradient.abs().max()) > 65504
    assert all(bool(value.isfinite().all()) for value in (total, gradient, *others))


def test_logits_in_pieces_are_never_all_there(monkeypatch):
    monkeypatch.setattr(chunked, "POSITIONS", 64)
    features, head, targets = many_positions()

    class Largest(TorchDispatchMode):
        seen = 0

        def __torch_dispatch__(self, operator, types, args=(), kwargs=None):
            result = operator(*args, **(kwargs or {}))
            tensors = result if isinstance(result, tuple | list) else [result]
            self.seen = max(self.seen, *(t.numel() for t in tensors if isinstance(t, torch.Tensor)), 0)
            return result

    with Largest() as largest:
        chunked.total_cross_entropy(features, head.weight, head.bias, targets).backward()
    assert largest.seen <= max(64 * 50, features.numel())


def test_the_backward_pass_of_logits_in_pieces_is_done_once():
    features, head, targets = many_positions()
    total = chunked.total_cross_entropy(features, head.weight, head.bias, targets)
    total.backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="once only"):
        total.backward()


PRICE = Values(("price",), (3.0,), (2.0,))
SEVERAL = Multitask(("price", "kind"), (PRICE, CLASSES))


def test_several_targets_have_the_weighted_sum_of_their_losses():
    outputs = torch.randn(6, 4, requires_grad=True)
    targets = torch.stack([torch.randn(6), torch.arange(6) % 3.0], dim=1)
    plain = (
        F.mse_loss(outputs[:, :1], targets[:, :1]),
        F.cross_entropy(outputs[:, 1:], targets[:, 1].long()),
    )
    for weights, expected in (({}, plain[0] + plain[1]), ({"price": 3.0}, 3 * plain[0] + plain[1])):
        loss = build(SEVERAL, "auto", weights=weights)
        mean = loss(outputs, targets) / loss.normaliser(targets)
        assert torch.allclose(mean, expected)
        gradients = (
            torch.autograd.grad(each, outputs, retain_graph=True)[0] for each in (mean, expected)
        )
        assert torch.allclose(*gradients, atol=1e-6)
    assert build(SEVERAL, "auto", weights={"kind": 0.5}).described == (
        "1 × mse of price + 0.5 × cross_entropy of kind"
    )


def test_wrong_weights_of_targets_are_refused():
    with pytest.raises(ConfigError, match=r"loss\.weights\.pric: there is no such target.*'price'"):
        build(SEVERAL, "auto", weights={"pric": 2.0})
    with pytest.raises(
        ConfigError, match=r"loss\.weights: are for several targets, and toy has 3 classes"
    ):
        build(CLASSES, "auto", weights={"a": 2.0})
    with pytest.raises(ConfigError, match="greater than 0"):
        build(SEVERAL, "auto", weights={"price": 0.0})
    with pytest.raises(SpecError, match=r"loss=mse needs real values.*Use loss=auto\.$"):
        build(SEVERAL, "mse")
    with pytest.raises(SpecError, match="do not go with targets"):
        build(SEVERAL, "auto")(torch.zeros(3, 4), torch.zeros(3, 1))
