"""Autodesk: the three ways to sign in, and the race for a refresh token."""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Iterator, Mapping
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest
import responses

from file_connector.connectors.autodesk import SPEC, AutodeskDetails
from file_connector.connectors.autodesk.auth import AUDIENCE
from file_connector.connectors.autodesk.connector import AutodeskConnector
from file_connector.connectors.base import Credentials
from file_connector.errors import (
    ConfigurationError,
    FileConnectorError,
    ReconnectError,
    ThrottledError,
    TransientError,
)
from file_connector.sandbox import faults
from file_connector_tests.connectors.acc import DictVault, Site, a_site, rows
from file_connector_tests.connectors.memory import Memory, Sync


@pytest.fixture
def site() -> Iterator[Site]:
    with a_site() as site:
        yield site


@pytest.fixture
def vault() -> DictVault:
    return DictVault()


def real_now() -> datetime:
    return datetime.now(timezone.utc)


def three_legged(site: Site, vault: DictVault, seed: Mapping[str, Any]) -> AutodeskConnector:
    return site.connector(credentials=seed, toolbox=site.toolbox(vault=vault))


def refusal(connector: AutodeskConnector) -> FileConnectorError:
    with pytest.raises(FileConnectorError) as caught:
        connector.check()
    return caught.value


def refreshes(site: Site) -> int:
    return sum(c.grant == "refresh_token" for c in site.sandbox.log.calls("aps.token"))


def in_another_process() -> None:
    """Forget what this process knows of tokens, as another one would not know it."""
    from file_connector.connectors.autodesk import auth

    auth._slots.clear()


# -- 2-legged --------------------------------------------------------------------------------------


def test_twenty_endpoints_share_one_access_token(site: Site) -> None:
    for _ in range(20):
        site.connector().check()
    assert site.sandbox.log.count("aps.token") == 1


