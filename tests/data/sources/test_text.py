"""Long texts: split in their order, in windows that ask for every token, refused in words."""

import gzip
import hashlib
import re
import subprocess
import sys
from functools import partial

import pytest
import torch

from bigmodel.checkpointing.exact_json import dumps, loads
from bigmodel.data.checks import check
from bigmodel.data.fingerprint import Compared, compare, fingerprint
from bigmodel.data.reader import from_plain, to_plain
from bigmodel.data.texts import files as text_files
from bigmodel.data.texts import vocabulary as vocabularies
from bigmodel.errors import ConfigError, DataError
from bigmodel.registry import data
from bigmodel.spec import IGNORED, PackedTokens, Tokens

QUOTE = "To be, or not to be: that is the question.\n" * 20


@pytest.fixture
def quote(tmp_path):
    (tmp_path / "quote.txt").write_text(QUOTE)
    return tmp_path / "quote.txt"


def built(path, **values):
    return data.build(data.parse({"name": "text", "path": str(path), "context": 16, **values}))


def asked(dataset, name):
    """All that a part asks for, in order."""
    part = dataset.part(name)
    _, targets = part.take(slice(0, len(part)))
    return [token for token in targets.flatten().tolist() if token != IGNORED]


@pytest.mark.parametrize("unit", ["character", "byte", "bpe"])
def test_the_last_part_is_held_out_and_all_of_it_is_asked_for(quote, unit):
    dataset = built(quote, unit=unit, val_fraction=0.25)
    check(dataset)
    reader, cut = dataset.reader, round(len(QUOTE) * 0.75)
    assert reader.decode(dataset.train.stream.tolist()) == QUOTE[:cut]
    assert reader.decode(dataset.val.stream.tolist()) == QUOTE[cut:]
    assert asked(dataset, "val") == dataset.val.stream[1:].tolist()
    seen = asked(dataset, "train")
    assert seen == dataset.train.stream[1 : len(seen) + 1].tolist()
    assert len(dataset.train.stream) - 1 - len(seen) < 16
    assert dataset.spec.sizes == {"train": len(dataset.train), "val": len(dataset.val)}


def test_the_spec_counts_tokens_and_their_characters(quote):
    dataset = built(quote)
    different = len(set(QUOTE))
    assert dataset.spec.input == Tokens(16, different)
    assert dataset.spec.target.characters == (1,) * different
    assert dataset.spec.target.end is None
    assert dataset.train.stream.dtype == torch.uint8


def test_the_test_part_is_the_very_last(quote):
    dataset = built(quote, val_fraction=0.25, test_fraction=0.2)
    texts = {n: dataset.reader.decode(p.stream.tolist()) for n, p in dataset.parts.items()}
    assert texts["train"] + texts["val"] + texts["test"] == QUOTE
    assert [len(texts[name]) for name in ("train", "val", "test")] == [516, 172, 172]
    assert dataset.test.ragged


def test_parts_of_their_own(quote, tmp_path):
    for name in ("val", "test"):
        (tmp_path / f"{name}.txt").write_text(f"to be {name[0]}" * 5)
    dataset = built(quote, val_path=str(tmp_path / "val.txt"), unit="byte")
    assert dataset.reader.decode(dataset.train.stream.tolist()) == QUOTE
    assert dataset.reader.decode(dataset.val.stream.tolist()) == "to be v" * 5
    assert dataset.test is None
    dataset = built(quote, test_path=str(tmp_path / "test.txt"))
    assert dataset.reader.decode(dataset.test.stream.tolist()) == "to be t" * 5
    assert len(dataset.val.stream) == 86


def test_an_end_stands_between_several_files(tmp_path):
    for name in "ab":
        (tmp_path / f"{name}.txt").write_text(f"file {name} " * 10)
    dataset = built(tmp_path, val_fraction=0.25)
    end = dataset.spec.target.end
    assert end == dataset.spec.input.vocab_size - 1
    assert dataset.train.stream.tolist().count(end) == 1
    assert dataset.train.stream[70] == end
    assert dataset.reader.decode(dataset.train.stream.tolist()) == "file a " * 10 + ("file b " * 10)[:35]
    assert dataset.spec.target.characters[end] == 0
    check(dataset)


