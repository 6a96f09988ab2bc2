"""The list of deliberate bugs stays true: every planting place exists, and the docs name each."""

from __future__ import annotations

import pytest

from file_connector_tests.mutants import MUTANTS, ROOT, Mutant


@pytest.mark.parametrize("mutant", MUTANTS, ids=[m.name for m in MUTANTS])
def test_a_mutant_can_be_planted_and_is_documented(mutant: Mutant) -> None:
    assert (ROOT / mutant.file).read_text().count(mutant.old) == 1
    assert mutant.name in (ROOT / "docs" / "mutants.md").read_text()
