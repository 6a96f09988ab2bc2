"""Random histories: the worlds keep their own promises, whatever happens in them."""

from __future__ import annotations

import random
from collections.abc import Callable
from datetime import timedelta
from functools import partial
from typing import Any

import pytest

from file_connector.sandbox import ACCOUNT, OWNER, ApsWorld, Clock, DriveWorld, SandboxError
from file_connector.sandbox.drive_world import Sight
from file_connector.sandbox.world import drive_time, moment, read_time


# -- Drive ---------------------------------------------------------------------------------------
def do_something(world: DriveWorld, dice: random.Random) -> None:
    """One mutation at random, of something that exists."""
    tops = {*world.roots.values(), *world.drives}
    folders = [
        item.id
        for item in world.items.values()
        if item.is_folder and item.owner != ACCOUNT and item.id not in world.roots.values()
    ]
    things = [one for one in world.items if one not in tops] or [world.add_file("seed")]
    one, folder = dice.choice(things), dice.choice(folders)
    doings: list[Callable[[], object]] = [
        partial(world.add_file, "f", folder),
        partial(world.add_file, "f", folder),
        partial(world.add_folder, "d", folder),
        partial(world.edit, one),
        partial(world.rename, one, "other"),
        partial(world.move, one, folder),
        partial(world.move, one, folder),
        partial(world.trash, one),
        partial(world.restore, one),
        partial(world.delete, one),
        partial(world.view, one),
        partial(world.share, one, ACCOUNT),
        partial(world.unshare, one, ACCOUNT),
        partial(world.restrict, one, dice.random() < 0.5),
        partial(world.backdate, one, modified="2001-01-01"),
    ]
    dice.choice(doings)()


def view(world: DriveWorld) -> dict[str, tuple[dict[str, Any], list[str]]]:
    """Everything the account sees: resource and the ids above it."""
    sight = Sight(world, ACCOUNT)
    found = {}
    for item in world.items.values():
        if item.owner != ACCOUNT and sight.sees(item):
            above, at = [], item.parent
            while at is not None:
                above.append(at)
                at = world.items[at].parent
            found[item.id] = (world.resource(item, sight), above)
    return found


@pytest.mark.parametrize("seed", range(8))
def test_no_change_of_what_an_account_sees_is_silent(seed: int) -> None:
    world, dice = DriveWorld(Clock(), seed), random.Random(seed)
    shared = world.add_drive("Projects", members=[ACCOUNT])
    root = world.add_folder("Watched", shared_with=[ACCOUNT])
    for parent in (shared, root, world.roots[OWNER]):
        world.add_file("f", world.add_folder("d", parent))
    names = [f"user:{ACCOUNT}", f"drive:{shared}"]
    world.log_descendants = bool(seed % 2)
    if (
        not world.log_descendants
    ):  # then the trashing of an unseen ancestor is told to its owner only
        names.append(f"user:{OWNER}")
    for _ in range(150):
        before = view(world)
        last = {name: world.log(name).last for name in names}
        try:
            do_something(world, dice)
        except SandboxError:
            continue  # a folder into itself
        after = view(world)
        logged = {entry.key for name in names for entry in world.log(name).after(last[name])}
        for one in before.keys() | after.keys():
            if before.get(one) != after.get(one):
                above = {a for picture in (before, after) for a in picture.get(one, ({}, []))[1]}
                assert logged & {one, *above}, (one, before.get(one), after.get(one))
        for parent, children in world.children.items():
            assert all(world.items[child].parent == parent for child in children)


def test_restricting_hides_one_subtree() -> None:
    world = DriveWorld()
    root = world.add_folder("Watched", shared_with=[ACCOUNT])
    sub = world.add_folder("sub", root)
    file = world.add_file("f", sub)
    world.restrict(sub)
    assert world.truth(root, ACCOUNT) == {}
    assert not world.sees(ACCOUNT, file)
    assert world.sees(OWNER, file)
    world.restrict(sub, False)
    assert set(world.truth(root, ACCOUNT)) == {file}


def test_misuse_is_explained() -> None:
    world = DriveWorld()
    folder = world.add_folder("a")
    inner = world.add_folder("b", folder)
    misuses: list[tuple[Callable[[], object], str]] = [
        (lambda: world.move(folder, inner), "into itself"),
        (lambda: world.add_file("f", "nowhere"), "no item 'nowhere'"),
        (lambda: world.add_file("f", world.add_file("g")), "not a folder"),
        (lambda: world.add_folder("again", id=folder), "already"),
        (lambda: world.add_member("nowhere", OWNER), "no shared drive"),
        (lambda: world.edit(inner, modified="yesterday"), "not a time"),
    ]
    for misuse, words in misuses:
        with pytest.raises(SandboxError, match=words):
            misuse()


