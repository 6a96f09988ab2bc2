"""Access tokens of Autodesk's authentication v2, for the three kinds of credentials.

2-legged: the app signs in as itself (client id and secret). 3-legged: a person consented once, and
a refresh token is exchanged for an access token and the *next* refresh token; each can be used
only once and lives 15 days, so it rests in the vault and only one process at a time exchanges it.
Secure service account: a robot user that signs a short-lived assertion with its private key.

All connectors of one process that use the same credentials share one access token.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import re
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, TypeVar

from file_connector.connectors.autodesk.transport import Answer, Budget, Transport, problem
from file_connector.connectors.base import Credentials, TokenVault
from file_connector.errors import (
    ConfigurationError,
    FileConnectorError,
    ReconnectError,
    TransientError,
    redact,
)
from file_connector.models import Json
from file_connector.times import iso, parse_time

T = TypeVar("T")

TOKEN_PATH = "/authentication/v2/token"
TOKEN_CALLS = Budget("token", 500)
AUDIENCE = "https://developer.api.autodesk.com/authentication/v2/token"
SCOPE = "data:read"
JWT_BEARER = "urn:ietf:params:oauth:grant-type:jwt-bearer"

EARLY_SECONDS = 300.0
"""Tokens live about an hour and are renewed this long before the end; short ones at 4/5 of it."""
LONGEST_LIFE = 86400.0
"""Seconds; no access token is believed to live longer."""
REFRESH_TOKEN_LIFE = timedelta(days=15)
WARN_BEFORE = timedelta(days=4)
ASSERTION_SECONDS = 300


@dataclass(frozen=True, slots=True)
class AccessToken:
    """``use_until`` is when to get the next one, some minutes before the provider's expiry."""

    value: str
    use_until: datetime


