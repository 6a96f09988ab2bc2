"""Autodesk: what goes wrong on the way, and what it must not be mistaken for."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from email.utils import format_datetime
from typing import Any

import pytest

from file_connector.connectors.autodesk.connector import AutodeskConnector
from file_connector.errors import (
    ConfigurationError,
    FileConnectorError,
    ReconnectError,
    ThrottledError,
    TransientError,
)
from file_connector.models import Batch, GoneReason
from file_connector.sandbox import faults
from file_connector.sandbox.faults import Fault
from file_connector_tests.connectors.acc import Site, a_site, rows
from file_connector_tests.connectors.memory import Killed, Memory, Sync


@pytest.fixture
def site() -> Iterator[Site]:
    with a_site() as site:
        yield site


@pytest.fixture
def synced(site: Site) -> Sync:
    sync = site.sync()
    sync.tick()
    assert rows(sync.memory) == site.truth()
    site.naps.seconds.clear()
    return sync


def path_of(folder: str) -> str:
    return f"/folders/{folder}/contents"


# -- S22: sick answers -----------------------------------------------------------------------------

SICK: dict[str, Fault] = {
    "500": faults.status(500, {"developerMessage": "oops", "errorCode": "ERR-003"}),
    "503": faults.status(503),
    "html 502": faults.html(502),
    "html 200": faults.html(200),
    "html 404": faults.html(404),
    "truncated": faults.truncate(),
    "reset in the body": faults.reset(),
    "reset at once": faults.reset(0),
    "closed early": faults.close_early(),
    "error in 200": faults.error_in_200(),
    "errors beside data": faults.mangle(lambda p: {**p, "errors": [{"title": "partly"}]}),
    "no data": faults.status(200, {"jsonapi": {"version": "1.0"}}),
    "data is null": faults.status(200, {"data": None}),
    "data is a list of text": faults.status(200, {"data": ["x"]}),
    "folder nobody can name": faults.status(200, {"data": [{"type": "folders", "id": "\ud800"}]}),
    "entry without id": faults.status(200, {"data": [{"type": "items"}]}),
    "empty body": faults.status(200, ""),
    "a bare list": faults.status(200, []),
    "408": faults.status(408),
    "redirected into nothing": faults.status(302, "", {"Location": "/login"}),
    "redirected away": faults.status(302, "", {"Location": "https://elsewhere.example/x"}),
}


OUTAGES = {
    *("500", "503", "408", "html 502", "html 404"),
    *("reset in the body", "reset at once", "closed early"),
}
"""The others are successes that say nothing."""


@pytest.mark.parametrize("sick", SICK.values(), ids=SICK.keys())
@pytest.mark.parametrize("call", ["aps.contents", "aps.topFolders"])
def test_s22_a_sick_answer_is_asked_for_again(site: Site, sick: Fault, call: str) -> None:
    rule = site.sandbox.faults.add(sick, kind=call, times=3)
    sync = site.sync()
    sync.tick()
    assert rule.hits == 3
    assert rows(sync.memory) == site.truth()
    assert not sync.memory.gone


def lasts(site: Site, sync: Sync, sick: str, folder: str) -> None:
    """A tick while ``folder`` answers so each time. What cannot be read costs only itself; what
    smells of an outage ends the run."""
    site.sandbox.faults.add(SICK[sick], path=path_of(folder), times=None)
    if sick in OUTAGES:
        with pytest.raises(TransientError):
            sync.tick()
    else:
        assert [blind.folder_id for blind in sync.tick().blind] == [folder]


@pytest.mark.parametrize("sick", SICK)
def test_s22_a_lasting_sickness_never_reads_as_an_empty_folder(
    site: Site, synced: Sync, sick: str
) -> None:
    site.sandbox.aps.add_item("new.pdf", site.room)
    lasts(site, synced, sick, site.room)
    assert not synced.memory.gone
    assert synced.memory.live_count() == 6
    assert sum(site.naps.seconds) <= 200, "within the run's patience"
    site.sandbox.faults.clear()
    synced.tick()
    assert rows(synced.memory) == site.truth()


def test_s22_one_sick_folder_does_not_keep_the_others_from_a_first_sync(site: Site) -> None:
    sync = site.sync()
    lasts(site, sync, "no data", site.level)
    elsewhere = {i for i, (_, _, parent, *_) in site.truth().items()} - {
        i for i, (_, _, parent, *_) in site.truth(site.level).items()
    }
    assert sync.memory.live == elsewhere
    site.sandbox.faults.clear()
    sync.tick()
    assert rows(sync.memory) == site.truth()


def test_s22_many_sick_folders_are_an_outage(site: Site, synced: Sync) -> None:
    """Each costs patience, and the run has only so much."""
    for n in range(4):
        folder = site.sandbox.aps.add_folder(f"Wing {n}", site.files)
        site.sandbox.faults.add(SICK["no data"], path=path_of(folder), times=None)
    with pytest.raises(TransientError):
        synced.tick()
    assert sum(site.naps.seconds) <= 200
    assert not synced.memory.gone


@pytest.mark.parametrize("what", ["file", "folder"])
@pytest.mark.parametrize("status", [302, 400, 405, 422])
def test_s20_what_is_missing_and_cannot_be_looked_at_stays(
    site: Site, synced: Sync, what: str, status: int
) -> None:
    """No listing shows it, and asked for it, Autodesk does not understand the question."""
    aps = site.sandbox.aps
    lost = site.level if what == "folder" else synced.memory.files_in(site.plans)[0].external_id
    aps.add_item("new.pdf", site.files)
    aps.add_item("new.pdf", site.plans)
    site.sandbox.faults.add(faults.drop([lost]), path=path_of(site.plans), times=None)
    site.sandbox.faults.add(
        faults.status(status, {"errors": "no"}, {"Location": "/login"}),
        path=rf"/(folders|items)/{lost}$",
        times=None,
    )
    told = synced.tick()
    assert [blind.folder_id for blind in told.blind] == [lost]
    assert "missing from its folder's listing" in told.blind[0].why
    assert rows(synced.memory) == site.truth(), "everything else is stored, nothing is gone"
    site.sandbox.faults.clear()
    assert not synced.tick().blind
    assert site.calls(kind="aps.contents") < 30


@pytest.mark.parametrize("status", [400, 405, 422])
def test_s20_a_sweep_leaves_what_it_cannot_ask_for(site: Site, status: int) -> None:
    memory = Memory()
    sync = Sync(site.connector(), memory)
    sync.tick()
    lost = memory.files_in(site.plans)[0].external_id
    site.sandbox.faults.add(faults.drop([lost]), path=path_of(site.plans), times=None)
    site.sandbox.faults.add(faults.status(status, {}), path=f"/items/{lost}$", times=None)
    sync.sweep()
    assert lost in memory.live


def test_a_body_that_drips_forever_is_given_up(site: Site) -> None:
    clock = iter(range(0, 100_000, 50))
    connector = site.connector(
        toolbox=site.toolbox(timeout_seconds=10, monotonic=lambda: float(next(clock)))
    )
    with pytest.raises(TransientError, match="does not come to an end"):
        connector.check()


def test_a_silent_server_is_given_up(site: Site) -> None:
    site.sandbox.faults.add(faults.hang(), kind="aps.hubs", times=None)
    connector = site.connector(toolbox=site.toolbox(timeout_seconds=0.5, retry_budget_seconds=1.0))
    with pytest.raises(TransientError, match=r"reading the list of hubs .* failed: ReadTimeout"):
        connector.check()


def test_a_dead_host_is_one_clear_sentence(site: Site) -> None:
    connector = site.connector()
    site.sandbox.close()
    with pytest.raises(TransientError, match=r"reading a token from http://127.0.0.1:\d+ failed"):
        connector.check()


def test_a_wrong_base_url_is_a_configuration_error(site: Site) -> None:
    toolbox = site.toolbox()
    toolbox.environ["APS_BASE_URL"] = "developer.api.autodesk.com"  # type: ignore[index]
    with pytest.raises(ConfigurationError, match="APS_BASE_URL"):
        site.connector(toolbox=toolbox).check()


# -- S21: throttled --------------------------------------------------------------------------------


IN_HALF_A_MINUTE = "an HTTP date"
"""By the clock of the server's ``Date`` header, which is the machine's."""


@pytest.mark.parametrize(
    ("asked", "least", "most"),
    [
        ("7", 7.0, 7.25),
        ("0", 0.5, 1.5),
        ("-5", 0.5, 1.5),
        (None, 0.5, 1.5),
        ("soon", 0.5, 1.5),
        (IN_HALF_A_MINUTE, 20.0, 31.0),
    ],
)
def test_s21_throttling_waits_what_was_asked_and_reads_the_same_page(
    site: Site, synced: Sync, asked: str | None, least: float, most: float
) -> None:
    if asked == IN_HALF_A_MINUTE:
        asked = format_datetime(datetime.now(timezone.utc) + timedelta(seconds=30), usegmt=True)
    site.sandbox.aps.add_item("new.pdf", site.room)
    site.sandbox.faults.add(faults.aps_throttle(asked), path=path_of(site.room))
    told = synced.tick()
    assert len(site.naps.seconds) == 1
    assert least <= site.naps.seconds[0] <= most
    assert rows(synced.memory) == site.truth()
    assert not told.blind


def test_s21_a_day_of_waiting_is_left_to_the_next_run(site: Site, synced: Sync) -> None:
    site.sandbox.aps.add_item("new.pdf", site.room)
    site.sandbox.faults.add(faults.aps_throttle(86400), path=path_of(site.room))
    with pytest.raises(ThrottledError, match=r"429 \w.*\. Too many calls; the next run goes on\."):
        synced.tick()
    assert site.naps.seconds == []
    synced.tick()
    assert rows(synced.memory) == site.truth()


# -- S20: not allowed, not there -------------------------------------------------------------------


@pytest.mark.parametrize("when", ["first", "later"])
def test_s20_a_forbidden_folder_is_named_and_nothing_in_it_is_touched(
    site: Site, when: str
) -> None:
    aps = site.sandbox.aps
    sync = site.sync()
    if when == "later":
        sync.tick()
    aps.refuse(site.level)
    aps.add_item("new.pdf", site.plans)
    below = aps.add_item("unseen.pdf", site.room)
    held = sync.memory.live_count()
    told = sync.tick()
    assert [b.folder_id for b in told.blind] == [site.level]
    assert told.blind[0].name == "Level 1"
    assert "permission" in told.blind[0].why
    assert "new.pdf" in sync.memory.titles
    assert not sync.memory.gone
    if when == "later":
        assert sync.memory.live_count() == held + 1
    told = sync.sweep()
    assert [b.folder_id for b in told.blind] == [site.level]
    assert not sync.memory.gone
    probe = sync.connector.probe(sync.cursor, sync.memory)
    assert not probe.changed, "when to look again at what is forbidden is not for each tick to ask"
    aps.unrefuse(site.level)
    assert not sync.tick().blind
    assert below in sync.memory.live
    assert rows(sync.memory) == site.truth()


def test_s20_a_forbidden_folder_during_a_killed_sweep_stays_unseen(site: Site) -> None:
    sync = site.sync(workers=1)
    sync.tick()
    site.sandbox.aps.refuse(site.plans)
    seen: list[Batch] = []

    def kill(batch: Batch) -> None:
        if batch.blind and batch.sweep is not None:
            seen.append(batch)
        elif seen and batch.sweep is not None:
            raise Killed

    sync.on_batch = kill
    with pytest.raises(Killed):
        sync.sweep()
    sync.on_batch = None
    told = sync.tick()
    assert [b.folder_id for b in told.blind] == [site.plans], "also told by the fast way"
    sync.sweep()
    assert not sync.memory.gone


@pytest.mark.parametrize(
    "fault",
    [
        faults.aps_error(403, "BIM360DM_ERROR", "You don't have permission to access this API"),
        faults.status(403, {"developerMessage": "no", "errorCode": "AUTH-010"}),
        faults.status(403, ""),
    ],
)
def test_s20_whatever_a_403_says_about_one_folder(site: Site, synced: Sync, fault: Fault) -> None:
    site.sandbox.aps.add_item("new.pdf", site.level)
    site.sandbox.aps.add_item("new.pdf", site.models)
    site.sandbox.faults.add(fault, path=path_of(site.level))
    told = synced.tick()
    assert [b.folder_id for b in told.blind] == [site.level]
    assert synced.memory.titles.count("new.pdf") == 1
    synced.tick()
    assert rows(synced.memory) == site.truth()


def test_s20_a_folder_that_vanishes_while_it_is_listed(site: Site, synced: Sync) -> None:
    site.sandbox.aps.add_item("new.pdf", site.room)
    site.sandbox.faults.add(
        faults.aps_error(404, "NOT_FOUND", "gone"), path=f"/folders/{site.room}", times=None
    )
    for told in (synced.tick(), synced.sweep()):
        assert [b.folder_id for b in told.blind] == [site.room]
    assert not synced.memory.gone, "its parent lists it: a passing 404 is no deletion"
    site.sandbox.faults.add(faults.drop({site.room}), path=path_of(site.level), times=None)
    synced.tick()
    assert site.room not in synced.memory.tree
    assert set(synced.memory.gone.values()) == {GoneReason.DELETED}
    site.sandbox.faults.clear()
    site.sandbox.aps.add_item("bump.pdf", site.room)
    synced.tick()
    assert rows(synced.memory) == site.truth()


def test_a_404_for_the_listing_of_a_folder_that_is_there_is_no_deletion(
    site: Site, synced: Sync
) -> None:
    site.sandbox.aps.add_item("new.pdf", site.room)
    site.sandbox.faults.add(faults.aps_error(404, "X", "?"), path=path_of(site.room))
    told = synced.tick()
    assert [b.folder_id for b in told.blind] == [site.room]
    assert not synced.memory.gone
    synced.tick()
    assert rows(synced.memory) == site.truth()


@pytest.mark.parametrize("status", [403, 404])
@pytest.mark.parametrize("scope", ["project", "folder"])
@pytest.mark.parametrize("call", ["gate", "contents"])
def test_s20_the_start_folder_refused_is_a_configuration_error(
    site: Site, status: int, scope: str, call: str
) -> None:
    sync = site.sync({"folder_id": site.plans} if scope == "folder" else {})
    sync.tick()
    held = sync.memory.live_count()
    site.sandbox.aps.add_item("new.pdf", site.room)
    start = site.plans if scope == "folder" else site.files
    gate = f"/folders/{start}$" if scope == "folder" else "/topFolders"
    site.sandbox.faults.add(
        faults.aps_error(status), path=gate if call == "gate" else path_of(start), times=None
    )
    with pytest.raises(ConfigurationError):
        sync.tick()
    with pytest.raises(ConfigurationError):
        sync.sweep()
    assert sync.memory.live_count() == held
    site.sandbox.faults.clear()
    sync.tick()
    assert rows(sync.memory) == site.truth(start)


def test_a_deleted_start_folder_is_a_configuration_error(site: Site) -> None:
    sync = site.sync({"folder_id": site.plans})
    sync.tick()
    site.sandbox.aps.delete(site.plans)
    with pytest.raises(ConfigurationError, match="deleted, in another project, or not visible"):
        sync.tick()
    assert not sync.memory.gone


def test_a_suspended_project_leaves_its_rows(site: Site, synced: Sync) -> None:
    site.sandbox.aps.set_status(site.project, "suspended")
    with pytest.raises(ConfigurationError, match="suspended or archived"):
        synced.connector.probe(synced.cursor, synced.memory)
    with pytest.raises(ConfigurationError, match="suspended or archived"):
        synced.tick()
    assert not synced.memory.gone


# -- S33: four twins -------------------------------------------------------------------------------


def refusal(connector: AutodeskConnector) -> FileConnectorError:
    with pytest.raises(FileConnectorError) as caught:
        connector.check()
    return caught.value


def test_s33_four_refusals_have_four_messages(site: Site) -> None:
    aps = site.sandbox.aps
    aps.set_provisioned("sandbox-client", [])
    unprovisioned = refusal(site.connector())
    by_folder = refusal(site.connector({"folder_id": site.plans}))
    by_hub = refusal(site.connector({"hub_id": site.hub}))
    aps.set_provisioned("sandbox-client", None)
    aps.refuse(site.plans)
    folder = refusal(site.connector({"folder_id": site.plans}))
    aps.exclude(site.project, "ZOE")
    user = refusal(site.connector({"x_user_id": "ZOE"}))
    site.sandbox.faults.add(faults.expired_token("aps"), kind="aps.hubs", times=None)
    since = site.sandbox.log.mark()
    expired = refusal(site.connector())
    assert site.calls(since, "aps.hubs") == 2, "one new token, one more try"

    for error in (unprovisioned, by_folder, by_hub):
        assert isinstance(error, ConfigurationError)
        assert "Custom Integrations" in str(error)
        assert "client id sandbox-client" in str(error)
    assert isinstance(folder, ConfigurationError)
    assert "may not be seen by app sandbox-client" in str(folder)
    assert isinstance(user, ConfigurationError)
    assert "user ZOE (x_user_id)" in str(user)
    assert isinstance(expired, ReconnectError)
    assert len({str(e) for e in (unprovisioned, folder, user, expired)}) == 4
    assert site.naps.seconds == [], "none is retried"


def test_s33_scope_and_product_are_told_apart(site: Site) -> None:
    site.sandbox.aps.clients["sandbox-client"].api_enabled = False
    assert "Tick Data Management" in str(refusal(site.connector()))
    site.sandbox.aps.clients["sandbox-client"].api_enabled = True
    body = {"developerMessage": "Token does not have the privilege", "errorCode": "AUTH-010"}
    site.sandbox.faults.add(faults.status(403, body), kind="aps.topFolders", times=None)
    error = refusal(site.connector())
    assert isinstance(error, ConfigurationError)
    assert "grant data:read" in str(error)


def test_s33_the_user_goes_with_every_data_call(site: Site) -> None:
    aps = site.sandbox.aps
    aps.deny(site.models, "ANA")
    credentials = site.sandbox.aps_credentials(x_user_id="BOB")
    sync = site.sync({"x_user_id": "ANA"}, credentials=credentials)
    sync.tick()
    sync.sweep()
    assert {call.user_id for call in site.sandbox.log.calls()} == {"ANA"}
    assert {call.user_id for call in site.sandbox.log.calls("aps.token")} == {None}
    assert "tower.rvt" not in sync.memory.titles
    since = site.sandbox.log.mark()
    site.connector(credentials=credentials).check()
    assert {call.user_id for call in site.sandbox.log.calls(since=since)} == {"BOB"}


def test_a_401_in_the_middle_is_one_new_token_and_one_more_try(site: Site) -> None:
    sync = site.sync(workers=1)

    def expire(batch: Batch) -> None:
        if batch.records:
            site.sandbox.aps_api.tokens.expire()
            sync.after_batch = None

    sync.after_batch = expire
    sync.tick()
    assert rows(sync.memory) == site.truth()
    assert site.sandbox.log.count("aps.token") == 2


@pytest.mark.parametrize("end", ["delete", "deny"])
def test_s20_files_that_lie_elsewhere_are_no_stand_in_for_a_lost_start_folder(
    site: Site, synced: Sync, end: str
) -> None:
    """Another visible top folder took its place, and all rows were marked gone."""
    aps, held = site.sandbox.aps, site.truth()
    aps.add_item("p.pdf", aps.add_folder("Plans", site.project))
    getattr(aps, end)(site.files)
    for attempt in (synced.tick, synced.sweep):
        with pytest.raises(ConfigurationError, match=r"folder Project Files .* rows are left"):
            attempt()
        assert rows(synced.memory) == held
    with pytest.raises(ConfigurationError):
        site.connector().probe(synced.cursor, synced.memory)
    getattr(aps, {"delete": "restore", "deny": "grant"}[end])(site.files)
    synced.tick()
    assert rows(synced.memory) == site.truth()


def bare(document: Any) -> Any:
    """Without versions, and with nothing but an unhelpful name."""
    entries = document["data"] if isinstance(document["data"], list) else [document["data"]]
    for entry in entries:
        if entry["type"] == "items":
            entry["attributes"]["displayName"] = "no extension"
    return {**document, "included": []}


@pytest.mark.parametrize("look", ["bare", "nothing"])
@pytest.mark.parametrize("listed", [True, False])
def test_s30_a_version_that_is_not_shown_for_a_while_takes_nothing_from_its_row(
    site: Site, look: str, listed: bool
) -> None:
    """The row lost its title, link and version, or was out of scope for want of an extension."""
    sync = site.sync({"file_types": ["dwg", "pdf", "rvt", "txt"]})
    sync.tick()
    file = sync.memory.files_in(site.models)[0].external_id
    held = rows(sync.memory)[file]
    listing = faults.mangle(bare) if listed else faults.drop([file])
    site.sandbox.faults.add(listing, path=path_of(site.models), times=None)
    answer = faults.mangle(bare) if look == "bare" else faults.status(400)
    site.sandbox.faults.add(answer, path=f"/items/{file}", times=None)
    site.sandbox.aps.add_item("news.pdf", site.models)
    day = site.sandbox.clock.now()
    sync.tick()
    assert rows(sync.memory)[file] == held
    sync.sweep()
    assert rows(sync.memory)[file] == held
    window = sync.connector.window(day - timedelta(days=9999), day + timedelta(1), sync.memory)
    assert file not in {record.external_id for batch in window for record in batch.records}
    site.sandbox.faults.clear()
    site.sandbox.aps.upload(file)
    sync.tick()
    assert rows(sync.memory) == site.truth()


@pytest.mark.parametrize("sweep", [True, False])
def test_s52_an_answer_about_something_else_is_not_believed(
    site: Site, synced: Sync, sweep: bool
) -> None:
    file = synced.memory.files_in(site.models)[0].external_id
    swapped = faults.mangle(lambda p: {**p, "data": {**p["data"], "id": "urn:somebody:else"}})
    site.sandbox.faults.add(faults.drop([file]), path=path_of(site.models), times=None)
    site.sandbox.faults.add(swapped, path=f"/items/{file}", times=None)
    site.sandbox.aps.add_item("bump.pdf", site.models)
    synced.sweep() if sweep else synced.tick()
    assert rows(synced.memory) == site.truth()
    assert not synced.memory.gone
    root = site.connector({"folder_id": site.plans})
    site.sandbox.faults.add(swapped, path=f"/folders/{site.plans}", times=None)
    assert "answered with urn:somebody:else" in str(refusal(root))


@pytest.mark.parametrize("first", [True, False])
def test_s52_a_listing_of_another_folder_is_not_believed(
    site: Site, synced: Sync, first: bool
) -> None:
    kept: dict[str, Any] = {}
    site.sandbox.faults.add(faults.mangle(lambda p: kept.update(p) or p), path=path_of(site.plans))
    synced.sweep()
    fresh = site.sandbox.aps.add_folder("Fresh", site.files)
    site.sandbox.aps.add_item("new.pdf", fresh)
    site.sandbox.faults.add(faults.mangle(lambda _: kept), path=path_of(fresh))
    sync = site.sync() if first else synced
    told = sync.tick()
    assert first or "Autodesk lists another folder" in told.blind[0].why
    sync.tick()
    assert rows(sync.memory) == site.truth()
    assert all(folder.parent_id != fresh for folder in sync.memory.tree.values())


@pytest.mark.parametrize("home", ["right", None, "urn:a:folder:nobody:knows", "the start folder"])
def test_files_are_where_they_are_listed_whatever_else_a_listing_says(
    site: Site, home: str | None
) -> None:
    """Providers that name no home or a wrong one, or give their listing another address."""
    home = site.files if home == "the start folder" else home

    def astray(payload: Any) -> Any:
        if home == "right":
            href = "https://acc.example/data/v1/projects/b.1/folders/urn:another/contents"
            payload["links"]["self"] = {"href": href}
            return payload
        for entry in payload["data"]:
            entry["relationships"]["parent"] = {"data": {"type": "folders", "id": home}}
        return payload

    site.sandbox.faults.add(faults.mangle(astray), kind="aps.contents", times=None)
    sync = site.sync()
    sync.tick()
    moved = sync.memory.files_in(site.models)[0].external_id
    site.sandbox.aps.move(moved, site.room)
    assert not sync.tick().blind
    assert rows(sync.memory) == site.truth()
    assert not sync.connector.probe(sync.cursor, sync.memory).changed


def test_an_unknown_project_is_a_configuration_error(site: Site) -> None:
    error = refusal(site.connector({"project_id": "b.nowhere"}))
    assert isinstance(error, ConfigurationError)
    assert "b.nowhere is not found in hub" in str(error)


def test_an_unknown_folder_is_a_configuration_error(site: Site) -> None:
    error = refusal(site.connector({"folder_id": "urn:adsk.wipprod:fs.folder:co.nowhere"}))
    assert isinstance(error, ConfigurationError)
    assert "co.nowhere" in str(error)


def test_no_top_folder_at_all_is_a_configuration_error(site: Site) -> None:
    for name in ("Project Files", "Photos", "ProjectTb"):
        site.sandbox.aps.deny(site.sandbox.aps.top_folder(site.project, name))
    assert "no folder 'Project Files'" in str(refusal(site.connector()))


def test_a_400_says_so(site: Site) -> None:
    site.sandbox.faults.add(faults.aps_error(400, "BAD_INPUT", "The limit value is invalid."))
    error = refusal(site.connector({"folder_id": site.plans}))
    assert isinstance(error, ConfigurationError)
    assert "The limit value is invalid." in str(error)


# -- listings that lie -----------------------------------------------------------------------------


@pytest.mark.parametrize("flakes", [1, 2, 9])
def test_s14_flaky_listing_tombstones_nothing(site: Site, flakes: int) -> None:
    aps = site.sandbox.aps
    aps.add_items(126, site.models)
    sync = site.sync()
    sync.tick()
    aps.process(aps.add_item("bump.pdf", site.models))
    flaky = site.sandbox.faults.add(faults.drop(every=5), path=path_of(site.models), times=flakes)
    told = sync.tick()
    assert flaky.hits == min(flakes, 3)
    assert not sync.memory.gone
    assert not told.blind
    assert sync.memory.live_count() == 133
    changed = sync.connector.probe(sync.cursor, sync.memory).changed
    assert changed == (flakes > 2), "no listing was believed that left out what is there"
    site.sandbox.faults.clear()
    sync.tick()
    assert rows(sync.memory) == site.truth()
    assert not sync.connector.probe(sync.cursor, sync.memory).changed


def test_s14_a_file_that_no_listing_shows_any_more_does_not_cost_a_run_every_tick(
    site: Site, synced: Sync
) -> None:
    aps = site.sandbox.aps
    hidden = synced.memory.files_in(site.models)[0].external_id
    fault = site.sandbox.faults.add(faults.drop({hidden}), path=path_of(site.models), times=None)

    def ticks_that_run(ticks: int) -> int:
        runs = 0
        for _ in range(ticks):
            if synced.connector.probe(synced.cursor, synced.memory).changed:
                synced.tick()
                runs += 1
        return runs

    for name in ("one.pdf", "two.pdf"):
        new = aps.add_item(name, site.models)
        assert ticks_that_run(10) == 3
        assert new in synced.memory.live
        assert hidden in synced.memory.live
    aps.upload(hidden)
    assert ticks_that_run(10) == 3
    assert rows(synced.memory) == site.truth()
    site.sandbox.faults.remove(fault)
    synced.sweep()
    aps.add_item("three.pdf", site.models)
    assert ticks_that_run(10) == 1
    assert rows(synced.memory) == site.truth()


def test_s14_flaky_listing_in_a_sweep(site: Site, synced: Sync) -> None:
    site.sandbox.aps.add_items(30, site.models)
    synced.tick()
    site.sandbox.faults.add(faults.drop(every=3), kind="aps.contents", times=5)
    synced.sweep()
    assert not synced.memory.gone
    assert rows(synced.memory) == site.truth()


def test_s14_a_sweep_that_was_shown_too_little_is_not_the_last_word(
    site: Site, synced: Sync
) -> None:
    """It kept the folder's rollup, and what was new there came a day later."""
    held = synced.memory.files_in(site.models)[0].external_id
    new = site.sandbox.aps.add_item("new.pdf", site.models)
    site.sandbox.faults.add(faults.drop([held, new]), path=path_of(site.models), times=None)
    synced.sweep()
    assert synced.connector.probe(synced.cursor, synced.memory).changed
    synced.sweep()
    unshown = synced.connector.probe(synced.cursor, synced.memory)
    assert not unshown.changed, "what no listing ever shows costs no runs for ever"
    site.sandbox.aps.upload(new)
    synced.sweep()
    site.sandbox.faults.clear()
    synced.tick()
    assert rows(synced.memory) == site.truth()


