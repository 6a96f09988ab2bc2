"""What is cleaned before it reaches any database."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from file_connector.destination.rows import clean_json, clean_link, clean_text
from file_connector.errors import one_line

JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@pytest.mark.parametrize(
    ("link", "kept"),
    [
        ("https://drive.google.com/file/d/x/view?a=b#c", True),
        ("http://localhost:8000/x", True),
        ("HTTPS://EXAMPLE.COM/", True),
        ("https://example.com/\u00fcml\u00e4ut", True),
        ("javascript:alert(1)", False),
        ("data:text/html,x", False),
        ("ftp://example.com/x", False),
        ("//example.com/x", False),
        ("https:", False),
        ("https://", False),
        (" https://example.com/", False),
        ("https://example.com/\nhttps://evil.example/", False),
        ("https://example.com/\n", False),
        ("https://example.com/a b", False),
        ("https://example.com/\x00", False),
        ("java\tscript:alert(1)", False),
        ("", False),
        (None, False),
    ],
)
def test_s49_only_web_addresses_are_links(link: str | None, kept: bool) -> None:
    assert clean_link(link) == (link if kept else None)


def test_s49_a_title_keeps_its_characters_and_forges_no_log_line() -> None:
    title = "plan.pdf\n12:00 ERROR all files deleted\x1b[2J"
    assert clean_text(title) == title
    assert "\n" not in one_line(title)
    assert "\x1b" not in one_line(title)


@given(st.text(st.characters(), max_size=20))
def test_clean_text_is_storable_and_stable(text: str) -> None:
    cleaned = clean_text(text)
    cleaned.encode()
    assert "\x00" not in cleaned
    assert clean_text(cleaned) == cleaned
    if "\x00" not in text:
        assert cleaned == text or any("\ud800" <= c <= "\udfff" for c in text)


@given(JSON)
def test_json_without_nul_is_left_as_it_is(value: object) -> None:
    assert "\x00" in repr(value) or "\\x00" in repr(value) or clean_json(value) == value


def test_json_is_cleaned_in_its_depth() -> None:
    assert clean_json({"a\x00": [("\ud800", float("inf"))], 3: {"d": object}}) == {
        "a": [["\ufffd", None]],
        "3": {"d": "<class 'object'>"},
    }
