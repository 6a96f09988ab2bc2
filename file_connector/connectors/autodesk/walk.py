"""Lists folders, as many at once as the provider's slowness calls for, and hands out their pages.

Folders are taken from the end of a list the caller keeps adding to (depth first); pages are handed
out as they arrive, so that no answer waits for a slower one and a kill finds hardly any that is not
stored. While answers come promptly, one folder is listed after the other; each time an answer is
waited for, one more is begun. Only a few pages are in memory.
"""

from __future__ import annotations

import queue
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterator
from typing import Generic, TypeVar

from file_connector.errors import ForbiddenError, NotFoundError

N = TypeVar("N")
P = TypeVar("P")

PAGES_AHEAD = 2
"""Per worker: what may be fetched before the caller has taken it."""
PROMPT_SECONDS = 0.05
_LEAVE_SECONDS = 1.0


class _End:
    pass


class _Arrivals(Generic[N, P]):
    """Pages on their way from the workers to the caller, and how each folder's listing ended."""

    def __init__(self, room: int) -> None:
        self._room = room
        self._items: deque[tuple[N, P | _End | Exception]] = deque()
        self._changed = threading.Condition()
        self.closed = False

    def put(self, node: N, item: P | _End | Exception) -> bool:
        """Waits for room; False if nobody listens any more."""
        with self._changed:
            self._changed.wait_for(lambda: self.closed or len(self._items) < self._room)
            self._items.append((node, item))
            self._changed.notify_all()
            return not self.closed

    def get(self, patience_seconds: float | None) -> tuple[N, P | _End | Exception] | None:
        """What arrived first, or None if nothing comes in time."""
        with self._changed:
            if not self._changed.wait_for(lambda: bool(self._items), patience_seconds):
                return None
            arrived = self._items.popleft()
            self._changed.notify_all()
            return arrived

    def close(self) -> None:
        with self._changed:
            self.closed = True
            self._changed.notify_all()


def walk(
    todo: list[N],
    pages: Callable[[N], Iterator[P]],
    workers: int,
    prompt_seconds: float = PROMPT_SECONDS,
) -> Generator[tuple[N, P | ForbiddenError | NotFoundError], None, None]:
    """Every folder's pages, until ``todo`` stays empty.

    Args:
        todo: folders to list; the caller appends more while it iterates.
        pages: lists one folder; called in a worker thread.
        workers: how many folders are listed at once at most.
        prompt_seconds: an answer that takes longer is a reason to list more of them at once.

    Yields folder and page, or folder and the refusal that ended its listing; the pages of one
    folder in their order, between those of others. Any other error is raised when it arrives.
    """
    jobs: queue.SimpleQueue[tuple[N] | None] = queue.SimpleQueue()
    arrivals = _Arrivals[N, P](PAGES_AHEAD * workers + 1)
    threads: list[threading.Thread] = []
    begun = 0
    at_once = 1

    def work() -> None:
        while (job := jobs.get()) is not None:
            if arrivals.closed:
                return
            (node,) = job
            last: _End | Exception = _End()
            try:
                for page in pages(node):
                    if not arrivals.put(node, page):
                        return
            except Exception as error:  # noqa: BLE001 - raised in the caller's thread
                last = error
            if not arrivals.put(node, last):
                return

    def begin() -> None:
        nonlocal begun
        ahead = at_once if at_once > 1 else 0  # besides the one that is being stored
        while todo and begun < 1 + ahead:
            begun += 1
            jobs.put((todo.pop(),))
        while len(threads) < min(at_once, begun):
            thread = threading.Thread(target=work, name="autodesk-listing", daemon=True)
            threads.append(thread)
            thread.start()

    def take() -> tuple[N, P | _End | Exception]:
        nonlocal at_once
        while (arrived := arrivals.get(prompt_seconds if at_once < workers else None)) is None:
            at_once += 1
            begin()
        return arrived

    try:
        begin()
        while begun:
            node, page = take()
            if isinstance(page, _End | ForbiddenError | NotFoundError):
                begun -= 1
            elif isinstance(page, Exception):
                raise page
            begin()
            if not isinstance(page, _End):
                yield node, page
                begin()
    finally:
        arrivals.close()
        for _ in threads:
            jobs.put(None)
        for thread in threads:
            thread.join(_LEAVE_SECONDS)
