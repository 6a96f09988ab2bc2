"""What goes wrong between us and Supabase's REST API: lost answers, odd answers, wrong keys."""

from __future__ import annotations

import json
import traceback
from collections.abc import Callable, Iterator
from contextlib import closing
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
import requests
import responses

from file_connector.deployment import Deployment
from file_connector.destination.open import open_store
from file_connector.destination.rest import RestStore
from file_connector.errors import (
    BugError,
    ConfigurationError,
    ConflictError,
    FileConnectorError,
    ThrottledError,
    TransientError,
)
from file_connector.models import Commit, Mode, Outcome, SyncState
from file_connector.settings import Settings
from file_connector_tests.builders import NOON, a_file, an_identity
from file_connector_tests.destination.helpers import Writer, folders
from file_connector_tests.destination.proxy import CuttingProxy
from file_connector_tests.destination.rest import Project, RestPlace, project
from file_connector_tests.destination.test_faults import free_port, saying
from file_connector_tests.postgrest import key_of

__all__ = ["project"]

URL = "https://abcdef.supabase.co/rest/v1"
KEY = "sb_secret_canary-4711"


@pytest.fixture
def place(project: Project, tmp_path: Path) -> Iterator[RestPlace]:
    here = RestPlace(project, tmp_path)
    yield here
    here.close()


# -- lost calls and lost answers, with the real PostgREST -----------------------------------------


def through_a_cut(
    place: RestPlace, function: str, work: Callable[[RestStore], Any], cut_after: bool
) -> Any:
    word = f"rpc/file_connector_{function}?".encode()
    project = place.project
    with (
        CuttingProxy(project.url, saying(word), cut_after=cut_after) as proxy,
        closing(RestStore(proxy.url, project.key, sleep=lambda _: None)) as store,
    ):
        result = work(store)
        assert proxy.cuts == 1
        return result


@pytest.mark.parametrize("cut_after", [False, True], ids=["call", "answer"])
def test_s17_a_lost_call_or_answer_is_stored_once(place: RestPlace, cut_after: bool) -> None:
    direct = place.open()
    identity = an_identity()
    through_a_cut(
        place, "begin_run", lambda s: s.begin_run(identity, Mode.SWEEP, "run-1"), cut_after
    )
    writer = Writer(direct, begin=False)
    writer.commit(a_file("f1", parent_id="b"), folders=folders("a", "a/b"))
    files = [a_file("f1", parent_id="b", title="new"), a_file("f2"), a_file("f3")]
    commit = Commit(identity, "run-1", writer.state, records=files, mark_seen=True)
    result = through_a_cut(place, "commit", lambda s: s.commit(commit), cut_after)
    assert (result.inserted, result.updated, result.unchanged) == (2, 1, 0)
    assert result.changed_ids == {"f1", "f2", "f3"}
    assert result.state == direct.state("plans")
    assert [row["change_seq"] for row in place.files().values()] == [4, 2, 3]
    counts = direct.runs("plans")[0].counts
    assert (counts.inserted, counts.updated) == (3, 1)

    stamped = through_a_cut(
        place, "restamp", lambda s: s.restamp(an_identity(user_id="ben"), "run-1"), cut_after
    )
    assert stamped == 3
    through_a_cut(
        place, "finish_run", lambda s: s.finish_run("run-1", Outcome.COMPLETE, "", 1, 0), cut_after
    )
    state = direct.state("plans")
    advanced = through_a_cut(place, "put_state", lambda s: s.advance(state), cut_after)
    assert advanced == direct.state("plans")
    noted = through_a_cut(
        place, "note", lambda s: s.note_failure(identity, NOON, "bad", NOON), cut_after
    )
    assert noted.failures == 1
    assert direct.note_failure(identity, NOON, "bad", NOON).failures == 2


