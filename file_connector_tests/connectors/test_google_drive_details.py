"""What a Google Drive endpoint may say, what a file of Drive becomes, what is never imported."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from file_connector.connectors.google_drive import SPEC
from file_connector.connectors.google_drive.mapping import Filter, record_of
from file_connector.connectors.google_drive.tree import Tree
from file_connector.connectors.google_drive.walk import quoted
from file_connector.errors import ConfigurationError
from file_connector.models import Folder

ITEM: dict[str, Any] = {"id": "1abc", "mimeType": "application/pdf", "name": "a.pdf"}


# -- details ---------------------------------------------------------------------------------------
def test_details_defaults_and_cleaning() -> None:
    details = SPEC.details(
        folder_id="1AbC-_9", file_types=[".PDF", "pdf", "*.Dwg"], mime_types=["Image/*"]
    )
    assert details.model_dump() == {
        "folder_id": "1AbC-_9",
        "drive_id": None,
        "recursive": True,
        "file_types": ("pdf", "dwg"),
        "mime_types": ("image/*",),
    }


@pytest.mark.parametrize(
    ("details", "seen"),
    [
        ({}, "folder_id or drive_id is missing"),
        ({"folder_id": "a", "drive_id": "b"}, "exclude each other"),
        ({"folder_id": ""}, "not a Drive id"),
        ({"folder_id": "a' or 'b"}, "not a Drive id"),
        (
            {"folder_id": "https://drive.google.com/drive/u/0/folders/1AbCdEfGhIj?usp=sharing"},
            "write only the id in it: 1AbCdEfGhIj",
        ),
        ({"folder_id": "a", "folder": "b"}, "Extra inputs are not permitted"),
        ({"folder_id": "a", "recursive": "perhaps"}, "valid boolean"),
        ({"folder_id": "a", "file_types": []}, "at least 1 item"),
        ({"folder_id": "a", "file_types": "pdf"}, "valid tuple"),
        ({"folder_id": "a", "file_types": ["a/b"]}, "'a/b' is not a file extension"),
        ({"folder_id": "a", "mime_types": ["pdf"]}, "'pdf' is not a MIME type"),
    ],
)
def test_mistakes_in_details(details: dict[str, Any], seen: str) -> None:
    with pytest.raises(ValidationError, match=seen):
        SPEC.details(**details)


def test_descriptions() -> None:
    def told(**details: Any) -> str:
        return SPEC.describe(SPEC.details(**details))

    assert told(folder_id="x") == "All files in the Google Drive folder x and all folders below."
    assert told(drive_id="d", file_types=["pdf", "dwg"]) == (
        "Files with extension pdf, dwg in the shared drive d."
    )
    assert told(folder_id="x", recursive=False, mime_types=["image/*"]) == (
        "Files of type image/* directly in the Google Drive folder x."
    )


def test_default_credentials(tmp_path: Path) -> None:
    file = tmp_path / "key.json"
    file.write_text('{"type": "service_account"}')
    for value in (str(file), '{"type": "service_account"}'):
        environ = {"GOOGLE_APPLICATION_CREDENTIALS": value}
        assert SPEC.default_credentials(environ) == {"type": "service_account"}


@pytest.mark.parametrize("value", ["", "/nowhere/key.json", "{not json", "[1]", "bare-secret"])
def test_missing_default_credentials(value: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        SPEC.default_credentials({"GOOGLE_APPLICATION_CREDENTIALS": value})
    assert "GOOGLE_APPLICATION_CREDENTIALS" in str(caught.value)
    assert ("is not valid JSON" in str(caught.value)) == value.startswith("{")
    assert "bare-secret" not in str(caught.value)


def test_announcing_the_type_imports_no_client_library() -> None:
    code = (
        "import sys; import file_connector.connectors.google_drive; "
        "sys.exit(any(m.split('.')[0] in ('googleapiclient', 'httplib2') for m in sys.modules))"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


# -- filters ---------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("name", "mime_type", "taken"),
    [
        ("a.pdf", "application/pdf", True),
        ("a.PDF", "text/plain", True),
        ("a.pdf.txt", "application/pdf", False),
        ("pdf", "application/pdf", False),
        (".pdf", "application/pdf", False),
        ("x.tar.gz", "application/gzip", True),
        ("x.gz", "application/gzip", False),
        ("Notes", "application/vnd.google-apps.document", True),
        ("Notes.gdoc", "text/plain", True),
        ("Sums", "application/vnd.google-apps.spreadsheet", False),
        ("Link", "application/vnd.google-apps.shortcut", False),
    ],
)
def test_file_types(name: str, mime_type: str, taken: bool) -> None:
    wanted = Filter(["pdf", "tar.gz", "gdoc"])
    assert wanted.takes({"id": "1", "name": name, "mimeType": mime_type}) is taken


def test_mime_types_and_both() -> None:
    image = {"id": "1", "name": "a.png", "mimeType": "image/png"}
    assert Filter(None, ["image/*"]).takes(image)
    assert Filter(None, ["image/png", "text/plain"]).takes(image)
    assert not Filter(None, ["image/jpeg", "imag/*"]).takes(image)
    assert not Filter(["jpg"], ["image/*"]).takes(image), "both must agree"
    assert Filter().takes(image)


# -- records ---------------------------------------------------------------------------------------
def test_a_bare_file_becomes_a_row_with_nulls() -> None:
    record = record_of({"id": "1abc", "mimeType": "x/y"}, None)
    assert (record.title, record.updated_at, record.size_bytes, record.version) == (
        "",
        None,
        None,
        None,
    )
    assert record.link == "https://drive.google.com/file/d/1abc/view"
    assert not record.version_is_content


@pytest.mark.parametrize(
    ("told", "kept"),
    [
        ("https://docs.google.com/document/d/1abc/edit?usp=drivesdk", True),
        ("http://example.com/x", True),
        ("javascript:alert(1)", False),
        ("data:text/html,x", False),
        ("https://", False),
        ("https://exa mple.com/", False),
        ("https://example.com/\n2026-01-01 root logged in", False),
        ("https://[broken", False),
        (7, False),
        (None, False),
    ],
)
def test_s49_only_web_addresses_are_links(told: Any, kept: bool) -> None:
    link = record_of({**ITEM, "webViewLink": told}, None).link
    assert link == (told if kept else "https://drive.google.com/file/d/1abc/view")


@pytest.mark.parametrize(
    ("told", "number"),
    [("1234", 1234), (17, 17), ("-1", None), ("1e3", None), ("", None), (True, None), ("²", None)],
)
def test_numbers_come_as_text(told: Any, number: int | None) -> None:
    assert record_of({**ITEM, "size": told}, None).size_bytes == number


def test_the_rest_holds_nothing_fleeting() -> None:
    item = {
        **ITEM,
        "md5Checksum": "abc",
        "headRevisionId": "r1",
        "driveId": "0A",
        "shortcutDetails": {"targetId": "t", "targetMimeType": "x/y", "targetResourceKey": "k"},
        "owners": [{"emailAddress": "ana@example.com", "photoLink": "https://x/1"}, "odd"],
        "lastModifyingUser": {"emailAddress": "bo@example.com", "me": True},
        "viewedByMeTime": "2026-01-01T00:00:00Z",
    }
    assert record_of(item, "p").raw == {
        "md5Checksum": "abc",
        "headRevisionId": "r1",
        "driveId": "0A",
        "shortcutDetails": {"targetId": "t", "targetMimeType": "x/y"},
        "owners": ["ana@example.com"],
        "lastModifyingUser": "bo@example.com",
    }


def test_query_constants_are_escaped() -> None:
    assert quoted("it's a \\ test") == "'it\\'s a \\\\ test'"


# -- the tree --------------------------------------------------------------------------------------
def test_tree_survives_cycles() -> None:
    tree = Tree([Folder("r", None, "r"), Folder("a", "b", "a"), Folder("b", "a", "b")], "r")
    assert not tree.inside("a")
    assert list(tree.subtree("a")) == ["a", "b"]
    assert tree.below("a", "b")
    assert [f.folder_id for f in tree.reachable()] == ["r"]
    tree.drop("a")
    assert "b" not in tree


def test_tree_follows_moves() -> None:
    tree = Tree([Folder("r", None, "r"), Folder("a", "r", "a"), Folder("b", "a", "b")], "r")
    tree.put(Folder("b", "r", "b"))
    assert tree.children("a") == []
    assert tree.inside("b")
    tree.put(Folder("x", "?", "", {"outside": True}))
    assert "x" not in tree
    assert tree.is_outside("x")
    assert not tree.inside("x")
