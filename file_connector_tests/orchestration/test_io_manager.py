"""What a run does with an asset's findings: rows, metadata, and the truth about failures."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from typing import Any

import dagster as dg
import pandas as pd
import pytest

from file_connector.errors import (
    BugError,
    ConfigurationError,
    ReconnectError,
    ThrottledError,
    TransientError,
    remember_secrets,
)
from file_connector.models import Batch, Blind, Json, Mode, Outcome
from file_connector.orchestration import io_manager
from file_connector.sync import turn
from file_connector_tests.builders import a_file, an_identity, at
from file_connector_tests.orchestration.conftest import House
from file_connector_tests.sync.scripted import listing

CANARY = "canary-5cf1c2a7"


def metadata(result: dg.ExecuteInProcessResult) -> dict[str, Any]:
    event = result.get_asset_materialization_events()[0]
    return {k: v.value for k, v in event.materialization.metadata.items()}


def failure(result: dg.ExecuteInProcessResult) -> dg.StepFailureData:
    assert not result.success
    [event] = [e for e in result.all_events if e.is_step_failure]
    return event.step_failure_data


def everything_said(house: House) -> str:
    """All that Dagster keeps: runs with tags, events with metadata, stack traces."""
    logs = [
        str(entry.to_json())  # type: ignore[no-untyped-call]
        for run in house.instance.get_runs()
        for entry in house.instance.all_logs(run.run_id)
    ]
    return "\n".join([*logs, *(str(run) for run in house.instance.get_runs())])


def test_a_run_stores_rows_and_tells_how_it_went(house: House) -> None:
    house.plans.sweep_script = listing(a_file("a"), a_file("b"), pages=2)
    result = house.run()
    assert result.success
    assert house.rows() == {"a", "b"}
    told = metadata(result)
    assert told["outcome"] == "complete"
    assert told["mode"] == "incremental"
    assert [told[f"rows_{x}"] for x in ("inserted", "updated", "unchanged", "gone")] == [2, 0, 0, 0]
    assert told["api_calls"] > 0
    assert told["missed_by_fast_path"] == 0
    assert told["cursor_before"] == "none"
    assert told["cursor_after"] == '"t1"'
    assert told["duration_seconds"] > 0
    assert told["dagster/row_count"] == 2
    assert {r.data["file"] for r in told["newest_files"].records} == {"a.pdf", "b.pdf"}
    assert "[a.pdf](https://files.example/a)" in told["newest_links"]


def test_metadata_numbers_are_plain_so_that_they_plot(synced: House) -> None:
    told = metadata(synced.run())
    numbers = [told[k] for k in told if k.startswith("rows_") or k == "api_calls"]
    assert {type(n) for n in numbers} == {int}
    assert type(told["duration_seconds"]) is float


def test_s51_one_run_marks_every_day_it_covers(synced: House) -> None:
    result = synced.run(days=("2026-03-01", "2026-03-03"))
    days = [e.partition for e in result.get_asset_materialization_events()]
    assert days == ["2026-03-01", "2026-03-02", "2026-03-03"]


def test_s50_a_persons_run_rereads_the_days_and_leaves_the_cursor(synced: House) -> None:
    before = synced.store.state("plans")
    synced.plans.window_script = [Batch(records=[a_file("a"), a_file("late")], done=True)]
    result = synced.run(scheduled=False, days=("2026-03-01", "2026-03-02"))
    told = metadata(result)
    assert told["mode"] == "window"
    assert synced.plans.named("window") == [
        (
            "window",
            datetime(2026, 3, 1, tzinfo=timezone.utc),
            datetime(2026, 3, 3, tzinfo=timezone.utc),
        )
    ]
    assert synced.rows() == {"a", "b", "late"}
    assert synced.store.state("plans").cursor == before.cursor
    synced.plans.window_script = [Batch(records=[a_file("a"), a_file("late")], done=True)]
    again = synced.run(scheduled=False, days=("2026-03-01", "2026-03-02"))
    told = metadata(again)
    assert (told["rows_inserted"], told["rows_updated"], told["rows_gone"]) == (0, 0, 0)


def test_a_newcomers_first_click_brings_all_files(house: House) -> None:
    house.plans.sweep_script = listing(a_file("old"), a_file("new"))
    result = house.run(scheduled=False)
    assert metadata(result)["mode"] == "incremental"
    assert house.rows() == {"old", "new"}


def test_a_run_without_chosen_days_does_what_a_scheduled_one_does(synced: House) -> None:
    """Launched from the job's page, or over the API, with neither our tag nor a partition."""
    synced.plans.change_scripts = [[Batch(records=[a_file("c")], cursor="t2")]]
    job = synced.definitions().resolve_job_def("plans_sync")
    result = job.execute_in_process(instance=synced.instance, raise_on_error=False)
    assert metadata(result)["mode"] == "incremental"
    assert synced.rows() == {"a", "b", "c"}
    assert synced.store.state("plans").cursor == "t2"


