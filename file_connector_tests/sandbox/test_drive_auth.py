"""Tokens: what google-auth and the client do when they are refused."""

from __future__ import annotations

from typing import Any

import pytest
from google.auth.exceptions import RefreshError
from googleapiclient.errors import HttpError

from file_connector.sandbox import ACCOUNT, OWNER, Sandbox
from file_connector_tests.sandbox.conftest import ConnectDrive, Drive


def test_a_service_account_is_its_own_user_and_a_subject_is_another(
    sandbox: Sandbox, drive: Drive, connect: ConnectDrive
) -> None:
    sandbox.drive.add_file("mine")
    assert drive.names() == []
    assert connect(subject=OWNER).names() == ["mine"]
    assert {call.account for call in sandbox.log.calls()} == {ACCOUNT, OWNER}


def test_an_expired_token_is_renewed_by_the_client(sandbox: Sandbox, drive: Drive) -> None:
    assert drive.names() == []
    assert sandbox.drive_api.tokens.expire(ACCOUNT) == 1
    assert drive.names() == []
    assert [call.status for call in sandbox.log.calls("drive.files.list")] == [200, 401, 200]
    assert sandbox.log.count("drive.token") == 2


def test_tokens_live_an_hour_of_the_worlds_clock(sandbox: Sandbox, drive: Drive) -> None:
    drive.names()
    sandbox.clock.advance(3500)
    drive.names()
    assert sandbox.log.count("drive.token") == 1
    sandbox.clock.advance(100)
    drive.names()
    assert sandbox.log.count("drive.token") == 2


@pytest.mark.parametrize(
    ("trouble", "words"),
    [
        ("dead key", "Invalid JWT Signature"),
        ("not delegated", "unauthorized_client"),
        ("no such user", "Invalid email or User ID"),
        ("admin", "access_denied"),
        ("scope", "invalid_scope"),
        ("account", "account not found"),
    ],
)
def test_refused_service_accounts(
    sandbox: Sandbox, connect: ConnectDrive, trouble: str, words: str
) -> None:
    api = sandbox.drive_api
    scopes = ("https://www.googleapis.com/auth/drive.metadata.readonly",)
    client = connect(subject=OWNER if trouble == "not delegated" else None, scopes=scopes)
    if trouble == "dead key":
        sandbox.revoke_google(ACCOUNT)
    elif trouble == "not delegated":
        api.undelegated.add(ACCOUNT)
    elif trouble == "no such user":
        client = connect(subject="nobody@example.com")
    elif trouble == "admin":
        api.denied_scopes |= set(scopes)
    elif trouble == "scope":
        client = connect(scopes=("drive.misspelt",))
    else:
        api.accounts.clear()
    with pytest.raises(RefreshError, match=words):
        client.page()


def test_a_key_of_another_world_is_refused(sandbox: Sandbox, drive: Drive) -> None:
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import rsa
    from google.auth import crypt

    strange = rsa.generate_private_key(public_exponent=65537, key_size=1024).private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    load: Any = crypt.RSASigner.from_string
    drive.credentials._signer = load(strange, "k")
    with pytest.raises(RefreshError, match="Invalid JWT Signature"):
        drive.page()


def test_an_authorized_user_and_the_end_of_the_grant(
    sandbox: Sandbox, connect: ConnectDrive
) -> None:
    client = connect("ana@example.com", authorized_user=True)
    assert client.names() == []
    sandbox.revoke_google("ana@example.com")
    with pytest.raises(RefreshError, match=r"expired or revoked"):
        client.page()
    last = sandbox.log.calls("drive.token")[-1]
    assert (last.status, last.grant) == (400, "refresh_token")


def test_no_credentials_and_wrong_scope(
    sandbox: Sandbox, drive: Drive, connect: ConnectDrive
) -> None:
    import httplib2

    bare = httplib2.Http(timeout=5)
    answer, body = bare.request(f"{sandbox.drive_api_endpoint}files")
    assert (answer.status, b"PERMISSION_DENIED" in body) == (403, True)
    answer, _ = bare.request(f"{sandbox.drive_api_endpoint}about?fields=user")
    assert answer.status == 401
    answer, body = bare.request(
        f"{sandbox.drive_api_endpoint}files", headers={"Authorization": "Bearer made-up"}
    )
    assert (answer.status, b"UNAUTHENTICATED" in body) == (401, True)
    assert "www-authenticate" in answer
    bare.close()
    with pytest.raises(HttpError) as error:
        connect(scopes=("https://www.googleapis.com/auth/drive.file",)).page()
    assert error.value.status_code == 403


def test_s48_the_log_holds_no_secrets(sandbox: Sandbox, connect: ConnectDrive) -> None:
    connect().names()
    connect("ana@example.com", authorized_user=True).names()
    text = repr(sandbox.log.calls(tokens=True))
    assert sandbox.log.count(tokens=True) == 4
    assert not [secret for secret in sandbox.secrets if secret in text]
    assert len(sandbox.secrets) > 10
