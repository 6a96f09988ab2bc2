"""Dagster resources: thin shells around ``deployment``. They hold no secret; credentials are read
from the environment at the moment they are needed."""

import functools
import os
import re
from contextlib import ExitStack
from pathlib import Path

import dagster as dg
from pydantic import Field, PrivateAttr

from file_connector.connectors.base import Connector
from file_connector.deployment import Deployment
from file_connector.destination.base import Store
from file_connector.endpoints.schema import Endpoint

HASTE_SECONDS = 10.0
"""A tick waits no longer for one answer, nor for our own budget before it asks."""

_KEYS = {"google_drive": "google_drive", "autodesk_construction_cloud": "autodesk"}
_TAKEN = {*_KEYS.values(), "supabase", "supabase_io_manager", "io_manager"}


def resource_key(endpoint: Endpoint) -> str:
    """The key of the resource that opens connectors of this endpoint's type: for a plug-in's type
    its name, as an identifier of its own."""
    known = _KEYS.get(endpoint.endpoint_type)
    if known is not None:
        return known
    key = re.sub(r"\W+", "_", endpoint.endpoint_type, flags=re.ASCII).strip("_")
    return f"source_{key}" if key in _TAKEN or not key.isidentifier() else key


def current_deployment() -> Deployment:
    """The deployment this process belongs to; the same object while its environment lasts."""
    return _deployment(tuple(sorted(os.environ.items())), Path.cwd())


@functools.lru_cache(maxsize=1)
def _deployment(environ: tuple[tuple[str, str], ...], cwd: Path) -> Deployment:
    return Deployment.from_environ(dict(environ), cwd)


class SupabaseResource(dg.ConfigurableResource):  # type: ignore[type-arg]
    """The destination of all rows: the database of SUPABASE_DB_URL, or the SQLite mock in
    FILE_CONNECTOR_HOME if that variable is not set."""

    _opened: ExitStack = PrivateAttr(default_factory=ExitStack)
    _store: Store | None = PrivateAttr(default=None)

    def store(self) -> Store:
        """The open store; opened when first asked for, closed with the run or tick. Raises
        ConfigurationError or TransientError."""
        if self._store is None:
            self._store = self._opened.enter_context(current_deployment().open_store())
        return self._store

    def teardown_after_execution(self, context: dg.InitResourceContext) -> None:
        self._store = None
        self._opened.close()


class ConnectorResource(dg.ConfigurableResource):  # type: ignore[type-arg]
    """Opens connectors of one source type, with the credentials each endpoint names."""

    timeout_seconds: float = Field(default=30.0, gt=0, description="For each request.")
    retry_budget_seconds: float = Field(
        default=200.0, ge=0, description="Total time one run may spend waiting between attempts."
    )

    def connector(self, endpoint: Endpoint, store: Store) -> Connector:
        """A connector for a run; close it after use. Raises ConfigurationError."""
        return current_deployment().open_connector(
            endpoint,
            store,
            timeout_seconds=self.timeout_seconds,
            retry_budget_seconds=self.retry_budget_seconds,
        )

    def hasty_connector(self, endpoint: Endpoint, store: Store) -> Connector:
        """A connector for a tick, which has other things to do than to wait."""
        return current_deployment().open_connector(
            endpoint,
            store,
            timeout_seconds=min(self.timeout_seconds, HASTE_SECONDS),
            retry_budget_seconds=0.0,
            call_budget_seconds=HASTE_SECONDS,
        )


class GoogleDriveResource(ConnectorResource):
    """Google Drive v3. Credentials: GOOGLE_CREDENTIALS__<NAME>, or without a name
    GOOGLE_APPLICATION_CREDENTIALS."""


class AutodeskResource(ConnectorResource):
    """Autodesk Construction Cloud (APS). Credentials: APS_CREDENTIALS__<NAME>, or without a name
    APS_CLIENT_ID and APS_CLIENT_SECRET."""
