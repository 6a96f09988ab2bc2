"""Which runs on this machine are alive, told by file locks that the system drops when a process
dies. Only a shortcut past a dead run's lease: what they cannot tell, the lease decides. They are as
good as those SQLite itself needs on the same disk."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from file_connector.locks import lock

_kept: dict[str, int] = {}
"""The locked file of each run of this process; a descriptor that is never closed by accident."""


@dataclass(slots=True)
class Claim:
    """An endpoint's lock file, locked by us, or not (``file`` is None).

    Attributes:
        dead: the run that held it last, if that did not end in order.
        alive: a living process holds it.
    """

    file: int | None
    dead: str = ""
    alive: bool = False

    def keep(self, run_id: str) -> None:
        """The run has begun: hold the lock until ``release`` or the end of the process."""
        if self.file is not None:
            os.ftruncate(self.file, 0)
            os.pwrite(self.file, run_id.encode(), 0)
            _kept[run_id], self.file = self.file, None


@contextmanager
def claim(path: Path) -> Iterator[Claim]:
    """Try to lock an endpoint's file; it is let go at the end unless it was kept."""
    claimed = _claim(path)
    try:
        yield claimed
    finally:
        if claimed.file is not None:
            os.close(claimed.file)


def release(run_id: str) -> None:
    """The run has ended in order."""
    file = _kept.pop(run_id, None)
    if file is not None:
        os.ftruncate(file, 0)
        os.close(file)


def _claim(path: Path) -> Claim:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    except OSError:
        return Claim(None)
    locked = lock(file, wait=False)
    if locked:
        return Claim(file, os.pread(file, 200, 0).decode(errors="replace"))
    os.close(file)
    return Claim(None, alive=locked is False)
