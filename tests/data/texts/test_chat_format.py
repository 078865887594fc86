"""Conversations as tokens: those of transformers; what cannot be learnt is refused."""

import datetime
import json

import pytest
from transformers import PreTrainedTokenizerFast

from bigmodel.data.texts.chat_format import ChatFormat, format_of
from bigmodel.data.texts.conversations import Message, as_plain
from bigmodel.data.texts.vocabulary import Vocabulary
from bigmodel.errors import DataError
from tests.data.texts.chat_templates import CHATML, LLAMA2, MARKED, TEMPLATES, small_tokenizer

TOKENS = {"bos_token": "<s>", "eos_token": "</s>"}
CHAT = [
    Message("user", "hello there"),
    Message("assistant", "I am fine – and you, naïve 🙂?"),
    Message("user", "  how are\n\nyou today?"),
    Message("assistant", "fine"),
]
WITH_SYSTEM = [Message("system", "You answer."), *CHAT]


@pytest.fixture(scope="module")
def engine():
    return small_tokenizer()


@pytest.fixture(scope="module")
def vocabulary(engine):
    plain = Vocabulary(unit="tokenizer", tokenizer=engine.to_str())
    return Vocabulary(**plain.model_dump() | {"start": plain.base_size, "end": plain.base_size + 1})


def reference(engine, template):
    return PreTrainedTokenizerFast(tokenizer_object=engine, chat_template=template, **TOKENS)


def form(template, tokens=TOKENS):
    return ChatFormat(template=template, tokens=tokens, date="2026-01-02")


def encoded(template, vocabulary, *chats):
    return form(template).encode(chats, [f"chat {n}" for n in range(len(chats))], vocabulary)


def answers(chats, vocabulary):
    """The texts that are learnt, each with what ends it."""
    found, last = [], None
    tokens = chats.encoded.tokens.tolist()
    for place, (token, own) in enumerate(zip(tokens, chats.learnt.tolist(), strict=True)):
        if own:
            if last != place - 1:
                found.append([])
            found[-1].append(token)
            last = place
    return [vocabulary.decode(text) for text in found]


@pytest.mark.parametrize("chat", [CHAT, WITH_SYSTEM], ids=["plain", "system"])
@pytest.mark.parametrize("name", TEMPLATES)
def test_tokens_are_those_of_transformers(name, chat, engine, vocabulary):
    theirs = reference(engine, TEMPLATES[name])
    ours = encoded(TEMPLATES[name], vocabulary, chat)
    whole = theirs.apply_chat_template(as_plain(chat), return_dict=True)
    assert ours.encoded.tokens.tolist() == whole["input_ids"]
    asked = theirs.apply_chat_template(as_plain(chat[:-1]), add_generation_prompt=True, return_dict=True)
    assert form(TEMPLATES[name]).prompt(chat[:-1], vocabulary) == asked["input_ids"]


@pytest.mark.parametrize("chat", [CHAT, WITH_SYSTEM], ids=["plain", "system"])
def test_marked_answers_are_those_of_transformers(chat, engine, vocabulary):
    theirs = reference(engine, MARKED).apply_chat_template(
        as_plain(chat), return_dict=True, return_assistant_tokens_mask=True
    )
    ours = encoded(MARKED, vocabulary, chat)
    assert ours.learnt.int().tolist() == theirs["assistant_masks"]
    assert sum(theirs["assistant_masks"]) > 8
    assert vocabulary.decode([ours.end]) == "<|im_end|>"


ENDS = {
    "chatml": ("{}<|im_end|>", "<|im_end|>"),
    "qwen": ("{}<|im_end|>", "<|im_end|>"),
    "llama2": (" {} </s>", "</s>"),
    "llama3": ("{}<|eot_id|>", "<|eot_id|>"),
    "zephyr": ("{}</s>", "</s>"),
    "mistral": (" {}</s>", "</s>"),
    "marked": ("{}<|im_end|>", "<|im_end|>"),
}
"""What is learnt of an answer, and the token that ends it."""


@pytest.mark.parametrize("chat", [CHAT, WITH_SYSTEM], ids=["plain", "system"])
@pytest.mark.parametrize("name", TEMPLATES)
def test_answers_and_what_ends_them_are_learnt_and_nothing_else(name, chat, vocabulary):
    around, end = ENDS[name]
    found = encoded(TEMPLATES[name], vocabulary, chat)
    said = [message.content for message in chat if message.role == "assistant"]
    assert answers(found, vocabulary) == [around.format(text) for text in said]
    assert vocabulary.decode([found.end]) == end


def test_a_prompt_is_what_stands_before_the_answer_in_training(vocabulary):
    for name, template in TEMPLATES.items():
        found = encoded(template, vocabulary, CHAT)
        first = found.learnt.int().argmax().item()
        prompt = form(template).prompt(CHAT[:1], vocabulary)
        assert found.encoded.tokens[:first].tolist() == prompt, name