def test_the_vocabulary_is_that_of_the_training_part(tmp_path):
    (tmp_path / "a.txt").write_text(QUOTE + "z" * 9)
    with pytest.raises(
        DataError, match=r"a.txt: the character 'z' .* at position 860 .*data.unit=byte or"
    ):
        built(tmp_path / "a.txt")
    dataset = built(tmp_path / "a.txt", unit="bpe", vocab_size=300)
    check(dataset)
    assert dataset.spec.input.vocab_size < 300
    assert "z" in dataset.reader.decode(dataset.val.stream.tolist())


def test_the_header_describes_text_and_vocabulary(quote):
    header = dict(built(quote).header_rows)
    assert header["Text"] == "860 characters in 1 file, 18 different; first 90 % for training"
    assert header["Vocabulary"] == "18 characters; 774 tokens for training"


def test_files_left_out_are_counted(quote):
    (quote.parent / "wrong.txt").write_bytes(b"\xff")
    assert built(quote.parent, max_bad=1).left_out == {"files that cannot be read": 1}


SHORT = {
    "empty": ("", {}, r"data.path=.*a.txt: there is no text in it"),
    "shorter than a window": (
        QUOTE[:18],
        {},
        r"data.context=16: the training set has 16 tokens, but .* Lower it to at most 15, or provide",
    ),
    "one character": ("a", {}, "Provide more text"),
    "little to judge by": (
        QUOTE[:60],
        {},
        r"data.val_fraction=0.1: the validation set has 6 tokens, too few to evaluate on: at least 8",
    ),
    "little to test": (
        QUOTE,
        {"test_fraction": 0.001},
        r"data.test_fraction=0.001: the test set has",
    ),
}


@pytest.mark.parametrize(("content", "values", "words"), SHORT.values(), ids=SHORT)
def test_too_short(tmp_path, content, values, words):
    (tmp_path / "a.txt").write_text(content)
    with pytest.raises(DataError, match=words):
        built(tmp_path / "a.txt", **values)


def test_a_short_part_of_its_own(quote, tmp_path):
    (tmp_path / "val.txt").write_text("to be")
    with pytest.raises(DataError, match=r"data.val_path=.*val.txt: the validation set has 5 tokens"):
        built(quote, val_path=str(tmp_path / "val.txt"))


def test_options_that_do_not_fit(quote):
    with pytest.raises(ConfigError, match="vocab_size=100"):
        built(quote, unit="bpe", vocab_size=100)
    with pytest.raises(ConfigError, match="unit='word'"):
        built(quote, unit="word")
    with pytest.raises(DataError, match=r"data.tokenizer=none.json: there is no such file"):
        built(quote, tokenizer="none.json")


def test_a_reader_reads_another_text_from_a_checkpoint(quote, tmp_path):
    dataset = built(quote)
    reader = from_plain(loads(dumps(to_plain(dataset.reader))))
    assert reader == dataset.reader
    (tmp_path / "other.txt.gz").write_bytes(gzip.compress(b"not to be: the question"))
    found = reader.read(tmp_path / "other.txt.gz", with_targets=True)
    assert reader.decode(found.part.stream.tolist()) == "not to be: the question"
    inputs, targets = found.part.take(slice(0, len(found.part)))
    assert inputs.shape == (2, 16)
    assert int((targets != IGNORED).sum()) == 22
    assert found.columns == {"first_token": [0, 16]}
    assert reader.read(tmp_path / "other.txt.gz", with_targets=False).columns == found.columns


def test_what_a_reader_refuses(quote, tmp_path):
    reader = built(quote).reader
    (tmp_path / "short.txt").write_text("t")
    with pytest.raises(DataError, match=r"short.txt: 1 token: at least 2 are needed"):
        reader.read(tmp_path / "short.txt", with_targets=True)
    (tmp_path / "other.txt").write_text("to X")
    with pytest.raises(DataError, match=r"other.txt: the character 'X' .* position 3"):
        reader.read(tmp_path / "other.txt", with_targets=True)
    with pytest.raises(DataError, match="3 texts, but the run was trained on a single one"):
        reader.read(tmp_path, with_targets=True)


