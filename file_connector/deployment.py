"""One deployment: endpoints file, environment and home put together into a catalog, an open store
and open connectors. Used by the command line and by Dagster; also keeps secrets out of logs.
"""

from __future__ import annotations

import logging
import threading
import traceback
from collections.abc import Mapping
from contextlib import AbstractContextManager, closing
from pathlib import Path
from types import TracebackType
from typing import Any
from urllib.parse import quote, unquote, urlsplit

from file_connector.connectors.base import Connector, ConnectorSpec, Credentials, Toolbox
from file_connector.connectors.registry import Registry
from file_connector.destination.base import Store
from file_connector.endpoints.catalog import Catalog
from file_connector.endpoints.credentials import SANDBOX, resolve_credentials, secret_values
from file_connector.endpoints.loader import load_endpoints
from file_connector.endpoints.schema import CronSchedule, Endpoint, IntervalSchedule
from file_connector.errors import ConfigurationError, FileConnectorError, redact, remember_secrets
from file_connector.settings import YAML, Settings


class Deployment:
    """Opens what the settings describe. Creating one does no I/O.

    Args:
        registry: source types; by default the built-in and the installed ones.
        environ: the operator's environment: credentials, provider hosts.
    """

    def __init__(
        self, settings: Settings, environ: Mapping[str, str], registry: Registry | None = None
    ) -> None:
        self.settings = settings
        self.environ = dict(environ)
        self.registry = registry or Registry()
        remember_secrets(_settings_secrets(settings))

    @classmethod
    def from_environ(
        cls, environ: Mapping[str, str], cwd: Path, registry: Registry | None = None
    ) -> Deployment:
        return cls(Settings.from_environ(environ, cwd), environ, registry)

    def catalog(self) -> Catalog:
        """What endpoints.yaml says now, or with FILE_CONNECTOR_SOURCE=control_plane the table
        ``connectors.instances``; credential variables included. Never raises for its content, nor
        if it cannot be read."""
        if self.settings.source != YAML:
            from file_connector.deployment_control import read_catalog

            return read_catalog(self.settings, self.registry, self.environ)
        return load_endpoints(self.settings.endpoints_path, self.registry, self.environ)

    def spec(self, endpoint: Endpoint) -> ConnectorSpec:
        return self.registry.get(endpoint.endpoint_type)

    def describe(self, endpoint: Endpoint) -> str:
        """One sentence: what this endpoint syncs, from where, for whom, how often."""
        spec = self.spec(endpoint)
        what = spec.describe(endpoint.details).rstrip(".") or spec.title
        return (
            f"{what}, for user {endpoint.user_id} of project {endpoint.project_id}, "
            f"{schedule_text(endpoint)}."
        )

    @property
    def destination(self) -> str:
        """Where rows go, in words."""
        settings = self.settings
        return "Supabase" if settings.database_url or settings.rest_url else "the local mock"

    def open_store(self) -> AbstractContextManager[Store]:
        """The destination: real Supabase if SUPABASE_DB_URL is set, or SUPABASE_URL with
        SUPABASE_SECRET_KEY (over REST), else the mock in the home."""
        from file_connector.destination.open import open_store

        settings = self.settings
        return closing(
            open_store(
                settings.database_url,
                settings.home,
                settings.encryption_key,
                rest_url=settings.rest_url,
                rest_key=settings.rest_key,
            )
        )

    def open_connector(
        self,
        endpoint: Endpoint,
        store: Store,
        *,
        timeout_seconds: float = 30.0,
        retry_budget_seconds: float = 200.0,
        call_budget_seconds: float = 120.0,
    ) -> Connector:
        """A connector for one endpoint; close it after use. No network, except to the sandbox and
        to the store, for secrets kept there.

        Args:
            timeout_seconds, retry_budget_seconds: as in ``Toolbox``.
            call_budget_seconds: how long one call may wait for our own budget of calls.

        Raises:
            ConfigurationError: its credentials are missing or unusable; names variable and shape.
        """
        try:
            spec = self.spec(endpoint)
            credentials = self._credentials(spec, endpoint, store)
            environ: Mapping[str, str] = self.environ
            if credentials.name == SANDBOX:
                credentials, environ = self._enter_sandbox(spec)
            toolbox = Toolbox(
                limiter=store.limiter(call_budget_seconds),
                vault=store.vault(self.settings.encryption_key),
                timeout_seconds=timeout_seconds,
                retry_budget_seconds=retry_budget_seconds,
                environ=environ,
            )
            return spec.open(endpoint.details, credentials, toolbox)
        except FileConnectorError as error:
            error.endpoint = endpoint.id
            raise

    def forecast(self, endpoint: Endpoint, store: Store) -> str | None:
        """A warning if the endpoint's connection will end by itself soon, else None. No network.
        What cannot be foretold, because something else is wrong, is for others to tell."""
        spec = self.spec(endpoint)
        if spec.forecast is None:
            return None
        try:
            credentials = self._credentials(spec, endpoint, store)
            if credentials.name == SANDBOX:
                return None
            vault = store.vault(self.settings.encryption_key)
            return spec.forecast(endpoint.details, credentials, Toolbox(vault=vault))
        except FileConnectorError:
            return None

    def _credentials(self, spec: ConnectorSpec, endpoint: Endpoint, store: Store) -> Credentials:
        def secret(name: str) -> str | None:
            from file_connector.destination.secrets import secret_store

            return secret_store(store, self.settings.encryption_key).get(name)

        return resolve_credentials(spec, endpoint.credentials, self.environ, secret)

    def _enter_sandbox(self, spec: ConnectorSpec) -> tuple[Credentials, Mapping[str, str]]:
        """Credentials and provider hosts of the sandbox, for connectors of this type only."""
        from file_connector.sandbox import living
        from file_connector.sandbox.world import SandboxError

        try:
            with _founding:
                addresses = living.attach(self.settings.home)
        except (SandboxError, OSError) as error:
            raise ConfigurationError(
                f"the sandbox cannot start: {error}.",
                remedy="FILE_CONNECTOR_HOME must be a folder that this process may write to.",
            ) from None
        sets = {
            "google_drive": addresses.google_credentials,
            "autodesk_construction_cloud": addresses.aps_credentials,
        }
        if spec.type not in sets:
            raise ConfigurationError(
                f"the sandbox has no {spec.title}.",
                remedy="Name a real credential set with `credentials:`.",
            )
        hosts = {
            "GOOGLE_DRIVE_API_ENDPOINT": addresses.drive_api_endpoint,
            "APS_BASE_URL": addresses.aps_base_url,
        }
        data = sets[spec.type]
        remember_secrets(secret_values(data))
        return Credentials(SANDBOX, "the built-in sandbox", data), {**self.environ, **hosts}