def test_a_commit_in_between_is_a_conflict(place: RestPlace) -> None:
    writer = Writer(place.open())
    writer.commit(a_file("f1"))
    late = Commit(writer.identity, "run-1", SyncState("plans"), records=[a_file("f2")])
    with pytest.raises(ConflictError, match="at version 1, this run started from 0"):
        place.opened[0].commit(late)
    assert list(place.files()) == ["f1"]


# -- who may come in -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("key", "words"),
    [
        (key_of("anon"), "lacks a permission"),
        (key_of("authenticated", sub="ana"), "lacks a permission"),
        (key_of("service_role", exp="1"), "refuses the key"),
        (key_of("nobody"), "refuses the key"),
        ("sb_secret_canary-4711", "refuses the key"),
        (key_of("service_role")[:-4] + "AAAA", "refuses the key"),
    ],
    ids=["anon", "user", "expired", "unknown role", "no token", "forged"],
)
def test_a_wrong_key_is_named_and_never_shown(project: Project, key: str, words: str) -> None:
    with closing(RestStore(project.url, key, sleep=_never)) as store:
        for work in (
            lambda: store.state("plans"),
            lambda: Writer(store),
            lambda: store.commit(Commit(an_identity(), "run", SyncState("plans"))),
        ):
            error = told(work)
            assert type(error) is ConfigurationError, error
            assert "SUPABASE_SECRET_KEY" in str(error)
            assert words in str(error)


def test_closed_tables_stay_closed_to_the_secret_key(place: RestPlace) -> None:
    Writer(place.open()).commit(a_file("f1"), folders=folders("a"))
    for table in ("sync_state", "sync_folders", "sync_leases", "tokens", "change_counter"):
        answer = requests.get(
            f"{place.project.url}/{table}",
            headers={"Authorization": f"Bearer {place.project.key}"},
            timeout=10,
        )
        assert answer.json()["code"] == "42501", table


def test_both_generations_of_keys_travel_in_both_headers(project: Project) -> None:
    """Supabase's gateway knows the new keys and hands PostgREST a token in their place."""
    seen: list[tuple[str | None, str | None]] = []

    class Gateway(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            seen.append((self.headers["apikey"], self.headers["Authorization"]))
            answer = requests.post(
                f"{project.url}{self.path.removeprefix('/rest/v1')}",
                data=self.rfile.read(int(self.headers["Content-Length"])),
                headers={
                    "Authorization": f"Bearer {key_of('service_role')}",
                    "Content-Type": "application/json",
                },
                timeout=10,
            )
            self.send_response(answer.status_code)
            self.send_header("Content-Length", str(len(answer.content)))
            self.end_headers()
            self.wfile.write(answer.content)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Gateway) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        root = f"http://127.0.0.1:{server.server_address[1]}"
        try:
            with closing(open_store(None, Path(), rest_url=root, rest_key=KEY)) as store:
                assert store.state("nobody").version == 0
                assert store.migrate() == []
        finally:
            server.shutdown()
    assert set(seen) == {(KEY, f"Bearer {KEY}")}


def test_a_database_without_the_functions_asks_for_the_migration(project: Project) -> None:
    with closing(RestStore(project.url, project.key, sleep=lambda _: None)) as store:
        error = told(lambda: store._call("of_a_later_version", endpoint="x"))
    assert isinstance(error, ConfigurationError)
    assert "supabase db push" in str(error)
    assert "PGRST202" in str(error)


# -- what may come back ----------------------------------------------------------------------------


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
    with responses.RequestsMock() as api, closing(RestStore(URL, KEY, sleep=_never)) as store:
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
        (f"http://127.0.0.1:{free_port()}", TransientError, "cut off"),
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


def told(work: Callable[[], object]) -> FileConnectorError:
    """What ``work`` raises; nothing about it may show the key."""
    with pytest.raises(FileConnectorError) as caught:
        work()
    text = "".join(traceback.format_exception(caught.value))
    assert "eyJ" not in text
    assert "canary" not in str(caught.value)
    return caught.value


def _never(seconds: float) -> None:
    raise AssertionError("nothing to wait for")


def _skip(seconds: float) -> None:
    pass
