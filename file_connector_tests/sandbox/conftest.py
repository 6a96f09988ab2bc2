"""A fresh sandbox per test, and the real clients talking to it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import google_auth_httplib2
import httplib2
import pytest
import requests
from google.oauth2 import credentials as user_credentials
from google.oauth2 import service_account
from googleapiclient.discovery import build

from file_connector.sandbox import ACCOUNT, Sandbox

METADATA = "https://www.googleapis.com/auth/drive.metadata.readonly"
TIMEOUT_SECONDS = 10
UserCredentials: Any = user_credentials.Credentials


class KeyFile(service_account.Credentials):
    """A service account that asks nobody but its token_uri."""

    def _is_regional_access_boundary_lookup_required(self) -> bool:
        return False

    @classmethod
    def of(cls, info: dict[str, Any], **more: Any) -> KeyFile:
        load: Any = cls.from_service_account_info
        found: KeyFile = load(info, **more)
        return found


@pytest.fixture
def sandbox() -> Iterator[Sandbox]:
    with Sandbox() as running:
        yield running


class Drive:
    """google-api-python-client with credentials, connection and service in one hand."""

    def __init__(self, sandbox: Sandbox, credentials: Any, timeout: float) -> None:
        self.credentials = credentials
        self.http = google_auth_httplib2.AuthorizedHttp(
            credentials, http=httplib2.Http(timeout=timeout)
        )
        self.service = build(
            "drive",
            "v3",
            http=self.http,
            client_options={"api_endpoint": sandbox.drive_api_endpoint},
        )

    def page(self, q: str | None = None, fields: str = "*", **more: Any) -> dict[str, Any]:
        answer: dict[str, Any] = self.service.files().list(q=q, fields=fields, **more).execute()
        return answer

    def names(self, q: str | None = None, **more: Any) -> list[str]:
        """Names of all pages, sorted."""
        return sorted(file["name"] for file in self.walk(q, **more))

    def walk(self, q: str | None = None, **more: Any) -> list[dict[str, Any]]:
        files = self.service.files()
        request, found = files.list(q=q, fields="nextPageToken,files(*)", **more), []
        while request is not None:
            page = request.execute()
            found += page["files"]
            request = files.list_next(request, page)
        return found

    def get(self, file_id: str, fields: str = "*", **more: Any) -> dict[str, Any]:
        answer: dict[str, Any] = (
            self.service.files().get(fileId=file_id, fields=fields, **more).execute()
        )
        return answer

    def start(self, **more: Any) -> str:
        return str(self.service.changes().getStartPageToken(**more).execute()["startPageToken"])

    def changes(self, token: str, **more: Any) -> tuple[list[dict[str, Any]], str]:
        """Everything since the token, and the next token."""
        found: list[dict[str, Any]] = []
        while True:
            page = self.service.changes().list(pageToken=token, fields="*", **more).execute()
            found += page["changes"]
            if "newStartPageToken" in page:
                return found, page["newStartPageToken"]
            token = page["nextPageToken"]


ConnectDrive = Callable[..., Drive]


@pytest.fixture
def connect(sandbox: Sandbox) -> Iterator[ConnectDrive]:
    """Make a client: connect(account, subject=, scopes=, timeout=, authorized_user=)."""
    made: list[Drive] = []

    def make(
        account: str = ACCOUNT,
        *,
        subject: str | None = None,
        scopes: tuple[str, ...] = (METADATA,),
        timeout: float = TIMEOUT_SECONDS,
        authorized_user: bool = False,
    ) -> Drive:
        credentials: Any
        if authorized_user:
            info = sandbox.authorized_user_credentials(account)
            credentials = UserCredentials(
                None,
                refresh_token=info["refresh_token"],
                token_uri=info["token_uri"],
                client_id=info["client_id"],
                client_secret=info["client_secret"],
            )
        else:
            credentials = KeyFile.of(
                sandbox.google_credentials(account), scopes=list(scopes), subject=subject
            )
        client = Drive(sandbox, credentials, timeout)
        made.append(client)
        return client

    yield make
    for client in made:
        client.http.close()


@pytest.fixture
def drive(connect: ConnectDrive) -> Drive:
    return connect()


class Aps:
    """requests with a bearer token, following links."""

    def __init__(self, sandbox: Sandbox, session: requests.Session) -> None:
        self.base = sandbox.aps_base_url
        self.session = session

    def token(self, data: dict[str, str], auth: tuple[str, str] | None = None) -> requests.Response:
        return self.session.post(
            f"{self.base}/authentication/v2/token", data=data, auth=auth, timeout=TIMEOUT_SECONDS
        )

    def login(self, credentials: dict[str, Any], scope: str = "data:read data:search") -> Aps:
        answer = self.token(
            {"grant_type": "client_credentials", "scope": scope},
            (credentials["client_id"], credentials["client_secret"]),
        )
        self.session.headers["Authorization"] = f"Bearer {answer.json()['access_token']}"
        return self

    def get(self, path: str, **more: Any) -> requests.Response:
        url = path if path.startswith("http") else self.base + path
        return self.session.get(url, timeout=TIMEOUT_SECONDS, **more)

    def json(self, path: str, **more: Any) -> Any:
        answer = self.get(path, **more)
        answer.raise_for_status()
        return answer.json()

    def contents(
        self, project: str, folder: str, **params: str
    ) -> tuple[list[dict[str, Any]], dict[str, dict[str, Any]]]:
        """All entries of a folder, and all included versions by id."""
        from urllib.parse import urljoin

        url = f"{self.base}/data/v1/projects/{project}/folders/{folder}/contents"
        data: list[dict[str, Any]] = []
        included: dict[str, dict[str, Any]] = {}
        page = self.json(url, params=params)
        while True:
            data += page["data"]
            included |= {version["id"]: version for version in page.get("included", ())}
            following = page["links"].get("next")
            if not following:
                return data, included
            page = self.json(urljoin(url, following["href"]))


@pytest.fixture
def aps(sandbox: Sandbox) -> Iterator[Aps]:
    with requests.Session() as session:
        yield Aps(sandbox, session).login(sandbox.aps_credentials())
