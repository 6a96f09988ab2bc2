"""What Supabase's REST API, or something in its place, may answer; and where we ask it."""

from __future__ import annotations

import json
from contextlib import closing
from functools import partial
from pathlib import Path

import pytest
import requests
import responses

from file_connector.deployment import Deployment
from file_connector.destination.rest import RestStore
from file_connector.errors import (
    BugError,
    ConfigurationError,
    ConflictError,
    FileConnectorError,
    ThrottledError,
    TransientError,
)
from file_connector.settings import Settings
from file_connector_tests.destination.rest import KEY, never, told
from file_connector_tests.postgres import free_port

URL = "https://abcdef.supabase.co/rest/v1"


def envelope(code: str, message: str = "words") -> str:
    return json.dumps({"code": code, "message": message, "details": None, "hint": None})


REFUSALS: list[tuple[int, str, type[FileConnectorError], int]] = [
    (400, envelope("22P05"), BugError, 1),
    (500, envelope("21000"), BugError, 1),
    (409, envelope("23505"), BugError, 1),
    (400, envelope("PGRST102"), BugError, 1),
    (403, envelope("42501"), ConfigurationError, 1),
    (401, envelope("PGRST301"), ConfigurationError, 1),
    (404, envelope("PGRST202"), ConfigurationError, 5),
    (404, envelope("42P01"), ConfigurationError, 1),
    (406, envelope("PGRST106"), ConfigurationError, 1),
    (405, envelope("25006"), ConfigurationError, 1),
    (503, envelope("53100"), ConfigurationError, 1),
    (409, envelope("PT409"), ConflictError, 1),
    (503, envelope("PGRST000"), TransientError, 5),
    (504, envelope("PGRST003"), TransientError, 5),
    (503, envelope("53300"), TransientError, 5),
    (500, envelope("40001"), TransientError, 5),
    (500, envelope("40P01"), TransientError, 5),
    (500, envelope("55P03"), TransientError, 5),
    (500, envelope("57014"), TransientError, 5),
    (503, envelope("57P01"), TransientError, 5),
    (502, "<html>Bad gateway</html>", TransientError, 5),
    (520, "", TransientError, 5),
    (429, "slow down", ThrottledError, 5),
    (401, '{"message":"Invalid API key","hint":"x"}', ConfigurationError, 1),
    (404, "<html>not here</html>", ConfigurationError, 1),
    (301, "", ConfigurationError, 1),
    (413, "too large", BugError, 1),
    (200, "<html>log in to this network</html>", TransientError, 5),
    (200, "", TransientError, 5),  # a cut answer, never "no row"
]


@pytest.mark.parametrize(
    ("status", "body", "kind", "calls"), REFUSALS, ids=lambda value: str(value)[:24]
)
def test_every_answer_is_told_by_its_code(
    status: int, body: str, kind: type[FileConnectorError], calls: int
) -> None:
    waits: list[float] = []
    with responses.RequestsMock() as api, closing(RestStore(URL, KEY, sleep=waits.append)) as store:
        api.post(f"{URL}/rpc/file_connector_state", status=status, body=body)
        error = told(lambda: store.state("plans"))
        assert type(error) is kind, error
        assert len(api.calls) == calls
        assert waits == [0.5, 1.0, 2.0, 4.0][: calls - 1]
        assert error.__cause__ is None


def test_what_passes_is_not_told() -> None:
    waits: list[float] = []
    with responses.RequestsMock() as api, closing(RestStore(URL, KEY, sleep=waits.append)) as store:
        where = f"{URL}/rpc/file_connector_renew"
        api.post(where, status=429, headers={"Retry-After": "7"})
        api.post(where, status=503, body=envelope("57P03"))
        api.post(where, body=requests.ConnectionError("cut"))
        api.post(where, body=requests.ReadTimeout("slow"))
        api.post(where, json=True)
        assert store.renew("plans", "run")
    assert waits == [7.0, 1.0, 2.0, 4.0]


def test_a_gateway_that_asks_for_long_patience_is_left_to_the_next_run() -> None:
    with responses.RequestsMock() as api, closing(RestStore(URL, KEY, sleep=never)) as store:
        api.post(f"{URL}/rpc/file_connector_state", status=429, headers={"Retry-After": "600"})
        error = told(lambda: store.state("plans"))
    assert isinstance(error, ThrottledError)
    assert error.retry_after == 600


def test_no_message_holds_the_key() -> None:
    secret = f"denied for {KEY} and Bearer {KEY}"
    for body in (envelope("42501", secret), envelope("XX000", secret), f"<html>{secret}"):
        with responses.RequestsMock() as api, closing(RestStore(URL, KEY, sleep=_skip)) as store:
            api.post(f"{URL}/rpc/file_connector_state", status=403, body=body)
            assert "canary" not in str(told(lambda: store.state("plans")))
            assert "canary" not in repr(store._calls.__dict__)


def test_a_host_that_is_not_there() -> None:
    for url, kind, words in (
        ("https://nosuch.invalid/rest/v1", ConfigurationError, "host in SUPABASE_URL is unknown"),
        (f"http://127.0.0.1:{free_port()}", TransientError, "nobody answers at the host and port"),
    ):
        with closing(RestStore(url, KEY, sleep=_skip)) as store:
            error = told(partial(store.state, "plans"))
        assert type(error) is kind
        assert words in str(error)


@pytest.mark.parametrize(
    ("url", "key", "words"),
    [
        ("abcdef.supabase.co", KEY, "SUPABASE_URL"),
        ("postgresql://a:canary@b/c", KEY, "SUPABASE_URL"),
        ("https://a:canary@b/c", KEY, "SUPABASE_URL"),
        ("https://[::1", KEY, "SUPABASE_URL"),
        (URL, "", "SUPABASE_SECRET_KEY"),
        (URL, "canary\r\nX-Evil: 1", "SUPABASE_SECRET_KEY"),
        (URL, "canäry", "SUPABASE_SECRET_KEY"),
    ],
)
def test_what_cannot_be_an_address_or_a_key_is_refused(url: str, key: str, words: str) -> None:
    with pytest.raises(ConfigurationError, match=words) as caught:
        RestStore(url, key)
    assert "canary" not in str(caught.value)


def test_the_environment_chooses_the_way_in(tmp_path: Path) -> None:
    def chosen(**environ: str) -> str:
        with Deployment.from_environ(environ, tmp_path).open_store() as store:
            return type(store).__name__

    rest = {"SUPABASE_URL": "https://abcdef.supabase.co/", "SUPABASE_SECRET_KEY": KEY}
    assert chosen() == "SqliteStore"
    assert chosen(**rest) == "RestStore"
    assert chosen(**rest, SUPABASE_DB_URL="postgresql://a:b@c/d") == "PostgresStore"
    for name, value in rest.items():
        with pytest.raises(ConfigurationError, match=f"{name} is set, but"):
            chosen(**{name: value})
    assert KEY not in repr(Settings.from_environ(rest, tmp_path))


def _skip(seconds: float) -> None:
    pass
