"""The command line, on a scripted source and the mock Supabase."""

from __future__ import annotations

import json
import logging
import signal
import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import click
import pytest
import yaml
from click.testing import CliRunner, Result

from file_connector import cli, cli_checks
from file_connector.deployment import Deployment
from file_connector.errors import (
    ConfigurationError,
    ForbiddenError,
    ReconnectError,
    TransientError,
)
from file_connector.models import (
    Batch,
    Blind,
    GoneReason,
    Mode,
    SyncState,
)
from file_connector.times import utc_now
from file_connector_tests.builders import a_file, an_identity, at
from file_connector_tests.endpoints.fakes import SPEC, Only, an_entry
from file_connector_tests.sync.scripted import ScriptedConnector, listing


class Desk:
    """A deployment whose sources are scripted, and a terminal in front of it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.sources: dict[str, ScriptedConnector] = {}
        self.environ: dict[str, str] = {"FAKE_TOKEN": "t-1234"}
        self.entries: list[dict[str, Any]] = []
        self.defaults: dict[str, Any] = {}
        self.forecast: str | None = None
        self.pick: Callable[[Any], ScriptedConnector] = lambda d: self.sources[d.folder_id]

    def source(self, name: str, **values: Any) -> ScriptedConnector:
        """Adds an endpoint ``name`` and returns the source behind it."""
        values = {"endpoint_details": {"folder_id": name}, **values}
        self.entries.append(an_entry(name, **values))
        self.sources[name] = ScriptedConnector()
        return self.sources[name]

    @property
    def deployment(self) -> Deployment:
        (self.folder / "endpoints.yaml").write_text(yaml.safe_dump({"endpoints": self.entries}))
        spec = replace(
            SPEC,
            open=lambda details, *_: self.pick(details),
            forecast=lambda *_: self.forecast,
        )
        return Deployment.from_environ(self.environ, self.folder, Only(spec))

    def run(self, *args: str) -> Result:
        return CliRunner().invoke(cli.main, args, obj=self.deployment, catch_exceptions=False)

    def answer(self, *args: str, code: int = 0) -> Any:
        """The JSON answer of a command."""
        result = self.run(*args, "--json")
        assert result.exit_code == code, result.output
        return json.loads(result.stdout)


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    factory = logging.getLogRecordFactory()
    yield Desk(tmp_path)
    logging.setLogRecordFactory(factory)


COMMANDS = sorted(cli.main.commands)


def test_the_commands_of_the_contract() -> None:
    assert COMMANDS == [
        "check", "confirm", "explain", "list", "migrate", "preview", "reset", "secret", "sync",
        "validate",
    ]  # fmt: skip


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help_and_json(name: str) -> None:
    result = CliRunner().invoke(cli.main, [name, "--help"])
    assert result.exit_code == 0
    assert "--json" in result.output
    command = cli.main.commands[name]
    assert isinstance(command, click.Command)
    assert command.help


# -- validate ------------------------------------------------------------------------------------


def test_validate_a_good_file(desk: Desk) -> None:
    desk.source("plans")
    result = desk.run("validate")
    assert result.exit_code == 0
    assert result.output == "endpoints.yaml is valid: 1 endpoint.\n"
    assert desk.answer("validate")["endpoints"] == ["plans"]


def test_s38_validate_names_every_problem_with_its_line(desk: Desk) -> None:
    for i in range(99):
        desk.source(f"E{i}")
    desk.source("bad", endpoint_type="dropbox", colour="red", credentials="acme")
    result = desk.run("validate")
    assert result.exit_code == 1
    lines = result.stdout.splitlines()
    assert len(lines) == 2
    assert all("endpoints.yaml:" in line and "endpoint 'bad'" in line for line in lines)
    assert "2 problems; 99 of 100 endpoints can run." in result.stderr
    answer = desk.answer("validate", code=1)
    assert len(answer["endpoints"]) == 99
    assert answer["quarantined"][0]["id"] == "bad"
    assert {p["field"] for p in answer["problems"]} == {"endpoint_type", "colour"}
    assert all(isinstance(p["line"], int) for p in answer["problems"])


def test_validate_tells_of_an_unset_credential_and_of_a_missing_file(desk: Desk) -> None:
    desk.source("plans", credentials="acme")
    result = desk.run("validate")
    assert result.exit_code == 1
    assert "FAKE_CREDENTIALS__ACME" in result.stdout
    deployment = Deployment.from_environ({}, desk.folder / "nowhere")
    result = CliRunner().invoke(cli.main, ["validate"], obj=deployment)
    assert result.exit_code == 1
    assert "the file does not exist" in result.stdout


# -- list ----------------------------------------------------------------------------------------


def test_list_shows_status_and_quarantine(desk: Desk) -> None:
    desk.source("plans").sweep_script = listing(a_file("f1"))
    desk.source("models")
    desk.source("off", enabled=False)
    desk.source("bad", endpoint_type="dropbox")
    desk.run("sync", "plans")
    desk.sources["models"].sweep_script = [ReconnectError("revoked.", remedy="Connect again.")]
    desk.run("sync", "models")
    rows = {row["id"]: row for row in desk.answer("list")}
    assert {i: r["status"] for i, r in rows.items()} == {
        "plans": "ok", "models": "failing", "off": "disabled", "bad": "quarantined",
    }  # fmt: skip
    assert rows["plans"]["last_success_at"]
    assert "Connect again." in rows["models"]["message"]
    assert "endpoints.yaml:" in rows["bad"]["message"]
    result = desk.run("list")
    assert result.exit_code == 0
    for words in ("plans", "every 5 minutes", "failing", "Connect again.", "dropbox"):
        assert words in result.stdout


def test_list_believes_the_file_and_not_what_it_said_before(desk: Desk) -> None:
    desk.source("plans").sweep_script = listing(a_file("f1"))
    desk.run("sync", "plans")
    with desk.deployment.open_store() as store:
        store.mirror([])
        held = store.status("plans")
        assert held is not None
        assert held.status == "removed"
    (row,) = desk.answer("list")
    assert row["status"] == "ok"


def test_list_tells_of_a_connection_that_will_end(desk: Desk) -> None:
    desk.source("plans")
    assert desk.answer("list")[0]["attention"] == ""
    desk.forecast = "the sign-in ends in 3.0 days"
    assert desk.answer("list")[0]["attention"] == desk.forecast
    assert "plans: attention: the sign-in ends in 3.0 days" in desk.run("list").stdout


def test_list_without_a_database(desk: Desk) -> None:
    desk.source("plans")
    (desk.folder / ".file_connector").write_text("in the way")
    result = desk.run("list")
    assert result.exit_code == 0
    assert "unknown" in result.stdout
    assert "Warning: how they are doing is not known" in result.stderr


# -- check ---------------------------------------------------------------------------------------


def test_check_all(desk: Desk) -> None:
    desk.source("plans")
    desk.source("models").check_answer = ForbiddenError("not shared.", remedy="Share the folder.")
    desk.source("off", enabled=False).check_answer = ConfigurationError("never asked")
    desk.source("bad", endpoint_type="dropbox")
    result = desk.run("check")
    assert result.exit_code == 1
    assert "ok     database" in result.stdout
    assert "ok     plans" in result.stdout
    assert "FAILED models" in result.stdout
    assert "not shared. Share the folder." in result.stdout
    assert "FAILED bad" in result.stdout
    assert "off" not in result.stdout
    assert "2 of 4 checks failed: models, bad." in result.stderr


def test_check_one(desk: Desk) -> None:
    desk.source("plans")
    desk.source("models").check_answer = ForbiddenError("not shared.")
    assert desk.run("check", "plans").exit_code == 0
    answer = desk.answer("check", "models", code=1)
    assert [(c["name"], c["ok"]) for c in answer["checks"]] == [
        ("database", True), ("models", False),
    ]  # fmt: skip


def test_check_without_a_database(desk: Desk) -> None:
    desk.source("plans")
    (desk.folder / ".file_connector").write_text("in the way")
    result = desk.run("check")
    assert result.exit_code == 1
    assert "FAILED database" in result.stdout
    assert "FAILED plans (0.0 s): not checked" in result.stdout


def test_a_check_that_hangs_is_left_behind_and_others_are_told(desk: Desk) -> None:
    release = threading.Event()

    class Hanging(ScriptedConnector):
        def check(self) -> Sequence[str]:
            release.wait(60)
            return []

    desk.source("stuck")
    desk.sources["stuck"] = Hanging()
    for i in range(20):
        desk.source(f"e{i}")
    deployment = desk.deployment
    told: list[cli_checks.Checked] = []
    try:
        cli_checks.check_all(
            deployment, deployment.catalog().endpoints, told.append, deadline_seconds=2
        )
    finally:
        release.set()
    assert [c.name for c in told if not c.ok] == ["stuck"]
    assert "no answer within 2 s" in told[-1].sentences[0]
    assert len(told) == 22


def test_a_check_that_breaks_is_told_as_our_mistake(desk: Desk) -> None:
    desk.source("plans").check_answer = ZeroDivisionError("boom")  # type: ignore[assignment]
    result = desk.run("check")
    assert result.exit_code == 1
    assert "unexpected ZeroDivisionError: boom. Please report it." in result.stdout


# -- preview -------------------------------------------------------------------------------------


def test_preview_writes_nothing(desk: Desk) -> None:
    files = [a_file(f"f{i}", title=f"Plan {i}\n.pdf") for i in range(9)]
    desk.source("plans").sweep_script = listing(*files, pages=3)
    result = desk.run("preview", "plans", "-n", "4")
    assert result.exit_code == 0
    assert "Plan 3\\x0a.pdf" in result.stdout
    assert "Plan 4" not in result.stdout
    assert "4 files, and there may be more; nothing was written." in result.stderr
    answer = desk.answer("preview", "plans")
    assert [f["external_id"] for f in answer] == [f"f{i}" for i in range(9)]
    assert answer[0]["updated_at"] == "2026-03-01T09:00:00.000000Z"
    with desk.deployment.open_store() as store:
        assert store.state("plans") == SyncState("plans")
        assert store.known("plans").live_count() == 0


def test_s49_preview_shows_only_links_that_would_be_stored(desk: Desk) -> None:
    odd = a_file("f1", link="javascript:alert(1)")
    desk.source("plans").sweep_script = listing(odd, a_file("f2"))
    assert [f["link"] for f in desk.answer("preview", "plans")] == [
        None,
        "https://files.example/f2",
    ]
    assert "javascript" not in desk.run("preview", "plans").stdout


def test_preview_shows_each_file_once_and_warns_of_what_it_cannot_see(desk: Desk) -> None:
    twin = a_file("f1")
    desk.source("plans").sweep_script = [
        Batch(records=[twin]),
        Batch(records=[twin], blind=[Blind("secret-folder", "Secret", "no permission")], done=True),
    ]
    result = desk.run("preview", "plans", "--json")
    assert len(json.loads(result.stdout)) == 1
    assert "could not see 'Secret' (secret-folder): no permission" in result.stderr


# -- sync ----------------------------------------------------------------------------------------


def test_sync_to_the_end(desk: Desk) -> None:
    source = desk.source("Plans")
    source.sweep_script = listing(a_file("f1"), a_file("f2"))
    result = desk.run("sync", "plans")
    assert result.exit_code == 0
    assert "plans: complete in" in result.stdout
    assert "2 inserted, 0 updated" in result.stdout
    answer = desk.answer("sync", "plans")
    assert answer["outcome"] == "complete"
    assert answer["counts"]["inserted"] == 0
    with desk.deployment.open_store() as store:
        row = store.row("plans", "f1")
        assert row is not None
        assert (row["project_id"], row["user_id"]) == ("tower-42", "ana")
        status = store.status("plans")
        assert status is not None
        assert status.name == "Plans", "before Dagster has mirrored the endpoints file"


def test_sync_modes(desk: Desk) -> None:
    source = desk.source("plans")
    source.sweep_script = listing(a_file("f1"))
    source.window_script = [Batch(done=True)]
    desk.run("sync", "plans")
    desk.run("sync", "plans", "--sweep")
    assert len(source.named("sweep")) == 2
    assert desk.run("sync", "plans", "--from", "2026-01-30", "--to", "2026-02-01").exit_code == 0
    assert source.named("window") == [
        ("window", at(0).replace(month=1, day=30), at(0).replace(month=2, day=2))
    ]
    before = utc_now().replace(hour=0, minute=0, second=0, microsecond=0)
    assert desk.run("sync", "plans", "--from", "2026-01-30").exit_code == 0
    assert source.named("window")[1][2] in (
        before + timedelta(days=1), before + timedelta(days=2),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--sweep", "--from", "2026-01-01"], "exclude each other"),
        (["--to", "2026-01-01"], "--to needs --from"),
        (["--from", "2026-01-02", "--to", "2026-01-01"], "lies after"),
        (["--from", "yesterday"], "does not match the format"),
    ],
)
def test_sync_used_wrongly(desk: Desk, options: list[str], words: str) -> None:
    desk.source("plans")
    result = desk.run("sync", "plans", *options)
    assert result.exit_code == 2
    assert words in result.stderr


def test_a_partial_sync_is_exit_code_one(desk: Desk) -> None:
    source = desk.source("plans")
    source.sweep_script = listing(a_file("f1"))
    source.change_scripts = [[Batch(blind=[Blind("b", "Locked", "no permission")], cursor="t2")]]
    result = desk.run("sync", "plans")
    assert result.exit_code == 1
    assert "plans: partial in" in result.stdout
    assert "Error: endpoint 'plans': the run is partial: could not see 'Locked'" in result.stderr


def test_a_failed_sync_is_one_sentence(desk: Desk) -> None:
    desk.source("plans").sweep_script = [
        ConfigurationError("folder 'x' does not exist.", remedy="Share it with robot@acme.")
    ]
    result = desk.run("sync", "plans")
    assert result.exit_code == 1
    assert result.stderr == (
        "Error: endpoint 'plans': folder 'x' does not exist. Share it with robot@acme.\n"
    )
    answer = desk.answer("sync", "plans", code=1)
    assert answer["kind"] == "ConfigurationError"


def test_sync_while_another_run_works(desk: Desk) -> None:
    desk.source("plans")
    with desk.deployment.open_store() as store:
        identity = an_identity("plans", source="fake")
        store.begin_run(identity, Mode.INCREMENTAL, "somebody")
        result = desk.run("sync", "plans")
    assert result.exit_code == 1
    assert result.stderr.startswith("Error: endpoint 'plans': ")
    assert "Traceback" not in result.stderr


def test_our_own_mistake_shows_a_trace_without_secrets(desk: Desk) -> None:
    desk.environ["FAKE_TOKEN"] = "CANARY-token"
    desk.source("plans").sweep_script = [ZeroDivisionError("with CANARY-token")]
    result = desk.run("sync", "plans")
    assert result.exit_code == 1
    assert "ZeroDivisionError" in result.stderr
    assert "please report it" in result.stderr
    assert "CANARY" not in result.output


# -- which endpoint ------------------------------------------------------------------------------

ONE_ENDPOINT = [
    ["check"], ["preview"], ["sync"], ["reset"], ["confirm"], ["explain", "x"],
]  # fmt: skip


@pytest.mark.parametrize("command", ONE_ENDPOINT, ids=lambda c: c[0])
def test_an_unknown_id_gets_a_suggestion(desk: Desk, command: list[str]) -> None:
    desk.source("plans")
    result = desk.run(command[0], "plan", *command[1:])
    assert result.exit_code == 2
    assert "no endpoint 'plan' in endpoints.yaml. Did you mean 'plans'?" in result.stderr


@pytest.mark.parametrize("command", ONE_ENDPOINT, ids=lambda c: c[0])
def test_a_quarantined_id_says_why(desk: Desk, command: list[str]) -> None:
    desk.source("plans", endpoint_type="dropbox")
    result = desk.run(command[0], "plans", *command[1:])
    assert result.exit_code == 1
    assert "endpoint 'plans' is quarantined" in result.stderr
    assert "endpoint_type 'dropbox' is not known" in result.stderr


@pytest.mark.parametrize("command", ["list", "check", "sync plans"])
def test_an_unreadable_file_is_one_sentence(desk: Desk, command: str) -> None:
    deployment = desk.deployment
    (desk.folder / "endpoints.yaml").write_text("endpoints: [")
    result = CliRunner().invoke(cli.main, command.split(), obj=deployment)
    assert result.exit_code == 1
    assert "endpoints.yaml:1: " in result.stderr
    assert "Traceback" not in result.output


def test_a_dead_database_is_one_sentence(
    desk: Desk, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk.source("plans")
    monkeypatch.setattr(cli, "PROGRESS_SECONDS", 600.0)  # however slow the machine
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    desk.environ["SUPABASE_DB_URL"] = f"postgresql://postgres:CANARY-pw@127.0.0.1:{port}/postgres"
    result = desk.run("sync", "plans")
    assert result.exit_code == 1
    (said,) = [s for s in result.stderr.splitlines() if not s.startswith("... ")]  # it tries again
    assert said.startswith("Error: endpoint 'plans': the database refuses connections")
    assert caplog.text == ""
    assert "CANARY" not in result.output


def test_wrong_usage(desk: Desk) -> None:
    desk.source("documents")
    result = desk.run("sync", "document")
    assert result.exit_code == 2
    assert "Did you mean 'documents'?" in result.stderr
    assert desk.answer("sync", "document", code=2)["kind"] == "UsageError"
    result = desk.run("sync", "documents", "--from", "2999-01-01")
    assert result.exit_code == 2
    assert "--from 2999-01-01 lies in the future." in result.stderr
    assert desk.run("synk").exit_code == 2
    assert desk.run("--version").stdout.startswith("file-connector")


@pytest.mark.parametrize("name", ["SIGTERM", "SIGHUP"])
def test_s41_a_sync_that_is_ended_gives_its_endpoint_back(desk: Desk, name: str) -> None:
    number = signal.Signals[name]
    source = desk.source("plans")

    def end_it() -> Iterator[Batch]:
        signal.raise_signal(number)
        yield Batch()

    source.sweep = lambda *_: end_it()  # type: ignore[method-assign]

    def unheard(*_: object) -> None:
        raise AssertionError("the run does not listen")

    before = signal.signal(number, unheard)
    try:
        assert desk.run("sync", "plans").exit_code == 128 + number
        assert signal.getsignal(number) is unheard
        with desk.deployment.open_store() as store:
            store.begin_run(an_identity("plans", source="fake"), Mode.SWEEP, "the next one")
        signal.signal(number, signal.SIG_IGN)
        if name == "SIGHUP":  # so started by nohup
            with cli._terminable():
                signal.raise_signal(number)
        else:  # so inherited by chance, from a shell's background job for example
            with pytest.raises(SystemExit), cli._terminable():
                signal.raise_signal(number)
    finally:
        signal.signal(number, before)


# -- explain, reset, confirm, migrate ------------------------------------------------------------


def test_explain(desk: Desk) -> None:
    source = desk.source("plans")
    files = [a_file(i, title=f"{i}.pdf") for i in ("live", "lost", "out")]
    source.sweep_script = listing(*files)
    desk.run("sync", "plans")
    source.truth = {
        "live": a_file("live", title="live.pdf"),
        "lost": GoneReason.TRASHED,
        "out": GoneReason.OUT_OF_SCOPE,
        "new": a_file("new", title="new.pdf"),
    }
    live = desk.answer("explain", "plans", "live")
    assert live["provider"] == "shown"
    assert "'live.pdf' is live, first seen 20" in live["sentences"][0]
    lost = desk.answer("explain", "plans", "lost")
    assert lost["provider"] == "gone"
    assert "it is in the trash" in lost["sentences"][1]
    assert "next run or sweep will mark it gone" in lost["sentences"][2]
    new = desk.answer("explain", "plans", "new")
    assert new["row"] is None
    assert "has no row" in new["sentences"][0]
    assert "will be stored by the next run" in new["sentences"][2]
    strange = desk.answer("explain", "plans", "strange")
    assert strange["provider"] == "unknown"

    source.sweep_script = listing(files[0])
    desk.run("sync", "plans", "--sweep")
    result = desk.run("explain", "plans", "out")
    assert result.exit_code == 0
    assert "'out.pdf' is marked gone since 20" in result.stdout
    assert "outside this endpoint's folder or filters" in result.stdout
    assert "first_seen_at: 20" in result.stdout


def test_explain_a_file_that_only_a_filter_leaves_out(desk: Desk) -> None:
    desk.source("plans", endpoint_details={"folder_id": "plans", "file_types": ["pdf"]})
    strict, wide = ScriptedConnector(), ScriptedConnector()
    out = GoneReason.OUT_OF_SCOPE
    strict.truth = {"word": out, "elsewhere": out}
    wide.truth = {"word": a_file("word"), "elsewhere": out}
    desk.pick = lambda details: wide if details.file_types is None else strict
    sentences = desk.answer("explain", "plans", "word")["sentences"]
    assert sentences[-1] == "It lies in this endpoint's folder; only `file_types` leaves it out."
    sentences = desk.answer("explain", "plans", "elsewhere")["sentences"]
    assert sentences[-1] == "Without `file_types`, it would be outside as well."


def test_explain_a_folder_and_nothing(desk: Desk) -> None:
    source = desk.source("plans")
    source.sweep_script = listing(a_file("f1"))
    desk.run("sync", "plans")
    answer = desk.answer("explain", "plans", "root")
    assert answer["provider"] == "folder"
    assert answer["sentences"] == [
        "'Root' is a folder of this endpoint: only the files in it have rows."
    ]
    assert desk.run("explain", "plans", "").exit_code == 2
    source.truth = {"never": GoneReason.DELETED}
    assert "there is no such file" in desk.answer("explain", "plans", "never")["sentences"][1]


def test_explain_when_the_provider_cannot_be_asked(desk: Desk) -> None:
    desk.source("plans", credentials="acme")
    result = desk.run("explain", "plans", "f1")
    assert result.exit_code == 0
    assert "has no row" in result.stdout
    assert "The provider could not be asked: endpoint 'plans': credentials 'acme'" in result.stdout


def test_reset(desk: Desk) -> None:
    source = desk.source("plans")
    source.sweep_script = listing(a_file("f1"))
    desk.run("sync", "plans")
    assert "Rows stay" in desk.run("reset", "plans").stdout
    with desk.deployment.open_store() as store:
        assert store.state("plans").cursor is None
        assert store.known("plans").live_count() == 1
    desk.run("sync", "plans")
    assert len(source.named("sweep")) == 2


def test_confirm_a_mass_disappearance(desk: Desk) -> None:
    source = desk.source("plans")
    source.sweep_script = listing(*(a_file(f"f{i:03}") for i in range(100)), pages=2)
    desk.run("sync", "plans")
    assert "nothing is held back" in desk.run("confirm", "plans").stdout
    source.sweep_script = listing()
    result = desk.run("sync", "plans", "--sweep")
    assert result.exit_code == 1
    assert "file-connector confirm plans" in result.stderr
    assert "confirmed" in desk.run("confirm", "plans").stdout
    result = desk.run("sync", "plans", "--sweep")
    assert result.exit_code == 0
    assert "100 gone" in result.stdout


def test_confirm_while_a_run_works(desk: Desk) -> None:
    source = desk.source("plans")
    source.sweep_script = listing(*(a_file(f"f{i:03}") for i in range(100)))
    desk.run("sync", "plans")
    source.sweep_script = listing()
    desk.run("sync", "plans", "--sweep")
    with desk.deployment.open_store() as store:
        store.begin_run(an_identity("plans", source="fake"), Mode.SWEEP, "somebody")
        result = desk.run("confirm", "plans")
    assert result.exit_code == 1
    assert "a run is writing just now. Try again when it ends." in result.stderr


def test_migrate(desk: Desk) -> None:
    assert desk.run("migrate", "--dry-run").exit_code == 0
    assert desk.run("migrate").exit_code == 0
    assert desk.answer("migrate") == {"applied": [], "pending": []}
    assert desk.run("migrate").stdout == "The tables of the local mock are up to date.\n"


# -- secrets -------------------------------------------------------------------------------------

FAILURES = [
    ConfigurationError("seen CANARY-token"),
    ReconnectError("seen CANARY-token", remedy="CANARY-token"),
    TransientError("503: {'error': 'CANARY-token'}"),
    ForbiddenError("Bearer CANARY-token"),
    ValueError("https://x/?access_token=CANARY-token"),
    KeyError("CANARY-token"),
]


@pytest.mark.parametrize("failure", FAILURES, ids=lambda f: type(f).__name__)
def test_s48_no_secret_in_output_or_database_whatever_fails(desk: Desk, failure: Exception) -> None:
    desk.environ["FAKE_CREDENTIALS__ACME"] = json.dumps({"token": "CANARY-token"})
    source = desk.source("plans", credentials="acme")
    source.sweep_script = [failure]
    source.check_answer = failure  # type: ignore[assignment]
    shown = ""
    for command in (
        "validate", "check", "check --json", "preview plans", "sync plans", "sync plans --json",
        "list", "list --json", "explain plans f1",
    ):  # fmt: skip
        shown += desk.run(*command.split()).output
    assert "CANARY" not in shown
    assert "[redacted]" in shown
    for path in (desk.folder / ".file_connector").rglob("*"):
        assert b"CANARY" not in path.read_bytes(), path.name
