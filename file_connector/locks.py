"""Locks on files: the system drops them when their holder dies, however it dies."""

from __future__ import annotations

import sys


def lock(file: int, *, wait: bool) -> bool | None:
    """Lock an open file until it is closed. False if somebody else holds it (with ``wait``, that is
    waited for); None if there are no such locks here: on Windows, on some network disks."""
    if sys.platform == "win32":
        return None
    import fcntl

    try:
        fcntl.flock(file, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return None
    return True
