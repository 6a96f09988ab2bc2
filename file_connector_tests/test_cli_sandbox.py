"""The command line as a program of its own: true processes, true HTTP, the shipped sandbox."""

from __future__ import annotations

import json
import os
import signal
import socket
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from file_connector.sandbox.living import ACC_PROJECT, DRIVE_FOLDER

ENDPOINTS = f"""\
endpoints:
  - name: Documents
    endpoint_type: google_drive
    project_id: tower-42
    user_id: ana
    endpoint_details: {{folder_id: {DRIVE_FOLDER}}}
    credentials: sandbox
  - name: Models
    endpoint_type: autodesk_construction_cloud
    project_id: tower-43
    user_id: bob
    endpoint_details: {{project_id: {ACC_PROJECT}}}
    credentials: sandbox
"""

OLD_PYTHON = "ignore:You are using a non-supported Python version:FutureWarning"
"""Google's libraries say so on Python 3.10."""


class Terminal:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.joinpath("endpoints.yaml").write_text(ENDPOINTS)
        kept = ("PATH", "HOME", "LANG", "PYTHONPATH", "VIRTUAL_ENV", "SYSTEMROOT")
        self.environ = {k: v for k, v in os.environ.items() if k in kept}
        self.environ["PYTHONPATH"] = str(Path(__file__).resolve().parent.parent)

    def start(self, *args: str, **more: Any) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-W", "error", "-W", OLD_PYTHON, "-m", "file_connector", *args],
            cwd=self.folder,
            env=self.environ,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            **more,
        )

    def run(self, *args: str) -> tuple[int, str, str]:
        process = self.start(*args)
        stdout, stderr = process.communicate(timeout=120)
        return process.returncode, stdout, stderr


@pytest.fixture
def terminal(tmp_path: Path) -> Terminal:
    return Terminal(tmp_path)


def test_from_yaml_to_rows(terminal: Terminal) -> None:
    code, stdout, stderr = terminal.run("validate")
    assert (code, stderr) == (0, "")
    code, stdout, stderr = terminal.run("check")
    assert code == 0, stdout + stderr
    code, stdout, stderr = terminal.run("preview", "documents", "-n", "2", "--json")
    assert code == 0, stderr
    assert len(json.loads(stdout)) == 2
    for endpoint_id in ("documents", "models"):
        code, stdout, stderr = terminal.run("sync", endpoint_id, "--json")
        assert code == 0, stderr
        assert json.loads(stdout)["counts"]["inserted"] > 5
    code, stdout, stderr = terminal.run("list")
    assert code == 0
    assert stdout.count(" ok ") == 2
    with sqlite3.connect(terminal.folder / ".file_connector" / "supabase.db") as database:
        rows = database.execute(
            "select distinct endpoint_id, source, project_id, user_id from files order by 1"
        ).fetchall()
        external_id = database.execute(
            "select external_id from files where endpoint_id = 'documents' and gone_at is null"
        ).fetchone()[0]
    database.close()
    assert rows == [
        ("documents", "google_drive", "tower-42", "ana"),
        ("models", "autodesk_construction_cloud", "tower-43", "bob"),
    ]
    code, stdout, stderr = terminal.run("explain", "documents", external_id)
    assert code == 0, stderr
    assert "is live" in stdout
    assert "The provider shows it now" in stdout


def test_a_wrong_folder_a_dead_host_and_a_missing_secret_are_one_sentence_each(
    terminal: Terminal,
) -> None:
    file = terminal.folder / "endpoints.yaml"
    text = ENDPOINTS.replace(DRIVE_FOLDER, "no-such-folder")
    more = """\
  - name: Elsewhere
    endpoint_type: autodesk_construction_cloud
    project_id: p
    user_id: u
    endpoint_details: {project_id: b.1}
    credentials: acme
  - name: Secretless
    endpoint_type: google_drive
    project_id: p
    user_id: u
    endpoint_details: {folder_id: x}
    credentials: zeta
"""
    file.write_text(text + more)
    terminal.environ["APS_CREDENTIALS__ACME"] = (
        '{"client_id": "app", "client_secret": "CANARY-secret"}'
    )
    terminal.environ["APS_BASE_URL"] = "http://127.0.0.1:9"
    code, stdout, stderr = terminal.run("check")
    told = stdout + stderr
    assert code == 1
    for endpoint_id, words in {
        "documents": "no-such-folder",
        "elsewhere": "127.0.0.1",
        "secretless": "GOOGLE_CREDENTIALS__ZETA",
    }.items():
        (line,) = [row for row in stdout.splitlines() if f"FAILED {endpoint_id} " in row]
        assert words in line
    assert "ok     models" in stdout, "the sandbox is not affected by APS_BASE_URL"
    for endpoint_id in ("documents", "secretless"):
        code, stdout, stderr = terminal.run("sync", endpoint_id)
        told += stdout + stderr
        assert code == 1
        assert stderr.count("\n") == 1
        assert stderr.startswith(f"Error: endpoint '{endpoint_id}': ")
    assert "Traceback" not in told
    assert "CANARY" not in told
    assert terminal.run("sync", "models")[0] == 0


def test_terminating_a_sync_gives_the_endpoint_free_at_once(terminal: Terminal) -> None:
    with socket.create_server(("127.0.0.1", 0)) as mute:
        file = terminal.folder / "endpoints.yaml"
        file.write_text(ENDPOINTS.replace("sandbox", "mute"))
        terminal.environ["APS_CREDENTIALS__MUTE"] = '{"client_id": "a", "client_secret": "b"}'
        terminal.environ["APS_BASE_URL"] = f"http://127.0.0.1:{mute.getsockname()[1]}"
        mute.settimeout(60)
        with terminal.start("sync", "models") as process:
            asking, _ = mute.accept()
            with asking:
                assert process.stderr is not None
                assert process.stderr.readline().startswith("... 0 API calls, 0 inserted")
                process.send_signal(signal.SIGTERM)
                try:
                    _, stderr = process.communicate(timeout=30)
                finally:
                    process.kill()
    assert process.returncode == 143
    assert "Traceback" not in stderr
    file.write_text(ENDPOINTS)
    assert terminal.run("sync", "models")[0] == 0


def test_a_dotenv_file_counts_as_it_does_for_dagster(terminal: Terminal) -> None:
    (terminal.folder / ".env").write_text("FILE_CONNECTOR_ENDPOINTS=other.yaml\n")
    code, stdout, _ = terminal.run("validate")
    assert code == 1
    assert "other.yaml: the file does not exist" in stdout


def test_letters_a_terminal_cannot_show_do_not_break_it(terminal: Terminal) -> None:
    terminal.environ["PYTHONIOENCODING"] = "iso8859-7"
    with (terminal.folder / "endpoints.yaml").open("a", encoding="utf-8") as file:
        file.write("    façade: 1\n")
    code, stdout, stderr = terminal.run("validate")
    assert code == 1
    assert "unknown key `fa\\xe7ade`" in stdout
    assert "Traceback" not in stderr


def test_a_reader_that_goes_away_is_no_mistake(terminal: Terminal) -> None:
    with terminal.start("list") as process:
        assert process.stdout is not None
        process.stdout.close()
        assert process.stderr is not None
        assert process.stderr.read() == ""