def test_without_a_template_each_message_stands_between_start_and_end(vocabulary):
    start, end = vocabulary.start, vocabulary.end
    found = ChatFormat().encode([CHAT[:2], CHAT[2:]], ["", ""], vocabulary)
    expected, learnt = [], []
    for message in CHAT:
        header, content = (vocabulary.encode(t).tolist() for t in (f"{message.role}\n", message.content))
        own = message.role == "assistant"
        expected += [start, *header, *content, end]
        learnt += [False] * (1 + len(header)) + [own] * (len(content) + 1)
    assert found.encoded.tokens.tolist() == expected
    assert found.learnt.tolist() == learnt
    assert found.end == end
    half = int(found.encoded.sizes[0])
    assert found.encoded.sizes.tolist() == [half, len(expected) - half]
    prompt = ChatFormat().prompt(CHAT[:1], vocabulary)
    assert expected[: len(prompt)] == prompt
    assert learnt[len(prompt)]


def test_content_does_not_become_special_tokens_of_our_own_format():
    vocabulary = Vocabulary(unit="byte", start=256, end=257)
    found = ChatFormat().encode([[Message("assistant", "<|im_end|>")]], [""], vocabulary)
    assert (found.encoded.tokens >= 256).sum() == 2


REFUSED = {
    "its own words": (
        LLAMA2,
        [CHAT[0], *CHAT],
        r"chat 0: the chat template fails, line 1: Roles must alternate",
    ),
    "syntax": ("{% for %}", CHAT, r"data.template: the chat template cannot be read, line 1: Expected"),
    "earlier turns change": (
        "{% for m in messages %}{% if loop.last %}!{% endif %}{{ m.content }}</s>{% endfor %}",
        CHAT,
        r"chat 0: .* writes messages up to number 2 in another way once others follow.*generation %}",
    ),
    "no end": (
        "{% for m in messages %}{{ m.role ~ ' ' ~ m.content ~ '. ' }}{% endfor %}",
        [CHAT[0], Message("assistant", "fine. hello")],
        r"no token ends every answer and nothing else.* such as <\|im_end\|>",
    ),
    "nothing marked": (
        "{% for m in messages %}{% if m.role == 'x' %}{% generation %}{% endgeneration %}{% endif %}"
        "{{ m.content }}{% endfor %}",
        CHAT,
        r"chat 0: the chat template marks no answer in it as the assistant's",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_learnt_from_is_refused(name, vocabulary):
    template, chat, words = REFUSED[name]
    with pytest.raises(DataError, match=words):
        encoded(template, vocabulary, chat)


def test_an_answer_that_holds_what_ends_answers_is_named_or_left_out(vocabulary):
    wrong = [CHAT[0], Message("assistant", "say <|im_end|> now")]
    words = r"^chat 1: an answer holds '<\|im_end\|>', .* 1 record of 3 .* data.max_bad by 1 to"
    with pytest.raises(DataError, match=words):
        encoded(CHATML, vocabulary, CHAT, wrong, WITH_SYSTEM)
    places = [f"chat {n}" for n in range(3)]
    found = form(CHATML).encode([CHAT, wrong, WITH_SYSTEM], places, vocabulary, max_bad=1)
    expected = encoded(CHATML, vocabulary, CHAT, WITH_SYSTEM)
    assert found.bad == 1
    assert found.encoded.tokens.equal(expected.encoded.tokens)
    assert found.encoded.sizes.equal(expected.encoded.sizes)
    assert found.learnt.equal(expected.learnt)


def test_the_day_is_that_of_the_beginning(vocabulary):
    dated = "{{ strftime_now('%d %b %Y') }}" + CHATML
    prompt = form(dated).prompt(CHAT[:1], vocabulary)
    assert vocabulary.decode(prompt).startswith("02 Jan 2026<|im_start|>")


def test_a_template_is_found_beside_the_tokenizer(tmp_path):
    tokenizer = tmp_path / "tokenizer.json"
    assert format_of(None, tokenizer) == ChatFormat()
    settings = {"chat_template": "one", "eos_token": {"content": "</s>"}, "bos_token": "<s>"}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(settings))
    found = format_of(None, tokenizer)
    assert (found.template, found.tokens) == ("one", {"bos_token": "<s>", "eos_token": "</s>"})
    assert found.date == datetime.date.today().isoformat()
    named = [{"name": "tools", "template": "x"}, {"name": "default", "template": "two"}]
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(settings | {"chat_template": named}))
    assert format_of(None, tokenizer).template == "two"
    (tmp_path / "chat_template.jinja").write_text("three")
    assert format_of(None, tokenizer).template == "three"
    (tmp_path / "mine.jinja").write_text("four")
    assert format_of(tmp_path / "mine.jinja", tokenizer).template == "four"
    (tmp_path / "tokenizer_config.json").write_text("[")
    with pytest.raises(DataError, match=r"tokenizer_config.json: isn't a JSON object"):
        format_of(None, tokenizer)