def test_endpoints_that_wake_together_ask_for_one_access_token(site: Site) -> None:
    site.sandbox.faults.add(faults.delay(0.2), kind="aps.token", times=None)
    threads = [threading.Thread(target=site.connector().check) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert site.sandbox.log.count("aps.token") == 1


def test_other_credentials_share_nothing(site: Site) -> None:
    site.sandbox.aps.add_client("other", "other-secret")
    site.connector().check()
    site.connector(credentials=site.sandbox.aps_credentials(client_id="other")).check()
    assert {c.client for c in site.sandbox.log.calls()} == {"sandbox-client", "other"}


def test_the_token_is_renewed_minutes_before_it_expires(site: Site) -> None:
    connector = site.connector()
    connector.check()
    site.sandbox.clock.advance(minutes=54)
    connector.check()
    assert site.sandbox.log.count("aps.token") == 1
    site.sandbox.clock.advance(minutes=2)
    connector.check()
    assert site.sandbox.log.count("aps.token") == 2


def test_a_short_lived_token_is_not_renewed_at_every_call(site: Site) -> None:
    site.sandbox.aps_api.tokens.lifetime_seconds = 60
    site.sync().tick()
    assert site.sandbox.log.count("aps.token") == 1


@pytest.mark.parametrize(
    ("data", "lacking"),
    [
        ({}, "client_id, client_secret"),
        ({"client_id": "x"}, "client_secret"),
        ({"client_id": "x", "refresh_token": ""}, "refresh_token"),
        (
            {"client_id": "x", "client_secret": "y", "service_account_id": "z"},
            "key_id, private_key",
        ),
        ({"client_id": 7, "client_secret": "y"}, "client_id"),
    ],
)
def test_incomplete_credentials_are_named(
    site: Site, data: Mapping[str, Any], lacking: str
) -> None:
    with pytest.raises(ConfigurationError, match=rf"APS_CREDENTIALS__TEST lack {lacking}\."):
        site.connector(credentials=data)


@pytest.mark.parametrize("name", ["client_id", "client_secret", "refresh_token", "x_user_id"])
@pytest.mark.parametrize("value", ["ключ", "two\nlines"])
def test_credentials_no_header_can_carry_are_named(site: Site, name: str, value: str) -> None:
    data = {"client_id": "x", "client_secret": "y", "refresh_token": "z", name: value}
    with pytest.raises(ConfigurationError, match=rf"^{name} in .*APS_CREDENTIALS__TEST") as told:
        site.connector(credentials=data)
    assert value not in str(told.value)


def test_blanks_around_copied_credentials_do_no_harm(site: Site) -> None:
    data = {name: f" {value}\n" for name, value in site.sandbox.aps_credentials().items()}
    site.connector(credentials=data).check()


@pytest.mark.parametrize("life", [None, "3599", 0, -5, True, 10**400, float("nan"), float("inf")])
def test_any_word_on_how_long_a_token_lives(site: Site, life: Any) -> None:
    site.sandbox.faults.add(
        faults.mangle(lambda p: {**p, "expires_in": life}), kind="aps.token", times=None
    )
    site.connector().check()


@pytest.mark.parametrize("token", ["", " ", "a\nb", "ключ", None, 5])
def test_s48_what_no_header_can_carry_is_no_token(site: Site, token: Any) -> None:
    site.sandbox.faults.add(
        faults.mangle(lambda p: {**p, "access_token": token}), kind="aps.token", times=None
    )
    error = refusal(site.connector())
    assert isinstance(error, TransientError)
    assert str(error).startswith("Autodesk's token endpoint answered 200 without an access token")


def test_s33_a_host_without_a_token_endpoint_is_not_a_missing_project(site: Site) -> None:
    site.sandbox.faults.add(faults.status(404, {}), kind="aps.token", times=None)
    error = refusal(site.connector())
    assert isinstance(error, ConfigurationError)
    assert "APS_BASE_URL" in str(error)


def test_a_wrong_secret_names_where_it_came_from(site: Site) -> None:
    wrong = {**site.sandbox.aps_credentials(), "client_secret": "not the secret"}
    error = refusal(site.connector(credentials=wrong))
    assert isinstance(error, ConfigurationError)
    assert "APS_CREDENTIALS__TEST" in str(error)
    assert "not the secret" not in str(error)
    assert site.naps.seconds == []


TOKEN = "https://developer.api.autodesk.com/authentication/v2/token"


@pytest.mark.parametrize(
    ("status", "body", "kind", "says"),
    [
        (
            400,
            {"error": "invalid_scope", "error_description": "wider"},
            ReconnectError,
            "data:read",
        ),
        (
            400,
            {"developerMessage": "Invalid grant", "errorCode": "AUTH-008"},
            ReconnectError,
            "again",
        ),
        (401, {"developerMessage": "no", "errorCode": "AUTH-003"}, ConfigurationError, "client_id"),
        (401, "", ConfigurationError, "client_secret"),
        (403, {"developerMessage": "x", "errorCode": "AUTH-001"}, ConfigurationError, "Tick"),
        (429, {"developerMessage": "Quota limit exceeded."}, ThrottledError, "429"),
        (500, "<html>", TransientError, "500"),
        (404, "<html>", TransientError, "404"),
        (200, {"token_type": "Bearer"}, TransientError, "without an access token"),
        (200, "<html>", TransientError, "without an access token"),
        (302, "", TransientError, "302"),
    ],
)
@responses.activate
def test_token_errors_are_told_apart(
    status: int, body: Any, kind: type[FileConnectorError], says: str
) -> None:
    in_another_process()
    text = body if isinstance(body, str) else json.dumps(body)
    responses.post(TOKEN, body=text, status=status)
    connector = offline()
    error = refusal(connector)
    assert type(error) is kind
    assert says in str(error)
    connector.close()


def offline(**data: str) -> AutodeskConnector:
    from file_connector.connectors.autodesk import AutodeskDetails
    from file_connector.connectors.base import Credentials, Toolbox

    credentials = {"client_id": "app", "client_secret": "hush-hush", **data}
    return AutodeskConnector(
        AutodeskDetails(project_id="p"),
        Credentials("c", "variable C", credentials),
        Toolbox(sleep=lambda seconds: None, vault=DictVault()),
    )


# -- secure service accounts -----------------------------------------------------------------------


def test_a_service_account_signs_in_with_an_assertion(site: Site) -> None:
    credentials = site.sandbox.aps_credentials("ssa")
    sync = site.sync(credentials=credentials, toolbox=site.toolbox(now=real_now))
    sync.tick()
    assert rows(sync.memory) == site.truth()
    (call,) = site.sandbox.log.calls("aps.token")
    assert call.grant == "urn:ietf:params:oauth:grant-type:jwt-bearer"
    assert "service account SSA1SANDBOX00" in sync.connector.check()[0]


@responses.activate
def test_the_assertion_carries_the_documented_claims(site: Site) -> None:
    in_another_process()
    responses.post(TOKEN, json={"error": "invalid_grant"}, status=400)
    key = site.sandbox.aps_credentials("ssa")["private_key"].replace("\n", "\\n")
    connector = offline(service_account_id="ROBOT", key_id="K1", private_key=key)
    error = refusal(connector)
    connector.close()
    assert isinstance(error, ReconnectError)
    assert "ROBOT" in str(error)
    request = responses.calls[0].request
    assert str(request.headers["Authorization"]).startswith("Basic ")
    form = dict(pair.split("=", 1) for pair in str(request.body).split("&"))
    header, claims, _ = (part + "==" for part in form["assertion"].split("."))
    assert json.loads(base64.urlsafe_b64decode(header)) == {
        "alg": "RS256",
        "typ": "JWT",
        "kid": "K1",
    }
    said = json.loads(base64.urlsafe_b64decode(claims))
    assert 0 < said.pop("exp") - real_now().timestamp() <= 300
    assert said == {"iss": "app", "sub": "ROBOT", "aud": AUDIENCE, "scope": ["data:read"]}


@pytest.mark.parametrize("key", ["nonsense", "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END"])
def test_a_broken_key_is_a_configuration_error_without_the_key(site: Site, key: str) -> None:
    credentials = {**site.sandbox.aps_credentials("ssa"), "private_key": key}
    error = refusal(site.connector(credentials=credentials))
    assert isinstance(error, ConfigurationError)
    assert "private_key in environment variable APS_CREDENTIALS__TEST" in str(error)
    assert key not in str(error)
    assert "AAAA" not in repr(error.__context__)


# -- 3-legged --------------------------------------------------------------------------------------


def test_three_legged_without_a_key_refuses_to_start(site: Site) -> None:
    connector = site.connector(credentials=site.sandbox.aps_credentials("three_legged"))
    error = refusal(connector)
    assert isinstance(error, ConfigurationError)
    assert "FILE_CONNECTOR_ENCRYPTION_KEY" in str(error)
    assert site.sandbox.log.count(tokens=True) == 0


def test_three_legged_rotates_and_stores_before_use(site: Site, vault: DictVault) -> None:
    seed = site.sandbox.aps_credentials("three_legged")
    sync = Sync(three_legged(site, vault, seed))
    sync.tick()
    assert rows(sync.memory) == site.truth()
    for _ in range(3):
        site.sandbox.clock.advance(hours=2)
        assert sync.connector.check()
    assert refreshes(site) == vault.saves == 4
    (held,) = vault.held.values()
    assert held["refresh_token"] not in [seed["refresh_token"], None]


def test_s34_twenty_endpoints_wake_together_and_refresh_once(site: Site, vault: DictVault) -> None:
    seed = site.sandbox.aps_credentials("three_legged")
    connectors = [three_legged(site, vault, seed) for _ in range(20)]
    together = threading.Barrier(20)
    failures: list[FileConnectorError] = []

    def wake(connector: AutodeskConnector) -> None:
        together.wait()
        try:
            connector.check()
        except FileConnectorError as error:
            failures.append(error)

    for _ in range(2):
        threads = [threading.Thread(target=wake, args=(c,)) for c in connectors]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        site.sandbox.clock.advance(hours=2)
    assert failures == []
    assert refreshes(site) == 2


def test_s34_processes_use_the_winner_s_token(site: Site, vault: DictVault) -> None:
    seed = site.sandbox.aps_credentials("three_legged")
    for _ in range(5):
        three_legged(site, vault, seed).check()
        in_another_process()
    assert refreshes(site) == 1


def test_s34_a_refused_token_is_refreshed_once_by_whoever_comes_first(
    site: Site, vault: DictVault
) -> None:
    seed = site.sandbox.aps_credentials("three_legged")
    first = three_legged(site, vault, seed)
    first.check()
    in_another_process()
    second = three_legged(site, vault, seed)
    second.check()
    site.sandbox.aps_api.tokens.expire()
    second.check()
    first.check()
    assert refreshes(site) == 2


def test_s34_a_token_of_another_process_refused_as_well_is_no_dead_sign_in(
    site: Site, vault: DictVault
) -> None:
    seed = site.sandbox.aps_credentials("three_legged")
    sync = Sync(three_legged(site, vault, seed), Memory())
    sync.tick()
    in_another_process()
    site.sandbox.aps_api.tokens.expire()
    three_legged(site, vault, seed).check()
    site.sandbox.aps_api.tokens.expire()
    sync.tick()
    assert refreshes(site) == 3


def test_s33_a_token_renewed_before_the_refusal_and_refused_as_well_is_no_dead_sign_in(
    site: Site,
) -> None:
    """Somebody else renews while a call is under way, and loses that token, too."""
    connector, other = site.connector(), site.connector()
    connector.check()

    def renewed_and_lost() -> None:
        site.sandbox.aps_api.tokens.expire()
        other.check()
        site.sandbox.aps_api.tokens.expire()

    site.sandbox.faults.add(faults.before(renewed_and_lost), kind="aps.topFolders")
    connector.check()
    assert site.sandbox.log.count("aps.token") == 3


def test_s33_a_fresh_token_that_is_refused_ends_the_attempts(site: Site) -> None:
    site.connector().check()
    since = site.sandbox.log.mark()
    site.sandbox.faults.add(faults.expired_token("aps"), kind="aps.topFolders", times=None)
    assert isinstance(refusal(site.connector()), ReconnectError)
    assert site.calls(since, "aps.token") == 1
    assert site.calls(since, "aps.topFolders") == 2


def test_s34_killed_between_answer_and_save_asks_for_a_new_consent(
    site: Site, vault: DictVault
) -> None:
    seed = site.sandbox.aps_credentials("three_legged")
    vault.broken = KeyboardInterrupt()  # type: ignore[assignment]
    with pytest.raises(KeyboardInterrupt):
        three_legged(site, vault, seed).check()
    assert refreshes(site) == 1
    assert site.calls() == 0, "the access token was not used"
    in_another_process()
    vault.broken = None
    error = refusal(three_legged(site, vault, seed))
    assert isinstance(error, ReconnectError)
    assert "Connect the Autodesk account again" in str(error)
    assert "APS_CREDENTIALS__TEST" in str(error)
    assert seed["refresh_token"] not in str(error)
    fresh = site.sandbox.aps_credentials("three_legged")
    three_legged(site, vault, fresh).check()


def test_s34_a_check_tells_of_a_renewal_that_hangs_elsewhere(site: Site, vault: DictVault) -> None:
    """A process that died in the middle keeps the lock for a while; a check waits less."""
    seed = site.sandbox.aps_credentials("three_legged")
    three_legged(site, vault, seed).check()
    site.sandbox.clock.advance(hours=2)
    in_another_process()
    toolbox = site.toolbox(vault=vault, timeout_seconds=0.01, retry_budget_seconds=0.0)
    (key,) = vault._locks
    with vault.locked(key, 0.0):
        error = refusal(site.connector(credentials=seed, toolbox=toolbox))
    assert type(error) is TransientError
    assert refreshes(site) == 1
    assert three_legged(site, vault, seed).check()


def test_s34_a_token_the_vault_did_not_take_is_saved_by_the_next_attempt(
    site: Site, vault: DictVault
) -> None:
    seed = site.sandbox.aps_credentials("three_legged")
    vault.broken = TransientError("the database is away")
    assert isinstance(refusal(three_legged(site, vault, seed)), TransientError)
    vault.broken = None
    three_legged(site, vault, seed).check()
    assert refreshes(site) == 1
    assert vault.saves == 1


def test_s34_a_late_loser_never_replaces_the_newer_token(site: Site, vault: DictVault) -> None:
    seed = site.sandbox.aps_credentials("three_legged")
    vault.broken = TransientError("the database is away")
    refusal(three_legged(site, vault, seed))
    vault.broken = None
    (key,) = vault._locks
    newer = {
        "refresh_token": site.sandbox.aps_credentials("three_legged")["refresh_token"],
        "issued_at": "2026-03-02T09:00:00Z",
    }
    vault.held[key] = newer
    three_legged(site, vault, seed).check()
    assert site.sandbox.log.calls("aps.token")[-1].status == 200
    assert refreshes(site) == 2, "went on from the newer token"


def test_a_new_seed_starts_anew(site: Site, vault: DictVault) -> None:
    old = site.sandbox.aps_credentials("three_legged")
    three_legged(site, vault, old).check()
    site.sandbox.aps_api.revoke_refresh_tokens()
    site.sandbox.aps_api.tokens.expire()
    assert isinstance(refusal(three_legged(site, vault, old)), ReconnectError)
    new = site.sandbox.aps_credentials("three_legged")
    three_legged(site, vault, new).check()
    one, other = (three_legged(site, vault, c).principal for c in (old, new))
    assert one != other


def test_s44_a_revoked_grant_is_one_clear_message_without_retries(
    site: Site, vault: DictVault
) -> None:
    seed = site.sandbox.aps_credentials("three_legged")
    sync = Sync(three_legged(site, vault, seed))
    sync.tick()
    site.sandbox.aps_api.revoke_refresh_tokens()
    site.sandbox.aps_api.tokens.expire()
    before = refreshes(site)
    with pytest.raises(ReconnectError, match="used up, revoked, or idle"):
        sync.tick()
    assert refreshes(site) == before + 1
    assert site.naps.seconds == []


def foretold(site: Site, vault: DictVault, seed: Any) -> str | None:
    assert SPEC.forecast is not None
    details = AutodeskDetails(project_id=site.project)
    return SPEC.forecast(details, Credentials("test", "a test", seed), site.toolbox(vault=vault))


def test_the_fifteen_day_death_is_forecast(site: Site, vault: DictVault) -> None:
    seed = site.sandbox.aps_credentials("three_legged")
    three_legged(site, vault, seed).check()
    site.sandbox.clock.advance(days=10)
    assert len(three_legged(site, vault, seed).check()) == 2
    site.sandbox.clock.advance(days=12)
    calls = site.calls()
    told = foretold(site, vault, seed)
    assert site.calls() == calls
    *_, warning = three_legged(site, vault, seed).check()
    assert warning.startswith("Attention: the Autodesk sign-in was last renewed")
    assert "ends in 3.0 days" in warning
    assert f"Attention: {told}." == warning
    site.sandbox.clock.advance(days=16)
    assert "has ended" in str(foretold(site, vault, seed))
    assert isinstance(refusal(three_legged(site, vault, seed)), ReconnectError)


def test_the_forecast_is_a_note_of_the_run_too(site: Site, vault: DictVault) -> None:
    seed = site.sandbox.aps_credentials("three_legged")
    sync = Sync(three_legged(site, vault, seed))
    sync.tick()
    site.sandbox.clock.advance(days=14)
    (note,) = sync.tick().notes
    assert "ends in 1.0 days" in note
    assert sync.tick().notes == []


def test_a_provider_that_does_not_rotate_keeps_its_token(site: Site, vault: DictVault) -> None:
    def without(payload: Any) -> Any:
        payload.pop("refresh_token", None)
        return payload

    site.sandbox.faults.add(faults.mangle(without), kind="aps.token")
    seed = site.sandbox.aps_credentials("three_legged")
    three_legged(site, vault, seed).check()
    assert next(iter(vault.held.values()))["refresh_token"] == seed["refresh_token"]


def test_s48_secrets_stay_out_of_reprs_and_the_fingerprints(site: Site, vault: DictVault) -> None:
    for kind in ("two_legged", "three_legged", "ssa"):
        credentials = site.sandbox.aps_credentials(kind)
        connector = three_legged(site, vault, credentials)
        text = " ".join([connector.principal, connector.scope, repr(connector), str(vault._locks)])
        for name in ("client_secret", "refresh_token", "private_key"):
            assert credentials.get(name, "absent") not in text


def test_s52_many_endpoints_at_once_get_their_own_answers(site: Site) -> None:
    aps = site.sandbox.aps
    syncs: dict[str, Sync] = {}
    for n in range(8):
        aps.add_client(f"app{n}", f"secret-{n}")
        project = aps.add_project(f"P{n}")
        folder = aps.add_folder("F", aps.project_files(project))
        for k in range(5):
            aps.add_item(f"{n}-{k}.pdf", folder)
        syncs[project] = site.sync(
            {"project_id": project},
            credentials=site.sandbox.aps_credentials(client_id=f"app{n}"),
        )
    threads = [threading.Thread(target=sync.tick) for sync in syncs.values()]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for n, (project, sync) in enumerate(syncs.items()):
        assert sync.memory.titles == [f"{n}-{k}.pdf" for k in range(5)]
        calls = [c for c in site.sandbox.log.calls() if project in c.path]
        assert {c.client for c in calls} == {f"app{n}"}


def test_time_of_renewal_survives_a_restart(site: Site, vault: DictVault) -> None:
    seed = site.sandbox.aps_credentials("three_legged")
    three_legged(site, vault, seed).check()
    in_another_process()
    site.sandbox.clock.advance(minutes=58)
    three_legged(site, vault, seed).check()
    assert refreshes(site) == 2
    held = next(iter(vault.held.values()))
    assert (
        timedelta(0)
        <= site.sandbox.clock.now()
        - datetime.fromisoformat(held["issued_at"].replace("Z", "+00:00"))
        < timedelta(minutes=1)
    )
