"""Lists folders, as many at once as the provider's slowness calls for, and hands out their pages.

Folders are taken from the end of a list the caller keeps adding to (depth first) and handed out in
the order they were begun. While answers come promptly, one is listed after the other, so that a
kill costs at most the one at hand; each time an answer is waited for, one more is begun ahead of
it. Every folder holds only a few pages in memory.
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
PROMPT_SECONDS = 0.05
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

    def get(self, patience_seconds: float | None) -> P | _End | Exception | None:
        """The next page, what ended the listing, or None if neither comes in time."""
        with self._changed:
            if not self._changed.wait_for(lambda: bool(self._items), patience_seconds):
                return None
            item = self._items.popleft()
            self._changed.notify_all()
            return item

    def close(self) -> None:
        with self._changed:
            self._closed = True
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

    Yields folder and page, or folder and the refusal that ended its listing. Other errors are
    raised where they occurred in the order.
    """
    jobs: queue.SimpleQueue[tuple[N, _Channel[P]] | None] = queue.SimpleQueue()
    begun: deque[tuple[N, _Channel[P]]] = deque()
    threads: list[threading.Thread] = []
    left = threading.Event()
    at_once = 1

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
        ahead = at_once if at_once > 1 else 0  # besides the one at hand
        while todo and len(begun) < 1 + ahead:
            job = todo.pop(), _Channel[P]()
            begun.append(job)
            jobs.put(job)
        while len(threads) < min(at_once, len(begun)):
            thread = threading.Thread(target=work, name="autodesk-listing", daemon=True)
            threads.append(thread)
            thread.start()

    def take(channel: _Channel[P]) -> P | _End | Exception:
        nonlocal at_once
        while (page := channel.get(prompt_seconds if at_once < workers else None)) is None:
            at_once += 1
            begin()
        return page

    try:
        begin()
        while begun:
            node, current = begun[0]
            while not isinstance(page := take(current), _End):
                begin()
                if isinstance(page, ForbiddenError | NotFoundError):
                    yield node, page
                    break
                if isinstance(page, Exception):
                    raise page
                yield node, page
            begun.popleft()
            begin()
    finally:
        left.set()
        for _, channel in begun:
            channel.close()
        for _ in threads:
            jobs.put(None)
        for thread in threads:
            thread.join(_LEAVE_SECONDS)
