"""Conversations, of which a model learns the assistant's answers.

    bigmodel-train data=chat data.path=conversations.jsonl model=transformer
    bigmodel-train data=chat data.path=conversations.jsonl model=llama model.pretrained=path/to/model

Each line holds the messages of one. They become tokens by the tokenizer's chat template, and whole
conversations are packed into rows.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor

from bigmodel.data.base import Dataset, PartName, ValFraction
from bigmodel.data.custom_data import resolve_path
from bigmodel.data.packing import Documents, PackedDocuments
from bigmodel.data.reader import NewSamples, reads
from bigmodel.data.texts import documents
from bigmodel.data.texts.chat_format import ChatFormat, format_of
from bigmodel.data.texts.conversations import BAD, Conversations, Message, read_conversations
from bigmodel.data.texts.documents import Packing
from bigmodel.data.texts.files import TextFilesConfig, UnitOption, vocabulary_of
from bigmodel.data.texts.vocabulary import Vocabulary, VocabularyReader
from bigmodel.errors import ConfigError, DataError, counted
from bigmodel.registry import data

_BEYOND = "conversations whose answers are all beyond data.context"


class ChatConfig(TextFilesConfig):
    """Where conversations are, how they become tokens, and how many of these a model sees at once."""

    path: str | None = Field(
        None, description="path of the conversations: a JSON Lines file, or a folder of such"
    )
    val_fraction: ValFraction = 0.1
    max_bad: int = Field(0, ge=0, description="records that may be skipped because they cannot be used")
    unit: UnitOption = "bpe"
    context: int = Field(512, ge=2, description="tokens that a model sees at once; longer ones are cut")
    packing: Packing = Field(
        "documents", description="documents: whole conversations packed; padded: one in a row"
    )
    template: str | None = Field(
        None, description="file of a chat template (Jinja); null: the tokenizer's, or our own format"
    )


@reads("chat")
class ChatReader(VocabularyReader):
    """Reads conversations with the vocabulary and the format of training.

    Attributes:
        context: most tokens in a row.
        packing: how conversations fill rows.
        format: how they become tokens.
    """

    context: int
    packing: Packing
    format: ChatFormat
    continues: ClassVar[bool] = False

    def read(self, path: Path, *, with_targets: bool, max_bad: int = 0) -> NewSamples:  # noqa: ARG002
        """See `Reader.read`. Targets are always read: they are the answers of the conversations."""
        found = read_conversations(path, "path", self.encoding, max_bad)
        rows = self.arrange(found, max_bad - found.left_out.get(BAD, 0))
        left_out = Counter(found.left_out) + Counter(rows.left_out)
        return NewSamples(rows.part, {"first_token": documents.first_tokens(rows.part)}, dict(left_out))

    def prompt(self, text: str) -> list[int]:
        """See `TextReader.prompt`: a question, with what asks for an answer."""
        return self.ask([Message("user", text)])

    def ask(self, conversation: Sequence[Message]) -> list[int]:
        """The tokens of a conversation that is to be answered.

        Raises:
            DataError: the template fails, or a character is not in the vocabulary.
        """
        return self.format.prompt(conversation, self.vocabulary)

    def arrange(self, found: Conversations, max_bad: int = 0) -> Rows:
        """Conversations in rows, as a model reads them.

        Args:
            max_bad: conversations that may be left out, as an answer in them has no end of its own.

        Raises:
            DataError: the template fails, more than `max_bad` conversations cannot be used, or all
                answers lie beyond the context.
        """
        tokens, learnt, end, bad = self.format.encode(found.all, found.places, self.vocabulary, max_bad)
        sizes = (tokens.sizes - 1).clamp(max=self.context)
        answered = learnt.cumsum(0)
        first = answered[tokens.starts]  # the first token is asked for nowhere
        kept = (answered[tokens.starts + sizes] > first).nonzero().flatten()
        if not len(kept):
            raise DataError(
                f"data.context={self.context}: no conversation has an answer within so many tokens."
                " Raise it."
            )
        pad = documents.pad_of(self.vocabulary)
        rows = Documents(tokens.tokens, tokens.starts[kept], sizes[kept], pad, learnt)
        packs = self.packing == "documents"
        part = PackedDocuments.packed(rows, self.context) if packs else rows
        cut = int((tokens.sizes[kept] - 1 > self.context).sum())
        left_out = {BAD: bad, _BEYOND: len(tokens.sizes) - len(kept)}
        return Rows(part, end, len(kept), {why: count for why, count in left_out.items() if count}, cut)


@dataclass(frozen=True)
class Rows:
    """Conversations in rows.

    Attributes:
        part: the rows.
        end: the token that ends an answer.
        kept: how many conversations there are.
        left_out: how many were left out, by reason.
        cut: how many of those kept are longer than the context.
    """

    part: Documents | PackedDocuments
    end: int
    kept: int
    left_out: dict[str, int]
    cut: int


@data.register("chat", ChatConfig)
def chat(config: ChatConfig) -> Dataset:
    """The conversations at the paths of `config`.

    Raises:
        ConfigError: no path is given, or a template without its tokenizer.
        DataError: they cannot be read, the template fails, or there are no answers.
    """
    before = config.learnt_reader(ChatReader)
    form = before.format if before is not None else _format(config)
    parts, val_rows, left_out = _read_parts(config)
    training = parts["train"]
    texts = [message.content for conversation in training.all for message in conversation]
    roles = ["system\n", "user\n", "assistant\n"]
    vocabulary = vocabulary_of(config, before, [*texts, *roles], config.unit, ["start", "end"])
    if vocabulary.end is None:
        raise DataError(
            "data=chat: the tokenizer of model.pretrained has no token that ends a text, as answers"
            " need. Use another model."
        )
    reader = ChatReader(
        vocabulary=vocabulary,
        encoding=config.encoding,
        context=config.context,
        packing=config.packing,
        format=form,
    )
    rows: dict[PartName, Rows] = {}
    for name, part in parts.items():
        rows[name] = reader.arrange(part, config.max_bad - left_out[BAD])
        left_out.update(rows[name].left_out)
    arranged = {name: some.part for name, some in rows.items()}
    dataset = documents.dataset_of("chat", arranged, vocabulary, config.context, rows["train"].end)
    return replace(
        dataset,
        reader=reader,
        header_rows=_header_rows(rows["train"], config, form, vocabulary),
        left_out=dict(left_out),
        val_rows=None if val_rows is None else torch.tensor(documents.first_tokens(arranged["val"])),
    )


def _format(config: ChatConfig) -> ChatFormat:
    """The format that the options say, or else that of a pretrained model."""
    pretrained = config.pretrained(Vocabulary)
    template = None if config.template is None else resolve_path(config, "template")
    if template is not None and config.tokenizer is None and pretrained is None:
        raise ConfigError(
            f"data.template={config.template}: a template writes the special tokens of a tokenizer. Set"
            " data.tokenizer=<its tokenizer.json>, or model.pretrained, or leave the template out."
        )
    if pretrained is not None:
        known = config.pretrained(ChatFormat) or ChatFormat()
        return known if template is None else format_of(template, None).with_tokens(known.tokens)
    tokenizer = None if config.tokenizer is None else resolve_path(config, "tokenizer")
    return format_of(template, tokenizer)


def _read_parts(
    config: ChatConfig,
) -> tuple[dict[PartName, Conversations], Tensor | None, Counter[str]]:
    """The conversations of each part; which ones are for validation, None if that has a path of its own;
    and how many were left out, by reason."""
    read = {
        name: read_conversations(
            resolve_path(config, key), f"data.{key}", config.encoding, config.max_bad
        )
        for name, key in documents.separate_names(config).items()
    }
    return documents.split_read(config, read)


def _header_rows(
    rows: Rows, config: ChatConfig, form: ChatFormat, vocabulary: Vocabulary
) -> list[tuple[str, str]]:
    what = "the chat template of the tokenizer" if form.template else "start, role, content, end"
    part = rows.part
    learnt = part.learnt
    assert learnt is not None
    fraction = f"{100 * float(learnt.double().mean()):.3g} % of tokens"
    cut = [("Cut", f"{counted(rows.cut, 'conversation')}, to {config.context:,} tokens")]
    return [
        ("Format", f"{what}; the assistant's, {fraction}, are learnt"),
        documents.packing_row(part, rows.kept, config.context, "conversation"),
        ("Vocabulary", str(vocabulary)),
        *(cut if rows.cut else []),
    ]
