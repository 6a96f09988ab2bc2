"""Source types: built-in, plugged in, claimed twice, broken."""

from __future__ import annotations

import importlib
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import EntryPoint
from pathlib import Path
from textwrap import dedent

import pytest

from file_connector.connectors.registry import GROUP, Registry
from file_connector.errors import ConfigurationError

PLUG_IN = """\
from pydantic import BaseModel, ConfigDict
from file_connector.connectors.base import ConnectorSpec

class Details(BaseModel):
    model_config = ConfigDict(extra="forbid")
    site: str

SPEC = ConnectorSpec("sharepoint", "SharePoint", "sharepoint", Details, "SP_CREDENTIALS",
                     lambda environ: {}, lambda details, credentials, toolbox: None)
"""


class Installer:
    """Puts fake distributions where Python finds installed ones, and takes them away again."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def install(self, package: str, type_name: str, code: str) -> None:
        module = package.replace("-", "_")
        (self.folder / f"{module}.py").write_text(code)
        info = self.folder / f"{module}-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text(f"[{GROUP}]\n{type_name} = {module}:SPEC\n")
        importlib.invalidate_caches()

    def remove(self) -> None:
        for path in sorted(self.folder.rglob("*"), reverse=True):
            path.rmdir() if path.is_dir() else path.unlink()
        importlib.invalidate_caches()


@pytest.fixture
def packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Installer]:
    monkeypatch.syspath_prepend(tmp_path)
    before = set(sys.modules)
    yield Installer(tmp_path)
    for name in set(sys.modules) - before:
        if (getattr(sys.modules[name], "__file__", None) or "").startswith(str(tmp_path)):
            del sys.modules[name]


def test_the_built_in_types() -> None:
    registry = Registry(plug_ins=())
    assert registry.names() == ["autodesk_construction_cloud", "google_drive"]
    for name in registry.names():
        assert registry.get(name).type == name
    assert not registry.problems()


def test_a_plug_in_is_found_used_and_removed(packages: Installer) -> None:
    assert "sharepoint" not in Registry().names()
    packages.install("acme-sharepoint", "sharepoint", PLUG_IN)
    registry = Registry()
    assert "sharepoint" in registry.names()
    assert "acme_sharepoint" not in sys.modules, "listing names must not import plug-ins"
    spec = registry.get("sharepoint")
    assert spec.title == "SharePoint"
    assert registry.get("sharepoint") is spec
    packages.remove()
    assert "sharepoint" not in Registry().names()


def test_an_unknown_type_gets_a_suggestion() -> None:
    with pytest.raises(ConfigurationError) as raised:
        Registry(plug_ins=()).get("google-drive")
    assert "Did you mean 'google_drive'?" in str(raised.value)
    assert "autodesk_construction_cloud, google_drive" in str(raised.value)


def test_two_plug_ins_of_one_name_name_each_other(packages: Installer) -> None:
    packages.install("acme-sharepoint", "sharepoint", PLUG_IN)
    packages.install("zeta-sharepoint", "sharepoint", PLUG_IN)
    registry = Registry()
    with pytest.raises(ConfigurationError) as raised:
        registry.get("sharepoint")
    for sentence in (str(raised.value), *registry.problems()):
        assert "acme-sharepoint 1.0" in sentence
        assert "zeta-sharepoint 1.0" in sentence
    assert registry.get("google_drive").type == "google_drive"


def test_a_plug_in_cannot_take_a_built_in_name(packages: Installer) -> None:
    packages.install("evil-drive", "google_drive", PLUG_IN)
    registry = Registry()
    (sentence,) = registry.problems()
    assert "evil-drive 1.0" in sentence
    assert "File Connector itself" in sentence
    assert registry.get("google_drive").title == "Google Drive"
    assert "evil_drive" not in sys.modules


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("import nowhere_to_be_found", "No module named 'nowhere_to_be_found'"),
        ("raise RuntimeError('client_secret=CANARY-abc')", "RuntimeError"),
        ("import sys; sys.exit(3)", "SystemExit"),
        ("SPEC = 5", "is a int, not a ConnectorSpec"),
        (PLUG_IN.replace('"sharepoint",', '"other",', 1), "of type 'other'"),
        ("x = 1", "has no attribute 'SPEC'"),
    ],
)
def test_a_broken_plug_in_breaks_only_its_own_type(
    packages: Installer, code: str, words: str
) -> None:
    packages.install("acme-sharepoint", "sharepoint", code)
    registry = Registry()
    with pytest.raises(ConfigurationError) as raised:
        registry.get("sharepoint")
    assert words in str(raised.value)
    assert "acme-sharepoint 1.0" in str(raised.value)
    assert "CANARY" not in str(raised.value)
    assert registry.get("google_drive").type == "google_drive"


def test_the_same_entry_point_seen_twice_is_no_clash() -> None:
    twice = [EntryPoint("sp", "acme:SPEC", GROUP), EntryPoint("sp", "acme:SPEC", GROUP)]
    assert not Registry({}, twice).problems()


def test_asking_for_names_imports_no_client_library() -> None:
    code = dedent("""
        import sys
        from file_connector.connectors.registry import Registry
        registry = Registry(plug_ins=())
        registry.names()
        assert not [m for m in sys.modules if m.startswith("file_connector.connectors.")
                    and m.rpartition(".")[2] not in ("base", "registry")], sys.modules
        registry.get("google_drive"), registry.get("autodesk_construction_cloud")
        assert not {"googleapiclient", "requests", "sqlalchemy", "dagster"} & set(sys.modules)
    """)
    subprocess.run([sys.executable, "-c", code], check=True)
