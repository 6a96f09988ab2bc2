"""The same story for every source: a synced tree, then one of each kind of change."""

from __future__ import annotations

from file_connector_tests.histories.stages import Stage


def populate(stage: Stage) -> dict[str, str]:
    """A tree of folders with files in them and a folder outside; name -> id."""
    ids: dict[str, str] = {}
    for folder, parent in [("A", ""), ("B", "A"), ("C", "B"), ("D", "")]:
        ids[folder] = stage.new_folder(ids[parent] if parent else stage.root)
    for name, folder in [("a1", "A"), ("a2", "A"), ("b1", "B"), ("c1", "C"), ("d1", "D")]:
        ids[name] = stage.new_file(ids[folder], old=False)
    ids["r1"] = stage.new_file(stage.root, old=True)
    ids["X"] = stage.new_folder(stage.outside[0])
    ids["x1"] = stage.new_file(ids["X"], old=True)
    return ids


def disturb(stage: Stage, ids: dict[str, str]) -> None:
    """One of each: new, edited, time going backwards, renamed, moved in, out and about, trashed,
    a folder moved in with old files, a folder renamed, a folder trashed."""
    ids["new"] = stage.new_file(ids["C"], old=True)
    stage.edit(ids["c1"], backwards=False)
    stage.edit(ids["b1"], backwards=True)
    stage.rename(ids["a1"])
    stage.move(ids["a2"], ids["D"])
    stage.trash(ids["r1"])
    stage.move(ids["X"], ids["A"])
    stage.rename(ids["A"])
    stage.move(ids["d1"], stage.outside[0])
    ids["E"] = stage.new_folder(ids["D"])
    ids["e1"] = stage.new_file(ids["E"], old=True)
