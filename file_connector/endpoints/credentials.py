"""From the name of a credential set to its content: in the operator's environment, or as a secret
that somebody else keeps. No network here."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from urllib.parse import quote

from file_connector.connectors.base import ConnectorSpec, Credentials
from file_connector.errors import ConfigurationError, remember_secrets
from file_connector.models import Json

SANDBOX = "sandbox"
"""Reserved name: the fake provider we ship."""

VAULT = "vault:"
"""What follows is the name of a secret kept in the destination's database."""

_MAX_BYTES = 100_000


def credentials_variable(spec: ConnectorSpec, name: str) -> str:
    """The environment variable behind ``credentials: <name>`` for this source type."""
    return f"{spec.credentials_variable}__{name.upper().replace('-', '_')}"


def resolve_credentials(
    spec: ConnectorSpec,
    name: str | None,
    environ: Mapping[str, str],
    secret: Callable[[str], str | None] = lambda _: None,
) -> Credentials:
    """The credential set of an endpoint: JSON text in its variable, or a path to a JSON file; for
    ``vault:NAME`` the JSON text that ``secret`` gives for NAME; without a name the process-wide
    one. The sandbox's is empty until it is attached.

    Raises:
        ConfigurationError: names the variable and the shape expected, never its content.
    """
    if name == SANDBOX:
        return Credentials(SANDBOX, "the built-in sandbox", {})
    if name is None:
        data = spec.default_credentials(environ)
        remember_secrets(secret_values(data))
        return Credentials("default", f"the process-wide {spec.title} credentials", data)
    if name.startswith(VAULT):
        return _secret(name, secret(name.removeprefix(VAULT)))
    variable = credentials_variable(spec, name)
    text = environ.get(variable, "").strip()
    if not text:
        raise _unset(spec, name, variable)
    origin = f"environment variable {variable}"
    if not text.startswith("{"):
        text, origin = _read(text, variable)
    return Credentials(name, origin, parse_credential(text, origin))


def _secret(name: str, text: str | None) -> Credentials:
    own = name.removeprefix(VAULT)
    if text is None:
        shown = "a name that looks like a secret" if _SECRETIVE.search(own) else f"'{own}'"
        raise ConfigurationError(
            f"`credentials` names a secret, {shown}, which is not there.",
            remedy="Put it into Supabase's Vault, or on plain Postgres save it with "
            "`file-connector secret NAME`.",
        )
    if len(text) >= 16:  # shorter ones are words of plain sentences
        remember_secrets([text])
    origin = f"the secret '{own}'"
    return Credentials(name, origin, parse_credential(text, origin))


def _unset(spec: ConnectorSpec, name: str, variable: str) -> ConfigurationError:
    """No such credential set. A name that could be a misplaced secret is not repeated."""
    if _SECRETIVE.search(name):
        return ConfigurationError(
            "`credentials` names no credential set of the environment, and looks like a secret.",
            remedy=f"Write a short name such as acme; the secret goes into "
            f"{spec.credentials_variable}__ACME. If it is one, replace it: it was in a file.",
        )
    remedy = "Set it to the JSON of the credential, or to the path of a JSON file."
    prefix = f"{spec.credentials_variable}__".lower()
    if name.lower() == SANDBOX:
        remedy = f"The built-in sandbox is `credentials: {SANDBOX}`, in small letters."
    elif name.lower().startswith(prefix):
        remedy = f"Write only the end of that name: `credentials: {name[len(prefix) :].lower()}`."
    return ConfigurationError(
        f"credentials '{name}' need the environment variable {variable}, which is not set.",
        remedy=remedy,
    )


_SECRETIVE = re.compile(
    r"^(AIza|GOCSPX-|ya29|eyJ|sb_)|^(?=.*[a-z])(?=.*[A-Z])(?=.*[0-9])[A-Za-z0-9_-]{20,}$"
)
"""How keys and tokens of providers begin, and a long jumble of both cases and digits."""


def _read(text: str, variable: str) -> tuple[str, str]:
    """A value that is not JSON is meant as a path. If it is neither, it may be a bare secret, so
    it is not repeated."""
    try:
        path = Path(text).expanduser()
        with path.open("rb") as file:
            content = file.read(_MAX_BYTES + 1)
        if len(content) > _MAX_BYTES:
            raise ValueError
        return content.decode("utf-8-sig"), f"the file that {variable} points to"
    except (OSError, ValueError, RuntimeError):
        raise ConfigurationError(
            f"the environment variable {variable} holds neither JSON nor the path of a readable "
            "JSON file.",
            remedy="It must begin with { or name a file this process may read.",
        ) from None


def parse_credential(text: str, origin: str) -> Mapping[str, Json]:
    """The JSON object in ``text``. Raises ConfigurationError, without showing it, if it is none."""
    try:
        data = json.loads(text)
    except (ValueError, RecursionError):
        raise ConfigurationError(
            f"{origin} is not valid JSON.",
            remedy="Paste the provider's JSON unchanged, in single quotes if a shell reads it.",
        ) from None
    if not isinstance(data, dict):
        raise ConfigurationError(
            f"{origin} is a JSON {type(data).__name__}, not an object.",
            remedy='It must look like {"...": "..."}.',
        )
    remember_secrets(secret_values(data))
    return data


_PUBLIC_KEYS = frozenset(
    {
        "type", "project_id", "client_email", "client_id", "auth_uri", "token_uri", "subject",
        "auth_provider_x509_cert_url", "client_x509_cert_url", "universe_domain", "account",
        "quota_project_id", "x_user_id", "service_account_id", "scope", "scopes",
    }
)  # fmt: skip
"""What a credential may say aloud, and what messages need to be helpful. All else is secret."""


def secret_values(data: Json, key: str = "") -> Iterator[str]:
    """Every literal in a credential that must never be shown, in the spellings it could take."""
    if isinstance(data, Mapping):
        for inner, value in data.items():
            yield from secret_values(value, str(inner))
    elif isinstance(data, list):
        for value in data:
            yield from secret_values(value, key)
    elif isinstance(data, str) and key not in _PUBLIC_KEYS and len(data) >= 4:
        yield from {data, quote(data, safe=""), json.dumps(data)[1:-1], repr(data)[1:-1]}
        yield from (line for line in data.split("\n") if len(line) >= 16 and "-----" not in line)
