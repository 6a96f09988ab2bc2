"""A process that has imported everything already and forks one child per order, because a fresh
Python needs seconds for that.

Orders come as JSON lines: what to run (``dagster_run`` or ``command_line`` of ``child``), its
arguments, folder, environment, log file, and where to die. Answers: ``{"order", "pid"}`` when the
child begins, ``{"pid", "status"}`` when it has ended (as of ``waitpid``).
"""

from __future__ import annotations

import importlib
import json
import os
import selectors
import signal
import sys
import traceback
from contextlib import suppress
from pathlib import Path
from typing import Any, NoReturn

from file_connector_tests.crashes import child

PRELOADED = (
    "dagster._cli.api",
    "google.oauth2.service_account",
    "google_auth_httplib2",
    "googleapiclient.discovery",
    "requests",
    "file_connector.cli",
    "file_connector.connectors.autodesk.connector",
    "file_connector.connectors.google_drive.connector",
    "file_connector.destination.postgres",
    "file_connector.destination.sqlite",
)


def preload() -> None:
    for name in PRELOADED:
        importlib.import_module(name)
    from dagster import DagsterInstance
    from dagster._core.instance.ref import InstanceRef

    from file_connector_tests.crashes import location

    location.defs.get_repository_def()
    with DagsterInstance.from_ref(InstanceRef.from_dir(str(Path.cwd()))):
        pass


def become(order: dict[str, Any]) -> NoReturn:
    """The child's whole life."""
    code = 70
    try:
        os.setpgid(0, 0)
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        os.chdir(order["folder"])
        os.environ.clear()
        os.environ.update(order["environ"])
        nothing = os.open(os.devnull, os.O_RDONLY)
        log = os.open(order["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        for source, target in ((nothing, 0), (log, 1), (log, 2)):
            os.dup2(source, target)
        if order["death"]:
            child.arm(child.Death(**json.loads(order["death"])))
        getattr(child, order["program"])(order["args"])
        code = 0
    except SystemExit as error:
        code = error.code if isinstance(error.code, int) else 1
    except BaseException:  # noqa: BLE001 - the child must never go on as a second zygote
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def serve() -> None:
    wakeup, awake = os.pipe()
    os.set_blocking(awake, False)
    signal.set_wakeup_fd(awake, warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    selector = selectors.DefaultSelector()
    selector.register(0, selectors.EVENT_READ)
    selector.register(wakeup, selectors.EVENT_READ)
    pending = b""

    def answer(**message: Any) -> None:
        answers.write(json.dumps(message) + "\n")
        answers.flush()

    answer(ready=True)
    while True:
        for key, _ in selector.select():
            if key.fd == wakeup:
                os.read(wakeup, 1000)
                while dead := _dead():
                    answer(pid=dead[0], status=dead[1])
                continue
            chunk = os.read(0, 1 << 16)
            if not chunk:
                return
            *lines, pending = (pending + chunk).split(b"\n")
            for line in lines:
                order = json.loads(line)
                pid = os.fork()
                if pid == 0:
                    become(order)
                with suppress(ProcessLookupError, PermissionError):
                    os.setpgid(pid, pid)  # a group of its own before anybody may signal it
                answer(order=order["order"], pid=pid)


def _dead() -> tuple[int, int] | None:
    try:
        pid, status = os.waitpid(-1, os.WNOHANG)
    except ChildProcessError:
        return None
    return (pid, status) if pid else None


if __name__ == "__main__":
    preload()
    serve()
