"""Drive's file resource to a FileRecord, the filters, and the field masks they need."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from urllib.parse import quote, urlsplit

from file_connector.models import FileRecord, Json
from file_connector.times import parse_time

_NATIVE = "application/vnd.google-apps."
FOLDER = _NATIVE + "folder"
SHORTCUT = _NATIVE + "shortcut"

_NATIVE_NAMES = {
    "gdoc": "document",
    "gsheet": "spreadsheet",
    "gslides": "presentation",
    "gslide": "presentation",
    "gdraw": "drawing",
    "gform": "form",
    "gmap": "map",
    "gscript": "script",
    "gsite": "site",
    "gshortcut": "shortcut",
}

_USUAL_LINK = re.compile(r"https://[a-z0-9][a-z0-9.-]*/[!-~]*")

FILE_FIELDS = (
    "id,name,mimeType,webViewLink,parents,createdTime,modifiedTime,trashed,version,size,"
    "md5Checksum,headRevisionId,driveId,shortcutDetails,owners(emailAddress),"
    "lastModifyingUser(emailAddress)"
)
LIST_FIELDS = f"nextPageToken,incompleteSearch,files({FILE_FIELDS})"
CHANGE_FIELDS = (
    "nextPageToken,newStartPageToken,"
    f"changes(changeType,removed,fileId,driveId,file({FILE_FIELDS}))"
)


class Filter:
    """Which files an endpoint takes. Both filters must agree; an absent one agrees to all."""

    def __init__(
        self, file_types: Sequence[str] | None = None, mime_types: Sequence[str] | None = None
    ) -> None:
        self._endings = tuple(f".{t}" for t in file_types or ())
        self._native = frozenset(
            _NATIVE + _NATIVE_NAMES[t] for t in file_types or () if t in _NATIVE_NAMES
        )
        self._mime_types = frozenset(mime_types or ())
        self._families = tuple(t[:-1] for t in mime_types or () if t.endswith("/*"))

    def takes(self, item: Mapping[str, Json]) -> bool:
        """Whether this file is wanted; says nothing about folders."""
        mime_type = str(item["mimeType"]).lower()
        if self._endings and mime_type not in self._native:
            name = str(item.get("name") or "").lower()
            if not any(name.endswith(e) and len(name) > len(e) for e in self._endings):
                return False
        if self._mime_types and mime_type not in self._mime_types:
            return any(mime_type.startswith(family) for family in self._families)
        return True


def parents_of(item: Mapping[str, Json]) -> Sequence[str]:
    """The item's parents as told: one, or none if it is not visible to us."""
    parents = item.get("parents")
    return [p for p in parents if isinstance(p, str)] if isinstance(parents, list) else []


def is_folder(item: Mapping[str, Json]) -> bool:
    return bool(item["mimeType"] == FOLDER)


def is_trashed(item: Mapping[str, Json]) -> bool:
    """In the trash, by itself or through an ancestor."""
    return item.get("trashed") is True


def record_of(item: Mapping[str, Json], parent_id: str | None) -> FileRecord:
    """The record of a live file, shortcuts and Google's own types included."""
    file_id = str(item["id"])
    return FileRecord(
        external_id=file_id,
        title=str(item.get("name") or ""),
        link=_link(item.get("webViewLink"), file_id),
        created_at=parse_time(item.get("createdTime")),
        updated_at=parse_time(item.get("modifiedTime")),
        mime_type=str(item["mimeType"]),
        size_bytes=number_of(item.get("size")),
        version=number_of(item.get("version")),
        parent_id=parent_id,
        raw=_rest(item),
        version_is_content=False,
    )


def _link(told: Json, file_id: str) -> str:
    """The page to open the file in; only http(s) and printable, or the one made of its id."""
    if isinstance(told, str) and _USUAL_LINK.fullmatch(told):
        return told  # a million times; the parser below is slow
    if isinstance(told, str) and told.isprintable() and " " not in told:
        try:
            parts = urlsplit(told)
            if parts.scheme in ("http", "https") and parts.hostname:
                return told
        except ValueError:
            pass
    return f"https://drive.google.com/file/d/{quote(file_id, safe='')}/view"


def number_of(told: Json) -> int | None:
    """An int64, which comes as text; None if it is absent or none."""
    if isinstance(told, bool):
        return None
    if isinstance(told, int):
        return told
    if isinstance(told, str) and told.isascii() and told.isdigit() and len(told) < 20:
        return int(told)
    return None


def _rest(item: Mapping[str, Json]) -> dict[str, Json]:
    """What is worth keeping and does not change without meaning."""
    rest: dict[str, Json] = {
        key: item[key]
        for key in ("md5Checksum", "headRevisionId", "driveId")
        if isinstance(item.get(key), str)
    }
    shortcut = item.get("shortcutDetails")
    if isinstance(shortcut, dict):
        rest["shortcutDetails"] = {
            key: shortcut[key] for key in ("targetId", "targetMimeType") if key in shortcut
        }
    owners = item.get("owners")
    emails = [_email(owner) for owner in owners] if isinstance(owners, list) else []
    if any(emails):
        rest["owners"] = [email for email in emails if email]
    editor = _email(item.get("lastModifyingUser"))
    if editor:
        rest["lastModifyingUser"] = editor
    return rest


def _email(person: Json) -> str | None:
    email = person.get("emailAddress") if isinstance(person, dict) else None
    return email if isinstance(email, str) and email else None