_founding = threading.Lock()
"""The first connector of a process founds the sandbox, with keys the others must then share."""


def schedule_text(endpoint: Endpoint) -> str:
    """The schedule in words."""
    schedule = endpoint.schedule
    if isinstance(schedule, IntervalSchedule):
        n = schedule.interval_minutes
        return "every minute" if n == 1 else f"every {n} minutes"
    if isinstance(schedule, CronSchedule):
        return f"by cron {schedule.cron} (UTC)"
    return "on demand"


def _settings_secrets(settings: Settings) -> set[str]:
    secrets: set[str] = set()
    if settings.database_url:
        try:
            password = urlsplit(settings.database_url).password
        except ValueError:
            password = None
        if password:
            secrets |= {password, unquote(password), quote(unquote(password), safe="")}
    return secrets | {key for key in (settings.encryption_key, settings.rest_key) if key}


def redact_logs() -> None:
    """From now on no log record of this process, whoever makes it, holds a known secret or anything
    shaped like one, in its message or in its traceback. Calling it again changes nothing."""
    make = logging.getLogRecordFactory()
    if not isinstance(make, _RedactingFactory):
        logging.setLogRecordFactory(_RedactingFactory(make))


class _RedactingFactory:
    def __init__(self, make: Any) -> None:
        self._make = make

    def __call__(self, *args: Any, **kwargs: Any) -> logging.LogRecord:
        record: logging.LogRecord = self._make(*args, **kwargs)
        try:
            plain = record.getMessage()
        except Exception:  # noqa: BLE001 - wrong arguments: logging itself will complain about them
            return record
        safe = redact(plain)
        if safe != plain:
            record.msg, record.args = safe, None
        if record.exc_info and record.exc_info[0] is not None:
            record.exc_text = redacted_traceback(*record.exc_info)
        return record


def redacted_traceback(
    kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
) -> str:
    """A traceback as text without secrets."""
    return redact("".join(traceback.format_exception(kind, error, trace))).rstrip("\n")
