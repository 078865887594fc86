"""The private parts of torch: they are there, each can be done without, and nothing else is used."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import bigmodel
from bigmodel.engine import candidates, compiler
from bigmodel.engine.candidates import CompileCandidate, select_engine
from bigmodel.engine.regions import compile_model
from bigmodel.errors import DeviceError
from bigmodel.models.layers import fast_linear
from bigmodel.models.layers.recurrent import Recurrent
from bigmodel.runtime import torch_internals
from bigmodel.runtime.device import DeviceConfig, prepare
from bigmodel.runtime.torch_internals import PARTS, MissingPartError, each, part
from bigmodel.training.loop import fit
from tests.engine.steps import begun, make_batch, needs_compiler, small_step
from tests.models.cases import spec
from tests.small_runs import built

FEATURES = spec("features")
NAMES = {path.rsplit(".", 1)[1] for path in PARTS}
ON_COMPILER = [path for path in PARTS if path.startswith("torch._inductor.")]
EAGER = [
    path for path, text in PARTS.items() if text.startswith("steps stay eager") and "RNN" not in path
]

Take = Callable[[str], None]


def instances() -> dict[str, Callable[[], object]]:
    return {
        "torch.Tensor.": lambda: torch.zeros(1),
        "torch.amp.GradScaler.": lambda: torch.amp.GradScaler,
        "torch.nn.Module.": nn.Module,
        "torch.nn.RNNBase.": lambda: nn.GRU(1, 1),
        "torch.optim.Optimizer.": lambda: torch.optim.Adam([torch.zeros(1)], fused=True),
    }


@pytest.fixture
def without(monkeypatch: pytest.MonkeyPatch) -> Iterator[Take]:
    """Takes a part away."""
    found, of = torch_internals._found, torch_internals._of

    def take(path: str) -> None:
        def gone(instance: object, asked: str, *default: object) -> Any:
            return of(object() if asked == path else instance, asked, *default)

        monkeypatch.setattr(torch_internals, "_found", lambda p: None if p == path else found(p))
        monkeypatch.setattr(torch_internals, "_of", gone)
        fast_linear.mkl_is_slow.cache_clear()

    yield take
    fast_linear.mkl_is_slow.cache_clear()


@pytest.fixture
def untried(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Torch is of a version that was not tried."""
    monkeypatch.setattr(torch_internals, "TRIED", frozenset())
    torch_internals._passes.cache_clear()
    yield
    torch_internals._passes.cache_clear()


# They are there


def test_the_installed_version_was_tried() -> None:
    assert torch_internals.is_tried(), "if all other tests pass, add the version to TRIED"


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of torch, which calls what it deprecates
@pytest.mark.parametrize("path", PARTS)
def test_a_part_is_there(path: str) -> None:
    for prefix, make in instances().items():
        if path.startswith(prefix):
            assert hasattr(make(), path.rsplit(".", 1)[1])
            return
    assert part(path) is not None


@pytest.mark.usefixtures("untried")
@pytest.mark.parametrize("path", torch_internals._CHECKS)
def test_a_part_passes_its_check(path: str) -> None:
    assert part(path) is not None
    assert not torch.compiler.is_compiling()


def test_nothing_is_missing() -> None:
    assert torch_internals.missing() == []


# On another version they are checked


def changed(*_: Any, **__: Any) -> Any:
    return torch.full((1, 1), 7.0)


def removed(*_: Any, **__: Any) -> Any:
    raise TypeError("unexpected keyword argument")


@pytest.mark.usefixtures("untried")
@pytest.mark.parametrize("kernel", [changed, removed])
@pytest.mark.parametrize(
    "path", sorted({*torch_internals._CHECKS} - {"torch.compiler._is_compiling_flag"})
)
def test_a_part_that_does_something_else_is_done_without(
    path: str, kernel: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch_internals, "_found", lambda _: kernel)
    assert part(path) is None


@pytest.mark.usefixtures("untried")
def test_a_flag_that_nothing_reads_is_done_without(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: False)
    assert part("torch.compiler._is_compiling_flag") is None


@pytest.mark.parametrize("path", torch_internals._CHECKS)
def test_a_version_that_was_tried_is_believed(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch_internals, "_passes", pytest.fail)
    monkeypatch.setattr(torch_internals, "is_tried", lambda: True)
    assert part(path) is not None


