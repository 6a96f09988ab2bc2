"""The command line ``file-connector``: what an operator asks without opening the Dagster UI.

Answers go to stdout (``--json``: one JSON document), progress and complaints to stderr. Exit codes:
0 yes or done, 1 no or failed (one sentence says why and what to do), 2 wrong usage.
"""

from __future__ import annotations

import difflib
import json
import os
import re
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import asdict, is_dataclass, replace
from datetime import date, datetime, timedelta, timezone
from enum import Enum
from itertools import islice
from pathlib import Path
from typing import Any, NoReturn

import click

import file_connector
from file_connector.cli_checks import Checked, check_all
from file_connector.cli_explain import explained
from file_connector.cli_preview import first_files
from file_connector.connectors.base import Connector
from file_connector.deployment import (
    Deployment,
    redact_logs,
    redacted_traceback,
    schedule_text,
)
from file_connector.destination.base import EndpointStatus, Store
from file_connector.destination.rows import clean_link
from file_connector.endpoints.catalog import Catalog, Quarantined
from file_connector.endpoints.credentials import parse_credential
from file_connector.endpoints.schema import SECRET_NAME, Endpoint
from file_connector.errors import (
    BusyError,
    ConfigurationError,
    FileConnectorError,
    one_line,
    redact,
)
from file_connector.models import (
    Blind,
    Mode,
    Outcome,
    RunCounts,
)
from file_connector.sync.run import SyncRun
from file_connector.sync.turn import take_turn
from file_connector.times import iso

PROGRESS_SECONDS = 3.0

_JSON = "file_connector.json"


