"""The Connector of Google Drive: sweep, changes, window, resolve, probe and check of one endpoint.

The fast way is the changes feed, whose token is taken before the first listing; the sweep lists
everything again. Both keep the known folder tree, which tells what of an account's feed is ours.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta, timezone

from file_connector.connectors.base import Credentials, Known, Toolbox
from file_connector.connectors.google_drive.auth import account_of
from file_connector.connectors.google_drive.client import DriveClient, Item, Wires
from file_connector.connectors.google_drive.feed import Placement, first_concern
from file_connector.connectors.google_drive.mapping import (
    FOLDER,
    Filter,
    is_folder,
    is_trashed,
    number_of,
    parents_of,
    record_of,
)
from file_connector.connectors.google_drive.spec import GoogleDriveDetails
from file_connector.connectors.google_drive.survey import Pile, Survey
from file_connector.connectors.google_drive.tree import Tree
from file_connector.connectors.google_drive.walk import (
    NO_FOLDERS,
    NOT_LISTED,
    ONLY_FOLDERS,
    Pages,
    Root,
)
from file_connector.errors import (
    ConfigurationError,
    CursorRejectedError,
    FileConnectorError,
    ForbiddenError,
    NotFoundError,
    TransientError,
)
from file_connector.models import (
    Batch,
    Folder,
    FolderGone,
    Gone,
    GoneReason,
    Json,
    KnownFile,
    Probe,
)

FOLDERS_PER_BATCH = 1000
LOOK_UPS_PER_BATCH = 100
LOST_FOLDERS = 100
"""Folders a listing lacks that are looked up one by one; more are a matter for the breaker."""

RENEWED_FOLDERS = 500
"""Folders compared within one run because something above them may have been out of sight."""

FLUSH_SECONDS = 15.0
"""A walk through many small folders stores what it has this often."""

PROBE_PAGES = 10
"""Pages of changes without one of ours that a probe reads: one account serves many endpoints, and a
busy one must not cost the others a run."""

PROBE_PATIENCE_SECONDS = 3.0
CHECK_PATIENCE_SECONDS = 1.5
CHECK_TIMEOUT_SECONDS = 4.0
"""Together they keep a check below ten seconds even if Drive hangs."""


_TO_WALK = {"walk": 1}
_WAITS = {"walk", "blind"}
"""A folder in one of these states has to be listed by the next run."""


class GoogleDriveConnector:
    """See ``Connector``. One instance serves one endpoint and one run or probe at a time."""

    def __init__(
        self, details: GoogleDriveDetails, credentials: Credentials, toolbox: Toolbox
    ) -> None:
        self._details = details
        self._toolbox = toolbox
        self._account = account_of(credentials, toolbox.monotonic)
        self._wires = Wires(self._account, toolbox)
        self._client = DriveClient(self._wires, toolbox)
        self._wanted = Filter(details.file_types, details.mime_types)
        self._feeds_read = 0
        self._checking_calls = 0

    # -- who and what ----------------------------------------------------------------------------
    @property
    def scope(self) -> str:
        canonical = {
            "root": self._details.root_id,
            "recursive": self._details.recursive,
            "file_types": sorted(self._details.file_types or ()),
            "mime_types": sorted(self._details.mime_types or ()),
        }
        return hashlib.sha256(json.dumps(canonical, sort_keys=True).encode()).hexdigest()

    @property
    def principal(self) -> str:
        return self._account.principal

    @property
    def api_calls(self) -> int:
        return self._wires.calls + self._checking_calls

    def close(self) -> None:
        self._wires.close()

    # -- check and probe -------------------------------------------------------------------------
    def check(self) -> Sequence[str]:
        timeout = min(self._toolbox.timeout_seconds, CHECK_TIMEOUT_SECONDS)
        toolbox = replace(self._toolbox, timeout_seconds=timeout)
        wires = Wires(self._account, toolbox)
        try:
            return self._check(DriveClient(wires, toolbox, CHECK_PATIENCE_SECONDS))
        finally:
            wires.close()
            self._checking_calls += wires.calls

    def _check(self, client: DriveClient) -> Sequence[str]:
        item = self._root_item(client)
        who = self._account.name
        if not self._account.is_service:
            try:
                who = f"Google user {client.user_email() or '(unnamed)'}"
            except FileConnectorError:
                pass  # a nicety, not needed to sync
        root, _, note = self._locate(client, item)
        page = client.files(root.children([root.id]))
        if root.id == root.in_drive:
            seen = f"shared drive '{item.get('name')}' ({root.id})"
        elif root.in_drive:
            seen = f"folder '{item.get('name')}' ({root.id}) in shared drive {root.in_drive}"
        else:
            seen = f"folder '{item.get('name')}' ({root.id})"
        return [
            f"{who} sees {seen}",
            f"{len(page.items)}{' or more' if page.next_token else ''} items lie directly in it",
            note or "its changes can be followed",
        ]

    def probe(self, cursor: Json, known: Known) -> Probe:
        client = DriveClient(self._wires, self._toolbox, PROBE_PATIENCE_SECONDS)
        told = 0
        try:
            token, root = _read(cursor)
            for _ in range(PROBE_PAGES):
                page = client.changes(token, root.drive_id)
                told += len(page.entries)
                why = first_concern(
                    page.entries,
                    root,
                    known,
                    self._wanted,
                    whole=self._is_whole(root),
                    recursive=self._details.recursive,
                )
                if why:
                    return Probe(True, why)
                if page.new_start is not None:
                    seen = f"{told} changes, none of them here" if told else "no change"
                    return Probe(False, seen, root.cursor(page.new_start))
                token = page.next_token or ""
        except CursorRejectedError as error:
            return Probe(True, error.message)
        return Probe(True, f"more than {told} changes")

    # -- the root --------------------------------------------------------------------------------
    def _root_item(self, client: DriveClient) -> Item:
        """The top folder, or ConfigurationError saying what is wrong with it."""
        root_id = self._details.root_id
        what = "shared drive" if self._details.drive_id else "folder"
        try:
            item = client.file(root_id)
            if self._details.drive_id:
                item = {**item, "driveId": self._details.drive_id}
        except (NotFoundError, ForbiddenError) as error:
            if self._details.drive_id and self._is_member(client, root_id):
                return {"id": root_id, "mimeType": FOLDER, "driveId": root_id, "name": root_id}
            sharer = self._account.share_with
            remedy = (
                f"Make {sharer} a member of it, or correct drive_id."
                if self._details.drive_id
                else f"Share it with {sharer}, or correct folder_id."
            )
            raise ConfigurationError(
                f"{what} {root_id} is not found or not shared with {sharer}: {error.message}",
                remedy=remedy,
            ) from None
        if not is_folder(item):
            raise ConfigurationError(
                f"{root_id} ('{item.get('name')}') is of type {item['mimeType']}, not a folder.",
                remedy="Write the id of a folder.",
            )
        if is_trashed(item):
            raise ConfigurationError(
                f"{what} '{item.get('name')}' ({root_id}) is in the trash.",
                remedy="Restore it, or choose another folder.",
            )
        return item

    def _is_member(self, client: DriveClient, drive_id: str) -> bool:
        """Whether the drive tells us its changes, even if it does not show its top folder."""
        try:
            client.start_token(drive_id)
        except (NotFoundError, ForbiddenError):
            return False
        return True

    def _locate(self, client: DriveClient, item: Item) -> tuple[Root, str, str]:
        """The root, a start token of its log, and a note if that is not the best log."""
        root_id, in_drive = str(item["id"]), item.get("driveId") or None
        if in_drive is None:
            return Root(root_id, None, None), client.start_token(None), ""
        try:
            return Root(root_id, in_drive, in_drive), client.start_token(in_drive), ""
        except (NotFoundError, ForbiddenError) as error:
            if root_id == in_drive:
                raise ConfigurationError(
                    f"the changes of shared drive {in_drive} are not told: {error.message}",
                    remedy=f"Make {self._account.share_with} a member of it.",
                ) from None
        note = (
            f"{self._account.share_with} is no member of shared drive {in_drive}: changes come from"
            " its own log, which tells less; the daily sweep finds the rest"
        )
        return Root(root_id, None, in_drive), client.start_token(None), note

    def _check_root(self, root: Root) -> None:
        """The feed says something about the root: it must still be where it was."""
        item = self._root_item(self._client)
        if (item.get("driveId") or None) != root.in_drive:
            raise CursorRejectedError("the root folder moved to another drive.")

    def _is_whole(self, root: Root) -> bool:
        """Everything in a shared drive is wanted, so nothing needs to be placed."""
        return self._details.recursive and root.id == root.drive_id

    def _placement(self, root: Root, tree: Tree) -> Placement:
        return Placement(
            self._client,
            root,
            tree,
            self._wanted,
            whole=self._is_whole(root),
            recursive=self._details.recursive,
        )

    # -- sweep -----------------------------------------------------------------------------------
    def sweep(self, known: Known, progress: Json | None, pass_no: int) -> Iterator[Batch]:
        if progress is None:
            item = self._root_item(self._client)
            root, token, note = self._locate(self._client, item)
            progress = root.cursor(token)
            held = known.folder(root.id)
            state = dict(held.state) if held and held.parent_id is None else {}
            state.pop("renew", None)  # the pass does it
            state["v"] = number_of(item.get("version"))
            top = Folder(root.id, None, str(item.get("name") or ""), state)
            yield Batch(folders=[top], sweep=progress, notes=[note] if note else [])
        _, root = _read(progress)
        if self._is_whole(root) and progress.get("phase") != "walk":
            complete = yield from self._sweep_drive(known, root, progress, pass_no)
            if complete:
                return
            progress = {**_without_position(progress), "phase": "walk"}
        yield from self._sweep_folders(known, root, progress, pass_no)

    def _sweep_folders(
        self, known: Known, root: Root, progress: Mapping[str, Json], pass_no: int
    ) -> Iterator[Batch]:
        """Breadth first from the root. The stored tree is the frontier: a folder waits from when
        this pass met it in its parent until it is marked as listed. A known folder that is not met
        is not listed: it may have left."""
        base, position = _without_position(progress), progress.get("at")
        bulk_counts = progress.get("phase") != "walk"

        def waits(folder: Folder) -> bool:
            listed = folder.state.get("pass") == pass_no
            return not listed or ("bulk" in folder.state and not bulk_counts)

        blind: set[str] = set()
        missing: set[str] = set()
        gone: set[str] = set()
        pile = Pile()
        looked_for_lost = False
        while True:
            feeds_read, stored_at = self._feeds_read, self._toolbox.monotonic()
            tree = Tree(known.folders(), root.id)
            survey = Survey(
                self._client,
                root,
                tree,
                self._wanted,
                pile,
                mark={"pass": pass_no},
                waiting={"met": pass_no},
                waits=waits,
                recursive=self._details.recursive,
            )
            survey.blind, survey.missing = blind, missing
            frontier = [
                f.folder_id
                for f in self._reachable(tree)
                if waits(f) and (f.parent_id is None or f.state.get("met") == pass_no)
            ]
            survey.start([f for f in frontier if f not in blind | missing], position)
            while survey.step():
                if root.id in survey.refused | missing:
                    self._root_item(self._client)
                    raise ConfigurationError(
                        f"the root folder {root.id} is there but cannot be listed.",
                        remedy=f"Share it with {self._account.share_with} as viewer.",
                    )
                if pile.full or self._toolbox.monotonic() - stored_at > FLUSH_SECONDS:
                    stored_at = self._toolbox.monotonic()
                    survey.ahead()
                    position = survey.position
                    yield pile.take(sweep={**base, "at": position})
                    if self._feeds_read != feeds_read:
                        break
            else:
                position = None
                if looked_for_lost:
                    break
                looked_for_lost = True
                alive, gone = self._find_lost(known, tree, root, pass_no, blind, pile)
                if not alive:
                    break
                missing -= alive  # Drive gets one more chance to list what it shows by itself
                yield pile.take(sweep=base)
            survey.cancel()  # the feed was read meanwhile: tree and pages fetched ahead are stale
        for folder_id in sorted(missing - gone):
            if folder_id in tree:
                survey.not_listed(folder_id, NOT_LISTED)
        yield pile.take(sweep=base, cursor=root.cursor(base["token"]), done=True)

    def _sweep_drive(
        self, known: Known, root: Root, progress: Mapping[str, Json], pass_no: int
    ) -> Generator[Batch, None, bool]:
        """A whole shared drive: all its folders, then all its files. Returns whether that worked;
        if Drive says it did not search everything, the tree has to be walked."""
        base, position = _without_position(progress), progress.get("at")
        if position is None:
            folders = yield from self._sweep_drive_folders(known, root, base, pass_no)
            if not folders:
                return False
        query = root.query(NO_FOLDERS)
        usable = position is not None and position["query"] == query
        pages = Pages(self._client, query, position["page"] if position and usable else None)
        pile = Pile()
        feeds_read = self._feeds_read
        while True:
            page = pages.next()
            if page.incomplete:
                pages.cancel()
                return False
            pages.ahead()
            for item in page.items:
                if not is_folder(item) and not is_trashed(item) and self._wanted.takes(item):
                    pile.records.append(record_of(item, self._parent(item, root)))
            if page.next_token is None:
                break
            yield pile.take(sweep={**base, "at": {"query": query, "page": pages.token}})
            if self._feeds_read != feeds_read:  # what was fetched ahead is older than the feed
                feeds_read = self._feeds_read
                pages.cancel()
        tree = Tree(known.folders(), root.id)
        self._find_lost(known, tree, root, pass_no, (), pile)
        yield pile.take(sweep=base, cursor=root.cursor(base["token"]), done=True)
        return True

    def _sweep_drive_folders(
        self, known: Known, root: Root, base: Json, pass_no: int
    ) -> Generator[Batch, None, bool]:
        """All folders of the drive, parents before children. Returns whether Drive told all."""
        state = {"pass": pass_no, "bulk": 1}
        while True:
            feeds_read = self._feeds_read
            found: dict[str, Folder] = {}
            pages = Pages(self._client, root.query(ONLY_FOLDERS))
            while not pages.done:
                page = pages.next()
                if page.incomplete:
                    pages.cancel()
                    return False
                pages.ahead()
                for item in page.items:
                    if is_folder(item) and not is_trashed(item) and item["id"] != root.id:
                        name = str(item.get("name") or "")
                        parent_id = self._parent(item, root)
                        found[item["id"]] = Folder(item["id"], parent_id, name, state)
            top = known.folder(root.id)
            name = top.name if top else ""
            tree = Tree([Folder(root.id, None, name, state), *found.values()], root.id)
            ordered = list(tree.reachable())
            reached = {f.folder_id for f in ordered}
            ordered += [f for f in found.values() if f.folder_id not in reached]
            for start in range(0, len(ordered), FOLDERS_PER_BATCH):
                yield Batch(folders=ordered[start : start + FOLDERS_PER_BATCH], sweep=base)
                if self._feeds_read != feeds_read:
                    break
            else:
                return True

    def _find_lost(
        self,
        known: Known,
        tree: Tree,
        root: Root,
        pass_no: int,
        blind: Iterable[str],
        pile: Pile,
    ) -> tuple[set[str], set[str]]:
        """Look for the folders we know and the listing lacked. What is proven gone, and holds no
        live file, is forgotten. Returns those that are alive and have to be listed after all, and
        those that are gone."""
        hidden = {below for folder_id in blind for below in tree.subtree(folder_id)}
        seen = {f.folder_id for f in tree.reachable() if f.state.get("pass") == pass_no}
        lost = [
            f
            for f in tree.reachable()
            if f.folder_id not in seen and f.folder_id not in hidden and f.parent_id in seen
        ]
        placement = self._placement(root, tree)
        alive, gone = set[str](), set[str]()
        for folder in lost[:LOST_FOLDERS]:
            reason, item = self._look_at(folder.folder_id)
            if item is not None and self._belongs(item, placement):
                state = {**folder.state, "met": pass_no}
                pile.folders[folder.folder_id] = tree.put(replace(folder, state=state))
                alive.add(folder.folder_id)
                continue
            if item is not None:
                reason = GoneReason.OUT_OF_SCOPE
            if reason is not None:
                gone.add(folder.folder_id)
            below = tree.subtree(folder.folder_id)
            if reason is not None and not any(known.files_in(f) for f in below):
                pile.folders_gone.append(FolderGone(folder.folder_id, reason))
                tree.drop(folder.folder_id)
        return alive, gone

    # -- changes ---------------------------------------------------------------------------------
    def changes(self, cursor: Json, known: Known) -> Iterator[Batch]:
        token, root = _read(cursor)
        self._feeds_read += 1
        tree = Tree(known.folders(), root.id)
        if root.id not in tree:
            raise CursorRejectedError("the known folder tree is lost.")
        waiting = [f.folder_id for f in self._reachable(tree) if f.state.keys() & _WAITS]
        yield from self._enter(tree, root, waiting)
        renew = [f.folder_id for f in self._reachable(tree) if "renew" in f.state]
        yield from self._renew(tree, root, renew, known)
        placement = self._placement(root, tree)
        met = {token}
        root_is_there = False
        while True:
            page = self._client.changes(token, root.drive_id)
            placed = placement.place(page.entries, known)
            if placed.root or (placed.losses and not root_is_there):
                # a root that is gone takes everything with it: that is for a person to mend, and
                # no reason to drop a single row
                try:
                    self._check_root(root)
                except ConfigurationError:
                    # until it is back no log of ours tells what changes below it
                    yield Batch(folders=tree.flagged("renew", True))
                    raise
                root_is_there = True
            token = page.next_token or page.new_start or ""
            batch = Batch(
                records=placed.records,
                folders=list(placed.folders.values()),
                folders_gone=placed.folders_gone,
                gone=placed.gone,
            )
            if placed.enter or placed.renew:
                yield replace(batch, folders=[*batch.folders, *tree.flagged("open", True)])
                yield from self._enter(tree, root, placed.enter)
                yield from self._renew(tree, root, placed.renew, known)
                batch = Batch()
            yield replace(
                batch,
                folders=[*batch.folders, *tree.flagged("open", False)],
                cursor=root.cursor(token),
            )
            if page.new_start is not None:
                return
            if token in met:
                raise TransientError("Drive gave the same page token of changes twice.")
            met.add(token)

    def _enter(self, tree: Tree, root: Root, folder_ids: Sequence[str]) -> Iterator[Batch]:
        """List folders that came into the tree, or could not be listed before, and all below."""
        if not folder_ids:
            return
        pile = Pile()
        survey = Survey(
            self._client,
            root,
            tree,
            self._wanted,
            pile,
            mark={"pass": tree.current_pass},
            waiting={"walk": 1},
            waits=lambda folder: bool(folder.state.keys() & _WAITS),
            recursive=self._details.recursive,
        )
        survey.start(folder_ids)
        while survey.step():
            if pile.full:
                survey.ahead()
                yield pile.take()
        for folder_id in survey.missing:
            reason, _ = self._look_at(folder_id)
            if reason is not None:
                pile.folders_gone.append(FolderGone(folder_id, reason))
                tree.drop(folder_id)
            elif folder_id in tree:
                survey.not_listed(folder_id, NOT_LISTED)
        if pile:
            yield pile.take()

    def _renew(
        self, tree: Tree, root: Root, folder_ids: Sequence[str], known: Known
    ) -> Iterator[Batch]:
        """Compare what is below these folders with what we hold."""
        if root.id in folder_ids:
            self._check_root(root)
        notes = []
        left = RENEWED_FOLDERS
        for folder_id in folder_ids:
            below = list(tree.subtree(folder_id))
            left -= len(below)
            if left < 0:
                notes.append(
                    f"folder {folder_id} may have been out of sight for a while; what changed below"
                    " it meanwhile is found by the daily sweep"
                )
            else:
                yield from self._compare(tree, root, folder_id, known)
        done = []
        for folder_id in folder_ids:
            folder = tree.get(folder_id)
            if folder is not None:
                state = {k: v for k, v in folder.state.items() if k != "renew"}
                done.append(tree.put(replace(folder, state=state)))
        if done:
            yield Batch(folders=done, notes=notes)

    def _compare(self, tree: Tree, root: Root, top_id: str, known: Known) -> Iterator[Batch]:
        """List a folder and all below, and look at everything we hold there and did not meet."""
        pile = Pile()
        placement = self._placement(root, tree)
        survey = Survey(
            self._client,
            root,
            tree,
            self._wanted,
            pile,
            mark={"pass": tree.current_pass},
            waiting={"walk": 1},
            waits=lambda _: True,
            recursive=self._details.recursive,
            compare=True,
        )
        survey.start([top_id])
        while survey.step():
            for folder_id, met in survey.listed.items():
                for file in known.files_in(folder_id):
                    if file.external_id not in met:
                        self._resolve_file(file, placement, root, pile)
                for child_id in tree.children(folder_id) if self._details.recursive else ():
                    if child_id not in met:
                        reason, item = self._look_at(child_id)
                        if item is not None and not self._belongs(item, placement):
                            reason = GoneReason.OUT_OF_SCOPE
                        if reason is not None:
                            pile.folders_gone.append(FolderGone(child_id, reason))
                            tree.drop(child_id)
            if pile.full:
                yield pile.take()
        if pile:
            yield pile.take()

    # -- window ----------------------------------------------------------------------------------
    def window(self, start: datetime, end: datetime, known: Known) -> Iterator[Batch]:
        item = self._root_item(self._client)
        in_drive = item.get("driveId") or None
        root = Root(str(item["id"]), in_drive, in_drive)
        pile = Pile()
        if in_drive is not None:
            try:
                complete = yield from self._window_drive(root, start, end, known, pile)
                if complete:
                    yield pile.take(done=True)
                    return
            except (NotFoundError, ForbiddenError):  # no member of the drive
                root = replace(root, drive_id=None)
        held = {f.folder_id for f in known.folders() if not f.state.get("outside")}
        tree = Tree([Folder(root.id, None, "")], root.id)
        survey = Survey(
            self._client,
            root,
            tree,
            self._wanted,
            pile,
            mark={},
            waiting={},
            waits=lambda _: False,
            recursive=self._details.recursive,
        )
        survey.start([root.id])
        while survey.step():
            if root.id in survey.refused | survey.missing:
                raise ConfigurationError(
                    f"the root folder {root.id} cannot be listed.",
                    remedy=f"Share it with {self._account.share_with} as viewer.",
                )
            # what the feed will tell of a folder is told of no stranger
            pile.folders = {
                f.folder_id: replace(f, state=_TO_WALK)
                for f in pile.folders.values()
                if f.folder_id not in held and f.folder_id != root.id
            }
            pile.records = [r for r in pile.records if _within(r.updated_at, start, end)]
            if pile.full:
                survey.ahead()
                held |= pile.folders.keys()
                yield pile.take()
        yield pile.take(done=True)

    def _window_drive(
        self, root: Root, start: datetime, end: datetime, known: Known, pile: Pile
    ) -> Generator[Batch, None, bool]:
        """One query over the shared drive, placed through the tree. Returns whether Drive told
        all."""
        tree = Tree(known.folders(), root.id)
        if root.id not in tree and not self._is_whole(root):
            return False
        placement = self._placement(root, tree)
        later = _milliseconds(end + timedelta(milliseconds=1))
        days = f"modifiedTime >= '{_milliseconds(start)}' and modifiedTime < '{later}'"
        pages = Pages(self._client, root.query(f"{NO_FOLDERS} and {days}"))
        while not pages.done:
            page = pages.next()
            if page.incomplete:
                pages.cancel()
                return False
            pages.ahead()
            for item in page.items:
                if is_folder(item) or is_trashed(item) or not self._wanted.takes(item):
                    continue
                record = record_of(item, self._parent(item, root))
                if _within(record.updated_at, start, end) and self._belongs(item, placement):
                    pile.records.append(record)
                    placement.climb(record.parent_id)
            pile.folders.update(placement.met())
            if pile.full:
                yield pile.take()
        return True

    # -- resolve ---------------------------------------------------------------------------------
    def resolve(self, missing: Sequence[KnownFile], known: Known) -> Iterator[Batch]:
        top = next((f for f in known.folders() if f.parent_id is None), None)
        root_id = top.folder_id if top else self._details.root_id
        # whether the root is a whole shared drive, each item tells by its driveId
        root = Root(root_id, None, None)
        tree = Tree(known.folders(), root_id)
        placement = self._placement(root, tree)
        pile, asked, root_is_there = Pile(), 0, False
        verdicts: dict[str, bool] = {}
        for file in sorted(missing, key=lambda f: f.parent_id or ""):
            lost = self._topmost_lost(tree, file.parent_id)
            if lost is not None and lost not in verdicts:
                reason, item = self._look_at(lost)
                asked += 1
                if item is not None and not self._belongs(item, placement):
                    reason = GoneReason.OUT_OF_SCOPE
                verdicts[lost] = reason is not None
                if reason is not None:
                    pile.folders_gone.append(FolderGone(lost, reason))
            if lost is None or not verdicts[lost]:
                self._resolve_file(file, placement, root, pile)
                asked += 1
            if not root_is_there and (pile.gone or pile.folders_gone):
                self._root_item(self._client)
                root_is_there = True
            if asked >= LOOK_UPS_PER_BATCH:
                yield pile.take()
                asked = 0
        if pile:
            yield pile.take()

    def _resolve_file(self, file: KnownFile, placement: Placement, root: Root, pile: Pile) -> None:
        reason, item = self._look_at(file.external_id)
        if item is not None:
            file_of_ours = not is_folder(item) and self._wanted.takes(item)
            if file_of_ours and self._belongs(item, placement):
                pile.records.append(record_of(item, self._parent(item, root)))
            else:
                reason = GoneReason.OUT_OF_SCOPE
        if reason is not None:
            pile.gone.append(Gone(file.external_id, reason))

    def _topmost_lost(self, tree: Tree, folder_id: str | None) -> str | None:
        """The folder nearest to the root, on the way up, that the last pass did not list."""
        lost, met = None, set[str]()
        while folder_id is not None and folder_id != tree.root_id and folder_id not in met:
            met.add(folder_id)
            folder = tree.get(folder_id)
            if folder is None:
                return None
            if folder.state.get("pass") != tree.current_pass:
                lost = folder_id
            folder_id = folder.parent_id
        return lost if folder_id == tree.root_id else None

    # -- small things ----------------------------------------------------------------------------
    def _look_at(self, item_id: str) -> tuple[GoneReason | None, Item | None]:
        """Why an item is gone, or the living item; neither if it cannot be told."""
        try:
            item = self._client.file(item_id)
        except NotFoundError:
            return GoneReason.DELETED, None
        except ForbiddenError:
            return None, None
        return (GoneReason.TRASHED, None) if is_trashed(item) else (None, item)

    def _reachable(self, tree: Tree) -> Iterator[Folder]:
        """The folders to list."""
        return (f for f in tree.reachable() if self._details.recursive or f.parent_id is None)

    def _parent(self, item: Item, root: Root) -> str | None:
        parent = next(iter(parents_of(item)), None)
        if parent is None and item.get("driveId") == root.id:
            return root.id
        return parent

    def _belongs(self, item: Item, placement: Placement) -> bool:
        """Whether an item we looked at lies in the endpoint's scope (filters aside)."""
        root_id = placement.root_id
        if self._details.recursive and item.get("driveId") == root_id:
            return True
        return placement.inside(next(iter(parents_of(item)), None))


def _read(cursor: Json) -> tuple[str, Root]:
    """The token and what it belongs to; CursorRejectedError if it is not one of ours."""
    try:
        if cursor["v"] == 1 and isinstance(cursor["token"], str):
            return cursor["token"], Root.of(cursor)
    except (TypeError, KeyError):
        pass
    raise CursorRejectedError("the stored cursor is not one of this connector.")


def _without_position(progress: Mapping[str, Json]) -> dict[str, Json]:
    return {k: v for k, v in progress.items() if k != "at"}


def _milliseconds(moment: datetime) -> str:
    """RFC 3339 as Drive writes it."""
    text = moment.astimezone(timezone.utc).strftime("%Y-%m-%dT%H:%M:%S.%f")
    return f"{text[:-3]}Z"


def _within(moment: datetime | None, start: datetime, end: datetime) -> bool:
    return moment is not None and start <= moment < end