@pytest.mark.parametrize("way", ["fast", "sweep"])
def test_s14_a_folder_left_out_once_is_not_lost(site: Site, synced: Sync, way: str) -> None:
    new = site.sandbox.aps.add_item("new.pdf", site.room)
    site.sandbox.faults.add(faults.drop({site.level}), path=path_of(site.plans))
    if way == "sweep":
        synced.cursor = None
    synced.tick()
    assert not synced.memory.gone
    synced.tick()
    assert new in synced.memory.live
    assert rows(synced.memory) == site.truth()


@pytest.mark.parametrize("way", ["fast", "sweep"])
def test_s14_a_file_left_out_whose_look_names_no_parent_is_where_it_was(
    site: Site, synced: Sync, way: str
) -> None:
    def orphaned(payload: Any) -> Any:
        payload["data"]["relationships"].pop("parent", None)
        return payload

    held = synced.memory.files_in(site.models)[0].external_id
    site.sandbox.faults.add(faults.drop({held}), path=path_of(site.models), times=None)
    site.sandbox.faults.add(faults.mangle(orphaned), kind="aps.item", times=None)
    for name in ("one.pdf", "two.pdf"):
        site.sandbox.aps.add_item(name, site.models)
        synced.sweep() if way == "sweep" else synced.tick()
        assert not synced.memory.gone
        assert rows(synced.memory) == site.truth()


