import os

import pytest

from bigmodel.secrets import hidden, looks_secret, shown, variable


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
    assert shown(key, "abc") == "***"


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
    assert shown(key, "abc") == "abc"


def test_only_text_is_masked() -> None:
    assert (shown("a.token", None), shown("a.token", True), shown("a.token", "")) == (None, True, "")


def test_the_value_is_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("BIGMODEL_DATA_API_KEY", raising=False)
    assert hidden("data.api_key", "abc") == "${oc.env:BIGMODEL_DATA_API_KEY}"
    assert os.environ.pop(variable("data.api_key")) == "abc"
