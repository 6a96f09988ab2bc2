"""The worked example of docs/new-source.md, followed to the letter."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

import file_connector
from file_connector.deployment import Deployment
from file_connector.orchestration.build import build_definitions

CHECKOUT = Path(file_connector.__file__).parent.parent
TOKEN = "canary-of-the-shelf"
DOCUMENTS = [
    {"id": "d1", "title": "Lease.pdf", "url": "https://shelf.acme.example/d1", "revision": 1},
    {"id": "d2", "title": "Offer.pdf", "url": "javascript:alert(1)", "revision": 1},
]


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """The files of the page, found by Python as an installed package would be."""
    page = (CHECKOUT / "docs" / "new-source.md").read_text(encoding="utf-8")
    for name, text in re.findall(r"`([\w.]+)`[^\n]*:\n\n```\w+\n(.*?)```", page, re.DOTALL):
        (tmp_path / name).write_text(text)
    [entry] = re.findall(r"```yaml\n(endpoints:.*?)```", page, re.DOTALL)
    (tmp_path / "endpoints.yaml").write_text(entry)
    about = (tmp_path / "pyproject.toml").read_text()
    group, points = re.findall(r'\[project.entry-points."(.*?)"\]\n(.*?)\n\n', about, re.DOTALL)[0]
    installed = tmp_path / "acme_shelf-1.0.dist-info"
    installed.mkdir()
    (installed / "METADATA").write_text("Metadata-Version: 2.1\nName: acme-shelf\nVersion: 1.0\n")
    (installed / "entry_points.txt").write_text(f"[{group}]\n{points.replace(chr(34), '')}\n")
    return tmp_path


class Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        if self.headers["Authorization"] != f"Bearer {TOKEN}":
            return self.send_error(401)
        answers: dict[str, object] = {
            "/shelves/contracts": {"revision": 7, "documents": DOCUMENTS},
            "/shelves/contracts/revision": {"revision": 7},
        }
        if self.path not in answers:
            return self.send_error(404)
        body = json.dumps(answers[self.path]).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        return None


@pytest.fixture
def server() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def run(package: Path, server: str, token: str, *args: str) -> subprocess.CompletedProcess[str]:
    environ = {k: v for k, v in os.environ.items() if k in ("PATH", "HOME", "LANG")}
    environ |= {
        "PYTHONPATH": f"{package}{os.pathsep}{CHECKOUT}",
        "ACME_SHELF_URL": server,
        "ACME_SHELF_CREDENTIALS__ACME": json.dumps({"token": token}),
    }
    return subprocess.run(
        [sys.executable, "-W", "error", *args],
        cwd=package,
        env=environ,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_its_own_test_passes(package: Path, server: str) -> None:
    done = run(package, server, TOKEN, "-m", "pytest", "-q", "-p", "no:cacheprovider", ".")
    assert done.returncode == 0, done.stdout
    assert "1 passed" in done.stdout


def test_from_yaml_to_rows_without_touching_our_code(package: Path, server: str) -> None:
    for command, words in {
        "validate": "is valid: 1 endpoint",
        "check acme_contracts": "shelf 'contracts' holds 2 documents",
        "sync acme_contracts": "2 inserted",
    }.items():
        done = run(package, server, TOKEN, "-m", "file_connector", *command.split())
        assert done.returncode == 0, done.stderr
        assert words in done.stdout
    dead = run(package, server, "canary-not-valid", "-m", "file_connector", "check")
    assert dead.returncode == 1
    assert "the token is not valid. Set a new token." in dead.stdout
    assert "canary" not in dead.stdout + dead.stderr


def test_dagster_shows_it_as_any_other(package: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(package))
    deployment = Deployment.from_environ({}, package)
    defs = build_definitions(deployment.catalog(), deployment=deployment)
    assert "acme_shelf" in (defs.resources or {})
    [spec] = defs.resolve_all_asset_specs()
    assert spec.key.path == ["files", "acme_contracts"]
    assert spec.kinds == {"acme", "supabase"}
    assert "All documents of shelf contracts" in str(spec.description)
    [schedule] = defs.get_repository_def().schedule_defs
    assert schedule.name == "acme_contracts_schedule"