@pytest.mark.parametrize("resumed", [False, True])
def test_s14_a_start_folder_shown_in_another_one_stays_where_listing_begins(
    site: Site, synced: Sync, resumed: bool
) -> None:
    api, world = site.sandbox.aps_api, site.sandbox.aps

    def start_again(payload: Any) -> Any:
        return {**payload, "data": [*payload["data"], api._folder_json(world.folders[site.files])]}

    def kill(batch: Batch) -> None:
        if batch.sweep is not None and batch.records and resumed:
            sync.after_batch = None
            raise Killed

    site.sandbox.faults.add(faults.mangle(start_again), path=path_of(site.room), times=None)
    world.add_item("one.pdf", site.room)
    synced.tick()
    assert not synced.connector.probe(synced.cursor, synced.memory).changed
    held = synced.memory.files_in(site.models)[0].external_id
    site.sandbox.faults.add(faults.drop({held}), path=path_of(site.models), times=None)
    world.add_item("new.pdf", site.room)
    sync = synced
    sync.after_batch = kill
    for _ in range(2):
        try:
            sync.sweep()
        except Killed:
            sync.sweep()
        assert not sync.memory.gone
        assert sync.memory.tree[site.files].parent_id is None
        assert rows(sync.memory) == site.truth()


def test_s14_a_file_left_out_below_folders_shown_in_a_circle_is_not_out_of_scope(
    site: Site, synced: Sync
) -> None:
    api, world = site.sandbox.aps_api, site.sandbox.aps

    def circle(payload: Any) -> Any:
        return {**payload, "data": [*payload["data"], api._folder_json(world.folders[site.plans])]}

    world.add_item("new.pdf", site.room)
    site.sandbox.faults.add(faults.mangle(circle), path=path_of(site.room), times=None)
    held = synced.memory.files_in(site.level)[0].external_id
    site.sandbox.faults.add(faults.drop({held}), path=path_of(site.level), times=None)
    synced.tick()
    assert not synced.memory.gone
    site.sandbox.faults.clear()
    world.add_item("newer.pdf", site.room)
    synced.tick()
    assert rows(synced.memory) == site.truth()