class _Slot:
    """What the connectors of one process share for one credential."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.token: AccessToken | None = None
        self.unsaved: tuple[str, Mapping[str, Json]] | None = None
        """The refresh token that was spent, and its successor that the vault did not take yet."""
        self.asking = threading.Lock()
        self.answers: dict[str, tuple[float, Any]] = {}


_slots: dict[str, _Slot] = {}
_slots_lock = threading.Lock()


class TokenSource:
    """Gives access tokens for one credential set; safe for many threads and connectors.

    Args:
        credentials: JSON as documented for ``APS_CREDENTIALS``.
        transport: sends the token requests.
        vault: home of rotating refresh tokens; only 3-legged credentials need one.
    """

    kind = ""

    def __init__(
        self, credentials: Credentials, transport: Transport, vault: TokenVault | None
    ) -> None:
        self._credentials = credentials
        self._transport = transport
        self._vault = vault
        self.client_id = text_of(credentials, "client_id")
        self._secret = text_of(credentials, "client_secret")
        identity = json.dumps(
            [transport.base_url, self.kind, dict(credentials.data)], sort_keys=True, default=str
        )
        with _slots_lock:
            self._slot = _slots.setdefault(_digest(identity), _Slot())

    @property
    def identity(self) -> str:
        """Who signs in, without secrets; changes when another account is connected."""
        return self.client_id

    @property
    def description(self) -> str:
        return f"app {self.client_id} ({self.kind})"

    def current(self) -> str:
        token = self._slot.token
        if token is not None and self._usable(token, None):
            return token.value
        return self._obtain(None)[0]

    def renew(self, refused: str) -> tuple[str, bool]:
        return self._obtain(refused)

    def forecast(self) -> str | None:
        """A warning if the connection will end by itself soon, else None. No network."""
        return None

    def shared(self, question: str, seconds: float, ask: Callable[[], T]) -> T:
        """The answer to a question that is the same for all endpoints of this credential. Asked by
        one connector of this process at a time, and kept for some seconds."""
        now = self._transport.toolbox.monotonic
        with self._slot.asking:
            until, answer = self._slot.answers.get(question, (now(), None))
            if until <= now():
                answer = ask()
                self._slot.answers[question] = now() + seconds, answer
            found: T = answer
            return found

    def _obtain(self, refused: str | None) -> tuple[str, bool]:
        with self._slot.lock:
            token, fresh = self._slot.token, False
            if token is None or not self._usable(token, refused):
                token, fresh = self._fetch(refused)
                self._slot.token = token
            return token.value, fresh

    def _usable(self, token: AccessToken, refused: str | None) -> bool:
        return token.value != refused and self._transport.toolbox.now() < token.use_until

    def _fetch(self, refused: str | None) -> tuple[AccessToken, bool]:
        """A token other than the refused one; and whether it was issued just now."""
        raise NotImplementedError

    def _post(self, form: Mapping[str, str]) -> dict[str, Json]:
        """The token endpoint's answer, or an error that says whose move it is."""
        auth = (self.client_id, self._secret) if self._secret else None
        body = dict(form) if auth else {**form, "client_id": self.client_id}
        answer = self._transport.post_form(TOKEN_PATH, body, auth, TOKEN_CALLS)
        document = answer.json()
        if answer.status != 200:
            raise self._error(answer)
        if not isinstance(document, dict) or not _is_token(document.get("access_token")):
            raise TransientError("Autodesk's token endpoint answered 200 without an access token.")
        return document

    def _token(self, document: Mapping[str, Json]) -> AccessToken:
        life = document.get("expires_in")
        seconds = min(life, LONGEST_LIFE) if isinstance(life, int | float) and life > 0 else 3600.0
        usable = seconds - min(EARLY_SECONDS, seconds / 5)
        return AccessToken(
            str(document["access_token"]),
            self._transport.toolbox.now() + timedelta(seconds=usable),
        )

    def _error(self, answer: Answer) -> FileConnectorError:
        code, detail = problem(answer)
        secrets = [v for v in self._credentials.data.values() if isinstance(v, str)]
        detail = redact(detail, secrets)[:300]
        seen = f"Autodesk refuses to issue a token: {answer.status} {code} {detail}".rstrip(" .")
        kind = f"{code} {detail}".lower().replace("_", " ")
        if answer.status == 429 or answer.status >= 500 or answer.looks_like_html:
            return self._transport.error(answer, "a token")
        if "invalid scope" in kind or code == "AUTH-010":
            return ReconnectError(
                f"{seen}.", remedy=f"Connect the account again and grant the scope {SCOPE}."
            )
        if code == "AUTH-001" or "api product" in kind:
            return ConfigurationError(
                f"{seen}.",
                remedy=f"Tick the Data Management and ACC APIs for app {self.client_id} at "
                "aps.autodesk.com/myapps.",
            )
        if "invalid grant" in kind:
            return self._refused_grant(seen)
        if answer.status in (404, 410):
            return ConfigurationError(
                f"{seen}; {self._transport.base_url} has no such endpoint.",
                remedy="Unset APS_BASE_URL, or set it to the address of Autodesk's API.",
            )
        if answer.status in (400, 401, 403):
            return ConfigurationError(
                f"{seen}.",
                remedy=f"Check client_id and client_secret in {self._credentials.origin}.",
            )
        return self._transport.error(answer, "a token")

    def _refused_grant(self, seen: str) -> FileConnectorError:
        return ReconnectError(f"{seen}.", remedy="Connect the Autodesk account again.")


class TwoLegged(TokenSource):
    """The app as itself: sees what the customer's account admin allowed the app."""

    kind = "2-legged"

    def _fetch(self, refused: str | None) -> tuple[AccessToken, bool]:
        return self._token(self._post({"grant_type": "client_credentials", "scope": SCOPE})), True


