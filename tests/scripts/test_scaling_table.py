"""How training scales on paper: figures by hand, torch's own collectives, and what others measured."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import scaling_table
import torch
import torch.distributed as dist
from collectives import Cluster, Group
from scaling_table import LLAMA, PAGE, WORKS, Scaled, Work, markdown
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from bigmodel.distributed.parallel import Parallel
from bigmodel.distributed.parallelise import parallelise
from bigmodel.distributed.ranks import Ranks
from bigmodel.runtime.device import Runtime
from bigmodel.runtime.parallel_config import Degrees

GPT2, SEVEN = WORKS
RUNTIME = Runtime(torch.device("cpu"), "bf16")
SMALL = Work("small", {"dim": 24, "depth": 2, "num_heads": 2, "causal": True}, 50, 16, 8, 2)
"""50 tokens and 24 channels, which 16 shards do not divide."""


ROUNDS = {"_allgather_base_": 1, "_reduce_scatter_base_": 1, "allreduce_": 2}


class Sent(TorchDispatchMode):
    """Adds up what a rank would send in rings: of what torch gives to its collectives, (n-1)/n, and
    twice that in an all-reduce.

    Args:
        size: that of all groups, instead of their own.
    """

    def __init__(self, size: int | None = None) -> None:
        super().__init__()
        self.size, self.total = size, 0.0

    def __torch_dispatch__(
        self, operator: Any, _types: Any, inputs: Any = (), options: Any = None
    ) -> Any:
        if operator.namespace == "c10d":
            rounds = ROUNDS[operator._opname]
            group = next(given for given in inputs if isinstance(given, torch.ScriptObject))
            size = self.size or dist.ProcessGroup.unbox(group).size()
            whole = max(tensor.nbytes for tensor in _tensors(inputs))
            self.total += rounds * whole * (size - 1) / size
        return operator(*inputs, **(options or {}))


def _tensors(inputs: Any) -> Iterator[Tensor]:
    for given in inputs:
        if isinstance(given, Tensor):
            yield given
        elif isinstance(given, list):
            yield from _tensors(given)


@pytest.fixture
def group(request: pytest.FixtureRequest) -> Iterator[None]:
    """A process group of this process alone: `gloo`, or `fake`, which acts as if it had 16 ranks."""
    size = 16 if request.param == "fake" else 1
    dist.init_process_group(request.param, store=dist.HashStore(), rank=0, world_size=size)
    try:
        yield
    finally:
        dist.destroy_process_group()


def step(parallel: Parallel, runtime: Runtime) -> None:
    tokens = torch.zeros(2, SMALL.context, dtype=torch.long)
    with runtime.autocast():
        parallel.in_training(tokens, lambda features, head: head(features).sum()).backward()
    parallel.collect()


def on_paper(strategy: str, machine: int) -> float:
    traffic = Scaled(Cluster(machine=machine), SMALL, strategy, 16).traffic
    return traffic.nvlink + traffic.network


def ranks_of(size: int) -> Ranks:
    ranks = Ranks()
    ranks.size = size
    return ranks


@pytest.mark.parametrize("group", ["gloo"], indirect=True)
@pytest.mark.usefixtures("group")
def test_ddp_sends_what_torch_does() -> None:
    parallel = parallelise(SMALL.model(), ranks_of(2), Degrees(2), RUNTIME, all_used=True)
    with Sent(size=16) as sent:
        step(parallel, RUNTIME)
    assert sent.total == pytest.approx(on_paper("DDP", 4))


@pytest.mark.parametrize("group", ["fake"], indirect=True)
@pytest.mark.parametrize(
    ("strategy", "degrees"), [("FSDP2", Degrees(1, 16)), ("HSDP", Degrees(4, 4))], ids=["FSDP2", "HSDP"]
)
@pytest.mark.usefixtures("group")
def test_shards_send_what_torch_does(strategy: str, degrees: Degrees) -> None:
    parallel = parallelise(SMALL.model(), ranks_of(16), degrees, RUNTIME, all_used=True)
    with Sent() as sent:
        step(parallel, RUNTIME)
    assert sent.total == pytest.approx(on_paper(strategy, degrees.shard))


def test_weights_and_operations_are_those_of_the_literature() -> None:
    assert GPT2.counts.parameters == 124_439_808
    assert SEVEN.counts.parameters == 6_738_415_616  # Llama 2
    without = {"GPT-2 124M": 1024 * 768, "7B": 32_000 * 4096}  # what is looked up, not multiplied
    for work in WORKS:
        width, depth = work.options["dim"], work.options["depth"]
        products = 6 * (work.counts.parameters - without[work.name])
        attention = 12 * depth * width * work.context
        assert work.counts.flops == pytest.approx(products + attention, rel=1e-3)
    counts = SMALL.counts
    assert [len(shapes) for shapes in (counts.norms, counts.outside, *counts.blocks)] == [10, 4, 8, 8]


def test_rings_and_trees_by_hand() -> None:
    cluster = Cluster()
    one = Group(cluster, 8, 1).ring(8e9)
    assert one == pytest.approx((8.4e-6 + 7 * 3.4e-6 + 7 / 360, 7e9, 0))
    eight = Group(cluster, 64, 8).ring(64e9)
    assert eight == pytest.approx((8.4e-6 + 56 * 3.4e-6 + 7 * 14e-6 + 63 / 320, 63e9 * 7 / 8, 63e9 / 8))
    small = Group(cluster, 128, 128).all_reduce(128.0)
    assert small == pytest.approx((8.4e-6 + 2 * 7 * 14e-6 + 254 / 40e9, 0, 254))  # a tree
    assert Group(cluster, 1, 1).all_reduce(5.0) == (0, 0, 0)


def test_efficiency_by_hand() -> None:
    """GPT-2 on one machine: 14 all-reduces, of which those of embeddings and norms are not hidden."""
    case = Scaled(Cluster(), GPT2, "DDP", 8)
    sent = 2 * 7 / 8 * 4 * 124_439_808
    seconds = sent / 360e9 + 14 * (8.4e-6 + 14 * 3.4e-6)
    assert case.traffic == pytest.approx((seconds, sent, 0))
    assert case.state == 16 * 124_439_808
    computing = 16 * 1024 * GPT2.counts.flops / (0.4 * 989e12)
    others = (50_257 + 1024 + 2 * 25) * 768
    exposed = 2 * 7 / 8 * 4 * others / 360e9 + 2 * (8.4e-6 + 14 * 3.4e-6)
    expected = computing / (computing + seconds), computing / (computing + exposed)
    assert case.efficiency(16) == pytest.approx(expected)
    four = 4 * computing / (4 * computing + seconds), 4 * computing / (4 * computing + exposed)
    assert case.efficiency(64) == pytest.approx(four)


def test_shards_are_gathered_for_each_micro_batch_and_padded() -> None:
    """8 bytes a parameter: of blocks 2 twice and 4 once, of other weights 4 twice."""
    case = Scaled(Cluster(), SEVEN, "FSDP2", 8)
    assert case.traffic.nvlink == pytest.approx(7 / 8 * 8 * 6_738_415_616)
    assert case.efficiency(128) == pytest.approx(case.efficiency(2))
    many = Scaled(Cluster(), SEVEN, "FSDP2", 1024)
    norms = 65 * 4096
    padded = 32 * 4096 * (4 * 4096 + 22 * 1024 + 11_008) + 2 * 32 * 1024 * 4096
    sent = 1023 / 1024 * 8 * (padded + norms)
    assert many.traffic.nvlink + many.traffic.network == pytest.approx(sent)
    assert many.state == pytest.approx(16 * ((6_738_415_616 - norms) / 1024 + norms))


def test_what_torchtitan_measured_lies_within() -> None:
    """Its `benchmarks/llama3_h100_202412_torchtitan.md`: Llama 3.1 8B, two samples of 8,192 tokens on
    each H100, FSDP2; tokens a second and GPU on 8 and on 128, without and with torch.compile."""
    shape = {"num_kv_heads": 8, "mlp_ratio": 1.5 * 14_336 / 4096}
    work = Work("8B", LLAMA | shape, 128_256, 8192, batch=256, micro_batch=2)
    assert work.counts.parameters == 8_030_261_248
    one, sixteen = (Scaled(Cluster(), work, "FSDP2", gpus).efficiency(2) for gpus in (8, 128))
    worst, best = (after / before for before, after in zip(one, sixteen, strict=True))
    assert 0.9 < worst < min(5605 / 5762, 6514 / 6667)
    assert max(5605 / 5762, 6514 / 6667) < best < 1


def test_the_page_has_the_table_of_the_script(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    copy = tmp_path / "distributed.md"
    copy.write_text("before\n<!-- scaling -->\nold\n<!-- /scaling -->\nafter\n", encoding="utf-8")
    monkeypatch.setattr(scaling_table, "PAGE", copy)
    scaling_table.main(["--docs"])
    table = markdown(Cluster())
    assert capsys.readouterr().out == f"{table}\n"
    assert copy.read_text(encoding="utf-8") == (
        f"before\n<!-- scaling -->\n{table}\n<!-- /scaling -->\nafter\n"
    )
    assert f"<!-- scaling -->\n{table}\n<!-- /scaling -->" in PAGE.read_text(encoding="utf-8")
    assert "does not fit" in table


@pytest.mark.parametrize("words", [["--mfu", "0"], ["--used", "1.5"]])
def test_shares_are_shares(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        scaling_table.main(words)
    assert "shares above 0, up to 1" in capsys.readouterr().err
