"""Where a deployment keeps its things."""

from __future__ import annotations

from pathlib import Path

from file_connector.settings import Settings

CWD = Path("/srv/fc")


def test_nothing_set() -> None:
    settings = Settings.from_environ({}, CWD)
    assert settings.endpoints_path == CWD / "endpoints.yaml"
    assert settings.home == CWD / ".file_connector"
    assert settings.database_url is None
    assert settings.encryption_key is None


def test_everything_set() -> None:
    settings = Settings.from_environ(
        {
            "FILE_CONNECTOR_ENDPOINTS": "conf/eps.yaml",
            "FILE_CONNECTOR_HOME": "/var/fc",
            "SUPABASE_DB_URL": " postgresql://u:CANARY@h/db ",
            "FILE_CONNECTOR_ENCRYPTION_KEY": "CANARY-key",
        },
        CWD,
    )
    assert settings.endpoints_path == CWD / "conf/eps.yaml"
    assert settings.home == Path("/var/fc")
    assert settings.database_url == "postgresql://u:CANARY@h/db"
    assert settings.encryption_key == "CANARY-key"
    assert "CANARY" not in repr(settings)


def test_the_home_lies_beside_the_endpoints_file() -> None:
    settings = Settings.from_environ({"FILE_CONNECTOR_ENDPOINTS": "/etc/fc/eps.yaml"}, CWD)
    assert settings.home == Path("/etc/fc/.file_connector")


def test_empty_counts_as_unset_relative_starts_here_and_tilde_is_home() -> None:
    settings = Settings.from_environ(
        {"FILE_CONNECTOR_ENDPOINTS": "", "FILE_CONNECTOR_HOME": "state", "SUPABASE_DB_URL": " "},
        CWD,
    )
    assert settings.endpoints_path == CWD / "endpoints.yaml"
    assert settings.home == CWD / "state"
    assert settings.database_url is None
    tilde = Settings.from_environ({"FILE_CONNECTOR_HOME": "~/fc"}, CWD)
    assert tilde.home == Path.home() / "fc"
