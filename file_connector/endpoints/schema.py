"""What a tenant may write in one entry of endpoints.yaml, and the Endpoint it becomes.

Reading the file is ``loader.py``; what a source type wants in ``endpoint_details`` is declared by
its ConnectorSpec.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Mapping
from datetime import date
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SerializeAsAny,
    StringConstraints,
)
from pydantic_core import PydanticCustomError

from file_connector.endpoints.cron import parse_cron
from file_connector.errors import one_line
from file_connector.models import Identity, Json

MAX_ID_LENGTH = 50
"""Leaves room for the suffixes of Dagster names and for tags, which end at 63 characters."""

SECRET_NAME = "[A-Za-z0-9][A-Za-z0-9_.-]{0,126}"
"""What may follow ``vault:``."""

_ID = re.compile(r"[a-z0-9]+(?:_[a-z0-9]+)*", re.ASCII)


def slug(name: str) -> str:
    """The id an endpoint of this name gets when the YAML gives none; empty if nothing usable is
    left. Only ever a function of the name; a name too long is cut and told apart by a checksum."""
    plain = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode().lower()
    text = "_".join(re.findall(r"[a-z0-9]+", plain))
    if len(text) <= MAX_ID_LENGTH:
        return text
    checksum = hashlib.sha256(name.encode()).hexdigest()[:8]
    return f"{text[: MAX_ID_LENGTH - 9].rstrip('_')}_{checksum}"


_REFERENCE = re.compile(r"^\$[A-Za-z_]\w*$|\$\{\w+\}|\{\{.*\}\}")
"""What other tools replace. A row stamped with it literally would belong to nobody."""


def _tidy(value: str) -> str:
    if value != value.strip():
        raise PydanticCustomError("tidy", "must not begin or end with blanks")
    if value != one_line(value):
        raise PydanticCustomError("tidy", "must not hold invisible characters or line breaks")
    if _REFERENCE.search(value):
        raise PydanticCustomError(
            "tidy", "must be the value itself: variables are not replaced in this file"
        )
    return value


def _tenant(value: object) -> object:
    """``project_id: 42`` plainly means the text "42"; all other non-text needs quotes."""
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


def _id(value: str) -> str:
    if len(value) > MAX_ID_LENGTH:
        raise PydanticCustomError("id", f"must have at most {MAX_ID_LENGTH} characters")
    if not _ID.fullmatch(value):
        raise PydanticCustomError(
            "id",
            "may hold only a-z, 0-9 and single underscores between them",
            {"suggestion": slug(value)},
        )
    return value


def _cron(value: str) -> str:
    try:
        parse_cron(value)
    except ValueError as error:
        raise PydanticCustomError("cron", "{why}", {"why": str(error)}) from None
    return " ".join(value.split())


def _day(value: object) -> object:
    """Dates only: pydantic would read numbers as seconds since 1970."""
    if type(value) is date or (isinstance(value, str) and re.fullmatch(r"\d{4}-\d\d-\d\d", value)):
        return value
    raise PydanticCustomError("day", "must be a date like 2026-01-31")


_Text = Annotated[str, StringConstraints(min_length=1, max_length=200), AfterValidator(_tidy)]
_Tenant = Annotated[_Text, BeforeValidator(_tenant)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class IntervalSchedule(_Strict):
    """A tick every so many minutes, spread over the interval by the endpoint's id."""

    type: Literal["interval"] = "interval"
    interval_minutes: int = Field(default=5, strict=True, ge=1, le=1440)


class CronSchedule(_Strict):
    """A tick at given times, in UTC."""

    type: Literal["cron"]
    cron: Annotated[str, AfterValidator(_cron)]


class ManualSchedule(_Strict):
    """Runs only when asked for."""

    type: Literal["manual"]


Schedule = Annotated[IntervalSchedule | CronSchedule | ManualSchedule, Field(discriminator="type")]


class Entry(_Strict):
    """One entry of ``endpoints:`` as a tenant writes it, after ``defaults:`` filled the gaps."""

    name: _Text
    id: Annotated[str, AfterValidator(_id)] | None = None
    endpoint_type: str
    project_id: _Tenant
    user_id: _Tenant
    endpoint_details: dict[str, Any] = Field(default_factory=dict)
    credentials: (
        Annotated[
            str,
            StringConstraints(pattern=rf"^([A-Za-z0-9][A-Za-z0-9_-]{{0,63}}|vault:{SECRET_NAME})$"),
        ]
        | None
    ) = None
    schedule: Schedule = IntervalSchedule()
    start_date: Annotated[date, BeforeValidator(_day)] | None = None
    enabled: bool = Field(default=True, strict=True)


class Endpoint(_Strict):
    """A valid entry, ready to run.

    Attributes:
        id: the identity; stable, unique, fit for Dagster names.
        endpoint_details: as written; ``details`` is the same, validated by the source type.
        credentials: name of the credential set, or ``vault:`` and that of a secret in the database;
            None means the process-wide set.
        start_date: first daily partition (UTC); None leaves the choice to the factory.
        line: where the entry begins in the file, counted from 1; None for a row of the control
            plane's table.
    """

    id: str
    name: str
    endpoint_type: str
    project_id: str
    user_id: str
    endpoint_details: Mapping[str, Json]
    details: SerializeAsAny[BaseModel]
    credentials: str | None
    schedule: Schedule
    start_date: date | None
    enabled: bool
    line: int | None

    @property
    def identity(self) -> Identity:
        return Identity(
            endpoint_id=self.id,
            source=self.endpoint_type,
            project_id=self.project_id,
            user_id=self.user_id,
            name=self.name,
        )