def test_a_run_on_several_texts_reads_several(tmp_path):
    for name in "ab":
        (tmp_path / f"{name}.txt").write_text(f"file {name} " * 10)
    reader = built(tmp_path).reader
    found = reader.read(tmp_path, with_targets=True)
    assert found.part.stream.tolist().count(reader.vocabulary.end) == 1
    assert len(reader.read(tmp_path / "a.txt", with_targets=True).part.stream) == 70


def test_folds_of_a_text_are_contiguous_blocks_before_the_test_part(quote):
    held_out, cut = "", round(len(QUOTE) * 0.8)
    for fold in range(4):
        dataset = built(quote, folds=4, val_fold=fold, test_fraction=0.2)
        texts = {n: dataset.reader.decode(p.stream.tolist()) for n, p in dataset.parts.items()}
        assert texts["test"] == QUOTE[cut:]
        assert len(texts["val"]) == cut // 4
        held_out += texts["val"]
        first, last = QUOTE[: cut // 4 * fold], QUOTE[cut // 4 * (fold + 1) : cut]
        assert texts["train"].startswith(first)
        assert texts["train"].endswith(last)
    assert held_out == QUOTE[:cut]


@pytest.fixture
def made(monkeypatch):
    """The files that were read to make tokens of them, each time."""
    times, measure = [], text_files.measure_files
    monkeypatch.setattr(
        text_files, "measure_files", lambda *args: times.append(args[0]) or measure(*args)
    )
    return times


def same(one, other):
    """Whether two datasets have the same tokens, vocabulary and header."""
    equal = one.reader == other.reader and one.header_rows == other.header_rows
    return equal and all(
        part.stream.tolist() == other.part(name).stream.tolist() for name, part in one.parts.items()
    )


@pytest.mark.parametrize("unit", ["character", "byte", "bpe"])
def test_tokens_are_made_once_and_mapped(quote, tmp_path, made, unit):
    built_here = partial(built, quote, unit=unit, vocab_size=300, cache=str(tmp_path / "cache"))
    first, again, longer = built_here(), built_here(), built_here(context=20)
    assert len(made) == 1
    assert first.train.mapped
    assert same(first, again)
    assert longer.train.stream.tolist() == first.train.stream.tolist()
    in_memory = built_here(cache=None)
    assert not in_memory.train.mapped
    assert same(first, in_memory)
    assert fingerprint(first) == fingerprint(in_memory)
    for values in ({"val_fraction": 0.2}, {"folds": 2, "val_fold": 1}, {"encoding": "latin-1"}):
        made.clear()
        built_here(**values)
        assert len(made) == 1, values


def test_another_text_is_read_anew_wherever_it_lies(quote, tmp_path, made):
    cache = str(tmp_path / "cache")
    first = built(quote, cache=cache)
    (tmp_path / "moved.txt").write_text(QUOTE)
    assert same(built(tmp_path / "moved.txt", cache=cache), first)
    assert len(made) == 1
    quote.write_text(QUOTE.replace("question", "answer"))
    assert "answer" in (other := built(quote, cache=cache)).reader.decode(other.train.stream.tolist())
    assert len(made) == 2


@pytest.mark.parametrize("cached", [True, False])
def test_a_resumed_run_keeps_its_vocabulary(quote, tmp_path, made, cached):
    cache = str(tmp_path / "cache") if cached else None
    config = data.parse({"name": "text", "path": str(quote), "context": 16, "cache": cache})
    before = data.build(config)
    resumed = data.build(config.resuming(before.preprocessing))
    assert same(resumed, before)
    assert len(made) == (1 if cached else 2)
    quote.write_text(QUOTE.replace("that", "it"))  # has fewer characters
    resumed = data.build(config.resuming(before.preprocessing))
    assert resumed.reader == before.reader
    assert data.build(config).reader != before.reader
    assert data.build(config.resuming(before.preprocessing)).reader == before.reader
    if cached:
        assert len(made) == 3


def test_a_resumed_run_needs_its_tokenizer_no_more(quote, tmp_path):
    learnt = built(quote, unit="bpe", vocab_size=270).reader.vocabulary
    (tmp_path / "tokenizer.json").write_text(learnt.tokenizer)
    named = {"name": "text", "path": str(quote), "context": 16, "cache": str(tmp_path / "cache")}
    config = data.parse({**named, "tokenizer": str(tmp_path / "tokenizer.json")})
    before = data.build(config)
    (tmp_path / "tokenizer.json").unlink()
    assert same(data.build(config.resuming(before.preprocessing)), before)
    with pytest.raises(DataError, match="there is no such file"):
        data.build(config)


@pytest.mark.parametrize("unit", ["character", "byte", "bpe"])
def test_tokens_do_not_depend_on_how_the_text_is_read(tmp_path, monkeypatch, unit):
    for name in "ab":
        (tmp_path / f"{name}.txt").write_text(f"señor {name} 日本 " + QUOTE)
    values = {"unit": unit, "vocab_size": 300, "cache": None, "test_fraction": 0.1}
    monkeypatch.setattr(vocabularies, "CHUNK", 50)
    whole = built(tmp_path, **values)
    monkeypatch.setattr(text_files, "_PIECE", 7)
    monkeypatch.setattr(text_files, "_HEAD", 7)
    assert same(built(tmp_path, **values), whole)


def test_a_run_of_an_earlier_version_knows_its_text_again(quote):
    """Its fingerprint is the SHA-256 of tokens of signed types and of all starts."""
    dataset = built(quote, unit="bpe", vocab_size=300)
    assert dataset.train.stream.dtype == torch.uint16
    digest = hashlib.sha256()
    for name, part in dataset.parts.items():
        stream, starts = part.stream.to(torch.int16), torch.arange(len(part)) * 16
        for what, tensor in (("stream", stream), ("starts", starts)):
            digest.update(f"{name} {what} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
            digest.update(tensor.numpy().tobytes())
    sizes = {name: len(part) for name, part in dataset.parts.items()}
    old = {"sizes": sizes, "exact": digest.hexdigest(), "sums": {}}
    unread = partial(pytest.fail, "it was read again")
    assert compare(old, dataset, None, unread) == Compared()
    changed = compare(old | {"exact": "0"}, dataset, None, unread)
    assert changed.change == "as many samples in each set, but other content"
    assert set(fingerprint(dataset)) == {"sizes", "read"}


def test_a_cache_that_fails_is_told(quote):
    dataset = built(quote, cache=str(quote))
    words = f"{quote} cannot be written (File exists): tokens are kept in memory only"
    assert dict(dataset.header_rows)["Cache"] == words


_BOUNDED = """
import re, resource, sys
from pathlib import Path
import torch
from bigmodel.data.batching.batches import make_batches
from bigmodel.data.fingerprint import fingerprint
from bigmodel.registry import data

torch.set_num_threads(1)
def train(path):
    config = data.parse({"name": "text", "path": path, "cache": sys.argv[3], "context": 8})
    dataset = data.build(config)
    fingerprint(dataset)
    next(iter(make_batches(dataset, "train", config).epoch(0)))

train(sys.argv[1])
used = 1024 * int(re.search(r"VmData:\\s+(\\d+)", Path("/proc/self/status").read_text())[1])
resource.setrlimit(resource.RLIMIT_DATA, (used + int(sys.argv[4]),) * 2)
train(sys.argv[2])
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="limits private memory as Linux does")
def test_memory_does_not_grow_with_the_text(tmp_path):
    """With as much memory as a small text needs, and 10 MB: windows are 8 tokens, so that an order that
    is stored would need as much as the text."""
    (tmp_path / "small.txt").write_text(QUOTE * 1000)
    (tmp_path / "large.txt").write_text(QUOTE * 25_000)
    assert (tmp_path / "large.txt").stat().st_size > 20_000_000
    paths = [str(tmp_path / name) for name in ("small.txt", "large.txt", "cache")]
    command = [
        sys.executable,
        "-c",
        "from bigmodel.data import counter_rng\ncounter_rng.MOST_STORED = 1000\n" + _BOUNDED,
        *paths,
        str(10_000_000),
    ]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr


LINES = [f"{'word ' * (n % 7)}end of line {n}." for n in range(60)]


@pytest.fixture
def lines(tmp_path):
    (tmp_path / "lines.txt").write_text("\n".join(LINES) + "\n")
    return tmp_path / "lines.txt"


def documents_of(dataset, name):
    """The documents that a part asks for, each as its tokens after the first."""
    part = dataset.part(name)
    inputs, targets = part.take(slice(0, len(part)))
    texts = []
    for row, after in zip(inputs, targets, strict=True):
        positions = row[1].tolist() if row.ndim == 2 else [*range(len(row))]
        for position, token in zip(positions, after.tolist(), strict=True):
            if token == IGNORED:
                continue
            if position == 0:
                texts.append([])
            texts[-1].append(token)
    return texts


@pytest.mark.parametrize("packing", ["documents", "padded"])
def test_whole_documents_are_split_at_random_and_all_asked_for(lines, packing):
    dataset = built(lines, packing=packing, document="line", context=80, batch_size=4)
    check(dataset)
    end, decode = dataset.spec.target.end, dataset.reader.decode
    found = {name: documents_of(dataset, name) for name in ("train", "val")}
    assert all(text[-1] == end for texts in found.values() for text in texts)
    assert len(found["val"]) == 6
    assert sorted(decode(text) for texts in found.values() for text in texts) == sorted(LINES)
    other = built(lines, packing=packing, document="line", context=80, split_seed=1)
    assert {decode(text) for text in documents_of(other, "val")} != {decode(t) for t in found["val"]}


def test_packed_documents_take_fewer_rows_and_say_how_full_they_are(lines):
    packed, padded = (
        built(lines, packing=kind, document="line", context=80) for kind in ("documents", "padded")
    )
    assert packed.spec.input == PackedTokens(80, packed.spec.target.vocab_size, packed.spec.target.end)
    assert padded.spec.input.length == 80
    assert len(padded.train) == 54
    assert len(packed.train) < 54 / 2
    assert re.fullmatch(
        r"54 documents in \d+ windows of 80 tokens, \d\d\.\d % full", dict(packed.header_rows)["Packing"]
    )
    assert dict(padded.header_rows)["Padding"] == "54 documents, each in a row of up to 80 tokens"


def test_longer_documents_are_cut(lines):
    dataset = built(lines, packing="documents", document="line", context=16)
    check(dataset)
    assert "longer ones are cut, into" in dict(dataset.header_rows)["Packing"]
    whole = built(lines, packing="documents", document="line", context=80)
    for name in ("train", "val"):
        tokens = [sorted(t for text in documents_of(d, name) for t in text) for d in (dataset, whole)]
        assert tokens[0] == tokens[1]


@pytest.mark.parametrize("packing", ["documents", "padded"])
def test_new_documents_are_read_as_those_of_training(lines, packing):
    dataset = built(lines, packing=packing, document="line", context=80)
    reader = from_plain(loads(dumps(to_plain(dataset.reader))))
    part = reader.read(lines, with_targets=True).part
    again = reader.read_values(LINES).part
    assert torch.equal(part.tokens, again.tokens)
    assert type(part) is type(dataset.train)
    assert reader.prompt("w") == [dataset.spec.target.end, *reader.encode("w")]


def test_folds_hold_out_each_document_once(lines):
    texts = []
    for fold in range(3):
        options = {"packing": "documents", "document": "line", "context": 80}
        dataset = built(lines, folds=3, val_fold=fold, **options)
        check(dataset)
        texts += [dataset.reader.decode(text) for text in documents_of(dataset, "val")]
    assert sorted(texts) == sorted(LINES)


@pytest.mark.parametrize("values", [{"document": "line"}, {"column": "text"}])
def test_a_stream_has_no_documents(lines, values):
    with pytest.raises(ConfigError, match=r"data.packing=stream does not tell documents apart. Set"):
        built(lines, **values)


def test_a_cell_of_a_column_has_no_lines(lines):
    with pytest.raises(ConfigError, match=r"data.document=line: with data.column, each cell is a doc"):
        built(lines, packing="documents", document="line", column="text")


def test_a_single_document_cannot_be_split(quote):
    with pytest.raises(DataError, match=r"a single document, .* data.document=line if each line is one"):
        built(quote, packing="documents")
