"""Credential sets: where they are found, what is said when they are not, what is never said."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from file_connector.endpoints.credentials import (
    credentials_variable,
    resolve_credentials,
    secret_values,
)
from file_connector.errors import ConfigurationError, redact
from file_connector_tests.endpoints.fakes import SPEC

ACME = "FAKE_CREDENTIALS__ACME"


@pytest.mark.parametrize(
    ("name", "variable"),
    [("acme", ACME), ("Acme-Two_3", "FAKE_CREDENTIALS__ACME_TWO_3")],
)
def test_the_variable_of_a_name(name: str, variable: str) -> None:
    assert credentials_variable(SPEC, name) == variable


def test_json_in_the_variable() -> None:
    found = resolve_credentials(SPEC, "acme", {ACME: ' {"token": "CANARY-1"}\n'})
    assert found.data == {"token": "CANARY-1"}
    assert found.origin == f"environment variable {ACME}"
    assert "CANARY" not in repr(found)


def test_a_path_in_the_variable(tmp_path: Path) -> None:
    file = tmp_path / "acme.json"
    file.write_bytes(b'\xef\xbb\xbf{"token": "CANARY-2"}')
    found = resolve_credentials(SPEC, "acme", {ACME: str(file)})
    assert found.data == {"token": "CANARY-2"}
    assert ACME in found.origin


def test_no_name_means_the_process_wide_set() -> None:
    found = resolve_credentials(SPEC, None, {"FAKE_TOKEN": "CANARY-3"})
    assert (found.name, found.data) == ("default", {"token": "CANARY-3"})
    with pytest.raises(ConfigurationError, match="FAKE_TOKEN is not set"):
        resolve_credentials(SPEC, None, {})


def test_the_sandbox_needs_no_variable() -> None:
    assert resolve_credentials(SPEC, "sandbox", {}).name == "sandbox"


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("Sandbox", "credentials: sandbox"),
        ("FAKE_CREDENTIALS__ACME", "Write only the end of that name: `credentials: acme`"),
    ],
)
def test_a_name_that_is_nearly_right(name: str, words: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        resolve_credentials(SPEC, name, {})
    assert name in str(caught.value)
    assert words in str(caught.value)


@pytest.mark.parametrize("secret", ["AIzaSyCANARY_CANARY", "GOCSPX-CANARY", "vCANARYx7Qp2Lm9Zt4Rw"])
def test_s48_a_secret_in_the_place_of_a_name_is_not_repeated(secret: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        resolve_credentials(SPEC, secret, {})
    assert "CANARY" not in str(caught.value)
    assert "looks like a secret" in str(caught.value)
    found = resolve_credentials(SPEC, secret, {credentials_variable(SPEC, secret): "{}"})
    assert found.name == secret


BAD = {
    "unset": (None, ["which is not set", "JSON"]),
    "empty": ("  ", ["which is not set"]),
    "bare secret": ("CANARY-secret-value", ["neither JSON nor the path"]),
    "very long secret": ("CANARY" * 5000, ["neither JSON nor the path"]),
    "secret with a zero byte": ("CANARY\0x", ["neither JSON nor the path"]),
    "missing file": ("/nowhere/CANARY.json", ["neither JSON nor the path"]),
    "unknown home": ("~nobody-CANARY/x", ["neither JSON nor the path"]),
    "broken JSON": ('{"token": "CANARY', ["is not valid JSON"]),
    "deep JSON": ('{"a":' * 100_000, ["is not valid JSON"]),
    "huge number": ('{"a":' + "9" * 5000 + "}", ["is not valid JSON"]),
}


@pytest.mark.parametrize(("value", "words"), BAD.values(), ids=BAD)
def test_s48_unusable_credentials_name_the_variable_and_never_the_content(
    value: str | None, words: list[str]
) -> None:
    with pytest.raises(ConfigurationError) as raised:
        resolve_credentials(SPEC, "acme", {} if value is None else {ACME: value})
    sentence = str(raised.value)
    assert ACME in sentence
    assert all(word in sentence for word in words), sentence
    assert "CANARY" not in sentence
    assert raised.value.__cause__ is None
    assert raised.value.__suppress_context__ or raised.value.__context__ is None


@pytest.mark.parametrize("content", [b"[]", b'"CANARY"', b"\xff\xfe", b"", b"x" * 200_000])
def test_s48_unusable_files(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "acme.json"
    file.write_bytes(content)
    with pytest.raises(ConfigurationError) as raised:
        resolve_credentials(SPEC, "acme", {ACME: str(file)})
    assert ACME in str(raised.value)
    assert "CANARY" not in str(raised.value)


def test_s48_a_resolved_secret_is_scrubbed_from_then_on_in_all_its_spellings() -> None:
    key = "-----BEGIN PRIVATE KEY-----\nMIIEv-CANARY-line-one\nCANARY+/line-two==\n-----END"
    data = {
        "type": "service_account",
        "client_email": "robot@acme.example",
        "private_key": key,
        "nested": {"list": ["CANARY nested é"]},
    }
    resolve_credentials(SPEC, "acme", {ACME: json.dumps(data)})
    for spelling in (
        key,
        json.dumps(data),
        str(data),
        "MIIEv-CANARY-line-one",
        "CANARY%20nested%20%C3%A9",
    ):
        assert "CANARY" not in redact(f"it says {spelling}!"), spelling
    assert "robot@acme.example" in redact("robot@acme.example")


def test_what_counts_as_secret() -> None:
    data = {"client_id": "public", "client_secret": "hush-hush", "x": 5, "short": "abc"}
    assert set(secret_values(data)) == {"hush-hush"}
