"""Changes of rows that are there: each row gets a ``change_seq`` of its own.

All functions work inside a transaction of the caller that holds the endpoint's state row.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from operator import itemgetter
from types import MappingProxyType
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Connection,
    Select,
    bindparam,
    cast,
    func,
    select,
    update,
)
from sqlalchemy.dialects.postgresql import JSON

from file_connector.destination.tables import change_counter, files

NOTHING: Mapping[str, Any] = MappingProxyType({})


def live(endpoint_id: str, which: ColumnElement[bool]) -> Select[Any]:
    """Ids of an endpoint's live rows that meet ``which``."""
    return select(files.c.external_id).where(
        files.c.endpoint_id == endpoint_id, which, files.c.gone_at.is_(None)
    )


def change_rows(
    conn: Connection,
    endpoint_id: str,
    which: Select[Any],
    columns: Mapping[str, Any],
    now: datetime,
    asked: Mapping[str, Any] = NOTHING,
    most: int | None = None,
) -> Sequence[str] | None:
    """Set ``columns`` on the rows of ``which``, and what it tells of each beside its
    ``external_id``; each gets its own ``change_seq``, in the order of ids. Their ids; None if they
    are more than ``most``. Then, and if there is none, touches nothing, the counter included.

    Args:
        asked: the values ``which`` asks for.
    """
    if most is not None:
        which = which.limit(most + 1)
    found = conn.execute(which, asked).mappings().all()
    if most is not None and len(found) > most:
        return None
    if not found:
        return ()
    rows = sorted((dict(row) for row in found), key=itemgetter("external_id"))
    first = reserve(conn, len(rows))
    own = [name for name in rows[0] if name != "external_id"]
    change = update(files).where(files.c.endpoint_id == endpoint_id)
    change = change.values(**columns, changed_at=now)
    if conn.dialect.name == "sqlite":
        conn.execute(
            change.where(files.c.external_id == bindparam("id")).values(
                {name: bindparam(f"new_{name}") for name in (*own, "change_seq")}
            ),
            [
                {"id": row["external_id"], "new_change_seq": first + n}
                | {f"new_{name}": row[name] for name in own}
                for n, row in enumerate(rows)
            ],
        )
    else:
        # In one round trip, and each row by its key, whatever the planner believes of the table.
        told = func.json_array_elements(cast(rows, JSON))
        new = told.table_valued("value", with_ordinality="n", name="new").render_derived()
        value = new.c.value.op("->>")
        conn.execute(
            change.where(files.c.external_id == value("external_id")).values(
                {name: value(name) for name in own} | {"change_seq": first - 1 + new.c.n}
            )
        )
    return [row["external_id"] for row in rows]


def reserve(conn: Connection, count: int) -> int:
    """The first of ``count`` new values of ``change_seq``. Locks the counter until the transaction
    ends, so that no later number can be seen before an earlier one."""
    last: int = conn.execute(_RESERVE, {"count": count}).scalar_one()
    return last - count + 1


_RESERVE = (
    update(change_counter)
    .values(value=change_counter.c.value + bindparam("count"))
    .returning(change_counter.c.value)
)
