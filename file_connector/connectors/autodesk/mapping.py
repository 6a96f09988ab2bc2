"""From Autodesk's JSON:API documents to our values; lenient, because real answers bend the
published schema (empty names, missing tips, absent sizes).
"""

from __future__ import annotations

import math
import mimetypes
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from urllib.parse import quote, unquote, urlsplit

from file_connector.models import FileRecord, Json, KnownFile
from file_connector.times import iso, parse_time

DELETED_VERSION = "versions:autodesk.core:Deleted"
"""Extension type of the version a deletion adds; its name is a GUID, not a title."""

_TYPES = mimetypes.MimeTypes()
"""The library's own table, without the files of the machine it runs on."""


@dataclass(frozen=True, slots=True)
class FolderEntry:
    """A folder as a listing or a look at it shows it.

    ``rollup`` is the newest change in it or anything below, in one fixed spelling; None if the
    provider does not tell.
    """

    id: str
    name: str
    rollup: str | None
    parent_id: str | None
    hidden: bool


@dataclass(frozen=True, slots=True)
class ItemEntry:
    """A file as a listing or a look at it shows it; no record if it is deleted (``hidden``).

    ``parent_id`` is the folder whose listing showed it, ``home`` the one it names itself, if any.
    """

    id: str
    parent_id: str | None
    hidden: bool
    record: FileRecord | None
    extensions: frozenset[str] = frozenset()
    """That of the title and the provider's file type; lower case, without dot."""
    home: str | None = None


def tips(document: Mapping[str, Json]) -> dict[str, Mapping[str, Json]]:
    """The versions in ``included``, by id."""
    included = document.get("included")
    return {
        version["id"]: version
        for version in (included if isinstance(included, list) else ())
        if isinstance(version, dict) and isinstance(version.get("id"), str)
    }


def tip_id(item: Mapping[str, Json]) -> str | None:
    return _text(dig(item, "relationships", "tip", "data", "id"))


def next_href(document: Mapping[str, Json]) -> Json:
    """The address of the next page, or something else that was put in its place; nothing else marks
    the end of a listing."""
    following = dig(document, "links", "next")
    return following.get("href") if isinstance(following, Mapping) else following


def is_of_another(document: Mapping[str, Json], folder_id: str) -> bool:
    """Whether a page of contents is surely not that of ``folder_id``: its own address names another
    folder, and so does every entry that names a parent."""
    own = _CONTENTS.search(_text(dig(document, "links", "self", "href")) or "")
    told = {
        _text(dig(entry, "relationships", "parent", "data", "id")) for entry in document["data"]
    } - {None}
    return own is not None and unquote(own[1]) != folder_id and bool(told) and folder_id not in told


_CONTENTS = re.compile(r"/folders/([^/?#]+)/contents(?=[?#]|$)")


def folder_entry(folder: Mapping[str, Json]) -> FolderEntry:
    attributes = folder.get("attributes")
    rollup = _text(dig(attributes, "lastModifiedTimeRollup"))
    return FolderEntry(
        id=folder["id"],
        name=_text(dig(attributes, "name")) or _text(dig(attributes, "displayName")) or "",
        rollup=iso(parse_time(rollup)) or rollup,
        parent_id=_text(dig(folder, "relationships", "parent", "data", "id")),
        hidden=dig(attributes, "hidden") is True,
    )