# -- APS -----------------------------------------------------------------------------------------
def listing(world: ApsWorld, folder: str) -> list[Any]:
    """What a listing of the folder tells, without what is told of sub-folders' insides."""
    rows: list[Any] = []
    for one in world.entries(folder):
        if one in world.items:
            item = world.items[one]
            rows.append((one, item.hidden, item.modified, item.tip.number, item.tip.name))
        else:
            child = world.folders[one]
            rows.append((one, child.hidden, child.name, child.modified))
    return rows


@pytest.mark.parametrize("seed", range(8))
def test_every_change_of_a_listing_moves_the_rollups_above(seed: int) -> None:
    world, dice = ApsWorld(Clock(), seed), random.Random(seed)
    project = world.add_project()
    top = world.project_files(project)
    for name in "ab":
        world.add_item("f", world.add_folder(name, top))
    for _ in range(150):
        folders = [f for f in world.folders if f == top or f in world.below(top)]
        items = list(world.items)
        item, folder, other = dice.choice(items), dice.choice(folders), dice.choice(folders)
        before = {f: (listing(world, f), world.folders[f].rollup) for f in folders}
        doings: list[Callable[[], object]] = [
            partial(world.add_item, f"f{len(items)}", folder),
            partial(world.add_folder, "d", folder),
            partial(world.upload, item),
            partial(world.rename, item, "n"),
            partial(world.rename, folder, "n"),
            partial(world.move, item, folder),
            partial(world.move, other, folder),
            partial(world.delete, item),
            partial(world.restore, item),
            partial(world.delete, other),
            partial(world.restore, other),
            partial(world.process, item),
        ]
        try:
            dice.choice(doings)()
        except SandboxError:
            continue  # e.g. a new version of a deleted file
        for one, (rows, rollup) in before.items():
            assert world.folders[one].rollup >= rollup
            if listing(world, one) != rows:
                at: str | None = one
                while at is not None and at in before:
                    assert world.folders[at].rollup > before[at][1]
                    at = world.folders[at].parent
        for found in world.items.values():
            assert [v.number for v in found.versions] == list(range(1, len(found.versions) + 1))
            assert found.tip.deleted == found.hidden


def test_what_cannot_be_done_to_files() -> None:
    world = ApsWorld()
    item = world.add_item("f", world.project_files(world.add_project()))
    with pytest.raises(SandboxError, match="not deleted"):
        world.restore(item)
    world.delete(item)
    for doing in (world.upload, world.delete, world.process):
        with pytest.raises(SandboxError, match="deleted"):
            doing(item)
    with pytest.raises(SandboxError, match="deleted"):
        world.rename(item, "g")
    with pytest.raises(SandboxError, match="no item"):
        world.upload("urn:nothing")


def test_s31_ties_happen_when_the_clock_stands_still() -> None:
    world = ApsWorld(Clock(step=timedelta(0)))
    top = world.project_files(world.add_project())
    item = world.add_item("f", top)
    before = world.folder(top).rollup
    world.upload(item)
    assert world.folder(top).rollup == before


# -- times ---------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("text", "read"),
    [
        ("2026-01-02", "2026-01-02T00:00:00.000Z"),
        ("2026-01-02T03:04", "2026-01-02T03:04:00.000Z"),
        ("2026-01-02T03:04:05.1239Z", "2026-01-02T03:04:05.123Z"),
        ("2026-01-02T03:04:05.1234567+00:00", "2026-01-02T03:04:05.123Z"),
        ("2026-01-02T03:04:05-0230", "2026-01-02T05:34:05.000Z"),
        ("2026-01-02T03:04:05+02:30", "2026-01-02T00:34:05.000Z"),
    ],
)
def test_times_are_read_and_written(text: str, read: str) -> None:
    found = read_time(text)
    assert found is not None
    assert drive_time(found) == read


@pytest.mark.parametrize("text", ["", "yesterday", "2026-13-01", "2026-01-02T25:00:00Z", "now"])
def test_what_is_no_time_is_none(text: str) -> None:
    assert read_time(text) is None
    with pytest.raises(SandboxError):
        moment(text, Clock().now())


def test_the_clock() -> None:
    clock = Clock()
    before = clock.now()
    assert clock.now() == before
    assert clock.tick() == before + timedelta(seconds=1)
    assert clock.advance(minutes=1) == before + timedelta(seconds=61)
    live = Clock(live=True)
    assert live.now().tzinfo is not None
    with pytest.raises(SandboxError, match="cannot be set"):
        live.set(before)
    with pytest.raises(SandboxError, match="time zone"):
        clock.set(before.replace(tzinfo=None))