class _Group(click.Group):
    """Turns our errors into one sentence and exit code 1."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except FileConnectorError as error:
            sentence = redact(error)
            click.echo(f"Error: {sentence}", err=True)
            if ctx.meta.get(_JSON):
                _answer({"error": sentence, "kind": type(error).__name__})
        except click.UsageError as error:
            if ctx.meta.get(_JSON):
                _answer({"error": error.format_message(), "kind": "UsageError"})
            raise
        except (click.ClickException, click.exceptions.Exit, click.Abort, BrokenPipeError):
            raise  # a reader that went away (`| head`) is no mistake; click ends quietly
        except Exception:  # noqa: BLE001 - the last net; the trace is shown, without secrets
            click.echo(redacted_traceback(*sys.exc_info()), err=True)
            click.echo("Error: this is a mistake of File Connector; please report it.", err=True)
        raise click.exceptions.Exit(1)


LAST_DAY = date(9999, 12, 30)
"""The last day whose end is still in the calendar."""


_HELP = {"help_option_names": ["-h", "--help"], "max_content_width": 100}


@click.group(cls=_Group, context_settings=_HELP)
@click.version_option(file_connector.__version__, prog_name="file-connector")
@click.pass_context
def main(ctx: click.Context) -> None:
    """Every new or changed file of your customers' folders, one row each, in Supabase.

    Reads endpoints.yaml of the current folder (or FILE_CONNECTOR_ENDPOINTS) and, like Dagster, the
    variables in a file named .env beside it.
    """
    for stream in (sys.stdout, sys.stderr):
        if hasattr(
            stream, "reconfigure"
        ):  # a title must not crash a terminal that lacks its letters
            stream.reconfigure(errors="backslashreplace")
    redact_logs()
    if ctx.obj is None:
        ctx.obj = Deployment.from_environ(_environ(Path.cwd()), Path.cwd())


def _environ(folder: Path) -> Mapping[str, str]:
    """The environment as ``dagster dev`` sees it: a ``.env`` file of the folder wins."""
    if not (folder / ".env").is_file():
        return os.environ
    from dotenv import dotenv_values

    extra = {k: v for k, v in dotenv_values(folder / ".env").items() if v is not None}
    return {**os.environ, **extra}


def _note_json(ctx: click.Context, _: click.Parameter, value: bool) -> bool:
    ctx.meta[_JSON] = value
    return value


_json = click.option(
    "--json", "as_json", is_flag=True, callback=_note_json, help="Answer as one JSON document."
)
_id = click.argument("endpoint_id", metavar="ID")


# -- about the YAML ------------------------------------------------------------------------------


@main.command()
@_json
@click.pass_obj
def validate(deployment: Deployment, as_json: bool) -> None:
    """Read endpoints.yaml and name every problem with its line. No network."""
    catalog = deployment.catalog()
    total = len(catalog.endpoints) + len(catalog.quarantined)
    if as_json:
        _answer(
            {
                "valid": not catalog.problems,
                "file": str(catalog.path or catalog.name),
                "endpoints": [e.id for e in catalog.endpoints],
                "quarantined": [_plain(q) for q in catalog.quarantined],
                "problems": [{**_plain(p), "text": redact(p)} for p in catalog.problems],
            }
        )
    else:
        for problem in catalog.problems:
            click.echo(redact(problem))
        if not catalog.problems:
            click.echo(f"{catalog.name} is valid: {_count(total, 'endpoint')}.")
    if catalog.problems:
        click.echo(
            f"{_count(len(catalog.problems), 'problem')}; {len(catalog.endpoints)} of "
            f"{_count(total, 'endpoint')} can run.",
            err=True,
        )
        raise click.exceptions.Exit(1)


@main.command(name="list")
@_json
@click.pass_obj
def list_(deployment: Deployment, as_json: bool) -> None:
    """Show every endpoint and how it is doing."""
    catalog = _readable(deployment)
    statuses: dict[str, EndpointStatus | None] = {}
    forecasts: dict[str, str | None] = {}
    unheard = "unknown"
    try:
        with deployment.open_store() as store:
            for endpoint in catalog.endpoints:
                held = store.status(endpoint.id)
                statuses[endpoint.id] = held.taken_up() if held else None
            forecasts = {e.id: deployment.forecast(e, store) for e in catalog.endpoints}
        unheard = "new"
    except FileConnectorError as error:
        click.echo(f"Warning: how they are doing is not known: {redact(error)}", err=True)
    rows = [_listed(e, statuses.get(e.id), unheard, forecasts.get(e.id)) for e in catalog.endpoints]
    rows += [_listed_quarantined(q) for q in catalog.quarantined]
    if as_json:
        _answer(rows)
        return
    headers = ["id", "type", "project_id", "user_id", "schedule", "status", "last_success_at"]
    _table(headers, [[str(row[h] or "") for h in headers] for row in rows])
    for row in rows:
        if row["message"]:
            click.echo(f"{row['id']}: {one_line(row['message'])}")
        if row["attention"]:
            click.echo(f"{row['id']}: attention: {one_line(row['attention'])}")


def _listed(
    endpoint: Endpoint, status: EndpointStatus | None, unheard: str, attention: str | None
) -> dict[str, Any]:
    doing = "disabled" if not endpoint.enabled else status.status if status else unheard
    return {
        "id": endpoint.id,
        "name": endpoint.name,
        "type": endpoint.endpoint_type,
        "project_id": endpoint.project_id,
        "user_id": endpoint.user_id,
        "schedule": schedule_text(endpoint),
        "status": doing,
        "last_success_at": iso(status.last_success_at) if status else None,
        "failing_since": iso(status.failing_since) if status else None,
        "message": redact(status.message) if status else "",
        "attention": attention or "",
    }


def _listed_quarantined(entry: Quarantined) -> dict[str, Any]:
    return {
        "id": entry.id or f"line {entry.line}",
        "name": entry.name,
        "type": entry.endpoint_type,
        "project_id": entry.project_id,
        "user_id": entry.user_id,
        "schedule": "",
        "status": "quarantined",
        "last_success_at": None,
        "failing_since": None,
        "message": redact(" ".join(map(str, entry.problems))),
        "attention": "",
    }


# -- about the providers -------------------------------------------------------------------------


@main.command()
@click.argument("endpoint_id", metavar="[ID]", required=False)
@_json
@click.pass_obj
def check(deployment: Deployment, endpoint_id: str | None, as_json: bool) -> None:
    """Prove database, credentials and access, of one endpoint or of all enabled ones."""
    catalog = _readable(deployment)
    chosen = (
        [_endpoint(catalog, endpoint_id)]
        if endpoint_id
        else [e for e in catalog.endpoints if e.enabled]
    )
    results: list[Checked] = []

    def show(result: Checked) -> None:
        results.append(result)
        if not as_json:
            mark = "ok    " if result.ok else "FAILED"
            for sentence in result.sentences:
                click.echo(f"{mark} {result.name} ({result.seconds:.1f} s): {one_line(sentence)}")

    check_all(deployment, chosen, show)
    if not endpoint_id:
        for entry in catalog.quarantined:
            sentences = [redact(p) for p in entry.problems]
            show(Checked(entry.id or f"line {entry.line}", False, sentences, 0.0))
    failed = [r.name for r in results if not r.ok]
    if as_json:
        _answer({"ok": not failed, "checks": [_plain(r) for r in results]})
    if failed:
        _fail(f"{len(failed)} of {_count(len(results), 'check')} failed: {', '.join(failed[:10])}.")


@main.command()
@_id
@click.option("-n", "count", default=20, type=click.IntRange(1, 10_000), show_default=True)
@_json
@click.pass_obj
def preview(deployment: Deployment, endpoint_id: str, count: int, as_json: bool) -> None:
    """Show the first files an endpoint would sync. Writes nothing."""
    endpoint = _endpoint(_readable(deployment), endpoint_id)
    with _open(deployment, endpoint) as (_, connector):
        files = list(islice(first_files(connector, _warn_blind), count))
    rows = [
        {
            "title": f.title,
            "external_id": f.external_id,
            "updated_at": iso(f.updated_at),
            "created_at": iso(f.created_at),
            "link": clean_link(f.link),
            "mime_type": f.mime_type,
            "size_bytes": f.size_bytes,
            "project_id": endpoint.project_id,
            "user_id": endpoint.user_id,
        }
        for f in files
    ]
    if as_json:
        _answer(rows)
        return
    headers = ["title", "updated_at", "link"]
    _table(headers, [[one_line(str(row[h] or "")) for h in headers] for row in rows])
    more = ", and there may be more" if len(files) == count else ""
    click.echo(f"{_count(len(files), 'file')}{more}; nothing was written.", err=True)


def _warn_blind(blind: Blind) -> None:
    where = one_line(f"'{blind.name}' ({blind.folder_id}): {redact(blind.why)}")
    click.echo(f"Warning: could not see {where}", err=True)


@main.command()
@_id
@click.option("--sweep", is_flag=True, help="List everything and compare, to the end.")
@click.option(
    "--from", "first", type=click.DateTime(["%Y-%m-%d"]), help="First day (UTC) to re-read."
)
@click.option(
    "--to", "last", type=click.DateTime(["%Y-%m-%d"]), help="Last day (UTC), included; today."
)
@_json
@click.pass_obj
def sync(
    deployment: Deployment,
    endpoint_id: str,
    sweep: bool,
    first: datetime | None,
    last: datetime | None,
    as_json: bool,
) -> None:
    """Run one endpoint to its end, without Dagster. Exit code 0 only when the run is complete."""
    mode, window = _mode(sweep, first, last)
    endpoint = _endpoint(_readable(deployment), endpoint_id)
    with (
        _terminable(),
        _open(deployment, endpoint) as (store, connector),
        _progress(connector) as on_commit,
    ):
        report = take_turn(
            lambda: SyncRun(
                endpoint.identity, connector, store, mode, window=window, on_commit=on_commit
            ).drain(),
            _warn_busy,
        )
    counts = report.counts
    if as_json:
        _answer(_plain(report))
    else:
        seconds = (report.ended_at - report.started_at).total_seconds()
        click.echo(
            f"{endpoint.id}: {report.outcome.value} in {seconds:.1f} s: {_totals(counts)}, "
            f"{_count(counts.api_calls, 'API call')}."
        )
        for note in report.notes:
            click.echo(f"{endpoint.id}: {one_line(redact(note))}")
    if report.outcome is not Outcome.COMPLETE:
        _fail(f"endpoint '{endpoint.id}': the run is {report.outcome.value}: {report.reason}")


def _warn_busy(busy: BusyError) -> None:
    click.echo(f"... {busy.message}; waiting for a sign of life from it", err=True)


def _mode(
    sweep: bool, first: datetime | None, last: datetime | None
) -> tuple[Mode, tuple[datetime, datetime] | None]:
    if first is None and last is None:
        return (Mode.SWEEP if sweep else Mode.INCREMENTAL), None
    if sweep:
        raise click.UsageError("--sweep and --from/--to exclude each other.")
    if first is None:
        raise click.UsageError("--to needs --from.")
    if last is None and first.date() > datetime.now(timezone.utc).date():
        raise click.UsageError(f"--from {first.date()} lies in the future.")
    start = first.replace(tzinfo=timezone.utc)
    final = min((last or datetime.now(timezone.utc)).date(), LAST_DAY)
    end = datetime(final.year, final.month, final.day, tzinfo=timezone.utc) + timedelta(days=1)
    if end <= start:
        raise click.UsageError(f"--from {start.date()} lies after --to {final}.")
    return Mode.WINDOW, (start, end)


def _totals(counts: RunCounts) -> str:
    return (
        f"{counts.inserted:,} inserted, {counts.updated:,} updated, "
        f"{counts.unchanged:,} unchanged, {counts.tombstoned:,} gone"
    )


@contextmanager
def _progress(connector: Connector) -> Iterator[Callable[[RunCounts], None]]:
    """What has been done so far, on stderr every few seconds; also while the provider is silent."""
    latest = RunCounts()
    over = threading.Event()

    def note(counts: RunCounts) -> None:
        nonlocal latest
        latest = counts

    def tell() -> None:
        while not over.wait(PROGRESS_SECONDS):
            calls = _count(connector.api_calls, "API call")
            click.echo(f"... {calls}, {_totals(latest)}", err=True)

    thread = threading.Thread(target=tell, daemon=True)
    thread.start()
    try:
        yield note
    finally:
        over.set()
        thread.join()


@contextmanager
def _terminable() -> Iterator[None]:
    """SIGTERM, and a terminal that goes away, end a run in order (its lease is given back), as
    Ctrl-C does; also where a shell or a parent had SIGTERM ignored."""

    def stop(number: int, _: object) -> NoReturn:
        raise SystemExit(128 + number)

    names = [name for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]
    before = {name: signal.getsignal(getattr(signal, name)) for name in names}
    if before.get("SIGHUP") is signal.SIG_IGN:  # nohup stays
        del before["SIGHUP"]
    for name in before:
        signal.signal(getattr(signal, name), stop)
    try:
        yield
    finally:
        for name, handler in before.items():
            signal.signal(getattr(signal, name), handler)


# -- about what is stored ------------------------------------------------------------------------


@main.command()
@_id
@click.argument("external_id", metavar="EXTERNAL_ID")
@_json
@click.pass_obj
def explain(deployment: Deployment, endpoint_id: str, external_id: str, as_json: bool) -> None:
    """Say why a file is, or is not, in the table."""
    endpoint = _endpoint(_readable(deployment), endpoint_id)
    if not external_id.strip():
        raise click.UsageError("EXTERNAL_ID is empty: give the provider's id of the file.")
    with deployment.open_store() as store:
        found = explained(deployment, endpoint, store, external_id)
    if as_json:
        _answer(
            {
                "endpoint_id": endpoint.id,
                "external_id": external_id,
                **_plain(found),
            }
        )
        return
    for sentence in found.sentences:
        click.echo(one_line(redact(sentence)))
    for column, value in (found.row or {}).items():
        if column != "raw" and value is not None:
            click.echo(f"  {column}: {one_line(str(value))}")


@main.command()
@_id
@_json
@click.pass_obj
def reset(deployment: Deployment, endpoint_id: str, as_json: bool) -> None:
    """Forget an endpoint's cursor, so that the next run lists everything anew. Rows stay."""
    endpoint = _endpoint(_readable(deployment), endpoint_id)
    with deployment.open_store() as store:
        store.reset(endpoint.id)
    _done(as_json, endpoint, "the cursor is forgotten; the next run lists everything. Rows stay")