@pytest.mark.parametrize("way", ["fast", "sweep"])
def test_s14_a_folder_left_out_whose_look_names_no_parent_is_where_it_was(
    site: Site, synced: Sync, way: str
) -> None:
    def orphaned(payload: Any) -> Any:
        payload["data"]["relationships"].pop("parent", None)
        return payload

    site.sandbox.aps.add_item("new.pdf", site.room)
    site.sandbox.faults.add(faults.drop({site.level}), path=path_of(site.plans), times=None)
    site.sandbox.faults.add(faults.mangle(orphaned), kind="aps.folder", times=None)
    synced.sweep() if way == "sweep" else synced.tick()
    assert not synced.memory.gone
    site.sandbox.faults.clear()
    synced.tick()
    assert rows(synced.memory) == site.truth()


def test_s23_empty_world_tombstones_nothing_and_says_so(site: Site, synced: Sync) -> None:
    aps = site.sandbox.aps
    aps.add_items(120, site.plans)
    synced.tick()
    aps.add_item("bump.pdf", site.files)
    site.sandbox.faults.add(faults.empty_world(), path=path_of(site.files), times=None)
    site.sandbox.faults.add(faults.aps_error(404), kind="aps.folder", times=None)
    site.sandbox.faults.add(faults.aps_error(404), kind="aps.item", times=None)
    since = site.sandbox.log.mark()
    told = synced.tick()
    assert not synced.memory.gone
    assert "missing from its listing at once" in told.blind[0].why
    assert site.calls(since) == 4, "the gate, one listing, a look at both missing folders"
    assert synced.connector.probe(synced.cursor, synced.memory).changed
    site.sandbox.faults.clear()
    synced.tick()
    assert rows(synced.memory) == site.truth()


