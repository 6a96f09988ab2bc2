"""Encryption at rest, with a key that only the environment holds."""

from __future__ import annotations

from cryptography.fernet import Fernet

from file_connector.errors import ConfigurationError

_MAKE_ONE = (
    "Make one with `python -c 'from cryptography.fernet import Fernet; "
    "print(Fernet.generate_key().decode())'`."
)


def fernet(key: str) -> Fernet:
    """Raises ConfigurationError, without showing it, if ``key`` is no Fernet key."""
    try:
        return Fernet(key)
    except ValueError:
        raise ConfigurationError(
            "FILE_CONNECTOR_ENCRYPTION_KEY is not a Fernet key", remedy=_MAKE_ONE
        ) from None


def needed(key: str | None) -> Fernet:
    """The same; raises ConfigurationError also if there is no key."""
    if not key:
        raise ConfigurationError(
            "secrets at rest need FILE_CONNECTOR_ENCRYPTION_KEY, which is not set",
            remedy=f"Set it. {_MAKE_ONE}",
        )
    return fernet(key)
