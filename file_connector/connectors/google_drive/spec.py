"""How the type ``google_drive`` announces itself: details, credentials, how to open it.

Imports no client library.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from file_connector.connectors.base import Connector, ConnectorSpec, Credentials, Toolbox
from file_connector.errors import ConfigurationError
from file_connector.models import Json

DEFAULT_VARIABLE = "GOOGLE_APPLICATION_CREDENTIALS"

_ID = re.compile(r"^[A-Za-z0-9_-]+$")
_LINK_ID = re.compile(r"(?:folders/|[?&]id=|/d/)([A-Za-z0-9_-]{10,})")
_EXTENSION = re.compile(r"^[^\s./\\][^\s/\\]*$")
_MIME_TYPE = re.compile(r"^[\w.+-]+/([\w.+-]+|\*)$")


class GoogleDriveDetails(BaseModel):
    """``endpoint_details`` of a Google Drive endpoint.

    A filter that is left out takes everything; with both filters a file must pass both. Folders are
    always walked, whatever the filters say.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    folder_id: str | None = Field(
        None,
        description="Id of the folder to sync: the last part of its link. `root` is My Drive.",
    )
    drive_id: str | None = Field(None, description="Id of a shared drive, to sync all of it.")
    recursive: bool = Field(True, description="Also sync what lies in folders below.")
    file_types: Annotated[tuple[str, ...], Field(min_length=1)] | None = Field(
        None,
        description="Only files with these extensions, with or without dot; gdoc, gsheet, gslides, "
        "gdraw, gform, gmap, gscript, gsite and gshortcut name Google's own types.",
    )
    mime_types: Annotated[tuple[str, ...], Field(min_length=1)] | None = Field(
        None, description="Only files of these MIME types; `image/*` takes all images."
    )

    @field_validator("folder_id", "drive_id")
    @classmethod
    def _is_an_id(cls, value: str | None) -> str | None:
        if value is None or _ID.match(value):
            return value
        link = _LINK_ID.search(value)
        if link:
            raise ValueError(f"is a link; write only the id in it: {link.group(1)}")
        raise ValueError(
            "is not a Drive id: only letters, digits, - and _ occur in one. It is the last part of "
            "the folder's link, https://drive.google.com/drive/folders/<id>"
        )

    @field_validator("file_types")
    @classmethod
    def _are_extensions(cls, value: tuple[str, ...] | None) -> tuple[str, ...] | None:
        if value is None:
            return None
        cleaned = []
        for text in value:
            extension = text.strip().lower().removeprefix("*").removeprefix(".")
            if not _EXTENSION.match(extension):
                raise ValueError(f"'{text}' is not a file extension; write for example pdf or .pdf")
            cleaned.append(extension)
        return tuple(dict.fromkeys(cleaned))

    @field_validator("mime_types")
    @classmethod
    def _are_mime_types(cls, value: tuple[str, ...] | None) -> tuple[str, ...] | None:
        if value is None:
            return None
        cleaned = []
        for text in value:
            mime_type = text.strip().lower()
            if not _MIME_TYPE.match(mime_type):
                raise ValueError(
                    f"'{text}' is not a MIME type; write for example application/pdf or image/*"
                )
            cleaned.append(mime_type)
        return tuple(dict.fromkeys(cleaned))

    @model_validator(mode="after")
    def _has_one_root(self) -> GoogleDriveDetails:
        if self.folder_id and self.drive_id:
            raise ValueError(
                "folder_id and drive_id exclude each other: folder_id for one folder (also one in "
                "a shared drive), drive_id for a whole shared drive"
            )
        if not self.folder_id and not self.drive_id:
            raise ValueError("folder_id or drive_id is missing: say which folder to sync")
        return self

    @property
    def root_id(self) -> str:
        """The id of the top folder; a shared drive's id is also that of its top folder."""
        return self.folder_id or self.drive_id or ""


def default_credentials(environ: Mapping[str, str]) -> Mapping[str, Json]:
    """The JSON ``GOOGLE_APPLICATION_CREDENTIALS`` points to, or holds.

    Raises:
        ConfigurationError: the variable is unset, or leads to no JSON object.
    """
    text = environ.get(DEFAULT_VARIABLE, "").strip()
    remedy = (
        f"Set {DEFAULT_VARIABLE} to the path of a service-account key or an authorized_user file "
        "(or to its JSON text), or name a credential set in the endpoint: `credentials: <name>`."
    )
    if not text:
        raise ConfigurationError(f"{DEFAULT_VARIABLE} is not set.", remedy=remedy)
    meant = "is not valid JSON" if text.startswith("{") else "leads to no readable JSON file"
    try:
        if not text.startswith("{"):
            text = Path(text).expanduser().read_text(encoding="utf-8-sig")
        data = json.loads(text)
    except (OSError, ValueError, RuntimeError, RecursionError):
        raise ConfigurationError(f"{DEFAULT_VARIABLE} {meant}.", remedy=remedy) from None
    if not isinstance(data, dict):
        raise ConfigurationError(f"{DEFAULT_VARIABLE} is not a JSON object.", remedy=remedy)
    return data


def describe(details: GoogleDriveDetails) -> str:
    """One sentence about what an endpoint with these details syncs."""
    which = []
    if details.file_types:
        which.append(f"with extension {', '.join(details.file_types)}")
    if details.mime_types:
        which.append(f"of type {', '.join(details.mime_types)}")
    files = " ".join(["All files" if not which else "Files", " and ".join(which)]).strip()
    where = (
        f"the shared drive {details.drive_id}"
        if details.drive_id
        else f"the Google Drive folder {details.folder_id}"
    )
    if not details.recursive:
        return f"{files} directly in {where}."
    return f"{files} in {where}" + (" and all folders below." if details.folder_id else ".")


def _open(details: Any, credentials: Credentials, toolbox: Toolbox) -> Connector:
    from file_connector.connectors.google_drive.connector import GoogleDriveConnector

    return GoogleDriveConnector(details, credentials, toolbox)


SPEC = ConnectorSpec(
    type="google_drive",
    title="Google Drive",
    kind="googledrive",
    details=GoogleDriveDetails,
    credentials_variable="GOOGLE_CREDENTIALS",
    default_credentials=default_credentials,
    open=_open,
    describe=describe,
)
