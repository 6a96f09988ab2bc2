"""A question that must be answered in time."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future, wait
from typing import TypeVar

T = TypeVar("T")


def within(
    seconds: float,
    question: Callable[[], T],
    too_late: Exception,
    afterwards: Callable[[], object] = lambda: None,
) -> T:
    """What ``question`` answers or raises. ``too_late`` is raised if that takes longer: then the
    question's thread is left behind, for who accepts and says nothing cannot be hurried, and
    ``afterwards`` is called when the answer comes in the end."""
    answer: Future[T] = Future()

    def ask() -> None:
        try:
            answer.set_result(question())
        except BaseException as error:  # noqa: BLE001 - carried over to the thread that asked
            answer.set_exception(error)

    threading.Thread(target=ask, name="question", daemon=True).start()
    if not wait([answer], seconds).done:
        answer.add_done_callback(lambda _: afterwards())
        raise too_late
    return answer.result()
