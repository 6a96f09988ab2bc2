"""The work of ``file-connector explain``: what we hold of a file, and what its provider says."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass

from file_connector.deployment import Deployment
from file_connector.destination.base import Store
from file_connector.endpoints.schema import Endpoint
from file_connector.errors import FileConnectorError
from file_connector.models import GoneReason, Json, KnownFile

_GONE = {
    "trashed": "it was put into the trash",
    "deleted": "the provider no longer has it",
    "out_of_scope": "it exists, but outside this endpoint's folder or filters",
    "access_lost": "this account may no longer see it",
}
_NOW = {
    **_GONE,
    "trashed": "it is in the trash",
    "deleted": "there is no such file, or this account may not see it",
}
_FILTERS = ("file_types", "mime_types")


@dataclass(frozen=True, slots=True)
class Explained:
    """``row``: as it is stored, if there is one. ``provider``: shown, gone, folder or unknown."""

    row: Mapping[str, Json] | None
    provider: str
    sentences: Sequence[str]


@dataclass(frozen=True, slots=True)
class _Asked:
    """What the provider says of one file: shown, gone (with the reason) or unknown."""

    provider: str
    sentence: str
    reason: GoneReason | None = None


def explained(
    deployment: Deployment, endpoint: Endpoint, store: Store, external_id: str
) -> Explained:
    """Why a file is, or is not, in the table. Asks the provider, unless it is a known folder."""
    row = store.row(endpoint.id, external_id)
    folder = store.known(endpoint.id).folder(external_id)
    if row is None and folder is not None:
        told = f"'{folder.name}' is a folder of this endpoint: only the files in it have rows."
        return Explained(None, "folder", [told])
    asked = _ask_provider(deployment, endpoint, store, external_id)
    sentences = [_about_row(row, external_id), asked.sentence]
    if asked.reason is GoneReason.OUT_OF_SCOPE:
        sentences += _about_filters(deployment, endpoint, store, external_id)
    if row is None and asked.provider == "shown":
        sentences.append(
            "The first complete listing has not ended yet; it will be stored."
            if store.state(endpoint.id).cursor is None
            else "It will be stored by the next run or sweep."
        )
    if row is not None and row["gone_reason"] is None and asked.provider == "gone":
        sentences.append("The next run or sweep will mark it gone.")
    return Explained(row, asked.provider, sentences)


def _about_row(row: Mapping[str, Json] | None, external_id: str) -> str:
    if row is None:
        return f"'{external_id}' has no row: no run has ever seen it in this endpoint's scope."
    if row["gone_reason"]:
        return (
            f"'{row['title']}' is marked gone since {row['gone_at']}: {_GONE[row['gone_reason']]}. "
            f"First seen {row['first_seen_at']}."
        )
    return (
        f"'{row['title']}' is live, first seen {row['first_seen_at']}, last changed "
        f"{row['changed_at']}."
    )


def _about_filters(
    deployment: Deployment, endpoint: Endpoint, store: Store, external_id: str
) -> list[str]:
    """Whether only a filter keeps a file out: then asking without filters shows it."""
    unset = {name: None for name in _FILTERS if getattr(endpoint.details, name, None)}
    if not unset:
        return []
    wider = endpoint.model_copy(update={"details": endpoint.details.model_copy(update=unset)})
    asked = _ask_provider(deployment, wider, store, external_id)
    keys = " or ".join(f"`{name}`" for name in unset)
    if asked.provider == "shown":
        return [f"It lies in this endpoint's folder; only {keys} leaves it out."]
    if asked.reason is GoneReason.OUT_OF_SCOPE:
        return [f"Without {keys}, it would be outside as well."]
    return []


def _ask_provider(
    deployment: Deployment, endpoint: Endpoint, store: Store, external_id: str
) -> _Asked:
    known = store.known(endpoint.id)
    held = known.files([external_id]).get(external_id)
    asked = held or KnownFile(external_id, "", None, None, None)
    try:
        with closing(deployment.open_connector(endpoint, store)) as connector:
            for batch in connector.resolve([asked], known):
                for record in batch.records:
                    if record.external_id == external_id:
                        return _Asked("shown", f"The provider shows it now, as '{record.title}'.")
                for gone in batch.gone:
                    if gone.external_id == external_id:
                        says = f"Asked now, the provider says: {_NOW[gone.reason.value]}."
                        return _Asked("gone", says, gone.reason)
    except FileConnectorError as error:
        return _Asked("unknown", f"The provider could not be asked: {error}")
    return _Asked("unknown", "Asked now, the provider does not tell.")
