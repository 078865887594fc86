"""Reads conversations: JSON lines, or a JSON list, of messages with roles."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from bigmodel.data.ignored_files import is_ignored
from bigmodel.data.text_encoding import name_without_gz
from bigmodel.data.texts.files import read_text
from bigmodel.errors import DataError, counted, did_you_mean, first_line
from bigmodel.runtime import nested_json

SUFFIXES = (".jsonl", ".json", ".ndjson")
"""Endings of the files that are read from a folder, gzip or not."""

BAD = "records that cannot be used"
"""A reason to leave a record out."""

ROLES = ("system", "user", "assistant")
_SHAREGPT_ROLES = {"human": "user", "gpt": "assistant"}
_LAYOUTS = (("messages", "role", "content"), ("conversations", "from", "value"))
"""Keys of a record, and of each of its messages: as most have them, and as ShareGPT has."""


class Message(NamedTuple):
    """What one side says.

    Attributes:
        role: one of `ROLES`.
        content: its text.
    """

    role: str
    content: str


Conversation = list[Message]


@dataclass(frozen=True)
class Conversations:
    """Conversations as they were read, in order.

    Attributes:
        all: each has an answer of the assistant, and none of these is empty.
        places: of each, such as `chats.jsonl, line 3`.
        left_out: how many records were left out, by reason.
    """

    all: list[Conversation]
    places: list[str]
    left_out: dict[str, int] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.all)

    def __add__(self, more: Conversations) -> Conversations:
        return Conversations(self.all + more.all, self.places + more.places)

    def at(self, index: Sequence[int]) -> Conversations:
        """The conversations at some indices."""
        return Conversations([self.all[row] for row in index], [self.places[row] for row in index])


class _RecordError(Exception):
    """A record is no conversation to learn from."""


def read_conversations(path: Path, key: str, encoding: str, max_bad: int) -> Conversations:
    """All conversations of a file, gzip or not, or of a folder of such files.

    Args:
        key: the option that names the path, such as `data.path`, for messages.
        encoding: of the files.
        max_bad: records that may be left out because they cannot be used.

    Raises:
        DataError: more than `max_bad` records cannot be used, or all.
    """
    found, places, bad = list[Conversation](), list[str](), list[str]()
    for file in _files(path, key):
        for place, record in _records(file, encoding):
            try:
                found.append(_conversation(record))
                places.append(f"{file}, {place}")
            except _RecordError as error:
                bad.append(f"{file}, {place}: {error}")
    if len(bad) > max_bad:
        more = f" {counted(len(bad), 'record')} of {len(found) + len(bad):,} cannot be used:"
        more = f"{more} data.max_bad={len(bad)} leaves them out." if found else ""
        raise DataError(f"{bad[0]}{more}")
    if not found:
        raise DataError(f"{key}={path}: there are no conversations in it.")
    return Conversations(found, places, {BAD: len(bad)} if bad else {})


def _files(path: Path, key: str) -> list[Path]:
    if not path.is_dir():
        return [path]
    inside = [file for file in sorted(path.rglob("*")) if file.is_file()]
    inside = [file for file in inside if not any(map(is_ignored, file.relative_to(path).parts))]
    files = [file for file in inside if name_without_gz(file).lower().endswith(SUFFIXES)]
    if not files:
        raise DataError(f"{key}={path}: the folder holds no files that end in {', '.join(SUFFIXES)}.")
    return files


def _records(file: Path, encoding: str) -> Iterator[tuple[str, Any]]:
    """Each record and its place: of a file that begins with a bracket the entries of a list, else the
    lines, unless all of them are one object. A line that isn't JSON is an error of its own."""
    text = read_text(file, encoding)
    if text.lstrip().startswith("["):
        try:
            listed = nested_json.loads(text)
        except ValueError as error:
            raise DataError(f"{file}: isn't a JSON list: {first_line(error, 'damaged')}.") from error
        yield from ((f"record {number}", record) for number, record in enumerate(listed, 1))
        return
    if text.lstrip().startswith("{") and not text.lstrip().partition("\n")[0].rstrip().endswith("}"):
        with contextlib.suppress(ValueError):
            yield "record 1", nested_json.loads(text)
            return
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            try:
                record = nested_json.loads(line)
            except ValueError as error:
                record = error
            yield f"line {number}", record


def _conversation(record: Any) -> Conversation:
    if isinstance(record, ValueError):
        raise _RecordError(
            f"isn't JSON: {first_line(record, 'damaged')}. A record is an object on one line."
        )
    if not isinstance(record, dict):
        raise _RecordError("is no object with a list of messages.")
    for key, role, content in _LAYOUTS:
        if key in record:
            conversation = list(_messages(record[key], key, role, content))
            if not any(message.role == "assistant" for message in conversation):
                raise _RecordError(f"no message of '{key}' is of the assistant, so there is no answer.")
            return conversation
    known = ", ".join(map(repr, record)) or "none"
    raise _RecordError(
        f"has no 'messages'.{did_you_mean('messages', map(str, record))} Its keys: {known}. Expected is"
        ' {"messages": [{"role": "user", "content": "…"}, …]}.'
    )


def _messages(messages: Any, key: str, role: str, content: str) -> Iterator[Message]:
    if not isinstance(messages, list) or not messages:
        raise _RecordError(f"'{key}' is no list of messages, or empty.")
    for number, message in enumerate(messages, 1):
        where = f"message {number}"
        if not isinstance(message, dict) or role not in message:
            raise _RecordError(f"{where} has no '{role}', which says whose it is.")
        said = _SHAREGPT_ROLES.get(str(message[role]), str(message[role]))
        if said not in ROLES:
            roles: Iterable[str] = (*ROLES, *(_SHAREGPT_ROLES if role == "from" else ()))
            near = did_you_mean(said, roles)
            raise _RecordError(
                f"{where} has {role}={message[role]!r}.{near} Allowed are {', '.join(roles)}."
            )
        if content not in message:
            raise _RecordError(f"{where} has no '{content}': expected is a text.")
        text = _text_of(message[content], f"{where} has {{}} as '{content}': expected is a text{{}}.")
        if said == "assistant" and not text.strip():
            raise _RecordError(f"{where} is an answer, and empty.")
        yield Message(said, text)


def _text_of(content: Any, message: str) -> str:
    """A content that is a text, or the parts of one.

    Args:
        message: for errors; its blanks are for what there is, and for more that is expected.
    """
    if isinstance(content, str):
        return content
    if not isinstance(content, list) or not content:
        found = "null" if content is None else f"a {type(content).__name__}"
        raise _RecordError(message.format(found, ""))
    texts = []
    for part in content:
        kind = part.get("type") if isinstance(part, dict) else type(part).__name__
        if kind != "text" or not isinstance(part.get("text"), str):
            raise _RecordError(
                message.format(f"a part of type {kind!r}", ', or parts {"type": "text", "text": "…"}')
            )
        texts.append(part["text"])
    return "".join(texts)


def as_plain(conversation: Sequence[Message]) -> list[dict[str, str]]:
    """Messages as templates read them."""
    return [message._asdict() for message in conversation]