@pytest.mark.parametrize("workers", [1, 4])
def test_s26_a_file_shown_in_two_folders_settles_where_it_says_it_is(
    site: Site, workers: int
) -> None:
    """Whichever listing comes first, and whether or not the file changes."""
    (twin,) = (i for i, row in site.truth().items() if row[0] == "tower.rvt")
    api, world = site.sandbox.aps_api, site.sandbox.aps

    def both(payload: Any) -> Any:
        item = world.items[twin]
        data, tip = api._item_json(item), api._version_json(item, item.tip)
        included = [*payload.get("included", []), tip]
        return {**payload, "data": [*payload["data"], data], "included": included}

    for folder in (site.plans, site.room):
        site.sandbox.faults.add(faults.mangle(both), path=path_of(folder), times=None)
    sync = site.sync(workers=workers)
    sync.tick()
    for change in (lambda: None, lambda: site.sandbox.aps.upload(twin)):
        change()
        site.sandbox.aps.add_item("new.pdf", site.room)
        site.sandbox.aps.add_item("new.pdf", site.plans)
        sync.sweep()
        assert rows(sync.memory) == site.truth()
        assert [sync.sweep().writes for _ in range(3)] == [0, 0, 0]


def test_s26_repeated_rows_are_no_news(site: Site, synced: Sync) -> None:
    site.sandbox.aps.upload(synced.memory.files_in(site.room)[0].external_id)
    site.sandbox.faults.add(faults.repeat(1), kind="aps.contents", times=None)
    told = synced.tick()
    assert told.writes == 1
    assert rows(synced.memory) == site.truth()