@main.command()
@_id
@_json
@click.pass_obj
def confirm(deployment: Deployment, endpoint_id: str, as_json: bool) -> None:
    """Accept that many files of an endpoint really disappeared."""
    endpoint = _endpoint(_readable(deployment), endpoint_id)
    with deployment.open_store() as store:
        state = store.state(endpoint.id)
        if not state.held_back:
            _done(as_json, endpoint, "nothing is held back, so there is nothing to confirm")
            return
        if store.advance(replace(state, confirmed=True)) is None:
            raise _about(
                endpoint, BusyError("a run is writing just now.", remedy="Try again when it ends.")
            )
    _done(as_json, endpoint, "confirmed; the next complete listing marks the missing files gone")


@main.command()
@click.option("--dry-run", is_flag=True, help="Only name what would be applied.")
@_json
@click.pass_obj
def migrate(deployment: Deployment, dry_run: bool, as_json: bool) -> None:
    """Create or update the tables in the destination."""
    with deployment.open_store() as store:
        names = list(store.migrate(dry_run=dry_run))
        if not dry_run:
            _define(deployment, store)
    if as_json:
        _answer({"applied": [] if dry_run else names, "pending": names if dry_run else []})
        return
    for name in names:
        click.echo(f"{'would apply' if dry_run else 'applied'} {name}")
    if not (names and dry_run):
        click.echo(f"The tables of {deployment.destination} are up to date.")


