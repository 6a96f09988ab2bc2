"""What an Autodesk endpoint looks like in endpoints.yaml, and how the type announces itself."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated
from urllib.parse import unquote

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from file_connector.connectors.base import ConnectorSpec, Credentials, Toolbox
from file_connector.errors import ConfigurationError
from file_connector.models import Json

if TYPE_CHECKING:
    from file_connector.connectors.autodesk.connector import AutodeskConnector


def _identifier(value: str) -> str:
    """An id as Autodesk writes it; one copied out of an address may still be percent-encoded."""
    value = unquote(value.strip()) if "%3a" in value.lower() else value.strip()
    if not value or not value.isascii() or not value.isprintable() or set(value) & set(" /\\&"):
        raise ValueError(
            "must be an id: b.6c2cffb0-e8c8-43d3-b415-e53f4377cedb, for example, for a hub or "
            "project, urn:adsk.wipprod:fs.folder:co.… for a folder (the part after folderUrn= in "
            "the folder's address in the browser)"
        )
    return value


def _extension(value: str) -> str:
    value = value.strip().lstrip("*").lstrip(".").lower()
    if not value or not value.isprintable() or "/" in value:
        raise ValueError("must be a file extension such as rvt, .dwg or pdf")
    return value


Identifier = Annotated[str, AfterValidator(_identifier)]
Extension = Annotated[str, AfterValidator(_extension)]


class AutodeskDetails(BaseModel):
    """``endpoint_details`` of an Autodesk endpoint; unknown keys are refused.

    Attributes:
        project_id: with or without the leading ``b.``; both name the same project.
        hub_id: the account; found out by itself if left out.
        folder_id: list only this folder and what is below; by default the project's
            "Project Files".
        file_types: only files with these extensions, with or without dot, in any case.
        x_user_id: Autodesk user whose rights a 2-legged app borrows; wins over the one in the
            credentials.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, str_strip_whitespace=True)

    project_id: Identifier
    hub_id: Identifier | None = None
    folder_id: Identifier | None = None
    file_types: Annotated[tuple[Extension, ...], Field(min_length=1)] | None = None
    x_user_id: Identifier | None = None

    @property
    def project(self) -> str:
        """The project id as the Data Management calls want it (``a.…`` ids are not ACC's)."""
        return _with_prefix(self.project_id)

    @property
    def hub(self) -> str | None:
        return _with_prefix(self.hub_id) if self.hub_id else None

    @property
    def extensions(self) -> frozenset[str]:
        """Wanted extensions, lower case, without dot; empty means all."""
        return frozenset(self.file_types or ())


def _with_prefix(identifier: str) -> str:
    prefix = identifier[:2].lower()
    return prefix + identifier[2:] if prefix in ("b.", "a.") else f"b.{identifier}"


def default_credentials(environ: Mapping[str, str]) -> Mapping[str, Json]:
    """The app's own (2-legged) credentials from APS_CLIENT_ID and APS_CLIENT_SECRET."""
    client_id = environ.get("APS_CLIENT_ID", "").strip()
    client_secret = environ.get("APS_CLIENT_SECRET", "").strip()
    missing = [
        name
        for name, value in (("APS_CLIENT_ID", client_id), ("APS_CLIENT_SECRET", client_secret))
        if not value
    ]
    if missing:
        raise ConfigurationError(
            f"no Autodesk credentials: {' and '.join(missing)} not set.",
            remedy="Set APS_CLIENT_ID and APS_CLIENT_SECRET to those of your app at "
            "aps.autodesk.com/myapps, or name a credential set with `credentials:`.",
        )
    return {"client_id": client_id, "client_secret": client_secret}


def describe(details: AutodeskDetails) -> str:
    """One sentence: what an endpoint with these details syncs."""
    what = f"{', '.join(sorted(details.extensions))} files" if details.file_types else "all files"
    where = f"folder {details.folder_id}" if details.folder_id else "Project Files"
    return f"Syncs {what} in {where} of Autodesk project {details.project}."


def open_connector(
    details: AutodeskDetails, credentials: Credentials, toolbox: Toolbox
) -> AutodeskConnector:
    """Builds a connector, without network."""
    from file_connector.connectors.autodesk.connector import AutodeskConnector

    return AutodeskConnector(details, credentials, toolbox)


def forecast(details: AutodeskDetails, credentials: Credentials, toolbox: Toolbox) -> str | None:
    """A warning if a person's consent will run out soon; without network."""
    connector = open_connector(details, credentials, toolbox)
    try:
        return connector.forecast()
    finally:
        connector.close()


SPEC = ConnectorSpec(
    type="autodesk_construction_cloud",
    title="Autodesk Construction Cloud",
    kind="autodesk",
    details=AutodeskDetails,
    credentials_variable="APS_CREDENTIALS",
    default_credentials=default_credentials,
    open=open_connector,
    describe=describe,
    forecast=forecast,
)
