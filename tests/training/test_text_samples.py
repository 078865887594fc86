"""What a model writes of held-out texts, and BLEU against sacrebleu's own command."""

import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from bigmodel.build.new_run import build_run
from bigmodel.config import parse
from bigmodel.models.base import Memory, Writer
from bigmodel.models.generation import UndefinedTextsError
from bigmodel.registry import Entry, EntryConfig, models
from bigmodel.reporting.base import EvaluationResult
from bigmodel.training.loop import fit
from bigmodel.training.run import Run
from bigmodel.training.text_samples import SAMPLES, TextSampler, bleu
from tests.distributed.thread_ranks import on_ranks
from tests.small_runs import VALUES, Recorder

MODEL = {"name": "transformer", "dim": 16, "depth": 1, "num_heads": 2}


@pytest.fixture
def text_run(tmp_path: Path) -> Run:
    (tmp_path / "text.txt").write_text("How now, brown cow? " * 80)
    data = {"name": "text", "path": str(tmp_path / "text.txt"), "context": 16, "batch_size": 8}
    return built(tmp_path, data)


@pytest.fixture
def pair_run(tmp_path: Path) -> Run:
    for side, word in (("a", "eins zwei drei"), ("b", "one two three")):
        (tmp_path / side).write_text("".join(f"{word} {n % 7}\n" for n in range(70)))
    data = {"name": "pairs", "source": str(tmp_path / "a"), "target": str(tmp_path / "b")}
    return built(tmp_path, data | {"vocab_size": 300, "test_fraction": 0.2, "bleu_pairs": 3})


def built(folder: Path, data: dict[str, Any]) -> Run:
    return build_run(parse(VALUES | {"model": MODEL, "data": data}), folder / "run")


def judged(run: Run, name: str, samples: bool = True):
    assert isinstance(run.state.model, Writer)
    assert run.text_sampler is not None
    return run.text_sampler.sample(run.state.model, name, lambda: None, samples=samples)


def test_a_text_goes_on_from_its_own_beginnings(text_run):
    metrics, written = judged(text_run, "val")
    assert metrics == {}
    assert len(written) == min(SAMPLES, len(text_run.dataset.val))
    held_out = "How now, brown cow? " * 80
    for text in written:
        assert text.prompt
        assert text.prompt in held_out
        assert len(text.text) == 200
        assert text.truth == ""


def test_samples_are_the_same_each_time_and_leave_random_numbers_alone(text_run):
    before = torch.get_rng_state()
    assert judged(text_run, "val") == judged(text_run, "val")
    assert torch.equal(before, torch.get_rng_state())
    assert judged(text_run, "val", samples=False) == ({}, [])


def test_translations_come_with_source_truth_and_bleu(pair_run):
    assert pair_run.text_sampler.metrics == {"bleu": "max"}
    metrics, written = judged(pair_run, "val", samples=False)
    assert 0 <= metrics["bleu"] <= 100
    assert len(written) == 3  # bleu_pairs
    for pair in written:
        assert pair.prompt.startswith("eins zwei drei")
        assert pair.truth == pair.prompt.replace("eins zwei drei", "one two three")
    _, tested = judged(pair_run, "test")
    assert len(tested) == SAMPLES


def test_what_one_rank_cannot_translate_is_known_to_all(pair_run, monkeypatch):
    from bigmodel.training import text_samples

    real = text_samples.translate

    def nothing(model, sources, *rest):
        if threading.current_thread().name.endswith("1"):
            raise UndefinedTextsError([None] * len(sources))
        return real(model, sources, *rest)

    monkeypatch.setattr(text_samples, "translate", nothing)

    def act(ranks):
        threading.current_thread().name = f"rank {ranks.rank}"
        model, sample = pair_run.state.model, pair_run.text_sampler.sample
        with pytest.raises(UndefinedTextsError) as raised:
            sample(model, "val", lambda: None, samples=False, ranks=ranks)
        return raised.value.texts

    first, other = on_ranks(2, act)
    assert first == other
    assert first.count(None) == 1  # of three