def test_s20_a_partial_run_is_no_success_but_keeps_what_it_saw(house: House) -> None:
    blind = Blind("f9", "Secret plans", "403 forbidden")
    house.plans.sweep_script = [
        Batch(records=[a_file("a")], blind=[blind]),
        *listing(a_file("b")),
    ]
    house.plans.change_scripts = [[Batch(blind=[blind])]]
    failed = failure(house.run())
    assert house.rows() == {"a", "b"}
    assert failed.error is not None
    assert "partial" in failed.error.message
    assert "Secret plans" in failed.error.message
    assert failed.user_failure_data is not None
    assert failed.user_failure_data.metadata["rows_inserted"].value == 2


@pytest.mark.parametrize(
    ("error", "kind", "remedy"),
    [
        (
            ConfigurationError("folder 'x' does not exist.", remedy="Check folder_id."),
            "ConfigurationError",
            "Check folder_id.",
        ),
        (
            ReconnectError("the grant was revoked.", remedy="Connect it again."),
            "ReconnectError",
            "Connect it again.",
        ),
        (BugError("a record without an id"), "BugError", "Please report it."),
        (ThrottledError("too many calls."), "ThrottledError", "None needed"),
        (TransientError("the host is dead."), "TransientError", "None needed"),
    ],
)
def test_a_typed_error_becomes_one_sentence_with_its_remedy(
    house: House, error: Exception, kind: str, remedy: str
) -> None:
    house.plans.sweep_script = [error]
    failed = failure(house.run())
    assert failed.error is not None
    assert failed.error.message.startswith(
        f"dagster._core.definitions.events.Failure: endpoint 'plans': {error.args[0]}"
    )
    assert failed.error.cause is None
    assert failed.error.context is None
    assert failed.user_failure_data is not None
    told = failed.user_failure_data.metadata
    assert told["error"].value == kind
    assert str(told["remedy"].value).startswith(remedy)