@pytest.mark.parametrize(
    ("page", "leaves", "comes"),
    [
        (2, 0, "zz last.pdf"),
        (2, 150, "0 first.pdf"),
        (3, 399, "0 first.pdf"),
        (3, 399, "zz last.pdf"),
    ],
)
@pytest.mark.parametrize("first", [True, False])
def test_s28_paging_drift(site: Site, page: int, leaves: int, comes: str, first: bool) -> None:
    site.sandbox.aps.add_items(401, site.level)
    sync = site.sync()
    if not first:
        sync.tick()
        site.sandbox.aps.add_item("bump.pdf", site.level)
    ids = site.sandbox.aps.entries(site.level)
    leaving = [i for i in ids if i in site.sandbox.aps.items][leaves]

    def drift() -> None:
        site.sandbox.aps.move(leaving, site.models)
        site.sandbox.aps.add_item(comes, site.level)

    site.sandbox.faults.add(faults.before(drift), path=path_of(site.level), nth=page)
    told = sync.tick()
    assert rows(sync.memory) == site.truth() or told.blind
    assert not sync.memory.gone
    sync.tick()
    assert rows(sync.memory) == site.truth()


def test_s28_entries_that_come_twice_make_the_folder_be_read_again(site: Site) -> None:
    """Even if no rollup tells of the file that slipped in before the page already read."""
    aps = site.sandbox.aps
    aps.add_items(401, site.level)
    slipped: list[str] = []

    def slip() -> None:
        with aps.silent():
            slipped.append(aps.add_item("0 first.pdf", site.level))

    site.sandbox.faults.add(faults.before(slip), path=path_of(site.level), nth=2)
    sync = site.sync()
    sync.tick()
    assert slipped[0] in sync.memory.live
    assert rows(sync.memory) == site.truth()


