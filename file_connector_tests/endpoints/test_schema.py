"""Ids made of names, and what an identity may look like."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from file_connector.endpoints.schema import MAX_ID_LENGTH, Entry, slug
from file_connector_tests.endpoints.fakes import an_entry


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("Tower 42 models", "tower_42_models"),
        ("  Büro – Pläne (neu)  ", "buro_plane_neu"),
        ("a__b--c", "a_b_c"),
        ("42", "42"),
        ("ﬁle №1", "file_no1"),
        ("東京", ""),
        ("___", ""),
    ],
)
def test_slug(name: str, expected: str) -> None:
    assert slug(name) == expected


def test_long_names_are_cut_and_told_apart() -> None:
    one, other = slug("tower " * 20 + "a"), slug("tower " * 20 + "b")
    assert one != other
    assert len(one) <= MAX_ID_LENGTH
    assert one.startswith("tower_tower_")
    assert one == slug("tower " * 20 + "a") == "tower_tower_tower_tower_tower_tower_tower_df9f3848"


@given(name=st.text(max_size=200))
def test_a_slug_is_a_valid_id_and_its_own_slug(name: str) -> None:
    made = slug(name)
    assert slug(made) == made
    if made:
        assert Entry.model_validate(an_entry(id=made)).id == made