def test_another_version_is_imported_and_checked_without_the_compiler() -> None:
    lines = [
        "import sys, torch",
        "torch.__version__ = '9.9.0'",
        "from bigmodel.runtime import torch_internals",
        "from bigmodel.engine import candidates",
        "print(torch_internals.is_tried(), torch_internals.missing(), 'torch._dynamo' in sys.modules)",
    ]
    command = [sys.executable, "-W", "ignore", "-c", "\n".join(lines)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout == "False [] False\n"


# What is done without


SETTINGS = {"data.input": "sequence", "data.shape": [3, 2], "trainer.ema": 0.9, "trainer.epochs": 1}


def trained(folder: Path, model: str) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The weights that a run ends with, and the rows of its header."""
    run, recorder = built(folder, SETTINGS | {"model": model})
    fit(run)
    assert recorder.info is not None
    return run.state.model.state_dict(), dict(recorder.info.rows)


@pytest.mark.parametrize("path", [path for path in PARTS if path not in ON_COMPILER])
@pytest.mark.parametrize("model", ["fnn", "rnn"])
def test_a_run_trains_without(path: str, model: str, without: Take, tmp_path: Path) -> None:
    expected, header = trained(tmp_path / "with", model)
    assert "Torch" not in header
    without(path)
    got, header = trained(tmp_path / "without", model)
    for name, value in expected.items():
        torch.testing.assert_close(got[name], value, rtol=1e-3, atol=1e-4)  # for rounding
    of_instance = path.startswith(tuple(instances()))
    assert of_instance or f"without {path} ({PARTS[path]})" in header["Torch"]


@pytest.mark.parametrize("path", EAGER)
@needs_compiler
def test_steps_stay_eager_and_say_why(
    path: str, without: Take, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("BIGMODEL_CACHE", str(tmp_path))
    monkeypatch.setattr(candidates, "report_progress", lambda _: nullcontext())
    monkeypatch.setattr(
        candidates, "_compilers", lambda: (compiler,)
    )  # the other one needs none of these
    step, messages = begun(small_step(), FEATURES), list[str]()
    without(path)
    of = CompileCandidate(step, make_batch(FEATURES), 1.0, 10**6, True, None)
    assert select_engine(of, "compiled", messages.append, nullcontext) is None
    assert messages[-1].startswith("Steps run eagerly: ")
    assert path in messages[-1] or "may have hooks" in messages[-1]
    assert step(make_batch(FEATURES)), "eager steps go on"


def test_torchs_recurrent_layers_stay_eager(without: Take) -> None:
    without("torch.nn.RNNBase._flat_weights")
    with pytest.raises(MissingPartError), torch_internals.recurrent_weights_rebound(nn.GRU(1, 1)):
        pass


@pytest.mark.parametrize("path", [p for p in ON_COMPILER if "compile=true" in PARTS[p]])
@needs_compiler
def test_a_model_is_not_compiled_where_code_would_lie_elsewhere(path: str, without: Take) -> None:
    without(path)
    model = nn.Linear(2, 2)
    (message,) = compile_model(model, torch.device("cpu"))
    assert message.startswith("Steps stay eager: ")
    assert path in message
    assert model(torch.ones(1, 2)).shape == (1, 2)


@pytest.mark.parametrize("operation", ["add_", "mul_", "lerp_", "lerp", "copy_"])
def test_one_by_one_is_the_same(operation: str, without: Take) -> None:
    def operands() -> list[Any]:
        mine, others = [torch.ones(2), torch.arange(3.0)], [torch.full((2,), 3.0), torch.ones(3)]
        more = {"lerp_": [others, 0.25], "lerp": [others, 0.25], "copy_": [others], "add_": [others]}
        return [mine, *more.get(operation, [0.5])]

    options = {"alpha": -2.0} if operation == "add_" else {}
    expected, got = operands(), operands()
    returned = each(operation, *expected, **options)
    without(f"torch._foreach_{operation}")
    again = each(operation, *got, **options)
    torch.testing.assert_close(got[0], expected[0], rtol=0, atol=0)
    torch.testing.assert_close(list(again), list(returned or expected[0]), rtol=0, atol=0)


@pytest.mark.parametrize("bad", [torch.nan, torch.inf, 1.0])
def test_gradients_are_checked_one_by_one(bad: float, without: Take) -> None:
    without("torch._amp_foreach_non_finite_check_and_unscale_")
    flag = torch.zeros(())
    torch_internals.flag_non_finite([torch.ones(3), torch.tensor([1.0, bad])], flag, torch.ones(()))
    assert flag.item() == float(bad != 1.0)


def test_matrices_are_multiplied_by_torch(without: Take) -> None:
    without("torch.ops.mkldnn._linear_pointwise")
    assert not fast_linear.mkl_is_slow()


def test_without_telling_transforms_operations_are_torchs(without: Take) -> None:
    assert fast_linear.is_plain(torch.ones(1), torch.float32)
    without("torch._C._are_functorch_transforms_active")
    assert not fast_linear.is_plain(torch.ones(1), torch.float32)


@pytest.mark.parametrize("kind", [nn.MSELoss, nn.CrossEntropyLoss, nn.HuberLoss])
def test_torchs_losses_are_known_by_their_module(kind: type[nn.Module], without: Take) -> None:
    without("torch.nn.modules.loss._Loss")
    assert torch_internals.is_torchs_loss(kind())
    assert torch_internals.is_torchs_loss(type("Own", (kind,), {})())
    assert not torch_internals.is_torchs_loss(nn.Linear(1, 1))


def test_public_classes_are_derived_from_the_private_ones(without: Take) -> None:
    (norm,), (convolution,) = torch_internals.batch_norm_kinds(), torch_internals.convolution_kinds()
    without("torch.nn.modules.batchnorm._BatchNorm")
    assert all(issubclass(kind, norm) for kind in torch_internals.batch_norm_kinds())
    without("torch.nn.modules.conv._ConvNd")
    assert all(issubclass(kind, convolution) for kind in torch_internals.convolution_kinds())


def test_recurrent_weights_are_named_in_order(without: Take) -> None:
    layer = Recurrent("gru", 2, 3, num_layers=2, bidirectional=True)
    expected = torch_internals.recurrent_names(layer)
    without("torch.nn.RNNBase._flat_weights_names")
    assert torch_internals.recurrent_names(layer) == expected


def test_fp16_is_refused_without_its_flag(without: Take) -> None:
    without("torch.amp.GradScaler._found_inf_per_device")
    with pytest.raises(DeviceError, match=r"precision=fp16: its gradients are scaled"):
        prepare(DeviceConfig(name="cpu", precision="fp16"), 0)


@pytest.mark.parametrize("name", ["_parameters", "_modules"])
def test_a_model_whose_parts_lie_elsewhere_is_not_copied(name: str, without: Take) -> None:
    without(f"torch.nn.Module.{name}")
    with pytest.raises(MissingPartError, match=name):
        torch_internals.shallow_copy(nn.Linear(1, 1))


# Nothing else is used


def private_uses(source: str) -> list[str]:
    """Private parts of torch in Python code, as `LINE: CODE`."""
    tree = ast.parse(source)
    nodes = list(ast.walk(tree))
    torchs = {"torch"}  # names for torch and what is imported from it
    own = {node.attr for node in nodes if isinstance(node, ast.Attribute) and is_own(node, ast.Store)}
    used = []
    for node in nodes:
        if isinstance(node, ast.Import | ast.ImportFrom):
            module = getattr(node, "module", None) or ""
            for alias in node.names:
                full = f"{module}.{alias.name}" if module else alias.name
                if full.split(".")[0] == "torch":
                    torchs.add(alias.asname or full.split(".")[0 if not module else -1])
                    if "._" in full:
                        used.append(f"{node.lineno}: {full}")
    docs = {id(node.value) for node in nodes if isinstance(node, ast.Expr)}
    for node in nodes:
        if isinstance(node, ast.Attribute) and is_private(node.attr):
            root = ast.unparse(node).split(".")[0]
            mine = is_own(node, ast.expr_context) and node.attr in own
            if root in torchs or (node.attr in NAMES and not mine):
                used.append(f"{node.lineno}: {ast.unparse(node)}")
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docs:
            is_path = node.value.startswith("torch.") and "._" in node.value
            if is_path or node.value in NAMES - {"patch", "lowerings"}:
                used.append(f"{node.lineno}: {node.value!r}")
    return used


def is_private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__")


def is_own(node: ast.Attribute, context: type[ast.expr_context]) -> bool:
    """Whether it is `self.NAME`, read or written."""
    return isinstance(node.value, ast.Name) and node.value.id == "self" and isinstance(node.ctx, context)


@pytest.mark.parametrize(
    "source",
    [
        "import torch\ntorch._C.x()",
        "from torch._inductor import config",
        "from torch import nn\nnn.modules.conv._ConvNd",
        "import torch.nn.functional as F\nF._pad",
        "optimizer._optimizer_step_pre_hooks",
        "getattr(part, '_compiled_call_impl', None)",
        "class A:\n    def f(self):\n        return self._flat_weights",
        "tracer = 'torch._dynamo'",
    ],
)
def test_a_private_part_is_found(source: str) -> None:
    assert len(private_uses(source)) == 1


def test_what_is_ones_own_or_public_is_not() -> None:
    own = "class A:\n    def f(self):\n        self._modules = []\n        return self._modules"
    assert private_uses(own) == []
    assert private_uses("import torch\ntorch.nn.Linear(1, 1)\nother._rows") == []
    assert private_uses('"As torch._dynamo."') == []


def test_no_other_file_uses_private_parts_of_torch() -> None:
    package = Path(str(bigmodel.__file__)).parent
    found = {
        str(path.relative_to(package)): uses
        for path in sorted(package.rglob("*.py"))
        if path.name != "torch_internals.py" and (uses := private_uses(path.read_text()))
    }
    assert found == {}
