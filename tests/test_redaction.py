import os

import pytest

from bigmodel import redaction
from bigmodel.errors import reason
from bigmodel.redaction import (
    environment_variable,
    looks_secret,
    masked,
    redact,
    redact_text,
    store_secret,
)


@pytest.mark.parametrize(
    "key",
    [
        "data.api_key",
        "data.hub_token",
        "token",
        "x.password",
        "db-passwd",
        "x.API_KEY",
        "x.apiKey",
        "x.apikey",
        "x.client_secret",
        "x.secret_key",
        "x.private_key_pem",
        "x.credentials",
        "x.access_key_id",
        "x.hubToken",
    ],
)
def test_names_of_secrets(key: str) -> None:
    assert looks_secret(key)
    assert redact(key, "abc") == "***"


@pytest.mark.parametrize(
    "key",
    [
        "data.tokens",
        "model.num_tokens",
        "model.class_token",
        "data.eos_token",
        "data.tokenizer",
        "model.key",
        "secret.name",
        "data.keys",
        "model.authors",
        "model.num_kv_heads",
        "seed",
    ],
)
def test_names_of_nothing_secret(key: str) -> None:
    assert not looks_secret(key)
    assert redact(key, "abc") == "abc"


def test_only_text_is_masked() -> None:
    assert (redact("a.token", None), redact("a.token", True), redact("a.token", "")) == (None, True, "")


def test_the_value_is_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("BIGMODEL_DATA_API_KEY", raising=False)
    assert store_secret("data.api_key", "abc") == "${oc.env:BIGMODEL_DATA_API_KEY}"
    assert os.environ.pop(environment_variable("data.api_key")) == "abc"


def test_what_lies_below_or_in_a_list_is_masked_too() -> None:
    values = {"auth": {"token": "abc", "user": "me"}, "password": ["a", 2], "token_dim": 64, "pin": 3}
    assert redact("data", values) == {
        "auth": {"token": "***", "user": "me"},
        "password": ["***", "***"],
        "token_dim": 64,
        "pin": 3,
    }
    assert redact("data.credentials", {"user": "me"}) == {"user": "***"}


@pytest.mark.parametrize(
    ("key", "text", "expected"),
    [
        ("data.api_key", "abc", "***"),
        ("data.api_key", "null", "null"),
        ("data.api_key", "${oc.env:MY_KEY}", "${oc.env:MY_KEY}"),
        ("model.token_dim", "64", "64"),
        ("data.auth", "{user: me, password: 'a, b', token: null}", None),
    ],
)
def test_the_text_of_a_file_is_masked(key: str, text: str, expected: str | None) -> None:
    assert redact_text(key, text) == (expected or "{user: me, password: ***, token: null}")


def test_messages_are_searched_for_what_was_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(redaction, "_known", set())
    monkeypatch.setenv("BIGMODEL_DATA_TOKEN", "")
    store_secret("data.token", "it's me")
    assert reason(ValueError("no 'it's me'")) == "ValueError: no '***'"
    assert masked("it's m") == "it's m"
    store_secret("data.token", "abc")
    assert masked("abc") == "abc", "too short to be told from other words"
