"""Lists folders, as many at once as the provider's slowness calls for, and hands out their pages.

Folders are taken from the end of a list the caller keeps adding to (depth first); pages are handed
out as they arrive, so that no answer waits for a slower one. A folder counts as under way until the
caller, having stored its last page, comes for more: only then another is begun in its place. So a
kill repeats at most those under way, and their answers, asked for one after the other, do not come
all at once. While answers come promptly, one is under way; else one more with each that is stored,
up to one for each worker and the one that is being stored. Only a few pages are in memory.
"""

from __future__ import annotations

import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterator
from typing import Generic, TypeVar

from file_connector.errors import ForbiddenError, NotFoundError

N = TypeVar("N")
P = TypeVar("P")

PAGES_AHEAD = 2
"""Per worker: what may be fetched before the caller has taken it."""
PROMPT_SECONDS = 0.025
"""Two of three answers that take longer are no hiccup: the provider is slow. Nor is one that takes
``PATIENCE`` times as long."""
PATIENCE = 10
_LEAVE_SECONDS = 1.0


class _End:
    pass


class _Arrivals(Generic[N, P]):
    """Pages on their way from the workers to the caller, how each folder's listing ended, and
    whether the latest answers took longer than ``prompt_seconds``."""

    def __init__(self, room: int, prompt_seconds: float) -> None:
        self._room = room
        self._prompt_seconds = prompt_seconds
        self._items: deque[tuple[N, P | _End | Exception]] = deque()
        self._changed = threading.Condition()
        self._late: deque[bool] = deque(maxlen=3)
        self.closed = False

    @property
    def slow(self) -> bool:
        return sum(self._late) > 1

    def put(self, node: N, item: P | _End | Exception, seconds: float) -> bool:
        """Waits for room; False if nobody listens any more. The end of a folder of which everything
        was taken comes before what arrived of others."""
        with self._changed:
            self._changed.wait_for(lambda: self.closed or len(self._items) < self._room)
            if isinstance(item, _End) and all(other is not node for other, _ in self._items):
                self._items.appendleft((node, item))
            else:
                self._items.append((node, item))
            if not isinstance(item, _End):
                self._late.append(seconds > self._prompt_seconds)
            self._changed.notify_all()
            return not self.closed

    def get(self) -> tuple[N, P | _End | Exception] | None:
        """What arrived first; None if nothing comes for so long that the provider must be slow."""
        with self._changed:
            patience = PATIENCE * self._prompt_seconds
            if not self._changed.wait_for(lambda: bool(self._items), patience):
                self._late.extend([True, True])
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
        prompt_seconds: answers that take longer are a reason to list several folders at once.

    Yields folder and page, or folder and the refusal that ended its listing; the pages of one
    folder in their order, between those of others. Any other error is raised when it arrives.
    """
    jobs: queue.SimpleQueue[tuple[N] | None] = queue.SimpleQueue()
    arrivals = _Arrivals[N, P](PAGES_AHEAD * workers + 1, prompt_seconds)
    threads: list[threading.Thread] = []
    under_way, at_once = 0, 1

    def work() -> None:
        while (job := jobs.get()) is not None:
            if arrivals.closed:
                return
            (node,) = job
            last: _End | Exception = _End()
            asked = time.monotonic()
            try:
                for page in pages(node):
                    if not arrivals.put(node, page, time.monotonic() - asked):
                        return
                    asked = time.monotonic()
            except Exception as error:  # noqa: BLE001 - raised in the caller's thread
                last = error
            if not arrivals.put(node, last, time.monotonic() - asked):
                return

    def adapt() -> None:
        nonlocal at_once
        at_once = min(at_once + 1, workers + 1) if arrivals.slow else 1

    def begin() -> None:
        nonlocal under_way
        while todo and under_way < at_once:
            under_way += 1
            jobs.put((todo.pop(),))
        while len(threads) < min(workers, under_way):
            thread = threading.Thread(target=work, name="autodesk-listing", daemon=True)
            threads.append(thread)
            thread.start()

    try:
        begin()
        while under_way:
            if (arrived := arrivals.get()) is not None:
                node, page = arrived
                if not isinstance(page, _End | Exception):
                    yield node, page
                    begin()
                    continue
                if isinstance(page, ForbiddenError | NotFoundError):
                    yield node, page
                elif isinstance(page, Exception):
                    raise page
                under_way -= 1
            adapt()
            begin()
    finally:
        arrivals.close()
        for _ in threads:
            jobs.put(None)
        for thread in threads:
            thread.join(_LEAVE_SECONDS)
