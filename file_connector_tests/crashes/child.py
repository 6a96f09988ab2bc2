"""What one process under test does: die where it is told to, and otherwise be the real program."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

CLOCK_VARIABLE = "CRASHES_CLOCK"


@dataclass(frozen=True)
class Death:
    """Before or after the ``nth`` call of a method of the store, or of Dagster's writing of an
    event of this type (``event:STEP_START``)."""

    at: str
    nth: int = 1
    before: bool = True

    def __str__(self) -> str:
        return f"{'before' if self.before else 'after'}_{self.at.replace(':', '_')}_{self.nth}"

    def to_json(self) -> str:
        return json.dumps(asdict(self))


def die() -> None:
    """This process and its helpers, at once."""
    os.killpg(os.getpgid(0), signal.SIGKILL)


def arm(death: Death) -> None:
    """From now on this process is mortal."""
    left = death.nth

    def mortal(call: Callable[..., Any], concerned: Callable[..., bool]) -> Callable[..., Any]:
        def wrapper(*args: Any, **kwargs: Any) -> Any:
            nonlocal left
            mine = concerned(*args)
            left -= mine
            if mine and left == 0 and death.before:
                die()
            result = call(*args, **kwargs)
            if mine and left == 0:
                die()
            return result

        return wrapper

    kind, _, event_type = death.at.partition(":")
    if kind == "event":
        from dagster import DagsterInstance

        def of_type(_: Any, event: Any, *__: Any) -> bool:
            return bool(event.is_dagster_event and event.dagster_event_type.value == event_type)

        DagsterInstance.handle_new_event = mortal(  # type: ignore[method-assign]
            DagsterInstance.handle_new_event, of_type
        )
        return
    from file_connector.destination.sql_store import SqlStore

    setattr(SqlStore, kind, mortal(getattr(SqlStore, kind), lambda *_: True))


def command_line(args: Sequence[str]) -> None:
    """The real command line; ends the process."""
    from file_connector.cli import main

    main(list(args), prog_name="file-connector")


def command_line_with_lease(args: Sequence[str]) -> None:
    """The same with leases of ``args[0]`` seconds."""
    from file_connector.destination.sql_store import SqlStore

    defaults = SqlStore.__init__.__kwdefaults__
    assert defaults is not None
    defaults["lease_seconds"] = float(args[0])
    command_line(args[1:])


def dagster_run(args: Sequence[str]) -> None:
    """What ``dagster api execute_run`` does, which is what the default run launcher starts."""
    from dagster._cli.api import execute_run_command

    execute_run_command.main(list(args), standalone_mode=False)
