"""Conversations as tokens, and which of these are the assistant's: what a model is to learn.

A tokenizer's chat template writes a conversation as text. Without one, each message is `start`, its role
and a line end, its content, `end`: as in ChatML, with special tokens that no text can contain.
"""

from __future__ import annotations

import datetime
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from bigmodel.data.texts.conversations import Conversation, Message, as_plain
from bigmodel.data.texts.vocabulary import Encoded, Ids, Vocabulary
from bigmodel.errors import DataError, counted, first_line
from bigmodel.registry import Config
from bigmodel.runtime import nested_json, progress_messages

if TYPE_CHECKING:
    from bigmodel.data.texts.template_sandbox import ChatTemplate

_TOKENS = ("bos_token", "eos_token", "pad_token", "unk_token")


class ChatTokens(NamedTuple):
    """Conversations as tokens.

    Attributes:
        encoded: conversation after conversation.
        learnt: (all tokens,) bool: whether a token is the assistant's, the end of its turn included.
        end: the token that ends each of the assistant's turns.
        bad: how many conversations were left out, as an answer in them has no end of its own.
    """

    encoded: Encoded
    learnt: Tensor
    end: int
    bad: int = 0


class ChatFormat(Config):
    """How conversations become tokens.

    Attributes:
        template: of the tokenizer; empty: there is none, see the module.
        tokens: the special tokens that the template names, such as `eos_token`.
        date: the day that a template may tell of: that on which training began.
    """

    template: str = ""
    tokens: dict[str, str] = Field({})
    date: str = ""

    def with_tokens(self, tokens: Mapping[str, str]) -> ChatFormat:
        """The same template, with these special tokens."""
        return self.model_copy(update={"tokens": dict(tokens)})

    def encode(
        self,
        conversations: Sequence[Conversation],
        places: Sequence[str],
        vocabulary: Vocabulary,
        max_bad: int = 0,
    ) -> ChatTokens:
        """Conversations as tokens.

        Args:
            places: of each, for messages.
            max_bad: conversations that may be left out, as an answer in them has no end of its own.

        Raises:
            DataError: the template fails, or answers have no end of their own.
        """
        if not self.template:
            return self._encode_turns(conversations, vocabulary)
        rendered: list[tuple[str, list[slice]]] = []
        work, count = "Writing conversations by the chat template", f"{len(conversations):,}"
        with progress_messages.report_progress(lambda: f"{work}: {len(rendered):,} of {count}"):
            for conversation, place in zip(conversations, places, strict=True):
                rendered.append(self._rendered(conversation, place))
        encoded = vocabulary.encode_with_places([text for text, _ in rendered])
        learnt, answers = list[Ids](), list[list[list[int]]]()
        for (tokens, bounds), (_, spans) in zip(encoded, rendered, strict=True):
            within = [(bounds[:, 0] < span.stop) & (bounds[:, 1] > span.start) for span in spans]
            learnt.append(np.logical_or.reduce(within))
            answers.append([tokens[own].tolist() for own in within])
        end, bad = _end_of(answers, vocabulary)
        if (beyond := len(bad) - max(max_bad, 0)) > 0:
            raise DataError(
                f"{places[bad[0]]}: an answer holds {vocabulary.decode([end])!r}, which ends answers,"
                " within it, or doesn't end with it, so that a model could not learn when to stop."
                f" {counted(len(bad), 'record')} of {len(places):,} cannot be used: raise data.max_bad"
                f" by {beyond} to leave them out."
            )
        kept = sorted(set(range(len(places))) - set(bad))
        sizes = torch.tensor([len(learnt[row]) for row in kept])
        ids = torch.from_numpy(np.concatenate([encoded[row][0] for row in kept]))
        own = torch.from_numpy(np.concatenate([learnt[row] for row in kept]))
        return ChatTokens(Encoded(ids, sizes), own, end, len(bad))

    def prompt(self, conversation: Sequence[Message], vocabulary: Vocabulary) -> list[int]:
        """The tokens of a conversation that the assistant is to answer.

        Raises:
            DataError: the template fails.
        """
        if self.template:
            text, _ = self._render(conversation, "the conversation", asked=True)
            return [int(token) for token in vocabulary.encode_all([text], special=False).tokens]
        start, end = _turn_tokens(vocabulary)
        prompt = []
        for message in conversation:
            header, content = _header(message.role), message.content
            prompt += [start, *vocabulary.encode(header), *vocabulary.encode(content), end]
        return [int(token) for token in (*prompt, start, *vocabulary.encode(_header("assistant")))]

    def _encode_turns(self, conversations: Sequence[Conversation], vocabulary: Vocabulary) -> ChatTokens:
        start, end = _turn_tokens(vocabulary)
        turns = [message for conversation in conversations for message in conversation]
        texts = [text for turn in turns for text in (_header(turn.role), turn.content)]
        encoded = vocabulary.encode_all(texts, special=False)
        headers, contents = encoded.sizes.view(-1, 2).unbind(1)
        sizes = headers + contents + 2
        firsts = sizes.cumsum(0) - sizes
        turn = torch.arange(len(turns)).repeat_interleave(sizes)
        place = torch.arange(len(turn)) - firsts[turn]
        inside = (place > 0) & (place < sizes[turn] - 1)
        tokens = torch.full_like(turn, end, dtype=encoded.tokens.dtype)
        tokens[firsts], tokens[inside] = start, encoded.tokens
        answers = torch.tensor([message.role == "assistant" for message in turns])
        learnt = answers[turn] & (place > headers[turn])
        lengths = torch.tensor([len(conversation) for conversation in conversations])
        whole = torch.zeros(len(lengths), dtype=torch.int64)
        whole.index_add_(0, torch.arange(len(lengths)).repeat_interleave(lengths), sizes)
        return ChatTokens(Encoded(tokens, whole), learnt, end)

    def _rendered(self, conversation: Conversation, place: str) -> tuple[str, list[slice]]:
        """The text of a conversation, and where the assistant's answers are in it."""
        text, answers = self._render(conversation, place)
        if not self._compiled.has_generation:
            answers = self._found_answers(conversation, text, place)
        if not answers:
            raise DataError(f"{place}: the chat template marks no answer in it as the assistant's.")
        return text, answers

    def _found_answers(self, conversation: Conversation, text: str, place: str) -> list[slice]:
        """Where answers are in a text: between the conversation before, with what asks for an answer,
        and the same with it. Blanks after what ends a turn belong to the next one."""
        answers = []
        for number, message in enumerate(conversation):
            if message.role != "assistant":
                continue
            before, _ = self._render(conversation[:number], place, asked=True)
            after, _ = self._render(conversation[: number + 1], place)
            if not (after.startswith(before) and text.startswith(after)):
                raise DataError(
                    f"{place}: the chat template writes messages up to number {number + 1} in another"
                    " way once others follow, so that its answer cannot be told apart. Put"
                    " {% generation %} and {% endgeneration %} around answers in the template."
                )
            kept = after.rstrip()
            if len(kept) <= len(before) or kept.endswith(message.content.rstrip()):
                kept = after
            answers.append(slice(len(before), len(kept)))
        return answers

    def _render(
        self, conversation: Sequence[Message], place: str, asked: bool = False
    ) -> tuple[str, list[slice]]:
        from bigmodel.data.texts.template_sandbox import TemplateError

        values: dict[str, Any] = {
            **self.tokens,
            "messages": as_plain(conversation),
            "add_generation_prompt": asked,
            "tools": None,
            "documents": None,
        }
        try:
            return self._compiled.render(values)
        except TemplateError as error:
            raise DataError(f"{place}: the chat template fails, {error}.") from error

    @cached_property
    def _compiled(self) -> ChatTemplate:
        from bigmodel.data.texts.template_sandbox import ChatTemplate, TemplateError

        try:
            return ChatTemplate(self.template, datetime.date.fromisoformat(self.date))
        except TemplateError as error:
            raise DataError(f"data.template: the chat template cannot be read, {error}.") from error