class ServiceAccount(TokenSource):
    """A robot user (secure service account): its rights, no login, no refresh token."""

    kind = "secure service account"

    def __init__(
        self, credentials: Credentials, transport: Transport, vault: TokenVault | None
    ) -> None:
        super().__init__(credentials, transport, vault)
        self._account = text_of(credentials, "service_account_id")
        self._key_id = text_of(credentials, "key_id")
        self._key = text_of(credentials, "private_key").replace("\\n", "\n")

    @property
    def identity(self) -> str:
        return f"{self.client_id} {self._account}"

    @property
    def description(self) -> str:
        return f"service account {self._account} of app {self.client_id}"

    def _fetch(self, refused: str | None) -> tuple[AccessToken, bool]:
        form = {"grant_type": JWT_BEARER, "assertion": self._assertion(), "scope": SCOPE}
        return self._token(self._post(form)), True

    def _assertion(self) -> str:
        now = self._transport.toolbox.now()
        header = {"alg": "RS256", "typ": "JWT", "kid": self._key_id}
        claims = {
            "iss": self.client_id,
            "sub": self._account,
            "aud": AUDIENCE,
            "exp": int(now.timestamp()) + ASSERTION_SECONDS,
            "scope": [SCOPE],
        }
        signed = f"{_base64url(header)}.{_base64url(claims)}"
        return f"{signed}.{_base64url_bytes(self._sign(signed.encode()))}"

    def _sign(self, message: bytes) -> bytes:
        from cryptography.exceptions import UnsupportedAlgorithm
        from cryptography.hazmat.primitives import hashes, serialization
        from cryptography.hazmat.primitives.asymmetric import padding, rsa

        try:
            key = serialization.load_pem_private_key(self._key.encode(), password=None)
        except (ValueError, TypeError, UnsupportedAlgorithm, binascii.Error):
            key = None
        if not isinstance(key, rsa.RSAPrivateKey):
            raise ConfigurationError(
                f"private_key in {self._credentials.origin} is not an unencrypted RSA key in PEM "
                "form.",
                remedy="Paste the service account's private key unchanged, BEGIN and END lines "
                "included.",
            )
        return key.sign(message, padding.PKCS1v15(), hashes.SHA256())

    def _refused_grant(self, seen: str) -> FileConnectorError:
        return ReconnectError(
            f"{seen}.",
            remedy=f"Check that service account {self._account} and its key {self._key_id} are "
            "enabled (accounts go to sleep after 12 idle months) and match private_key in "
            f"{self._credentials.origin}.",
        )


