"""Tokens, FLOPs and peaks: numbers worked out by hand."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from bigmodel import registry
from bigmodel.data.parts import TextPairs, Texts
from bigmodel.distributed.ranks import Ranks
from bigmodel.models.layers import fast_linear
from bigmodel.spec import Classes, DataSpec, Features, NextTokens, TokenPair, Tokens
from bigmodel.training.loop import fit
from bigmodel.training.throughput import (
    PEAKS,
    Throughput,
    _recurrent_flops,
    peak_of,
    tokens_of,
    training_flops,
)
from tests.small_runs import built


@pytest.fixture(autouse=True)
def _plain_products(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a GPU; the counter does not know oneDNN's own operator."""
    monkeypatch.setattr(fast_linear, "mkl_is_slow", lambda: False)


def flops_of(name: str, spec: DataSpec, sample: torch.Tensor, **options: Any) -> float:
    config = registry.models.parse({"name": name} | options)
    return training_flops(registry.models.build(config, spec), sample)


def test_a_transformer_takes_what_the_literature_says() -> None:
    """6 N + 12 L d T for each token, with N the weights of matrices: 12 L d² and the head."""
    layers, width, length, vocabulary = 3, 32, 20, 50
    spec = DataSpec("text", Tokens(length, vocabulary), NextTokens(vocabulary))
    found = flops_of(
        "transformer",
        spec,
        torch.zeros(1, length, dtype=torch.long),
        dim=width,
        depth=layers,
        num_heads=4,
    )
    matrices = 12 * layers * width**2 + width * vocabulary
    assert found == length * (6 * matrices + 12 * layers * width * length)


def test_a_feed_forward_network_takes_six_for_each_weight() -> None:
    spec = DataSpec("table", Features(7), Classes(("a", "b"), (1, 1)))
    found = flops_of("fnn", spec, torch.zeros(1, 7), hidden_sizes=[16], norm="none")
    assert found == 6 * (7 * 16 + 16 * 2)


def test_counting_leaves_a_model_and_random_numbers_as_they_were() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Dropout(0.5)).train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    state = torch.get_rng_state()
    assert training_flops(model, torch.ones(1, 4)) == 3 * 2 * 16
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(module.training for module in model.modules())
    assert all(parameter.grad is None for parameter in model.parameters())


def test_cudnns_recurrent_layers_count_each_matrix_at_each_step() -> None:
    lstm = nn.LSTM(5, 8, num_layers=2)
    shapes = [parameter.shape for parameter in lstm.parameters()]
    expected = 2 * 3 * 10 * (4 * 8 * 5 + 3 * 4 * 8 * 8)  # 3 samples, 10 steps
    assert _recurrent_flops(torch.Size((3, 10, 5)), shapes, 4, None) == expected


@pytest.mark.parametrize(
    ("name", "precision", "tf32", "teraflops"),
    [
        ("NVIDIA A100-SXM4-80GB", "bf16", True, 312),
        ("NVIDIA A100 80GB PCIe", "fp32", True, 156),
        ("NVIDIA A100 80GB PCIe", "fp32", False, 19.5),
        ("NVIDIA H100 80GB HBM3", "bf16", True, 989),
        ("NVIDIA H100 PCIe", "bf16", True, 756),
        ("NVIDIA H200", "fp16", True, 989),
        ("NVIDIA L4", "bf16", True, 121),
        ("NVIDIA L40S", "bf16", True, 362),
        ("NVIDIA GeForce RTX 4090", "bf16", True, 165),
        ("Tesla V100-SXM2-16GB", "fp16", True, 125),
        ("Tesla V100-SXM2-16GB", "fp32", True, 15.7),  # it has no tf32
        ("Tesla V100-SXM2-16GB", "bf16", True, None),
        ("Tesla T4", "fp16", True, 65),
        ("NVIDIA A100-SXM4-40GB MIG 1g.5gb", "bf16", True, None),
        ("NVIDIA GeForce RTX 4090 Laptop GPU", "bf16", True, None),
        ("NVIDIA A10G", "bf16", True, None),  # not an A10
        ("NVIDIA H200 NVL", "bf16", True, None),
        ("Some GPU of next year", "bf16", True, None),
    ],
)
def test_peaks(name: str, precision: str, tf32: bool, teraflops: float | None) -> None:
    found = peak_of(name, precision, tf32)
    assert found == (None if teraflops is None else pytest.approx(teraflops * 1e12))


