"""Conversations as data: answers alone are learnt, and a template goes with its tokenizer."""

import json
import re

import pytest
import torch

from bigmodel.checkpointing.exact_json import dumps, loads
from bigmodel.data.checks import check
from bigmodel.data.reader import from_plain, to_plain
from bigmodel.errors import ConfigError, DataError
from bigmodel.registry import data
from bigmodel.spec import IGNORED, PackedTokens, Tokens
from tests.data.texts.chat_templates import CHATML, small_tokenizer


def chat(number):
    turns = [
        message
        for turn in range(1 + number % 3)
        for message in (
            {"role": "user", "content": f"say {turn}"},
            {"role": "assistant", "content": f"{number} says {turn}"},
        )
    ]
    return {"messages": turns}


CHATS = [chat(number) for number in range(40)]
SAID = sorted(m["content"] for c in CHATS for m in c["messages"] if m["role"] == "assistant")


def written(path, chats=CHATS):
    path.write_text("\n".join(map(json.dumps, chats)))
    return path


@pytest.fixture
def chats(tmp_path):
    return written(tmp_path / "chats.jsonl")


def built(path, **values):
    return data.build(data.parse({"name": "chat", "path": str(path), "unit": "byte", **values}))


def answers(dataset, name):
    """The texts that a part asks for, in order of their rows."""
    part, end = dataset.part(name), dataset.spec.target.end
    _, targets = part.take(slice(0, len(part)))
    texts = [[]]
    for token in targets.flatten().tolist():
        if token == end:
            texts.append([])
        elif token != IGNORED:
            texts[-1].append(token)
    assert texts[-1] == []
    return [dataset.reader.decode(text) for text in texts[:-1]]


@pytest.mark.parametrize("packing", ["documents", "padded"])
def test_every_answer_is_learnt_and_nothing_else(chats, packing):
    dataset = built(chats, packing=packing)
    check(dataset)
    assert sorted(answers(dataset, "train") + answers(dataset, "val")) == SAID
    assert dataset.spec.input == {"documents": PackedTokens, "padded": Tokens}[packing](512, 258, 257)
    assert dataset.spec.target.end == 257
    assert len(dataset.val) < 5


def test_the_header_says_what_is_learnt(chats):
    rows = dict(built(chats).header_rows)
    assert re.fullmatch(
        r"start, role, content, end; the assistant's, [\d.]+ % of tokens, are learnt", rows["Format"]
    )
    assert re.match(r"36 conversations in \d windows of 512 tokens, \d\d\.\d % full", rows["Packing"])


def test_a_tokenizers_template_is_taken_with_its_end(chats, tmp_path):
    small_tokenizer().save(str(tmp_path / "tokenizer.json"))
    settings = {"chat_template": CHATML, "eos_token": "</s>"}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(settings))
    dataset = built(chats, tokenizer=str(tmp_path / "tokenizer.json"))
    check(dataset)
    reader = from_plain(loads(dumps(to_plain(dataset.reader))))
    assert reader.vocabulary.decode([dataset.spec.target.end]) == "<|im_end|>"
    assert sorted(answers(dataset, "train") + answers(dataset, "val")) == SAID
    asked = reader.decode(reader.prompt("say 1"))
    assert asked == "<|im_start|>user\nsay 1<|im_end|>\n<|im_start|>assistant\n"
    assert dict(dataset.header_rows)["Format"].startswith("the chat template of the tokenizer; ")
    again = reader.read(chats, with_targets=True)
    assert again.part.learnt.sum() == sum(part.learnt.sum() for part in dataset.parts.values())
    (tmp_path / "mine.jinja").write_text(CHATML.replace("im_end", "eot_id"))
    options = {"tokenizer": str(tmp_path / "tokenizer.json"), "template": str(tmp_path / "mine.jinja")}
    assert reader.vocabulary.decode([built(chats, **options).spec.target.end]) == "<|eot_id|>"


def test_long_conversations_are_cut_and_counted(chats):
    dataset = built(chats, context=40)
    check(dataset)
    assert "conversations, to 40 tokens" in dict(dataset.header_rows)["Cut"]
    assert all(any(said.startswith(text) for said in SAID) for text in answers_of_rows(dataset))


def answers_of_rows(dataset):
    _, targets = dataset.train.take(torch.arange(len(dataset.train)))
    return [
        dataset.reader.decode([t for t in run if t not in (IGNORED, dataset.spec.target.end)])
        for row in targets.tolist()
        for run in split_at(row)
    ]


def split_at(row):
    runs = [[]]
    for token in row:
        if token == IGNORED:
            runs.append([])
        else:
            runs[-1].append(token)
    return [run for run in runs if run]


def test_answers_beyond_the_context_are_left_out_or_refused(tmp_path):
    long = {"messages": [{"role": "user", "content": "a" * 60}, {"role": "assistant", "content": "b"}]}
    dataset = built(written(tmp_path / "a.jsonl", [long, *CHATS]), context=50)
    assert dataset.left_out == {"conversations whose answers are all beyond data.context": 1}
    with pytest.raises(DataError, match=r"data.context=50: no conversation has an answer within so"):
        built(written(tmp_path / "b.jsonl", [long] * 10), context=50)


def test_a_template_needs_its_tokenizer(chats, tmp_path):
    (tmp_path / "mine.jinja").write_text(CHATML)
    with pytest.raises(ConfigError, match=r"data.template=.*mine.jinja: .* Set data.tokenizer=<its"):
        built(chats, template=str(tmp_path / "mine.jinja"))


def test_a_record_left_out_is_counted(tmp_path):
    path = written(tmp_path / "a.jsonl", [{"messages": []}, *CHATS])
    with pytest.raises(DataError, match=r"a.jsonl, line 1: 'messages' is no list of messages, or empty"):
        built(path)
    assert built(path, max_bad=1).left_out == {"records that cannot be used": 1}


def test_answers_with_what_ends_answers_are_named_or_left_out_and_counted(tmp_path):
    small_tokenizer().save(str(tmp_path / "tokenizer.json"))
    (tmp_path / "mine.jinja").write_text(CHATML)
    options = {"tokenizer": str(tmp_path / "tokenizer.json"), "template": str(tmp_path / "mine.jinja")}
    wrong = [chat(0)["messages"][0], {"role": "assistant", "content": "<|im_end|> ends"}]
    path = written(tmp_path / "a.jsonl", [{"messages": []}, {"messages": wrong}, *CHATS])
    with pytest.raises(
        DataError, match=r"a.jsonl, line 2: .* raise data.max_bad by 1 to leave them out"
    ):
        built(path, max_bad=1, **options)
    dataset = built(path, max_bad=2, **options)
    assert dataset.left_out == {"records that cannot be used": 2}
    read = dataset.reader.read(path, with_targets=True, max_bad=2)
    assert read.left_out == {"records that cannot be used": 2}
    with pytest.raises(DataError, match=r"a.jsonl, line 2: "):
        dataset.reader.read(path, with_targets=True, max_bad=1)


def test_folds_hold_out_each_conversation_once(chats):
    found = [text for fold in range(4) for text in answers(built(chats, folds=4, val_fold=fold), "val")]
    assert sorted(found) == SAID