def item_entry(
    item: Mapping[str, Json],
    tip: Mapping[str, Json] | None,
    *,
    project: str,
    folder_id: str | None = None,
) -> ItemEntry:
    """One item and its newest version.

    Args:
        tip: the version object; None if the provider does not show one, which leaves nulls and a
            remark.
        project: project id, for building a link where the answer has none.
        folder_id: the folder whose listing showed the item; by default its own word.
    """
    item_attributes, tip_attributes = item.get("attributes"), dig(tip, "attributes")
    home = _text(dig(item, "relationships", "parent", "data", "id"))
    parent_id = folder_id or home
    deleted = _text(dig(tip_attributes, "extension", "type")) == DELETED_VERSION
    if deleted or dig(item_attributes, "hidden") is True:
        return ItemEntry(item["id"], parent_id, True, None)
    title = (
        _text(dig(tip_attributes, "name"))
        or _text(dig(tip_attributes, "displayName"))
        or _text(dig(item_attributes, "displayName"))
        or _text(dig(item_attributes, "extension", "data", "sourceFileName"))
        or item["id"]
    )
    suffix = title.rpartition(".")[2].lower() if "." in title else ""
    file_type = (_text(dig(tip_attributes, "fileType")) or "").lower().lstrip(".")
    size = _whole(dig(tip_attributes, "storageSize"))
    times = [
        parse_time(dig(attributes, "lastModifiedTime"))
        for attributes in (item_attributes, tip_attributes)
    ]
    record = FileRecord(
        external_id=item["id"],
        title=title,
        link=_link(item, tip, project, home or parent_id),
        created_at=parse_time(dig(item_attributes, "createTime")),
        updated_at=max((t for t in times if t is not None), default=None),
        mime_type=_text(dig(tip_attributes, "mimeType"))
        or _TYPES.guess_type(f"x.{file_type or suffix}")[0],
        size_bytes=size,
        version=_whole(dig(tip_attributes, "versionNumber")),
        parent_id=parent_id,
        raw=_rest(item_attributes, tip_attributes, tip, file_type or suffix, size),
        version_is_content=True,
    )
    extensions = frozenset({suffix, file_type} - {""})
    return ItemEntry(item["id"], parent_id, False, record, extensions, home)


def tells_less(record: FileRecord, held: KnownFile | None) -> bool:
    """Whether the provider shows a file without its newest version just now, of which we hold one:
    then the row stays as it is, unless the file is elsewhere."""
    return (
        record.raw.get("tip") is None
        and held is not None
        and held.live
        and held.version is not None
        and held.parent_id == record.parent_id
    )


def _rest(
    item: Json, version: Json, tip: Mapping[str, Json] | None, file_type: str, size: int | None
) -> dict[str, Json]:
    """What is worth keeping beside the columns, without what changes by itself."""
    remark = None
    if tip is None:
        remark = "no version of this file is shown (yet)"
    elif size is None:
        remark = "no size is told: upload in progress, or not a plain file"
    rest = {
        "tip": tip["id"] if tip else None,
        "file_type": file_type or None,
        "extension": _text(dig(item, "extension", "type")),
        "created_by": _text(dig(item, "createUserName")),
        "modified_by": _text(dig(version, "lastModifiedUserName"))
        or _text(dig(item, "lastModifiedUserName")),
        "reserved_by": _text(dig(item, "reservedUserName")) if dig(item, "reserved") else None,
        "remark": remark,
    }
    return {key: value for key, value in rest.items() if value is not None}


def _link(
    item: Mapping[str, Json], tip: Mapping[str, Json] | None, project: str, parent_id: str | None
) -> str | None:
    """Where a person sees the file: the tip's page, else the item's, else a built address."""
    for source in (tip, item):
        href = _text(dig(source, "links", "webView", "href")) or _text(
            dig(source, "links", "webView")
        )
        if href and _is_web(href):
            return href
    if parent_id is None:
        return None
    guid = quote(project.removeprefix("b."), safe="")
    return (
        f"https://acc.autodesk.com/docs/files/projects/{guid}"
        f"?folderUrn={quote(parent_id, safe='')}&entityId={quote(item['id'], safe='')}"
    )


def _is_web(href: str) -> bool:
    try:
        parts = urlsplit(href)
    except ValueError:
        return False
    plain = href.isprintable() and " " not in href
    return plain and parts.scheme in ("http", "https") and bool(parts.hostname)


def dig(value: Json, *keys: str) -> Json:
    """The value down a path of keys, or None where the path ends."""
    for key in keys:
        value = value.get(key) if isinstance(value, Mapping) else None
    return value


def warnings(document: Mapping[str, Json]) -> Sequence[str]:
    """Texts of ``meta.warnings`` (the answer to a hub listing explains itself there)."""
    found = dig(document, "meta", "warnings")
    texts = []
    for warning in found if isinstance(found, list) else ():
        parts = [
            _text(dig(warning, *names[:1])) or _text(dig(warning, *names[1:]))
            for names in (("Title", "title"), ("Detail", "detail"))
        ]
        texts.append(" ".join(p for p in parts if p))
    return [text for text in texts if text]


def _text(value: Json) -> str | None:
    return value if isinstance(value, str) and value.strip() else None


def _whole(value: Json) -> int | None:
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < 20:
        return int(value)
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return int(value)
