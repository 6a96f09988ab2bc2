"""Lists folders in parallel, hands out their pages in order.

Folders are taken from the end of a list the caller keeps adding to (depth first), a few ahead of
the one being handed out; each holds only a few pages in memory. The order depends on the folders
alone, never on which answer came first.
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
"""Per folder: what a worker may fetch before the caller has taken it."""
_LEAVE_SECONDS = 1.0


class _End:
    pass


class _Channel(Generic[P]):
    """Pages of one folder on their way from a worker to the caller."""

    def __init__(self) -> None:
        self._items: deque[P | _End | Exception] = deque()
        self._changed = threading.Condition()
        self._closed = False

    def put(self, item: P | _End | Exception) -> bool:
        """Waits for room; False if nobody listens any more."""
        with self._changed:
            self._changed.wait_for(lambda: self._closed or len(self._items) < PAGES_AHEAD)
            self._items.append(item)
            self._changed.notify_all()
            return not self._closed

    def get(self) -> P | _End | Exception:
        with self._changed:
            self._changed.wait_for(lambda: bool(self._items))
            item = self._items.popleft()
            self._changed.notify_all()
            return item

    def close(self) -> None:
        with self._changed:
            self._closed = True
            self._changed.notify_all()


def walk(
    todo: list[N], pages: Callable[[N], Iterator[P]], workers: int
) -> Generator[tuple[N, P | ForbiddenError | NotFoundError], None, None]:
    """Every folder's pages, until ``todo`` stays empty.

    Args:
        todo: folders to list; the caller appends more while it iterates.
        pages: lists one folder; called in a worker thread.
        workers: how many folders are listed at once, and how many are begun ahead of the caller.

    Yields folder and page, or folder and the refusal that ended its listing. Other errors are
    raised where they occurred in the order.
    """
    jobs: queue.SimpleQueue[tuple[N, _Channel[P]] | None] = queue.SimpleQueue()
    begun: deque[tuple[N, _Channel[P]]] = deque()
    threads: list[threading.Thread] = []
    left = threading.Event()

    def work() -> None:
        while (job := jobs.get()) is not None:
            node, channel = job
            if left.is_set():
                return
            try:
                for page in pages(node):
                    if not channel.put(page):
                        return
                channel.put(_End())
            except Exception as error:  # noqa: BLE001 - raised in the caller's thread, in order
                channel.put(error)

    def begin() -> None:
        while todo and len(begun) < workers:
            job = todo.pop(), _Channel[P]()
            begun.append(job)
            jobs.put(job)
            if len(threads) < min(workers, len(begun)):
                thread = threading.Thread(target=work, name="autodesk-listing", daemon=True)
                threads.append(thread)
                thread.start()

    current: _Channel[P] | None = None
    try:
        begin()
        while begun:
            node, current = begun.popleft()
            while not isinstance(page := current.get(), _End):
                begin()
                if isinstance(page, ForbiddenError | NotFoundError):
                    yield node, page
                    break
                if isinstance(page, Exception):
                    raise page
                yield node, page
            begin()
    finally:
        left.set()
        for channel in (current, *(channel for _, channel in begun)):
            if channel is not None:
                channel.close()
        for _ in threads:
            jobs.put(None)
        for thread in threads:
            thread.join(_LEAVE_SECONDS)
