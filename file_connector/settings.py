"""What the operator's environment says about a deployment; read when asked for, never on import."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

SOURCE_VARIABLE = "FILE_CONNECTOR_SOURCE"
ENDPOINTS_VARIABLE = "FILE_CONNECTOR_ENDPOINTS"
HOME_VARIABLE = "FILE_CONNECTOR_HOME"
ENCRYPTION_KEY_VARIABLE = "FILE_CONNECTOR_ENCRYPTION_KEY"
DATABASE_VARIABLE = "SUPABASE_DB_URL"
REST_VARIABLE = "SUPABASE_URL"
REST_KEY_VARIABLE = "SUPABASE_SECRET_KEY"
RUN_RETENTION_VARIABLE = "FILE_CONNECTOR_RUN_RETENTION_DAYS"


YAML = "yaml"
CONTROL_PLANE = "control_plane"


@dataclass(frozen=True, slots=True)
class Settings:
    """Where a deployment keeps its things.

    Attributes:
        endpoints_path: the endpoints file; ``endpoints.yaml`` in the working folder by default.
        home: folder for everything local (mock database, sandbox world); ``.file_connector``
            beside the endpoints file by default. Created by whoever first writes there.
        database_url: the real destination, by direct connection or pooler.
        rest_url, rest_key: the real destination over REST, used without ``database_url``; without
            any of these the destination is the mock in ``home``.
        encryption_key: Fernet key for rotating tokens and secrets at rest; None if there is none.
        source: where endpoints are read from, YAML (the endpoints file) or CONTROL_PLANE (the table
            ``connectors.instances`` of the destination); any other text is as it was given.
        run_retention: after how many days Dagster's runs are thinned out, as it was given.
    """

    endpoints_path: Path
    home: Path
    database_url: str | None = field(default=None, repr=False)
    encryption_key: str | None = field(default=None, repr=False)
    rest_url: str | None = None
    rest_key: str | None = field(default=None, repr=False)
    source: str = YAML
    run_retention: str = "30"

    @classmethod
    def from_environ(cls, environ: Mapping[str, str], cwd: Path) -> Settings:
        """Reads the variables named above; empty ones count as unset, relative paths start at
        ``cwd``, ``~`` is the user's home."""

        def text(variable: str) -> str | None:
            return environ.get(variable, "").strip() or None

        endpoints = cwd / Path(text(ENDPOINTS_VARIABLE) or "endpoints.yaml").expanduser()
        home = text(HOME_VARIABLE)
        return cls(
            endpoints_path=endpoints,
            home=cwd / Path(home).expanduser() if home else endpoints.parent / ".file_connector",
            database_url=text(DATABASE_VARIABLE),
            encryption_key=text(ENCRYPTION_KEY_VARIABLE),
            rest_url=text(REST_VARIABLE),
            rest_key=text(REST_KEY_VARIABLE),
            source=(text(SOURCE_VARIABLE) or YAML).lower(),
            run_retention=text(RUN_RETENTION_VARIABLE) or "30",
        )