@main.command()
@click.argument("name", metavar="[NAME]", required=False)
@click.option("--remove", is_flag=True, help="Forget the secret.")
@_json
@click.pass_obj
def secret(deployment: Deployment, name: str | None, remove: bool, as_json: bool) -> None:
    """Save the credential JSON on stdin, encrypted, as NAME; without NAME, list what is saved.

    An endpoint uses it with `credentials: vault:NAME`. For plain Postgres (SUPABASE_DB_URL);
    Supabase's Vault keeps its secrets itself.
    """
    from file_connector.destination.secrets import secret_store

    if name is not None and re.fullmatch(SECRET_NAME, name) is None:
        raise click.UsageError("NAME may hold only letters, digits and - _ . after the first one.")
    with deployment.open_store() as store:
        secrets = secret_store(store, deployment.settings.encryption_key)
        if name is None:
            rows = [{"name": n, "saved_at": at} for n, at in secrets.names().items()]
            if as_json:
                _answer(rows)
            else:
                _table(["name", "saved_at"], [[r["name"], r["saved_at"]] for r in rows])
            return
        if remove:
            if not secrets.remove(name):
                _fail(f"there is no secret '{name}'.")
        else:
            secrets.put(name, _from_stdin())
    done = "removed" if remove else "saved"
    if as_json:
        _answer({"name": name, "message": done})
    else:
        click.echo(f"{name}: {done}.")


