"""``python3 -m file_connector`` before anything is installed: what it says and what it leaves."""

from __future__ import annotations

import ast
import socket
import subprocess
import sys
from pathlib import Path

import pytest

import file_connector

PACKAGE = Path(file_connector.__file__).parent


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A bare checkout: the bootstrap and the files it looks at."""
    package = tmp_path / "file_connector"
    package.mkdir()
    for name in ("__init__.py", "__main__.py"):
        (package / name).write_text((PACKAGE / name).read_text())
    (tmp_path / "pyproject.toml").write_text("")
    (tmp_path / "constraints.txt").write_text("")
    return tmp_path


def run(
    checkout: Path, *args: str, prelude: str = "", path: str = "/usr/bin:/bin"
) -> subprocess.CompletedProcess[str]:
    """The bootstrap in an interpreter without our site-packages."""
    code = f"import runpy, sys\n{prelude}\nsys.argv = ['x', *{args!r}]\n"
    code += "runpy.run_module('file_connector', run_name='__main__')"
    return subprocess.run(
        [sys.executable, "-S", "-c", code],
        cwd=checkout,
        env={"PATH": path},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def installed(checkout: Path, python: str) -> None:
    """Pretend that ``.venv`` is there and filled; ``python`` is a script in its place."""
    from file_connector.__main__ import fingerprint

    folder = checkout / ".venv" / "bin"
    folder.mkdir(parents=True)
    (checkout / ".venv" / "postgrest" / "node_modules").mkdir(parents=True)
    (folder / "python").write_text(f"#!/bin/sh\n{python}\n")
    (folder / "python").chmod(0o755)
    (checkout / ".venv" / ".file-connector-installed").write_text(fingerprint(checkout))


def test_it_needs_only_the_standard_library() -> None:
    tree = ast.parse((PACKAGE / "__main__.py").read_text())
    imported = {
        (node.module or "") if isinstance(node, ast.ImportFrom) else node.names[0].name
        for node in ast.walk(tree)
        if isinstance(node, ast.Import | ast.ImportFrom)
    }
    outside = {m for m in imported if m.split(".")[0] not in sys.stdlib_module_names}
    assert outside == {"file_connector.cli"}


def test_without_the_dependencies_other_commands_say_how_to_get_them(checkout: Path) -> None:
    (checkout / "file_connector" / "cli.py").write_text("import click\n")
    done = run(checkout, "validate")
    assert done.returncode == 1
    assert "'click' is not installed" in done.stderr
    assert "python3 -m file_connector dev" in done.stderr


def test_debian_without_python3_venv_is_told_what_to_install(checkout: Path) -> None:
    hide = """
import importlib.util
found = importlib.util.find_spec
importlib.util.find_spec = lambda name, *a: None if name == "ensurepip" else found(name, *a)
"""
    done = run(checkout, "test", prelude=hide)
    assert done.returncode == 1
    assert "apt install python3-venv" in done.stderr
    assert not (checkout / ".venv").exists()


def test_outside_a_checkout_it_says_so(checkout: Path) -> None:
    (checkout / "pyproject.toml").unlink()
    done = run(checkout, "dev")
    assert done.returncode == 1
    assert "clone the repository" in done.stderr


def test_an_old_python_is_refused(checkout: Path) -> None:
    done = run(checkout, "dev", prelude="sys.version_info = (3, 9, 2)")
    assert done.returncode == 1
    assert "Python 3.10 or newer" in done.stderr


def test_a_taken_port_is_named(checkout: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = run(checkout, "dev", "--port", str(port))
    assert done.returncode == 1
    assert f"Port {port}" in done.stderr


def test_dev_hands_over_to_dagster_with_a_lasting_home(checkout: Path) -> None:
    installed(checkout, 'echo "$PWD: $@"')
    (checkout / ".env").write_text("SUPABASE_DB_URL=postgresql://somewhere\n")
    for _ in range(2):
        done = run(checkout, "dev", "--port", "0")
        assert done.returncode == 0, done.stderr
        assert f"{checkout}: " in done.stdout
        assert "-m dagster dev --host 127.0.0.1 --port 0" in done.stdout
    assert (checkout / ".env").read_text().splitlines() == [
        "SUPABASE_DB_URL=postgresql://somewhere",
        f"DAGSTER_HOME={checkout}",
        "DAGSTER_DISABLE_TELEMETRY=yes",
    ]


def test_a_checkout_that_moved_gets_its_new_home(checkout: Path) -> None:
    installed(checkout, "true")
    (checkout / ".env").write_text("DAGSTER_HOME=/long/gone\nDAGSTER_DISABLE_TELEMETRY=yes\n")
    assert run(checkout, "dev", "--port", "0").returncode == 0
    assert (checkout / ".env").read_text().startswith(f"DAGSTER_HOME={checkout}\n")


def test_a_home_the_operator_chose_stays(checkout: Path) -> None:
    installed(checkout, "true")
    chosen = f"export DAGSTER_HOME={checkout.parent}\nDAGSTER_DISABLE_TELEMETRY=yes\n"
    (checkout / ".env").write_text(chosen)
    assert run(checkout, "dev", "--port", "0").returncode == 0
    assert (checkout / ".env").read_text() == chosen


def test_test_runs_every_check_and_tells_which_failed(checkout: Path) -> None:
    installed(checkout, 'echo "ran $*"; [ "$2" != mypy ]')
    done = run(checkout, "test", "-k", "s02")
    assert done.returncode == 1
    ran = [line.split("-m ")[1] for line in done.stdout.splitlines() if line.startswith("ran ")]
    assert [words.split()[0] for words in ran] == ["ruff", "ruff", "mypy", "dagster", "pytest"]
    assert "Failed: mypy" in done.stdout
    installed_ok = 'echo "$@"'
    (checkout / ".venv" / "bin" / "python").write_text(f"#!/bin/sh\n{installed_ok}\n")
    done = run(checkout, "test", "-k", "s02")
    assert done.returncode == 0
    assert "-m pytest -q -n 2 --dist worksteal -k s02" in done.stdout
    assert "All checks passed." in done.stdout


@pytest.mark.parametrize("works", [True, False])
def test_test_gets_postgrest_where_npm_is(checkout: Path, works: bool) -> None:
    installed(checkout, 'echo "$@"')
    (checkout / ".venv" / "postgrest" / "node_modules").rmdir()
    npm = checkout / "bin" / "npm"
    npm.parent.mkdir()
    npm.write_text(f'#!/bin/sh\necho "$@" > asked; exit {0 if works else 1}\n')
    npm.chmod(0o755)
    done = run(checkout, "test", path=f"{npm.parent}:/usr/bin:/bin")
    assert done.returncode == 0
    assert f"--prefix {checkout / '.venv' / 'postgrest'} " in (checkout / "asked").read_text()
    assert ("will be reported as not run" in done.stdout) is not works


def test_help_names_the_command_as_people_type_it(capsys: pytest.CaptureFixture[str]) -> None:
    from file_connector.__main__ import main

    with pytest.raises(SystemExit):
        main(["sync"])
    assert capsys.readouterr().err.startswith("Usage: file-connector sync ")
