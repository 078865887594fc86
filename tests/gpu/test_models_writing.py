"""Writing on CUDA: the same tokens with a memory and without, in full and in half precision.

pytest -m gpu
"""

from typing import Any

import pytest
import torch

from bigmodel.models.generation import Sampling, generate, translate
from bigmodel.models.layers.recurrent import Recurrent
from tests.models.generation.test_generation import (
    DRAWN,
    GREEDY,
    PAIRS,
    PROMPTS,
    SOURCES,
    TEXT,
    TRANSFORMERS,
    WRITERS,
    Uncached,
    writer,
)
from tests.models.layers.test_padding import TORCH

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]


@pytest.mark.parametrize("sampling", [GREEDY, DRAWN], ids=["greedy", "drawn"])
@pytest.mark.parametrize("options", WRITERS.values(), ids=WRITERS)
def test_tokens_are_those_of_reading_everything_anew(
    options: dict[str, Any], sampling: Sampling
) -> None:
    model = writer(options).to("cuda")
    texts = generate(model, PROMPTS, sampling, TEXT, "cuda")
    assert texts == generate(Uncached(model), PROMPTS, sampling, TEXT, "cuda")


@pytest.mark.parametrize("options", TRANSFORMERS.values(), ids=TRANSFORMERS)
def test_translations_are_those_of_reading_everything_anew(options: dict[str, Any]) -> None:
    model = writer(options, PAIRS).to("cuda")
    for sampling in (GREEDY, Sampling(beams=3)):
        texts = translate(model, SOURCES, sampling, PAIRS, "cuda")
        assert texts == translate(Uncached(model), SOURCES, sampling, PAIRS, "cuda")


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("options", WRITERS.values(), ids=WRITERS)
def test_half_precision_writes(options: dict[str, Any], dtype: torch.dtype) -> None:
    model = writer(options).to("cuda")
    with torch.autocast("cuda", dtype):
        texts = generate(model, PROMPTS, DRAWN, TEXT, "cuda")
    assert [len(text) for text in texts] == [DRAWN.max_tokens] * len(PROMPTS)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("cell", TORCH)
def test_both_directions_agree_without_a_warning(cell: str) -> None:
    fused = Recurrent(cell, 5, 7, 2, bidirectional=True).to("cuda")
    loop = Recurrent(cell, 5, 7, 2, bidirectional=True, fused=False).to("cuda")
    loop.load_state_dict(fused.state_dict())
    x, lengths = torch.randn(4, 6, 5, device="cuda"), torch.tensor([6, 3, 1, 5], device="cuda")
    real = (torch.arange(6, device="cuda") < lengths[:, None]).unsqueeze(-1)
    outputs, expected = fused(x, lengths) * real, loop(x, lengths) * real
    assert torch.allclose(outputs, expected, atol=1e-4)
    outputs.square().sum().backward()
    expected.square().sum().backward()
    for mine, theirs in zip(fused.parameters(), loop.parameters(), strict=True):
        assert torch.allclose(mine.grad, theirs.grad, atol=1e-3)
