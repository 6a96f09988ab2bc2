"""A deployment opens stores and connectors, and keeps secrets out of every log."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from file_connector.connectors.base import ConnectorSpec, Credentials, Toolbox
from file_connector.deployment import Deployment, redact_logs, schedule_text
from file_connector.endpoints.schema import Endpoint
from file_connector.errors import ConfigurationError
from file_connector_tests.endpoints.fakes import SPEC, Only, an_entry
from file_connector_tests.sync.scripted import ScriptedConnector


def deploy(
    folder: Path, *entries: dict[str, Any], spec: ConnectorSpec = SPEC, **environ: str
) -> Deployment:
    (folder / "endpoints.yaml").write_text(yaml.safe_dump({"endpoints": list(entries)}))
    return Deployment.from_environ(environ, folder, Only(spec))


def only(deployment: Deployment) -> Endpoint:
    (endpoint,) = deployment.catalog().endpoints
    return endpoint


def test_a_connector_gets_its_credentials_and_tools(tmp_path: Path) -> None:
    opened: list[tuple[Any, Credentials, Toolbox]] = []

    def open_it(details: Any, credentials: Credentials, toolbox: Toolbox) -> ScriptedConnector:
        opened.append((details, credentials, toolbox))
        return ScriptedConnector()

    deployment = deploy(
        tmp_path,
        an_entry(credentials="acme"),
        spec=replace(SPEC, open=open_it),
        FAKE_CREDENTIALS__ACME='{"token": "t-123"}',
        APS_BASE_URL="http://127.0.0.1:1/",
    )
    with deployment.open_store() as store:
        deployment.open_connector(only(deployment), store, timeout_seconds=3)
    ((details, credentials, toolbox),) = opened
    assert details.folder_id == "root-1"
    assert credentials.data == {"token": "t-123"}
    assert toolbox.environ["APS_BASE_URL"] == "http://127.0.0.1:1/"
    assert toolbox.timeout_seconds == 3
    assert toolbox.vault is None


def test_missing_credentials_name_endpoint_and_variable(tmp_path: Path) -> None:
    deployment = deploy(tmp_path, an_entry(credentials="acme"))
    with deployment.open_store() as store, pytest.raises(ConfigurationError) as raised:
        deployment.open_connector(only(deployment), store)
    assert str(raised.value).startswith("endpoint 'tower_42': ")
    assert "FAKE_CREDENTIALS__ACME" in str(raised.value)


def test_a_type_without_sandbox_says_so(tmp_path: Path) -> None:
    deployment = deploy(tmp_path, an_entry(credentials="sandbox"))
    with deployment.open_store() as store, pytest.raises(ConfigurationError) as raised:
        deployment.open_connector(only(deployment), store)
    assert "the sandbox has no Fake Drive" in str(raised.value)


def test_the_sandbox_lends_hosts_to_its_own_connectors_only(tmp_path: Path) -> None:
    seen: dict[str, Toolbox] = {}

    def open_it(details: Any, credentials: Credentials, toolbox: Toolbox) -> ScriptedConnector:
        seen[credentials.name] = toolbox
        return ScriptedConnector()

    deployment = deploy(
        tmp_path,
        an_entry("Fake one", credentials="sandbox", endpoint_type="google_drive"),
        an_entry("Real one", credentials="acme", endpoint_type="google_drive"),
        spec=replace(SPEC, type="google_drive", open=open_it),
        FAKE_CREDENTIALS__ACME="{}",
        GOOGLE_DRIVE_API_ENDPOINT="https://proxy.example/drive/v3/",
    )
    with deployment.open_store() as store:
        for endpoint in deployment.catalog().endpoints:
            deployment.open_connector(endpoint, store)
    assert "127.0.0.1" in seen["sandbox"].environ["GOOGLE_DRIVE_API_ENDPOINT"]
    assert seen["acme"].environ["GOOGLE_DRIVE_API_ENDPOINT"] == "https://proxy.example/drive/v3/"


def test_a_deployment_does_nothing_until_asked(tmp_path: Path) -> None:
    deployment = Deployment.from_environ({}, tmp_path / "nowhere")
    assert not deployment.catalog().readable
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("schedule", "words"),
    [
        ({"type": "interval", "interval_minutes": 5}, "every 5 minutes"),
        ({"type": "cron", "cron": "0 6 * * *"}, "by cron 0 6 * * * (UTC)"),
        ({"type": "manual"}, "on demand"),
    ],
)
def test_what_an_endpoint_does_in_words(
    tmp_path: Path, schedule: dict[str, Any], words: str
) -> None:
    deployment = deploy(tmp_path, an_entry(schedule=schedule))
    endpoint = only(deployment)
    assert schedule_text(endpoint) == words
    assert deployment.describe(endpoint) == (
        f"files of root-1, for user ana of project tower-42, {words}."
    )


@pytest.fixture
def log() -> Iterator[io.StringIO]:
    """What a handler, that knows nothing of secrets, writes."""
    factory = logging.getLogRecordFactory()
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    logger = logging.getLogger("somebody.else")
    logger.addHandler(handler)
    yield stream
    logger.removeHandler(handler)
    logging.setLogRecordFactory(factory)


def test_s48_no_log_record_holds_a_secret(tmp_path: Path, log: io.StringIO) -> None:
    deployment = deploy(
        tmp_path,
        an_entry(credentials="acme"),
        FAKE_CREDENTIALS__ACME=json.dumps({"token": "CANARY-token"}),
        SUPABASE_DB_URL="postgresql://user:CANARY%2Fpass@db.example/postgres",
        FILE_CONNECTOR_ENCRYPTION_KEY="CANARY-key",
    )
    deployment.catalog()
    redact_logs()
    redact_logs()
    logger = logging.getLogger("somebody.else")
    logger.warning("token=%s in %r", "CANARY-token", {"x": "CANARY-key"})
    logger.warning("GET https://x/y?access_token=CANARY-unknown")
    logger.warning("%s and %s", "CANARY/pass", "CANARY%2Fpass")
    try:
        raise ValueError("CANARY-token")
    except ValueError:
        logger.exception("failed", stack_info=True)
    text = log.getvalue()
    assert "CANARY" not in text
    assert "[redacted]" in text
    assert "Traceback" in text


def test_logs_without_secrets_stay_as_they_are(log: io.StringIO) -> None:
    redact_logs()
    records: list[logging.LogRecord] = []
    logger = logging.getLogger("somebody.else")
    logger.addFilter(lambda record: records.append(record) or True)  # type: ignore[func-returns-value]
    logger.warning("%d files in %s", 3, "plans")
    logger.filters.clear()
    assert log.getvalue() == "3 files in plans\n"
    assert records[0].args == (3, "plans")
