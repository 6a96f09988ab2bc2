"""Random commits against a model that fits on a page: same rows, counts and order of changes."""

from __future__ import annotations

import random
from typing import Any

from file_connector.destination.sql_store import SqlStore
from file_connector.models import FileRecord, Folder, FolderGone, Gone, GoneReason
from file_connector_tests.builders import a_file, an_identity
from file_connector_tests.destination.conftest import Place
from file_connector_tests.destination.helpers import Writer

HISTORIES, COMMITS = 4, 14


class Model:
    def __init__(self) -> None:
        self.rows: dict[str, dict[str, Any]] = {}
        self.folders: dict[str, Folder] = {}

    def prefix(self, folder_id: str | None) -> str:
        names: list[str] = []
        passed: set[str] = set()
        while folder_id in self.folders and folder_id not in passed:
            folder = self.folders[folder_id]
            passed.add(folder_id)
            if folder.parent_id is not None:
                names.insert(0, f"{folder.name}/")
            folder_id = folder.parent_id
        return "".join(names)

    def below(self, folder_id: str) -> set[str]:
        found = {folder_id}
        while more := {f.folder_id for f in self.folders.values() if f.parent_id in found} - found:
            found |= more
        return found

    def apply(
        self,
        records: list[FileRecord],
        folders: list[Folder],
        folders_gone: list[FolderGone],
        gone: list[Gone],
    ) -> tuple[int, set[str], int, int, set[str]]:
        inserted, unchanged, tombstoned = 0, 0, 0
        updated: set[str] = set()
        changed: set[str] = set()
        told = {f.folder_id: f for f in folders}
        moved = {
            key
            for key, f in told.items()
            if key not in self.folders
            or (self.folders[key].name, self.folders[key].parent_id) != (f.name, f.parent_id)
        }
        self.folders.update(told)
        for key, row in self.rows.items():
            path = self.prefix(row["parent_id"]) + row["title"]
            inside = any(row["parent_id"] in self.below(folder) for folder in moved)
            if row["gone"] is None and inside and row["path"] != path:
                row["path"] = path
                updated.add(key)
        for record in records:
            row = {
                "title": record.title,
                "parent_id": record.parent_id,
                "version": record.version,
                "path": self.prefix(record.parent_id) + record.title,
                "gone": None,
            }
            held = self.rows.get(record.external_id)
            if held is None:
                inserted += 1
                changed.add(record.external_id)
                self.rows[record.external_id] = row
            elif row["version"] < held["version"] or row == held:
                unchanged += record.external_id not in updated
            else:
                updated.add(record.external_id)
                self.rows[record.external_id] = row
        changed |= updated
        for leaving in folders_gone:
            inside_of = self.below(leaving.folder_id)
            for key, row in self.rows.items():
                if row["gone"] is None and row["parent_id"] in inside_of:
                    row["gone"] = leaving.reason.value
                    tombstoned += 1
                    changed.add(key)
            for folder in inside_of:
                self.folders.pop(folder, None)
        for one in gone:
            row_gone = self.rows.get(one.external_id)
            if row_gone is not None and row_gone["gone"] is None:
                row_gone["gone"] = one.reason.value
                tombstoned += 1
                changed.add(one.external_id)
        return inserted, updated, unchanged, tombstoned, changed


def random_parts(chance: random.Random, number: int) -> dict[str, list[Any]]:
    def folder() -> str:
        return f"d{chance.randrange(6)}"

    names = chance.sample(range(12), chance.randrange(6))
    parts: dict[str, list[Any]] = {
        "records": [
            a_file(
                f"f{i:02}",
                title=chance.choice("xyz"),
                parent_id=chance.choice([folder(), "a", "nowhere"]),
                version=max(0, number - chance.randrange(3)),
            )
            for i in sorted(names)
        ],
        "folders": [],
        "folders_gone": [],
        "gone": [],
    }
    if chance.random() < 0.5:
        parts["folders"] = [
            Folder(key, chance.choice(["a", folder()]), chance.choice("PQR"))
            for key in {folder() for _ in range(3)}
        ]
        parts["folders"].append(Folder("a", None, "A"))
    if chance.random() < 0.2:
        parts["folders_gone"] = [FolderGone(folder(), GoneReason.ACCESS_LOST)]
    if chance.random() < 0.4:
        parts["gone"] = [Gone(f"f{chance.randrange(12):02}", GoneReason.DELETED)]
    return parts


def play(store: SqlStore, place: Place, seed: int, *, whole: bool = True) -> None:
    """``whole``: in single transactions, which count each row once."""
    chance = random.Random(seed)
    model, endpoint_id = Model(), f"e{seed}"
    writer = Writer(store, an_identity(endpoint_id), f"run-{seed}")
    before: dict[str, dict[str, Any]] = {}
    top = place.counter()
    for number in range(COMMITS):
        parts = random_parts(chance, number)
        records = parts.pop("records")
        result = writer.commit(*records, **parts)
        inserted, updated, unchanged, tombstoned, changed = model.apply(records, **parts)
        where = f"seed {seed}, commit {number}"
        assert (result.inserted, result.tombstoned) == (inserted, tombstoned), where
        if whole:
            assert (result.updated, result.unchanged) == (len(updated), unchanged), where
        assert set(result.changed_ids) == changed, where
        rows = place.files(endpoint_id)
        assert {
            key: {
                **{n: row[n] for n in ("title", "parent_id", "version", "path")},
                "gone": row["gone_reason"],
            }
            for key, row in rows.items()
        } == model.rows, where
        for key, row in rows.items():
            if key in changed:
                assert row["change_seq"] > top, where
            else:
                assert row == before[key], where
            if key in before:
                assert row["first_seen_at"] == before[key]["first_seen_at"], where
        assert {f.folder_id for f in store.known(endpoint_id).folders()} == set(model.folders)
        before, top = rows, place.counter()
        assert len({row["change_seq"] for row in rows.values()}) == len(rows)


def test_random_histories_follow_the_model(store: SqlStore, place: Place) -> None:
    for seed in range(HISTORIES):
        play(store, place, seed)


def test_random_histories_in_pieces_follow_it_too(place: Place) -> None:
    store = place.open(piece=1)
    for seed in range(2):
        play(store, place, seed, whole=False)
