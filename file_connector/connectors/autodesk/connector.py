"""Decides what changed in one Autodesk project or folder.

Every folder carries ``lastModifiedTimeRollup``, the newest change in it or anything below. Per
known folder we keep the rollup for which its listing and everything below is stored. The fast way
(``descent``) lists only where a rollup differs from the kept one; clocks are never compared. The
sweep (``sweep``) lists everything.

The cursor holds no position, only what need not be found out again: hub and start folders.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime

from file_connector.connectors.autodesk.api import Api, Page
from file_connector.connectors.autodesk.auth import text_of, token_source
from file_connector.connectors.autodesk.descent import Descent, not_shown_and, sort_out
from file_connector.connectors.autodesk.mapping import ItemEntry, tells_less
from file_connector.connectors.autodesk.places import Places
from file_connector.connectors.autodesk.spec import AutodeskDetails
from file_connector.connectors.autodesk.start import Start, StartFinder
from file_connector.connectors.autodesk.sweep import Sweep
from file_connector.connectors.autodesk.transport import AUTODESK, Transport
from file_connector.connectors.autodesk.tree import Node, Tree, changed, worth_a_run
from file_connector.connectors.autodesk.walk import walk
from file_connector.connectors.base import Credentials, Known, Toolbox
from file_connector.errors import CursorRejectedError
from file_connector.models import (
    Batch,
    Blind,
    FileRecord,
    Folder,
    FolderGone,
    Gone,
    GoneReason,
    Json,
    KnownFile,
    Probe,
)

WORKERS = 4
MAX_ROUNDS = 3
"""How often one run looks, if folders change while they are listed."""
CHECK_TIMEOUT_SECONDS = 3.0
CHECK_PATIENCE_SECONDS = 2.0
CURSOR_VERSION = 1


class AutodeskConnector:
    """One endpoint; see ``Connector``.

    Args:
        workers: folders listed at the same time.
    """

    def __init__(
        self,
        details: AutodeskDetails,
        credentials: Credentials,
        toolbox: Toolbox,
        *,
        workers: int = WORKERS,
    ) -> None:
        self._details = details
        self._credentials = credentials
        self._toolbox = toolbox
        self._workers = workers
        self._user_id = details.x_user_id or text_of(credentials, "x_user_id") or None
        self._transport = Transport(
            toolbox,
            base_url=toolbox.environ.get("APS_BASE_URL", "").strip() or AUTODESK,
            client_id=text_of(credentials, "client_id"),
            secrets=[
                text_of(credentials, name)
                for name in ("client_secret", "refresh_token", "private_key")
            ],
            user_id=self._user_id,
        )
        self._tokens = token_source(credentials, self._transport, toolbox.vault)
        self._transport.tokens = self._tokens
        self._api = Api(self._transport, details.project)
        self._finder = StartFinder(self._api, details, self._tokens, self._user_id)
        self._check_calls = 0

    @property
    def scope(self) -> str:
        details = self._details
        return _fingerprint(details.project, details.folder_id, sorted(details.extensions))

    @property
    def principal(self) -> str:
        return _fingerprint(self._tokens.kind, self._tokens.identity, self._user_id)

    @property
    def api_calls(self) -> int:
        return self._transport.calls + self._check_calls

    def close(self) -> None:
        self._transport.close()

    def forecast(self) -> str | None:
        """A warning if the connection will end by itself soon, else None; no network."""
        return self._tokens.forecast()

    # -- questions -------------------------------------------------------------------------------

    def check(self) -> Sequence[str]:
        hurried = dataclasses.replace(
            self._toolbox,
            timeout_seconds=min(self._toolbox.timeout_seconds, CHECK_TIMEOUT_SECONDS),
            retry_budget_seconds=min(self._toolbox.retry_budget_seconds, CHECK_PATIENCE_SECONDS),
        )
        other = AutodeskConnector(self._details, self._credentials, hurried)
        try:
            return other._look()
        finally:
            self._check_calls += other.api_calls
            other.close()

    def _look(self) -> Sequence[str]:
        forecast = self._tokens.forecast()
        start = self._finder.find(None)
        names = ", ".join(f"'{folder.name}'" for folder in start.folders)
        newest = max((f.rollup for f in start.folders if f.rollup), default="unknown")
        sentences = [
            f"Signed in as {self._tokens.description}"
            + (f", with the rights of user {self._user_id}." if self._user_id else "."),
            f"Project {self._details.project}"
            + (f" in hub {start.hub}" if start.hub else "")
            + f": listing begins at {names}, where something last changed at {newest}.",
        ]
        sentences += [f"{note[:1].upper()}{note[1:]}." for note in start.notes]
        if forecast:
            sentences.append(f"Attention: {forecast}.")
        return sentences

    def probe(self, cursor: Json, known: Known) -> Probe:
        memory = self._memory(cursor)
        start = self._finder.find(memory)
        if start.hub != memory.get("hub"):
            return Probe(True, f"the project is in hub {start.hub} now")
        if {f.id for f in start.folders} != set(memory.get("roots", ())):
            return Probe(True, "other start folders than before")
        for folder in start.folders:
            held = known.folder(folder.id)
            if held is None or worth_a_run(folder, held.state):
                return Probe(True, f"'{folder.name}' changed at {folder.rollup or 'unknown time'}")
        return Probe(False, "nothing changed in any start folder")

    # -- listings --------------------------------------------------------------------------------

    def changes(self, cursor: Json, known: Known) -> Iterator[Batch]:
        memory = self._memory(cursor)
        notes = [note for note in (self._tokens.forecast(),) if note]
        blind = False
        for _ in range(MAX_ROUNDS):
            start = self._finder.find(memory)
            ids = [folder.id for folder in start.folders]
            lost = [i for i in memory.get("roots", ()) if i not in ids]
            nodes = [
                Node(folder.id, folder.name, None, folder.rollup)
                for folder in start.folders
                if (held := known.folder(folder.id)) is None or changed(folder, held.state)
            ]
            memory = self._remember(start)
            if not nodes and not lost:
                break
            descent = Descent(self._api, self._finder, known, self._wanted, self._workers)
            yield from descent.run(nodes, ids, lost)
            blind = blind or descent.blind
            if descent.blind or not (descent.paged or descent.doubtful):
                break
        else:
            blind = descent.paged
            why = "it kept changing while it was listed"
            if descent.paged:
                yield Batch(blind=[Blind(f.id, f.name, why) for f in start.folders])
            else:
                notes.append("a listing left out files that are there; it will be read again")
        yield Batch(cursor=None if blind else memory, notes=notes)

    def sweep(self, known: Known, progress: Json | None, pass_no: int) -> Iterator[Batch]:
        sweep = Sweep(self._api, self._finder, known, self._wanted, self._workers, pass_no)
        if progress is None:
            start = self._finder.find(self._memory_of(known))
            progress = self._remember(start)
            opening = sweep.begin(start.folders, self._mark(progress))
            yield dataclasses.replace(opening, sweep=progress, notes=start.notes)
        else:
            sweep.resume()
        for batch in sweep.run():
            yield dataclasses.replace(batch, sweep=progress)
        yield Batch(sweep=progress, done=True, cursor=progress)

    def window(self, start: datetime, end: datetime, known: Known) -> Iterator[Batch]:
        todo = [Node(f.folder_id, f.name, None, None) for f in self._known_roots(known)]
        if not todo:
            todo = [Node(f.id, f.name, None, None) for f in self._finder.find(None).folders]
        met = {node.id for node in todo}
        held = {folder.folder_id for folder in known.folders()}
        for node, page in walk(todo, lambda n: self._api.contents(n.id), self._workers):
            if isinstance(page, Page):
                new: list[Folder] = []
                for folder in page.folders:
                    if not folder.hidden and folder.id not in met:
                        met.add(folder.id)
                        todo.append(Node(folder.id, folder.name, node.id, None))
                        if folder.id not in held:
                            new.append(Folder(folder.id, node.id, folder.name))
                records = sort_out(page.items, self._wanted, known).records
                chosen = [r for r in records if r.updated_at and start <= r.updated_at < end]
                if chosen or new:
                    yield Batch(records=chosen, folders=new)
            elif node.parent_id is None:
                raise self._finder.explain(page)
            else:
                yield Batch(blind=[Blind(node.id, node.name, page.message)])
        yield Batch(done=True)

    def resolve(self, missing: Sequence[KnownFile], known: Known) -> Iterator[Batch]:
        """Folders that are gone take their files with them; of the rest, each is looked at. Where
        that tells nothing either, or shows that a listing had a hole, the fast way is made to look
        again."""
        roots = self._known_roots(known)
        newest = max((f.state.get("seen", 0) for f in roots), default=0)
        places = Places(
            self._api,
            known,
            [root.folder_id for root in roots],
            lambda folder: folder.state.get("seen") == newest,
            self._wanted,
            self._workers,
        )
        folders_gone: list[FolderGone] = []
        gone: list[Gone] = []
        reasons: dict[str, GoneReason | None] = {}
        for parent_id in sorted({f.parent_id for f in missing if f.parent_id}):
            reason = reasons[parent_id] = places.outcome(parent_id)
            if reason is not None and known.folder(parent_id) is not None:
                folders_gone.append(FolderGone(parent_id, reason))
        rest: list[KnownFile] = []
        for file in missing:
            reason = reasons.get(file.parent_id or "")
            if reason is None:
                rest.append(file)
            else:
                gone.append(Gone(file.external_id, reason))
        records: list[FileRecord] = []
        tree = Tree(known)
        for file, found in places.files(rest):
            if isinstance(found, GoneReason):
                gone.append(Gone(file.external_id, found))
                continue
            if not tells_less(found, file):
                records.append(found)
            tree.holed(found.parent_id)
        blind: list[Blind] = []
        for file in rest:
            if why := places.unclear.get(file.external_id):
                tree.doubt(file.parent_id)
                blind.append(Blind(file.external_id, file.title, not_shown_and(why)))
        yield Batch(
            records=records,
            gone=gone,
            folders=tree.take(),
            folders_gone=folders_gone,
            blind=blind,
        )

    # -- small things ----------------------------------------------------------------------------

    def _wanted(self, item: ItemEntry) -> bool:
        return not self._details.extensions or bool(item.extensions & self._details.extensions)

    def _remember(self, start: Start) -> dict[str, Json]:
        return {
            "v": CURSOR_VERSION,
            "project": self._details.project,
            "hub": start.hub,
            "roots": [folder.id for folder in start.folders],
            "named": start.named,
        }

    def _memory(self, cursor: Json) -> Mapping[str, Json]:
        """The cursor, if it is one of ours."""
        fits = isinstance(cursor, Mapping) and (
            cursor.get("v") == CURSOR_VERSION
            and cursor.get("project") == self._details.project
            and isinstance(cursor.get("roots"), list)
        )
        if not fits:
            raise CursorRejectedError("the stored cursor belongs to another project or version")
        memory: Mapping[str, Json] = cursor
        return memory

    def _mark(self, memory: Mapping[str, Json]) -> dict[str, Json]:
        """What start folders remember, so that a sweep needs no cursor to know the hub."""
        return {"scope": self.scope, "hub": memory["hub"], "named": memory["named"]}

    def _known_roots(self, known: Known) -> list[Folder]:
        """The start folders we hold, of this scope only, newest sweep first."""
        roots = [
            f
            for f in known.folders()
            if f.parent_id is None
            and isinstance(f.state.get("start"), Mapping)
            and f.state["start"].get("scope") == self.scope
        ]
        newest = max((f.state.get("seen", 0) for f in roots), default=0)
        return [f for f in roots if f.state.get("seen", 0) == newest]

    def _memory_of(self, known: Known) -> Mapping[str, Json]:
        roots = self._known_roots(known)
        if not roots:
            return {}
        start = roots[0].state["start"]
        return {
            "hub": start.get("hub"),
            "named": start.get("named"),
            "roots": [root.folder_id for root in roots],
        }


def _fingerprint(*parts: Json) -> str:
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:32]
