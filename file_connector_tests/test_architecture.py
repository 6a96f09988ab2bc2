"""Imports go down the house, never up; each module has a sign on its door."""

from __future__ import annotations

import ast
import re
import sys
from pathlib import Path

import pytest

import file_connector

ROOT = Path(file_connector.__file__).parent
MODULES = sorted(ROOT.rglob("*.py"))

FLOORS = [
    {"__main__"},
    {"definitions", "cli"},
    {"orchestration"},
    {"deployment"},
    {"endpoints", "settings"},
    {"connectors.registry"},
    {"connectors.google_drive", "connectors.autodesk", "sync", "destination"},
    {"destination.base"},
    {"connectors.retry"},
    {"connectors.base"},
    {"models", "times", "deadline", "locks"},
    {"errors"},
]
"""From the roof down; a room may import from its own floor only within itself."""

RIM_ONLY = {"dagster": {"orchestration", "definitions"}}
NO_IO = {"requests", "httplib2", "googleapiclient", "sqlalchemy", "psycopg2", "sqlite3", "os"}


def name_of(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(p for p in parts if p != "__init__")


def room(module: str) -> tuple[int, str] | None:
    """Floor number and room of a module; the longest name that fits wins."""
    fits = [
        (len(name), floor, name)
        for floor, names in enumerate(FLOORS)
        for name in names
        if module == name or module.startswith((f"{name}.", f"{name}_"))
    ]
    return max(fits)[1:] if fits else None


def imports(path: Path) -> list[str]:
    found = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            found += [f"{node.module}.{alias.name}" for alias in node.names]
            found.append(node.module or "")
    return found


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_imports_go_down(path: Path) -> None:
    me = name_of(path)
    here = room(me)
    for target in imports(path):
        top = target.split(".")[0]
        if top in RIM_ONLY:
            assert me.split(".")[0] in RIM_ONLY[top], f"{me} imports {target}"
        if me.split(".")[0] in {"sync", "models", "errors", "times"}:
            assert top not in NO_IO, f"{me} imports {target}"
        if top != "file_connector" or target == "file_connector":
            continue
        inner = target.removeprefix("file_connector.")
        if me.split(".")[0] == "sandbox" or inner.split(".")[0] == "sandbox":
            inside = me.split(".")[0] == inner.split(".")[0] == "sandbox"
            assert inside or me == "deployment", f"{me} imports {target}: the sandbox stands apart"
            continue
        there = room(inner)
        if here is None or there is None or here[1] == there[1]:
            continue
        assert there[0] > here[0], f"{me} (floor {here[0]}) imports {target} (floor {there[0]})"


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_every_module_says_what_lives_there(path: Path) -> None:
    assert ast.get_docstring(ast.parse(path.read_text())), f"{path} has no docstring"


def test_every_module_has_a_room() -> None:
    homeless = [
        name_of(p)
        for p in MODULES
        if room(name_of(p)) is None
        and name_of(p) not in {"", "connectors"}
        and not name_of(p).startswith("sandbox")
    ]
    assert not homeless


def test_what_is_imported_is_declared_and_what_is_declared_is_imported() -> None:
    pyproject = (ROOT.parent / "pyproject.toml").read_text()
    declared_block = re.findall(r"^dependencies = \[(.*?)^\]", pyproject, re.DOTALL | re.MULTILINE)
    declared = {normal(name) for name in re.findall(r'"([\w-]+)', declared_block[0])}
    tops = {name.split(".")[0] for path in MODULES for name in imports(path)}
    outside = tops - set(sys.stdlib_module_names) - {"file_connector", "dagster_shared"}
    outside -= {"pydantic_core", "urllib3"}  # faces of pydantic and requests
    used = {normal(PACKAGES.get(name, name)) for name in outside}
    not_imported = {"dagster-webserver", "pysocks"}  # a program; how httplib2 goes through a proxy
    assert used == declared - not_imported


PACKAGES = {
    "dotenv": "python-dotenv",
    "google": "google-auth",
    "googleapiclient": "google-api-python-client",
    "psycopg2": "psycopg2-binary",
    "yaml": "PyYAML",
}
"""Where a package's name is not that of its module."""


def normal(name: str) -> str:
    return name.lower().replace("_", "-")
