"""A small source type for tests of the rim, and a registry that knows it and a broken one."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from textwrap import dedent
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from file_connector.connectors.base import Connector, ConnectorSpec, Credentials, Toolbox
from file_connector.connectors.registry import Registry
from file_connector.endpoints.catalog import Catalog
from file_connector.endpoints.loader import load_endpoints
from file_connector.errors import ConfigurationError


class Filter(BaseModel):
    model_config = ConfigDict(extra="forbid")

    at_least_bytes: int = 0


class Details(BaseModel):
    model_config = ConfigDict(extra="forbid")

    folder_id: str | None = Field(default=None, pattern=r"^[A-Za-z0-9_-]+$")
    drive_id: str | None = None
    recursive: bool = True
    file_types: list[str] = []
    mime_types: Annotated[tuple[str, ...], Field(min_length=1)] | None = None
    filter: Filter = Filter()

    @field_validator("drive_id")
    @classmethod
    def _is_no_link(cls, value: str | None) -> str | None:
        if value and "/" in value:
            raise ValueError("is a link; write only the id")
        return value

    @model_validator(mode="after")
    def _one_root(self) -> Details:
        if (self.folder_id is None) == (self.drive_id is None):
            raise ValueError("give either folder_id or drive_id")
        return self


def default_credentials(environ: Mapping[str, str]) -> Mapping[str, Any]:
    if "FAKE_TOKEN" not in environ:
        raise ConfigurationError("FAKE_TOKEN is not set.", remedy="Set FAKE_TOKEN.")
    return {"token": environ["FAKE_TOKEN"]}


def open_nothing(details: Details, credentials: Credentials, toolbox: Toolbox) -> Connector:
    raise AssertionError("nothing is opened while reading YAML")


SPEC = ConnectorSpec(
    type="fake",
    title="Fake Drive",
    kind="fake",
    details=Details,
    credentials_variable="FAKE_CREDENTIALS",
    default_credentials=default_credentials,
    open=open_nothing,
    describe=lambda details: f"files of {details.folder_id or details.drive_id}",
    minimum_interval_minutes=2,
)

HERE = "file_connector_tests.endpoints.fakes"


def a_registry() -> Registry:
    return Registry({"fake": f"{HERE}:SPEC", "broken": f"{HERE}_that_do_not_exist:SPEC"}, ())


class Only(Registry):
    """A registry of exactly these types."""

    def __init__(self, *specs: ConnectorSpec) -> None:
        super().__init__({spec.type: "" for spec in specs}, ())
        self._loaded.update({spec.type: spec for spec in specs})


def load(folder: Path, text: str | bytes, environ: Mapping[str, str] | None = None) -> Catalog:
    """Read ``text`` as an endpoints.yaml in ``folder``."""
    path = folder / "endpoints.yaml"
    path.write_bytes(text if isinstance(text, bytes) else dedent(text).encode())
    return load_endpoints(path, a_registry(), environ)


def an_entry(name: str = "Tower 42", **values: Any) -> dict[str, Any]:
    """A valid entry; ``None`` leaves a key out."""
    entry = {
        "name": name,
        "endpoint_type": "fake",
        "project_id": "tower-42",
        "user_id": "ana",
        "endpoint_details": {"folder_id": "root-1"},
        **values,
    }
    return {k: v for k, v in entry.items() if v is not None}
