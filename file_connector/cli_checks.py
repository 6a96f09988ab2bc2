"""The work of ``file-connector check``: many checks at once, each with its own deadline."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass

from file_connector.deployment import Deployment
from file_connector.destination.base import Store
from file_connector.endpoints.schema import Endpoint
from file_connector.errors import FileConnectorError, redact

DEADLINE_SECONDS = 9.5
AT_ONCE = 16


@dataclass(frozen=True, slots=True)
class Checked:
    """How one check went. ``sentences``: what was found, or why it failed and what to do."""

    name: str
    ok: bool
    sentences: Sequence[str]
    seconds: float


def check_all(
    deployment: Deployment,
    endpoints: Sequence[Endpoint],
    show: Callable[[Checked], None],
    *,
    deadline_seconds: float = DEADLINE_SECONDS,
) -> None:
    """Check the database, then the endpoints side by side; ``show`` gets each result as it comes.
    What does not answer within its deadline has failed and is left behind."""

    def database() -> Sequence[str]:
        with deployment.open_store() as store:
            store.check()
        return [f"{deployment.destination} answers."]

    held: list[bool] = []

    def first(result: Checked) -> None:
        held.append(result.ok)
        show(result)

    _side_by_side([("database", database)], first, deadline_seconds)
    if not all(held):
        for endpoint in endpoints:
            show(Checked(endpoint.id, False, ["not checked: the database is needed first."], 0.0))
        return
    with deployment.open_store() as store:
        jobs = [(e.id, _endpoint_check(deployment, e, store, deadline_seconds)) for e in endpoints]
        _side_by_side(jobs, show, deadline_seconds)


def _endpoint_check(
    deployment: Deployment, endpoint: Endpoint, store: Store, deadline_seconds: float
) -> Callable[[], Sequence[str]]:
    def work() -> Sequence[str]:
        connector = deployment.open_connector(
            endpoint,
            store,
            timeout_seconds=deadline_seconds - 1.5,
            retry_budget_seconds=2.0,
            call_budget_seconds=deadline_seconds - 1.5,
        )
        with closing(connector):
            return connector.check() or ["credentials and access are fine."]

    return work


def _side_by_side(
    jobs: Sequence[tuple[str, Callable[[], Sequence[str]]]],
    show: Callable[[Checked], None],
    deadline_seconds: float,
) -> None:
    """Daemon threads: one that hangs in a system call must not keep the process from ending."""
    answers: queue.Queue[tuple[str, bool, Sequence[str]]] = queue.Queue()
    waiting = list(reversed(jobs))
    running: dict[str, float] = {}

    def run(name: str, work: Callable[[], Sequence[str]]) -> None:
        try:
            answers.put((name, True, [redact(s) for s in work()]))
        except FileConnectorError as error:
            error.endpoint = None  # the line begins with it
            answers.put((name, False, [str(error)]))
        except Exception as error:  # noqa: BLE001 - a check reports whatever goes wrong
            why = f"unexpected {type(error).__name__}: {redact(error)}"
            answers.put((name, False, [f"{why}. Please report it."]))

    while waiting or running:
        while waiting and len(running) < AT_ONCE:
            name, work = waiting.pop()
            running[name] = time.monotonic()
            threading.Thread(target=run, args=(name, work), daemon=True).start()
        oldest = min(running.values())
        try:
            patience = max(oldest + deadline_seconds - time.monotonic(), 0.0)
            name, ok, sentences = answers.get(timeout=patience)
        except queue.Empty:
            late = [n for n, s in running.items() if time.monotonic() - s >= deadline_seconds]
            for name in late:
                seconds = time.monotonic() - running.pop(name)
                sentence = f"no answer within {deadline_seconds:.0f} s. Check host and network."
                show(Checked(name, False, [sentence], seconds))
            continue
        if name in running:
            show(Checked(name, ok, sentences, time.monotonic() - running.pop(name)))