@pytest.mark.parametrize("status", [404, 400])
@pytest.mark.parametrize("top", [True, False])
def test_s28_a_page_that_is_not_there_any_more_says_nothing_of_its_folder(
    site: Site, status: int, top: bool
) -> None:
    """The folder shrank between two pages."""
    folder = site.files if top else site.models
    site.sandbox.aps.add_items(210, folder)
    sync = site.sync()
    later = rf"/folders/{folder}/contents.*page\[number\]=1"
    site.sandbox.faults.add(faults.aps_error(status), path=later)
    assert not sync.tick().blind
    assert rows(sync.memory) == site.truth()
    site.sandbox.aps.add_item("new.pdf", folder)
    site.sandbox.faults.add(faults.aps_error(status), path=later, times=None)
    if top:
        with pytest.raises(TransientError, match="a later page is refused"):
            sync.tick()
    else:
        assert "a later page is refused" in sync.tick().blind[0].why
    assert not sync.memory.gone


def test_s28_a_folder_that_never_holds_still_ends_the_run_partial(site: Site) -> None:
    site.sandbox.aps.add_items(401, site.level)
    sync = site.sync()
    site.sandbox.faults.add(
        faults.before(lambda: site.sandbox.aps.add_item("0 first.pdf", site.level)),
        path=path_of(site.level),
        times=None,
    )
    told = sync.tick()
    assert told.blind
    assert "kept changing" in told.blind[0].why
    site.sandbox.faults.clear()
    assert not sync.tick().blind
    assert rows(sync.memory) == site.truth()


def test_s28_a_provider_that_always_repeats_an_entry_is_no_folder_that_changes(site: Site) -> None:
    """Every second page begins with the last entry of the one before; all else stands still."""
    site.sandbox.aps.add_items(401, site.level)
    last: list[dict[str, Any]] = []

    def repeat(document: dict[str, Any]) -> dict[str, Any]:
        entries = [*last, *document["data"]]
        last[:] = entries[-1:] if "next" in document["links"] else []
        return {**document, "data": entries}

    site.sandbox.faults.add(faults.mangle(repeat), path=path_of(site.level), times=None)
    sync = site.sync(workers=1)
    assert not sync.tick().blind
    assert rows(sync.memory) == site.truth()
    before = site.calls()
    assert not sync.tick().blind
    assert site.calls() == before + 1


def test_empty_pages_in_the_middle_are_pages(site: Site) -> None:
    site.sandbox.aps.add_items(450, site.level)
    site.sandbox.faults.add(faults.empty_page(), path=path_of(site.level), nth=2)
    sync = site.sync()
    sync.tick()
    sync.sweep()
    assert rows(sync.memory) == site.truth()


def with_next(href: Any) -> Fault:
    return faults.mangle(lambda p: {**p, "links": {"next": {"href": href}}})


def test_paging_in_a_circle_is_an_error(site: Site) -> None:
    site.sandbox.faults.add(
        with_next(f"/data/v1/projects/{site.project}/folders/{site.files}/contents?x=1"),
        path=path_of(site.files),
        times=None,
    )
    with pytest.raises(TransientError, match="circle"):
        site.sync().tick()


def test_paging_that_shows_the_same_rows_forever_is_an_error(site: Site) -> None:
    number = iter(range(10_000))

    def onward(payload: Any) -> Any:
        payload["links"]["next"] = {"href": f"?page[number]=0&n={next(number)}"}
        return payload

    site.sandbox.faults.add(faults.mangle(onward), path=path_of(site.files), times=None)
    with pytest.raises(TransientError, match="circle"):
        site.sync().tick()


@pytest.mark.parametrize("href", ["http://[::1", "http://127.0.0.1:port/", 7, {"page": 1}])
def test_s22_a_listing_that_goes_on_where_nobody_can_follow_has_not_ended(
    site: Site, synced: Sync, href: Any
) -> None:
    site.sandbox.aps.add_item("new.pdf", site.files)
    site.sandbox.faults.add(with_next(href), path=path_of(site.files), times=None)
    with pytest.raises(TransientError, match="answer continues"):
        synced.tick()
    assert not synced.memory.gone
    assert synced.connector.probe(synced.cursor, synced.memory).changed


@pytest.mark.parametrize(
    "href",
    [
        "https://elsewhere.example/data/v1/x",
        "http://127.0.0.1:1/data",
        "//elsewhere.example/data",
        "file:///etc/passwd",
    ],
)
def test_the_token_stays_on_the_configured_host(site: Site, href: str) -> None:
    site.sandbox.faults.add(with_next(href), path=path_of(site.files), times=None)
    with pytest.raises(TransientError, match="another host"):
        site.sync().tick()


@pytest.mark.parametrize("hrefs", ["absolute", "relative"])
@pytest.mark.parametrize("host", ["own", "public"])
def test_paging_links_absolute_or_relative(site: Site, hrefs: str, host: str) -> None:
    site.sandbox.aps.hrefs = hrefs
    if host == "public":
        site.sandbox.aps_api.origin = "https://developer.api.autodesk.com"
    site.sandbox.aps.add_items(401, site.level)
    sync = site.sync()
    sync.tick()
    assert rows(sync.memory) == site.truth()


def test_redirects_on_the_same_host_are_followed(site: Site) -> None:
    target = f"/data/v1/projects/{site.project}/folders/{site.plans}"
    site.sandbox.faults.add(faults.status(302, "", {"Location": target}), kind="aps.folder")
    assert site.connector({"folder_id": site.plans}).check()
    site.sandbox.faults.add(
        faults.status(302, "", {"Location": target}), kind="aps.folder", times=None
    )
    with pytest.raises(TransientError, match="redirects in a circle"):
        site.connector({"folder_id": site.plans}).check()


# -- S10, S17: killed anywhere ---------------------------------------------------------------------


def test_s10_same_instant_over_five_pages_killed_after_page_three(site: Site, synced: Sync) -> None:
    site.sandbox.aps.add_items(1000, site.room)
    pages = [0]

    def kill(batch: Batch) -> None:
        pages[0] += len(batch.records) == 200
        if pages[0] == 3:
            raise Killed

    synced.after_batch = kill
    with pytest.raises(Killed):
        synced.tick()
    synced.after_batch = None
    assert synced.memory.live_count() == 6 + 600
    synced.tick()
    assert rows(synced.memory) == site.truth()


