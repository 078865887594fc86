"""Conversations in files: their layouts, and what is wrong with a record, with file and line."""

import gzip
import json

import pytest

from bigmodel.data.texts.conversations import Message, read_conversations
from bigmodel.errors import DataError

GOOD = {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}
SHARED = {
    "conversations": [
        {"from": "system", "value": "s"},
        {"from": "human", "value": "a"},
        {"from": "gpt", "value": "b"},
    ]
}


def read(path, *records, max_bad=0):
    lines = [record if isinstance(record, str) else json.dumps(record) for record in records]
    path.write_text("\n".join(lines) + "\n")
    return read_conversations(path, "data.path", "utf-8", max_bad)


def test_both_layouts_are_read(tmp_path):
    found = read(tmp_path / "chats.jsonl", GOOD, "", SHARED)
    assert found.all[0] == [Message("user", "a"), Message("assistant", "b")]
    assert found.all[1] == [Message("system", "s"), *found.all[0]]
    assert [place.rpartition(", ")[2] for place in found.places] == ["line 1", "line 3"]
    assert found.left_out == {}


def test_a_list_and_folders_and_gzip_are_read(tmp_path):
    (tmp_path / "a.json").write_text(json.dumps([GOOD, SHARED], indent=1))
    with gzip.open(tmp_path / "b.jsonl.gz", "wt") as file:
        file.write(json.dumps(GOOD))
    (tmp_path / "notes.md").write_text("no")
    found = read_conversations(tmp_path, "data.path", "utf-8", 0)
    assert len(found.all) == 3
    assert found.places[1].endswith("a.json, record 2")
    (tmp_path / "other").mkdir()
    with pytest.raises(DataError, match=r"other: the folder holds no files that end in .jsonl"):
        read_conversations(tmp_path / "other", "data.path", "utf-8", 0)


def test_one_object_over_several_lines_is_a_record(tmp_path):
    found = read(tmp_path / "one.json", json.dumps(GOOD, indent=1))
    assert len(found.all) == 1
    assert found.places[0].endswith("one.json, record 1")
    with pytest.raises(DataError, match=r"two.json, line 1: isn't JSON: .* on one line\. 12 records"):
        read(tmp_path / "two.json", json.dumps(GOOD, indent=1), json.dumps(GOOD))


def test_parts_of_text_are_one_text(tmp_path):
    parts = [{"type": "text", "text": "b"}, {"type": "text", "text": "c"}]
    assert read(tmp_path / "a.jsonl", message(content=parts)).all[0][1] == Message("assistant", "bc")


def message(**changed):
    return {"messages": [GOOD["messages"][0], GOOD["messages"][1] | changed]}


WRONG = {
    "no JSON": ("{", r"line 2: isn't JSON: .* A record is an object on one line\."),
    "no object": ("[1]", r"line 2: is no object"),
    "no messages": (
        {"mesages": [], "id": 1},
        r"line 2: has no 'messages'. Did you mean 'mesages'\? Its keys: 'mesages', 'id'. Expected is",
    ),
    "no list": ({"messages": "a"}, r"line 2: 'messages' is no list of messages, or empty"),
    "no role": ({"messages": [{"content": "a"}]}, r"line 2: message 1 has no 'role'"),
    "unknown role": (
        message(role="asistant"),
        r"message 2 has role='asistant'. Did you mean 'assistant'\? Allowed are system, user, assistant",
    ),
    "no content": ({"messages": [{"role": "user"}]}, r"message 1 has no 'content': expected is a text"),
    "null": (
        message(content=None, tool_calls=[]),
        r"message 2 has null as 'content': expected is a text",
    ),
    "an image": (
        message(content=[{"type": "image_url"}]),
        r"message 2 has a part of type 'image_url' as 'content': expected is a text, or parts {\"type",
    ),
    "content of parts": (message(content=[]), r"message 2 has a list as 'content': expected is a text"),
    "empty answer": (message(content=" "), r"line 2: message 2 is an answer, and empty"),
    "no answer": ({"messages": GOOD["messages"][:1]}, r"no message of 'messages' is of the assistant"),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_record_is_named_or_left_out(name, tmp_path):
    record, words = WRONG[name]
    with pytest.raises(DataError, match=rf"chats.jsonl, {words}|{words}") as raised:
        read(tmp_path / "chats.jsonl", GOOD, record, SHARED)
    assert "chats.jsonl, line 2: " in str(raised.value)
    assert "1 record of 3 cannot be used: data.max_bad=1 leaves them out." in str(raised.value)
    found = read(tmp_path / "chats.jsonl", GOOD, record, SHARED, max_bad=1)
    assert len(found.all) == 2
    assert found.left_out == {"records that cannot be used": 1}


def test_nothing_to_learn_from_is_refused(tmp_path):
    with pytest.raises(DataError, match=r"data.path=.*chats.jsonl: there are no conversations in it"):
        read(tmp_path / "chats.jsonl", "")
    with pytest.raises(DataError, match=r"chats.jsonl: isn't a JSON list: "):
        read(tmp_path / "chats.jsonl", "[{]")