class ThreeLegged(TokenSource):
    """A person's consent, kept alive by single-use refresh tokens in the vault.

    The refresh token in the credentials is only the seed. What grew from it rests in the vault
    under a key derived from the seed: a new consent (another seed) starts a new entry by itself.
    """

    kind = "3-legged"

    def __init__(
        self, credentials: Credentials, transport: Transport, vault: TokenVault | None
    ) -> None:
        super().__init__(credentials, transport, vault)
        self._seed = text_of(credentials, "refresh_token")
        self._key = f"aps-{_digest(f'{self.client_id} {self._seed}')}"

    @property
    def identity(self) -> str:
        return f"{self.client_id} {_digest(self._seed)}"

    def forecast(self) -> str | None:
        held = self._vault.load(self._key) if self._vault else None
        issued = parse_time((held or {}).get("issued_at"))
        if issued is None:
            return None
        left = issued + REFRESH_TOKEN_LIFE - self._transport.toolbox.now()
        if left >= WARN_BEFORE:
            return None
        renewed = f"the Autodesk sign-in was last renewed at {iso(issued)} and"
        if left <= timedelta():
            return f"{renewed} has ended, 15 days later; the account must be connected again"
        return (
            f"{renewed} ends in {left / timedelta(days=1):.1f} days unless a run renews it before; "
            "after that the account must be connected again"
        )

    def _fetch(self, refused: str | None) -> tuple[AccessToken, bool]:
        """One process at a time; whoever comes second finds the winner's token in the vault. The
        next refresh token is durable before the access token is used."""
        if self._vault is None:
            raise ConfigurationError(
                "this Autodesk credential has a rotating refresh token, which must be kept "
                "encrypted, but there is no encryption key.",
                remedy="Set FILE_CONNECTOR_ENCRYPTION_KEY to a Fernet key, made with: python -c "
                '"from cryptography.fernet import Fernet; print(Fernet.generate_key().decode())".',
            )
        toolbox = self._transport.toolbox
        patience = toolbox.timeout_seconds + toolbox.retry_budget_seconds
        with self._vault.locked(self._key, patience):
            held = self._held(self._vault)
            ready = self._ready(held)
            if ready is not None and self._usable(ready, refused):
                return ready, False
            spent = str(held["refresh_token"])
            form = {"grant_type": "refresh_token", "refresh_token": spent}
            document = self._post(form)
            token = self._token(document)
            successor = document.get("refresh_token")
            fresh: dict[str, Json] = {
                "refresh_token": successor if isinstance(successor, str) else spent,
                "issued_at": iso(self._transport.toolbox.now()),
                "access_token": token.value,
                "use_until": iso(token.use_until),
            }
            self._slot.unsaved = (spent, fresh)
            self._vault.save(self._key, fresh)
            self._slot.unsaved = None
            return token, True

    def _held(self, vault: TokenVault) -> Mapping[str, Json]:
        """What the vault holds, or the seed; after first saving what an earlier attempt could not,
        if nobody went on from there meanwhile."""
        held = vault.load(self._key) or {"refresh_token": self._seed}
        if self._slot.unsaved is not None:
            spent, fresh = self._slot.unsaved
            if held.get("refresh_token") == spent:
                vault.save(self._key, fresh)
                held = fresh
            self._slot.unsaved = None
        return held

    @staticmethod
    def _ready(held: Mapping[str, Json]) -> AccessToken | None:
        use_until, value = parse_time(held.get("use_until")), held.get("access_token")
        return AccessToken(value, use_until) if use_until and isinstance(value, str) else None

    def _refused_grant(self, seen: str) -> FileConnectorError:
        return ReconnectError(
            f"{seen}. The refresh token was used up, revoked, or idle for more than 15 days.",
            remedy="Connect the Autodesk account again and put the new refresh token into "
            f"{self._credentials.origin}.",
        )


def token_source(
    credentials: Credentials, transport: Transport, vault: TokenVault | None
) -> TokenSource:
    """The kind of source that fits the credential's content.

    Raises:
        ConfigurationError: something required is missing; named, never shown.
    """
    kind: type[TokenSource] = TwoLegged
    required = ["client_id", "client_secret"]
    if "service_account_id" in credentials.data:
        kind = ServiceAccount
        required += ["service_account_id", "key_id", "private_key"]
    elif "refresh_token" in credentials.data:
        kind = ThreeLegged
        required = ["client_id", "refresh_token"]
    missing = [name for name in required if not text_of(credentials, name)]
    if missing:
        raise ConfigurationError(
            f"the Autodesk credentials in {credentials.origin} lack {', '.join(missing)}.",
            remedy='They look like {"client_id", "client_secret"}, plus "refresh_token" for a '
            'person\'s consent, or plus "service_account_id", "key_id", "private_key".',
        )
    odd = [name for name in _IN_HEADERS if not _PLAIN.fullmatch(text_of(credentials, name))]
    if odd:
        raise ConfigurationError(
            f"{', '.join(odd)} in {credentials.origin} holds line breaks or letters beyond ASCII.",
            remedy="Copy it once more.",
        )
    return kind(credentials, transport, vault)


_IN_HEADERS = ("client_id", "client_secret", "refresh_token", "x_user_id")
_PLAIN = re.compile(r"[ -~]*")


def _is_token(value: Json) -> bool:
    """Whether a header can carry it."""
    return isinstance(value, str) and re.fullmatch(r"[!-~]+", value) is not None


def text_of(credentials: Credentials, name: str) -> str:
    """A text field of the credential's JSON, or an empty string."""
    value = credentials.data.get(name)
    return value.strip() if isinstance(value, str) else ""


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def _base64url(value: Mapping[str, Json]) -> str:
    return _base64url_bytes(json.dumps(value, separators=(",", ":")).encode())


def _base64url_bytes(value: bytes) -> str:
    return base64.urlsafe_b64encode(value).rstrip(b"=").decode()