def test_no_format_is_slower_than_a_wider_one() -> None:
    for peaks in PEAKS.values():
        falling = [peaks[name] for name in ("bf16", "fp16", "tf32", "fp32") if name in peaks]
        assert falling == sorted(falling, reverse=True)


class _Two(Ranks):
    """The other rank has a GPU like this one, and uses more of its memory."""

    size = 2

    def max(self, number: int) -> int:
        return max(number, 2**32)


def test_mfu_is_what_is_done_over_what_could_be(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda _device: 3 * 2**29)
    speed = Throughput(tokens=100, flops=2e9, peak=1e12, device=torch.device("cuda"))
    assert speed.metrics(200) == pytest.approx(
        {"samples_per_second": 200, "tokens_per_second": 20_000, "mfu": 0.4, "memory_gib": 1.5}
    )
    assert "mfu" not in replace(speed, peak=None).metrics(200)
    two = replace(speed, ranks=_Two()).metrics(200)
    assert two == pytest.approx(speed.metrics(200) | {"mfu": 0.2, "memory_gib": 4})
    assert Throughput().metrics(200) == {"samples_per_second": 200}


def test_on_a_gpu_a_text_takes_flops_for_its_mean_length(monkeypatch: pytest.MonkeyPatch) -> None:
    """A faked device: texts of 2 and 6 tokens, and a sample of 8 to count with."""
    pretended = {
        "reset_peak_memory_stats": lambda _device: None,
        "get_device_name": lambda _device: "NVIDIA L4",
    }
    for name, function in pretended.items():
        monkeypatch.setattr(torch.cuda, name, function)
    texts = Texts(
        torch.zeros(8, dtype=torch.long),
        torch.tensor([0, 2]),
        torch.tensor([2, 6]),
        torch.zeros(2, dtype=torch.long),
        pad=0,
    )
    spec = DataSpec("texts", Tokens(8, 10, pad=0), Classes(("a", "b"), (1, 1)))
    dataset: Any = SimpleNamespace(train=texts, spec=spec)
    runtime: Any = SimpleNamespace(
        device=torch.device("cuda"), precision="bf16", autocast=lambda: torch.no_grad()
    )
    model = nn.Sequential(nn.Embedding(10, 3), nn.Linear(3, 5))
    sample = torch.zeros(1, 8, dtype=torch.long)
    assert Throughput.of(dataset, model, runtime, sample) == Throughput(
        tokens=4.0, flops=4 * 6 * 15, peak=121e12, device=torch.device("cuda")
    )


def test_tokens_of_a_sample() -> None:
    pairs = TextPairs(
        torch.zeros(10, dtype=torch.long),
        torch.tensor([[0, 3], [5, 7]]),
        torch.tensor([[3, 2], [2, 3]]),
        pad=0,
        start=1,
    )
    spec = DataSpec("pairs", TokenPair(3, 9, 0, 1, 2), NextTokens(9))
    assert tokens_of(SimpleNamespace(train=pairs, spec=spec)) == 5.0  # type: ignore[arg-type]
    table = DataSpec("table", Features(3), Classes(("a", "b"), (1, 1)))
    assert tokens_of(SimpleNamespace(train=pairs, spec=table)) is None  # type: ignore[arg-type]


def test_a_run_on_texts_tells_tokens(tmp_path: Path) -> None:
    tokens = {"data.input": "tokens", "data.shape": [8], "data.vocab_size": 20}
    run, told = built(tmp_path, tokens)
    fit(run)
    for record in told.records:
        assert record["tokens_per_second"] == pytest.approx(8 * record["samples_per_second"])
        assert not {"mfu", "memory_gib"} & record.keys()


def test_a_run_on_numbers_tells_samples_alone(tmp_path: Path) -> None:
    run, told = built(tmp_path)
    fit(run)
    assert not {"tokens_per_second", "mfu", "memory_gib"} & told.records[-1].keys()