def edits(site: Site, sync: Sync) -> None:
    """One of everything."""
    aps = site.sandbox.aps
    in_plans = sorted(f.external_id for f in sync.memory.files_in(site.plans))
    aps.delete(in_plans[0])
    aps.move(in_plans[1], site.models)
    aps.upload(sync.memory.files_in(site.room)[0].external_id)
    aps.move(site.room, site.models)
    annex = aps.add_folder("Annex", site.level)
    aps.add_item("annex.pdf", annex)
    aps.delete(aps.add_folder("Passing", site.files))


@pytest.mark.parametrize("moment", ["on_batch", "after_batch"])
@pytest.mark.parametrize("at", range(12))
def test_s17_killed_before_or_after_any_commit(
    site: Site, synced: Sync, at: int, moment: str
) -> None:
    edits(site, synced)
    left = [at]

    def kill(batch: Batch) -> None:
        if left[0] == 0:
            raise Killed
        left[0] -= 1

    setattr(synced, moment, kill)
    try:
        synced.tick()
    except Killed:
        pass
    setattr(synced, moment, None)
    Sync(site.connector(), synced.memory, synced.cursor).tick()
    assert rows(synced.memory) == site.truth()
    assert len(synced.memory.gone) == 1


@pytest.mark.parametrize("at", range(1, 12))
def test_s17_failing_before_any_answer(site: Site, synced: Sync, at: int) -> None:
    edits(site, synced)
    site.sandbox.faults.add(faults.status(503), nth=at, times=None)
    try:
        synced.tick()
    except TransientError:
        pass
    site.sandbox.faults.clear()
    synced.tick()
    assert rows(synced.memory) == site.truth()
    assert len(synced.memory.gone) == 1


def test_s17_a_rollup_that_goes_back_after_a_kill_hides_nothing(site: Site, synced: Sync) -> None:
    """Killed when three folders are stored and the changed fourth was only announced."""
    aps = site.sandbox.aps
    before = {f: aps.folder(f).rollup for f in (site.files, site.plans, site.level, site.room)}
    item = aps.add_item("new.pdf", site.room)
    left = [3]

    def kill(batch: Batch) -> None:
        left[0] -= 1
        if left[0] == 0:
            raise Killed

    synced.after_batch = kill
    with pytest.raises(Killed):
        synced.tick()
    synced.after_batch = None
    for folder, rollup in before.items():
        aps.folders[folder].rollup = rollup
    synced.tick()
    assert item in synced.memory.live
    assert not synced.connector.probe(synced.cursor, synced.memory).changed


def test_s25_a_run_may_be_left_at_any_batch_and_goes_on(site: Site, synced: Sync) -> None:
    for n in range(6):
        where = site.sandbox.aps.add_folder(f"New {n}", site.models)
        site.sandbox.aps.add_item(f"{n}.pdf", where)
    runs = 0
    while rows(synced.memory) != site.truth():
        runs += 1
        for count, batch in enumerate(synced.connector.changes(synced.cursor, synced.memory)):
            synced.memory.apply(batch)
            if count == 3:
                break
        assert runs < 10
    synced.tick()
    assert not synced.connector.probe(synced.cursor, synced.memory).changed


# -- S48: nothing leaks ----------------------------------------------------------------------------


def test_s48_no_secret_in_any_message(site: Site) -> None:
    secret = site.sandbox.aps_credentials()["client_secret"]
    messages: list[str] = []
    echo = {"developerMessage": f"you said Basic abcdef0123 and {secret}", "errorCode": "X"}
    for kind in ("aps.token", "aps.hubs", "aps.topFolders"):
        for status in (400, 401, 403, 404, 418, 500):
            site.sandbox.faults.clear()
            echo = {**echo, "errorCode": " ".join(site.sandbox.aps_api.tokens.known())}
            site.sandbox.faults.add(faults.status(status, echo), kind=kind, times=None)
            site.sandbox.aps_api.tokens.expire()
            error = refusal(site.connector())
            messages += [str(error), repr(error), repr(error.__cause__), repr(error.__context__)]
    text = json.dumps(messages)
    for leak in [*site.sandbox.secrets, "abcdef0123"]:
        assert leak not in text


def test_s49_titles_cannot_forge_log_lines(site: Site, synced: Sync) -> None:
    site.sandbox.aps.rename(site.level, "Level\n2026 ERROR forged")
    site.sandbox.aps.refuse(site.level)
    blind = synced.tick().blind[0]
    assert "\n" not in blind.why


def test_gone_reasons_of_single_files(site: Site, synced: Sync) -> None:
    """Not shown at all, then: not there, refused, elsewhere, still there."""
    aps = site.sandbox.aps
    names = aps.add_items(4, site.models)
    photos = aps.top_folder(site.project, "Photos")
    synced.tick()
    lost, refused, moved, there = names
    aps.move(moved, photos)
    for fault, path in [
        (faults.drop(set(names)), path_of(site.models)),
        (faults.aps_error(404), f"/items/{lost}"),
        (faults.aps_error(403), f"/items/{refused}"),
    ]:
        site.sandbox.faults.add(fault, path=path, times=None)
    synced.tick()
    assert synced.memory.gone == {
        lost: GoneReason.DELETED,
        refused: GoneReason.ACCESS_LOST,
        moved: GoneReason.OUT_OF_SCOPE,
    }
    assert there in synced.memory.live


@pytest.mark.parametrize("first", [True, False])
def test_s20_a_sick_subfolder_does_not_stop_the_others(
    site: Site, synced: Sync, first: bool
) -> None:
    sync = Sync(site.connector()) if first else synced
    site.sandbox.aps.add_item("new.pdf", site.room)
    site.sandbox.faults.add(
        faults.aps_error(400, "BAD_INPUT", "?"), path=f"/folders/{site.room}/contents", times=None
    )
    told = sync.tick()
    assert site.room in [b.folder_id for b in told.blind]
    site.sandbox.faults.clear()
    sync.tick()
    assert rows(sync.memory) == site.truth()


def test_s30_an_item_whose_look_up_is_refused_is_a_row_all_the_same(
    site: Site, synced: Sync
) -> None:
    odd = site.sandbox.aps.add_item("odd.pdf", site.room, tip_included=False)
    site.sandbox.faults.add(faults.aps_error(400, "BAD_INPUT", "?"), path="/items/", times=None)
    synced.tick()
    assert odd in synced.memory.live