def test_an_error_of_the_database_names_the_endpoint_that_met_it(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SUPABASE_DB_URL", "mysql://db.example/x")
    failed = failure(house.run())
    assert failed.error is not None
    assert "Failure: endpoint 'plans': SUPABASE_DB_URL begins with 'mysql://'" in (
        failed.error.message
    )


def test_s44_a_missing_secret_fails_the_run_and_counts_as_failing(house: House) -> None:
    house.connectors.refuses = ConfigurationError("X is not set.", remedy="Set X.")
    failed = failure(house.run())
    assert failed.error is not None
    assert "X is not set. Set X." in failed.error.message
    status = house.store.status("plans")
    assert status is not None
    assert status.failures == 1
    assert "Set X." in status.message
    [row] = house.store.runs("plans")
    assert row.outcome is not None
    assert row.outcome.value == "failed"


def test_s48_a_secret_in_an_error_reaches_no_event(house: House) -> None:
    remember_secrets([CANARY])
    house.plans.sweep_script = [
        ConnectionError(f"GET https://files.example/?key={CANARY} Authorization: Bearer {CANARY}")
    ]
    failed = failure(house.run())
    assert failed.error is not None
    assert "ConnectionError" in failed.error.message
    assert "please report" in failed.error.message
    said = everything_said(house)
    assert "ConnectionError" in said
    assert CANARY not in said
    assert "canary-of-the-house" not in said


def test_s41_a_run_waits_for_the_other_writer_and_then_says_so(
    synced: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(io_manager, "BUSY_PATIENCE_SECONDS", 0.2)
    monkeypatch.setattr(turn, "POLL_SECONDS", 0.05)
    synced.store.begin_run(an_identity(source="fake"), Mode.INCREMENTAL, "the-other-one")
    failed = failure(synced.run())
    assert failed.error is not None
    assert "the-other-one" in failed.error.message
    assert "waiting: " in everything_said(synced)

    synced.store.finish_run("the-other-one", Outcome.COMPLETE, "", 0, 0)
    assert isinstance(synced.tick(datetime.now(timezone.utc)), dg.SkipReason)
    status = synced.store.status("plans")
    assert status is not None
    assert status.failures == 0, "to have waited in vain is no failure of the endpoint"


def test_s41_a_run_goes_on_when_the_other_writer_is_done(
    synced: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = synced.store
    store.begin_run(an_identity(source="fake"), Mode.INCREMENTAL, "the-other-one")
    monkeypatch.setattr(
        "time.sleep",
        lambda _: store.finish_run("the-other-one", Outcome.COMPLETE, "", 0, 0),
    )
    assert synced.run().success


def test_s49_only_web_links_become_links_and_titles_stay_text() -> None:
    for link in ("javascript:alert(1)", "javascript:alert`1`", "data:text/html,x", "ftp://x/y", ""):
        assert io_manager.quoted_link(link) == ""
    assert io_manager.quoted_link("https://x.example/a) [evil](https://e.example") == ""
    assert io_manager.quoted_link("https://x.example/a?b=1&c=%20") != ""
    title = "x](javascript:alert(1)) <img src=x> **bold**\nFORGED"
    assert io_manager.escaped(title) == (
        r"x\]\(javascript\:alert\(1\)\) \<img src=x\> \*\*bold\*\*\\x0aFORGED"
    )


def test_several_endpoints_in_one_run_have_rows_of_their_own(house: House) -> None:
    for endpoint_id in ("plans", "models"):
        house.connectors.of(endpoint_id).sweep_script = listing(a_file(f"{endpoint_id}-file"))
    defs = house.definitions(house.catalog("plans", "models"))
    result = defs.resolve_implicit_global_asset_job_def().execute_in_process(
        instance=house.instance, partition_key="2026-03-01", raise_on_error=False
    )
    assert result.success
    for endpoint_id in ("plans", "models"):
        [row] = house.store.newest(endpoint_id)
        assert row["external_id"] == f"{endpoint_id}-file"
        assert len(house.store.runs(endpoint_id)) == 1


def test_an_asset_downstream_gets_the_rows_as_a_data_frame(house: House) -> None:
    house.plans.sweep_script = listing(
        a_file("march", updated_at=at(12)),
        a_file("later", updated_at=at(12, day=20)),
        a_file("ancient", updated_at=at(12) - timedelta(days=9000)),
        a_file("undated", updated_at=None),
    )
    assert house.run().success
    files = dg.AssetKey(["files", "plans"])
    seen: list[pd.DataFrame] = []

    @dg.asset(ins={"rows": dg.AssetIn(files)})
    def report(rows: pd.DataFrame) -> None:
        seen.append(rows)

    days = dg.DailyPartitionsDefinition("2026-01-01")

    @dg.asset(ins={"rows": dg.AssetIn(files)}, partitions_def=days)
    def daily(rows: pd.DataFrame) -> None:
        seen.append(rows)

    defs = dg.Definitions.merge(house.definitions(), dg.Definitions(assets=[report, daily]))
    for name, day in (("report", None), ("daily", "2026-03-01"), ("daily", "2026-02-01")):
        job = defs.resolve_implicit_global_asset_job_def()
        result = job.execute_in_process(
            instance=house.instance, asset_selection=[dg.AssetKey(name)], partition_key=day
        )
        assert result.success
    everything, one_day, no_day = seen
    assert set(everything["external_id"]) == {"march", "later", "ancient", "undated"}
    assert list(one_day["external_id"]) == ["march"]
    assert one_day["updated_at"].iloc[0] == pd.Timestamp("2026-03-01 12:00", tz="UTC")
    assert list(no_day.columns) == list(everything.columns)
    assert len(no_day) == 0


def test_what_a_run_wrote_is_shown_first_and_the_newest_of_it_before_the_rest() -> None:
    def written(at: str, *changed: str) -> list[dict[str, Json]]:
        return [{"title": c, "updated_at": c, "changed_at": f"2026-03-01T{at}Z"} for c in changed]

    recent = [
        *written("12:05:09.2", "1999-01-01", "2026-03-01T12:03"),
        *written("12:05:09.1", "2026-03-01T12:04"),
        *written("12:00:10.0", "2026-02-27", "2026-03-01T11:59", "2026-02-26", "2026-02-28"),
    ]
    assert [row["title"] for row in io_manager._newest(recent)] == [
        "2026-03-01T12:04", "2026-03-01T12:03", "1999-01-01",
        "2026-03-01T11:59", "2026-02-28", "2026-02-27",
    ]  # fmt: skip


def test_a_long_way_to_a_file_can_be_broken_into_lines() -> None:
    row: dict[str, Json] = {"title": "a.pdf", "path": "Drawings/Published/a.pdf"}
    assert io_manager._record(row).data["in"] == "Drawings / Published"
    assert io_manager._record({"title": "a.pdf", "path": "a.pdf"}).data["in"] == "/"


def test_a_cursor_is_shown_in_words_short_enough_for_a_page() -> None:
    urn = "urn:adsk.wipprod:fs.folder:co.wdc0d3ZIq3O94gGCUEXk2j"
    assert io_manager._cursor({"token": "123", "roots": [urn], "drive": None}) == (
        "roots urn:adsk.wipprod:fs.…O94gGCUEXk2j, token 123"
    )
    assert io_manager._cursor(None) == "none"
    assert len(io_manager._cursor({str(n): urn for n in range(50)})) == 200


def test_a_run_says_in_the_log_how_it_went(house: House) -> None:
    house.plans.sweep_script = listing(a_file("a"))
    house.run()
    assert "endpoint 'plans': complete: 1 inserted, 0 updated" in everything_said(house)
