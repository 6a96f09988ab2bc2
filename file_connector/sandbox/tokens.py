"""Access tokens, RSA keys and signed assertions, for both providers."""

from __future__ import annotations

import base64
import json
import secrets
import threading
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import lru_cache
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa

from file_connector.sandbox.world import Clock

JWT_BEARER = "urn:ietf:params:oauth:grant-type:jwt-bearer"


@dataclass(frozen=True)
class Grant:
    """What an access token allows, to whom, until when."""

    account: str
    scopes: frozenset[str]
    expires: datetime
    client: str | None = None
    user: str | None = None


class TokenStore:
    """The access tokens one provider has given out."""

    def __init__(self, clock: Clock, prefix: str) -> None:
        self.clock = clock
        self.prefix = prefix
        self.lifetime_seconds = 3599
        self._grants: dict[str, Grant] = {}
        self._lock = threading.Lock()

    def issue(
        self,
        account: str,
        scopes: Iterable[str],
        *,
        client: str | None = None,
        user: str | None = None,
    ) -> str:
        """A new access token."""
        token = self.prefix + secrets.token_urlsafe(48)
        expires = self.clock.now() + timedelta(seconds=self.lifetime_seconds)
        with self._lock:
            self._grants[token] = Grant(account, frozenset(scopes), expires, client, user)
        return token

    def find(self, token: str | None) -> Grant | None:
        """The grant behind a token; None if it is unknown or has expired."""
        with self._lock:
            grant = self._grants.get(token or "")
        return grant if grant and grant.expires > self.clock.now() else None

    def expire(self, account: str | None = None) -> int:
        """Make tokens (of one account, or all) invalid now; how many."""
        with self._lock:
            dead = [t for t, g in self._grants.items() if account in (None, g.account)]
            for token in dead:
                del self._grants[token]
        return len(dead)

    def known(self) -> list[str]:
        """All living tokens, to look for leaks."""
        with self._lock:
            return list(self._grants)


@lru_cache(maxsize=1)
def private_key() -> rsa.RSAPrivateKey:
    """The RSA key of all sandbox accounts of this process. Short, because it guards nothing and
    clients check the primes whenever they load it."""
    return rsa.generate_private_key(public_exponent=65537, key_size=1024)


@lru_cache(maxsize=1)
def private_key_pem() -> str:
    """The same, as the text of a service-account file."""
    return (
        private_key()
        .private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        .decode()
    )


@dataclass(frozen=True)
class Assertion:
    """A JWT taken apart."""

    header: dict[str, Any]
    claims: dict[str, Any]
    signed: bytes
    signature: bytes

    @property
    def signature_ok(self) -> bool:
        """Signed with the sandbox's key, RS256."""
        if self.header.get("alg") != "RS256" or not self.signature:
            return False
        try:
            private_key().public_key().verify(
                self.signature, self.signed, padding.PKCS1v15(), hashes.SHA256()
            )
        except InvalidSignature:
            return False
        return True


def read_assertion(text: str) -> Assertion | None:
    """A JWT's parts, or None if it is not one."""
    parts = text.split(".")
    if len(parts) != 3:
        return None
    try:
        header, claims, signature = (
            base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)) for part in parts
        )
        heads, body = json.loads(header), json.loads(claims)
    except ValueError:
        return None
    if not isinstance(heads, dict) or not isinstance(body, dict):
        return None
    return Assertion(heads, body, f"{parts[0]}.{parts[1]}".encode(), signature)