def _from_stdin() -> str:
    """The JSON of a credential; raises ConfigurationError, without showing it, if it is none."""
    if sys.stdin.isatty():
        click.echo("Paste the JSON of the credential, then press Ctrl-D.", err=True)
    text = sys.stdin.read()
    parse_credential(text, "what came on stdin")
    return text


def _define(deployment: Deployment, store: Store) -> None:
    """Tell the application's control plane, if there is one, which source types there are."""
    from file_connector.deployment_control import define
    from file_connector.destination.control import control_plane

    control = control_plane(store)
    if control is None:
        return
    try:
        define(control, deployment.registry)
    except FileConnectorError as error:  # nothing that a run needs
        click.echo(f"Warning: connectors.definitions is as it was: {redact(error)}", err=True)


# -- shared --------------------------------------------------------------------------------------


def _readable(deployment: Deployment) -> Catalog:
    catalog = deployment.catalog()
    if not catalog.readable:
        raise ConfigurationError(" ".join(str(p) for p in catalog.problems))
    return catalog


def _endpoint(catalog: Catalog, endpoint_id: str) -> Endpoint:
    endpoint = catalog.get(endpoint_id)
    if endpoint is not None:
        return endpoint
    for entry in catalog.quarantined:
        if entry.id == endpoint_id:
            raise ConfigurationError(
                f"endpoint '{entry.id}' is quarantined: {' '.join(map(str, entry.problems))}"
            )
    ids = [e.id for e in catalog.endpoints]
    close = difflib.get_close_matches(endpoint_id, ids, n=1)
    hint = f"Did you mean '{close[0]}'?" if close else "`file-connector list` shows all."
    raise click.UsageError(f"no endpoint '{one_line(endpoint_id)}' in {catalog.name}. {hint}")


@contextmanager
def _open(deployment: Deployment, endpoint: Endpoint) -> Iterator[tuple[Store, Connector]]:
    """Store and connector; errors from within name the endpoint."""
    try:
        with (
            deployment.open_store() as store,
            closing(deployment.open_connector(endpoint, store)) as connector,
        ):
            yield store, connector
    except FileConnectorError as error:
        raise _about(endpoint, error) from None


def _about(endpoint: Endpoint, error: FileConnectorError) -> FileConnectorError:
    error.endpoint = endpoint.id
    return error


def _plain(value: Any) -> Any:
    """Anything of ours as JSON types."""
    if is_dataclass(value) and not isinstance(value, type):
        return {k: _plain(v) for k, v in asdict(value).items()}
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, datetime):
        return iso(value)
    if isinstance(value, date | Path):
        return str(value)
    return value


def _answer(value: Any) -> None:
    click.echo(json.dumps(_plain(value), indent=2, ensure_ascii=False))


def _done(as_json: bool, endpoint: Endpoint, sentence: str) -> None:
    if as_json:
        _answer({"endpoint_id": endpoint.id, "message": sentence})
    else:
        click.echo(f"{endpoint.id}: {sentence}.")


def _fail(sentence: str) -> NoReturn:
    click.echo(f"Error: {one_line(redact(sentence))}", err=True)
    raise click.exceptions.Exit(1)


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def _table(headers: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    widths = [max(len(cell) for cell in column) for column in zip(headers, *rows, strict=True)]
    for row in [[h.upper() for h in headers], *rows]:
        cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        click.echo("  ".join(cells).rstrip())