def test_the_whole_test_part_is_translated(pair_run, monkeypatch):
    counted = []
    monkeypatch.setattr(
        "bigmodel.training.text_samples.bleu", lambda said, _: counted.append(len(said)) or 0.0
    )
    judged(pair_run, "test")
    assert counted == [len(pair_run.dataset.test)]


def test_bleu_is_among_the_figures_that_can_choose_the_best(pair_run):
    assert pair_run.text_sampler.metrics == {"bleu": "max"}
    assert pair_run.monitor.name == "val/perplexity"


def test_a_stop_is_heeded_between_two_batches(pair_run):
    def stop() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        pair_run.text_sampler.sample(pair_run.state.model, "val", stop, samples=False)


def test_fewer_are_written_at_once_where_memory_is_little(pair_run, monkeypatch):
    from bigmodel.training import text_samples, validation

    real, sizes = text_samples.translate, []

    def little(model, sources, *rest):
        sizes.append(len(sources))
        if len(sources) > 1:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return real(model, sources, *rest)

    expected, _ = judged(pair_run, "val")
    monkeypatch.setattr(text_samples, "translate", little)
    pair_run = replace(pair_run, sinks=Recorder())
    found = validation._add_texts(pair_run, "val", EvaluationResult({"loss": 1.0}), samples=True)
    assert found.metrics == {"loss": 1.0, **expected}
    assert sizes[-3:] == [1, 1, 1]
    assert "Out of memory with 128 texts written at once" in pair_run.sinks.messages[0]


def test_bleu_of_known_texts():
    """As the command `sacrebleu` scores these, with one reference for each."""
    references = [
        "The dog bit the man.", "It was not unexpected.", "The man bit him first."
    ]  # fmt: skip
    said = ["The dog bit the man.", "It wasn't surprising.", "The man had just bitten him."]
    assert bleu(said, references) == pytest.approx(45.07, abs=0.01)
    assert bleu(references, references) == pytest.approx(100.0)


def test_nothing_is_written_about_other_data(tmp_path):
    run = build_run(parse(VALUES), tmp_path)
    assert run.text_sampler is None
    assert TextSampler.of(run.dataset, run.state.model, torch.device("cpu"), 5, 1) is None


class LastTokens(Memory):
    """A cache with its former name."""

    def __init__(self, tokens):
        self.tokens = tokens

    def select(self, rows):
        return LastTokens(self.tokens[rows])


class Bigram(Writer):
    """Guesses a token from the one before it; its methods have the former names."""

    def __init__(self, config, spec):  # noqa: ARG002
        super().__init__()
        self.embedding = torch.nn.Embedding(spec.target.vocab_size, 8)
        self.head = torch.nn.Linear(8, spec.target.vocab_size)

    def features(self, inputs):
        return self.embedding(inputs.long())

    def begin(self, inputs, lengths, room):  # noqa: ARG002
        memory = LastTokens(inputs[torch.arange(len(inputs)), torch.tensor(lengths) - 1])
        return self(memory.tokens), memory

    def extend(self, tokens, memory):
        memory.tokens = tokens
        return self(tokens)


def test_a_plugin_with_the_former_names_trains_and_writes(tmp_path, monkeypatch):
    (tmp_path / "text.txt").write_text("How now, brown cow? " * 80)
    data = {"name": "text", "path": str(tmp_path / "text.txt"), "context": 16, "batch_size": 8}
    monkeypatch.setitem(models._entries, "bigram", Entry(Bigram, EntryConfig))
    values = VALUES | {"model": {"name": "bigram"}, "data": data}
    run = replace(build_run(parse(values), tmp_path / "run"), sinks=Recorder())
    assert fit(run).status == "finished"
    _, evaluation = run.sinks.evaluations[-1]
    assert [len(text.text) for text in evaluation.generated] == [200] * SAMPLES


def test_no_prompt_reaches_beyond_the_text(tmp_path):
    """The last window may: what it would be filled up with was never written."""
    text = "How now, brown cow? " * 40
    (tmp_path / "text.txt").write_text(text)
    data = {"name": "text", "path": str(tmp_path / "text.txt"), "context": 70, "batch_size": 4}
    run = built(tmp_path, data | {"val_fraction": 0.09})
    assert run.dataset.val.ragged
    _, written = judged(run, "val")
    assert all(sample.prompt in text for sample in written)
