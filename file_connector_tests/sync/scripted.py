"""A Connector that plays back batches, so that engine tests decide exactly what a source says."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from datetime import datetime

from file_connector.connectors.base import Known
from file_connector.errors import FileConnectorError
from file_connector.models import (
    Batch,
    FileRecord,
    Folder,
    Gone,
    GoneReason,
    Json,
    KnownFile,
    Probe,
)

Script = Sequence[Batch | Exception | Callable[[], None]]


class ScriptedConnector:
    """Each script is a list of batches; an exception in it is raised, a callable is called.

    ``truth`` is what ``resolve`` knows: id -> record still there, or the reason it is gone; an id
    it does not know cannot be told now.
    """

    def __init__(self) -> None:
        self.scope = "root"
        self.principal = "robot"
        self.api_calls = 0
        self.change_scripts: list[Script] = []
        self.sweep_script: Script = ()
        self.window_script: Script = ()
        self.truth: dict[str, FileRecord | GoneReason] = {}
        self.probe_answer: Probe | FileConnectorError = Probe(False, "quiet")
        self.check_answer: FileConnectorError | None = None
        self.calls: list[tuple[object, ...]] = []

    def _play(self, script: Script) -> Iterator[Batch]:
        for step in script:
            self.api_calls += 1
            if isinstance(step, Exception):
                raise step
            if isinstance(step, Batch):
                yield step
            else:
                step()

    def check(self) -> Sequence[str]:
        self.calls.append(("check",))
        if self.check_answer is not None:
            raise self.check_answer
        return ["fine"]

    def probe(self, cursor: Json, known: Known) -> Probe:
        self.api_calls += 1
        self.calls.append(("probe", cursor))
        if isinstance(self.probe_answer, FileConnectorError):
            raise self.probe_answer
        return self.probe_answer

    def changes(self, cursor: Json, known: Known) -> Iterator[Batch]:
        self.calls.append(("changes", cursor))
        script = self.change_scripts.pop(0) if self.change_scripts else [Batch(cursor=cursor)]
        return self._play(script)

    def sweep(self, known: Known, progress: Json | None, pass_no: int) -> Iterator[Batch]:
        self.calls.append(("sweep", progress, pass_no))
        return self._play(self.sweep_script)

    def window(self, start: datetime, end: datetime, known: Known) -> Iterator[Batch]:
        self.calls.append(("window", start, end))
        return self._play(self.window_script)

    def resolve(self, missing: Sequence[KnownFile], known: Known) -> Iterator[Batch]:
        self.calls.append(("resolve", sorted(f.external_id for f in missing)))
        gone = []
        records = []
        for file in missing:
            match self.truth.get(file.external_id):
                case GoneReason() as reason:
                    gone.append(Gone(file.external_id, reason))
                case FileRecord() as record:
                    records.append(record)
        yield Batch(records=records, gone=gone)

    def close(self) -> None:
        return None

    def named(self, name: str) -> list[tuple[object, ...]]:
        """The calls of this name, in order."""
        return [call for call in self.calls if call[0] == name]


def listing(*records: FileRecord, cursor: Json = "t1", pages: int = 1) -> list[Batch]:
    """A complete listing: the root folder, then the records in ``pages`` batches."""
    steps = [Batch(folders=[Folder("root", None, "Root")], sweep="page 0")]
    size = max(-(-len(records) // pages), 1)
    for i in range(pages):
        part = records[i * size : (i + 1) * size]
        steps.append(Batch(records=part, sweep=f"page {i + 1}"))
    steps.append(Batch(done=True, cursor=cursor))
    return steps
