"""Where an endpoint's listing begins, and what it means when one may not even begin.

Without ``folder_id`` that is the project's folder "Project Files", which only ``topFolders`` shows,
which wants the hub id, which is found out once and then remembered in the cursor, until the project
is no longer to be seen there.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from file_connector.connectors.autodesk.api import Api
from file_connector.connectors.autodesk.auth import ThreeLegged, TokenSource
from file_connector.connectors.autodesk.mapping import FolderEntry, dig
from file_connector.connectors.autodesk.spec import AutodeskDetails
from file_connector.connectors.autodesk.transport import BadInputError, RefusedError
from file_connector.errors import (
    ConfigurationError,
    FileConnectorError,
    ForbiddenError,
    NotFoundError,
    ReconnectError,
)
from file_connector.models import Json

PROJECT_FILES = "project files"
HUBS_SECONDS = 10.0
"""Hubs may be listed 50 times a minute only; checking all endpoints at once asks for them once."""
_SYSTEM_FOLDER = re.compile(
    r"^(projecttb|photos|recycle bin|cost root folder|submittals?[-_ ]attachments?"
    r"|(issues?|checklists?|dailylogs?|meetings?|quantification|submittals?|forms?|rfis?|cost"
    r"|assets?|correspondence)[-_].*|.*[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}.*)$",
    re.IGNORECASE,
)
"""Top folders in which other ACC tools keep their attachments; names vary."""


_NOT_HERE = (RefusedError, NotFoundError, BadInputError)
"""What a hub answers that does not hold the project, or does not show it."""


@dataclass(frozen=True)
class Start:
    """Start folders as they are now.

    Attributes:
        named: found as "Project Files" or by ``folder_id``; otherwise all top folders are taken.
    """

    hub: str | None
    folders: tuple[FolderEntry, ...]
    named: bool = True

    @property
    def notes(self) -> Sequence[str]:
        if self.named:
            return ()
        names = ", ".join(f"'{f.name}'" for f in self.folders)
        return (f"the project has no folder 'Project Files'; listing {names} instead",)


class StartFinder:
    """Finds the start folders of one endpoint in one request, or two to three the first time and
    after the project moved to another hub."""

    def __init__(
        self, api: Api, details: AutodeskDetails, tokens: TokenSource, user_id: str | None
    ) -> None:
        self._api = api
        self._details = details
        self._tokens = tokens
        self._user_id = user_id
        self._hub = details.hub
        """As given, or as found last."""

    def find(self, memory: Mapping[str, Json] | None) -> Start:
        """The start folders.

        Args:
            memory: what an earlier ``Start`` left in the cursor (``hub``, ``roots``, ``named``).

        Raises:
            ConfigurationError, ReconnectError: one cannot even begin, and why.
        """
        memory = memory or {}
        hub = self._hub or memory.get("hub")
        try:
            if self._details.folder_id is not None:
                return Start(None, (self._start_folder(self._details.folder_id),))
            start = self._search(hub if isinstance(hub, str) else None, memory)
        except RefusedError as error:
            raise self.explain(error) from None
        except NotFoundError:
            raise self._no_project([str(hub)]) from None
        self._hub = start.hub
        return start

    def explain(self, error: ForbiddenError | NotFoundError) -> FileConnectorError:
        """What a 403 or 404 about the start of the listing means."""
        if not isinstance(error, RefusedError):
            return self._lost()
        if error.code == "AUTH-010":
            kind = ReconnectError if isinstance(self._tokens, ThreeLegged) else ConfigurationError
            return kind(
                f"the Autodesk token lacks the scope for reading files ({error.detail}).",
                remedy="Connect the account again and grant data:read.",
            )
        if error.code == "AUTH-001":
            return ConfigurationError(
                f"the Autodesk app {self._tokens.client_id} has no access to the API "
                f"({error.detail}).",
                remedy="Tick Data Management and Autodesk Construction Cloud for the app at "
                "aps.autodesk.com/myapps.",
            )
        if self._not_provisioned():
            return self._unprovisioned(error.detail)
        project, folder_id = self._api.project, self._details.folder_id
        if self._user_id:
            where = (
                f"folder {folder_id} of project {project}" if folder_id else f"project {project}"
            )
            return ConfigurationError(
                f"the Autodesk user {self._user_id} (x_user_id) may not see {where}: "
                f"{error.detail}",
                remedy="Add that user to the project with at least View rights, or set the "
                "x_user_id of a member.",
            )
        if folder_id:
            return ConfigurationError(
                f"folder {folder_id} of project {project} may not be seen by "
                f"{self._tokens.description}: {error.detail}",
                remedy="Give it View rights on the folder, or choose another folder_id.",
            )
        return ConfigurationError(
            f"project {project} may not be seen by {self._tokens.description}: {error.detail}",
            remedy=f"Add it to the project. {self._integration_advice()}",
        )

    # -- parts -----------------------------------------------------------------------------------

    def _lost(self) -> FileConnectorError:
        """The start folder does not exist (any more), or hides."""
        return ConfigurationError(
            f"the start folder {self._details.folder_id or 'Project Files'} of project "
            f"{self._api.project} is not there: deleted, in another project, or not visible to "
            f"{self._tokens.description}; its rows are left as they are.",
            remedy="Restore or share the folder, or set another folder_id.",
        )

    def _start_folder(self, folder_id: str) -> FolderEntry:
        try:
            folder = self._api.folder(folder_id)
        except NotFoundError:
            raise self._lost() from None
        if folder.hidden:
            raise self._lost()
        return folder

    def _search(self, hub: str | None, memory: Mapping[str, Json]) -> Start:
        """The start folders in ``hub``, or in the first other one that shows the project."""
        errors: dict[str, FileConnectorError] = {}
        for candidate in self._candidates(hub):
            if candidate in errors:
                continue
            try:
                return self._select(candidate, self._api.top_folders(candidate), memory)
            except _NOT_HERE as error:
                if self._details.hub is not None:
                    raise
                errors[candidate] = error
        refused = [error for error in errors.values() if isinstance(error, RefusedError)]
        raise refused[0] if refused else self._no_project(list(errors))

    def _candidates(self, hub: str | None) -> Iterator[str]:
        """Hubs to ask: the one that is known, then the accounts that are to be seen."""
        if hub is not None:
            yield hub
        hubs = self._tokens.shared(
            f"hubs of {self._user_id} besides {hub}", HUBS_SECONDS, self._hubs
        )
        yield from [h["id"] for h in hubs if _is_account(h)] or [h["id"] for h in hubs]

    def _hubs(self) -> Sequence[Mapping[str, Json]]:
        hubs, remarks = self._api.hubs()
        if not hubs:
            raise self._unprovisioned("; ".join(remarks[:3]) or "no hub is visible")
        return hubs

    def _select(self, hub: str, top: Sequence[FolderEntry], memory: Mapping[str, Json]) -> Start:
        """The folder "Project Files", also once renamed; where none was ever seen, all but the
        system's. What was seen once and is not any more is lost: others are no stand-in for it."""
        visible = [folder for folder in top if not folder.hidden]
        chosen = [f for f in visible if f.name.strip().casefold() == PROJECT_FILES]
        if not chosen and memory.get("named"):
            chosen = [f for f in visible if f.id in memory.get("roots", ())]
        if chosen:
            return Start(hub, tuple(chosen))
        if memory.get("named"):
            raise self._lost()
        others = [f for f in visible if not _SYSTEM_FOLDER.match(f.name.strip())]
        if not others:
            raise ConfigurationError(
                f"project {self._api.project} shows no folder 'Project Files' to "
                f"{self._tokens.description} ({len(top)} top folders, none to list); its rows are "
                "left as they are.",
                remedy="Give it View rights on Project Files, or set folder_id. A project created "
                "a moment ago needs some minutes.",
            )
        return Start(hub, tuple(others), named=False)

    def _no_project(self, hubs: Sequence[str]) -> FileConnectorError:
        shown = ", ".join(hubs[:3]) + (f" and {len(hubs) - 3} more" if len(hubs) > 3 else "")
        return ConfigurationError(
            f"project {self._api.project} is not found in hub {shown} as seen by "
            f"{self._tokens.description}; its rows are left as they are.",
            remedy="Check project_id (and hub_id, if set), and that the project is active and "
            "shared with this account.",
        )

    def _not_provisioned(self) -> bool:
        """Whether the provider, asked for hubs, shows none and remarks that it may not."""
        try:
            hubs, remarks = self._api.hubs()
        except FileConnectorError:
            return False
        return not hubs and (bool(remarks) or not self._user_id)

    def _unprovisioned(self, detail: str) -> FileConnectorError:
        return ConfigurationError(
            f"the customer's Autodesk account has not let app {self._tokens.client_id} in: it sees "
            f"no hub ({detail}).",
            remedy=self._integration_advice(),
        )

    def _integration_advice(self) -> str:
        return (
            "An account admin opens Account Admin, Settings, Custom Integrations, adds a custom "
            f"integration with client id {self._tokens.client_id}, and waits a few minutes."
        )


def _is_account(hub: Mapping[str, Json]) -> bool:
    """ACC and BIM 360 accounts; the others are personal and Fusion hubs."""
    kind = dig(hub, "attributes", "extension", "type")
    return str(hub["id"]).startswith("b.") or kind == "hubs:autodesk.bim360:Account"