def format_of(template: Path | None, tokenizer: Path | None) -> ChatFormat:
    """The format that a template's file and a tokenizer's folder say.

    Args:
        template: a file with a template; None: that of the tokenizer, if it has one.
        tokenizer: a tokenizer.json, beside which others of its files may lie.

    Raises:
        DataError: a file cannot be read.
    """
    settings: dict[str, Any] = {}
    text = None if template is None else _read(template)
    if tokenizer is not None:
        beside = tokenizer.parent / "tokenizer_config.json"
        if beside.is_file():
            try:
                settings = dict(nested_json.loads(_read(beside)))
            except (TypeError, ValueError) as error:
                raise DataError(
                    f"{beside}: isn't a JSON object: {first_line(error, 'damaged')}."
                ) from error
        own = tokenizer.parent / "chat_template.jinja"
        if text is None and own.is_file():
            text = _read(own)
    if text is None:
        text = _template_in(settings.get("chat_template"))
    tokens = {}
    for name in _TOKENS:
        token = settings.get(name)
        spelt = token.get("content") if isinstance(token, dict) else token
        if isinstance(spelt, str):
            tokens[name] = spelt
    today = datetime.date.today().isoformat()
    return ChatFormat(template=text, tokens=tokens, date=today) if text else ChatFormat()


def _template_in(setting: Any) -> str:
    """The template of a tokenizer_config.json: a text, or several with names."""
    if isinstance(setting, list):
        named = {one.get("name"): one.get("template") for one in setting if isinstance(one, dict)}
        setting = named.get("default", next(iter(named.values()), ""))
    return setting if isinstance(setting, str) else ""


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot be read: {first_line(error, type(error).__name__)}.") from error


def _header(role: str) -> str:
    return f"{role}\n"


def _turn_tokens(vocabulary: Vocabulary) -> tuple[int, int]:
    """The tokens before and after each message, if there is no template."""
    assert vocabulary.end is not None
    return vocabulary.end if vocabulary.start is None else vocabulary.start, vocabulary.end


def _end_of(answers: Sequence[Sequence[list[int]]], vocabulary: Vocabulary) -> tuple[int, list[int]]:
    """The token that ends answers, and the indices of conversations with an answer that it doesn't end,
    or that holds it elsewhere.

    Args:
        answers: the tokens of each conversation's answers.

    Raises:
        DataError: there is no such token for most of the conversations.
    """
    lasts = Counter(tokens[-1] for own in answers for tokens in own if tokens)
    common = [token for token, _ in lasts.most_common(3)]
    end = common[0] if common else -1
    bad = [
        row
        for row, own in enumerate(answers)
        if any(end not in tokens or tokens.index(end) < len(tokens) - 1 for tokens in own)
    ]
    if 2 * len(bad) < len(answers):
        return end, bad
    shown = ", ".join(repr(vocabulary.decode([token])) for token in common)
    raise DataError(
        "data.template: no token ends every answer and nothing else, so that a model could not be told"
        f" to stop; they end with tokens such as {shown or 'none'}. End each answer with a special token"
        " of the tokenizer, such as <|im_end|>."
    )
