"""The deployment's side of the control plane: what it tells the application about source types."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from file_connector.connectors.registry import Registry
from file_connector.destination.control import ControlPlane
from file_connector.errors import ConfigurationError
from file_connector.models import Json


def define(control: ControlPlane, registry: Registry) -> int:
    """Make ``connectors.definitions`` what ``registry`` knows; how many rows changed."""
    return control.define(list(definitions(registry)))


def definitions(registry: Registry) -> Iterator[Mapping[str, Json]]:
    """A row of ``connectors.definitions`` for every source type that can be loaded."""
    for name in registry.names():
        try:
            spec = registry.get(name)
        except ConfigurationError:
            continue  # `validate` tells of it wherever an endpoint is of that type
        yield {
            "type": spec.type,
            "title": spec.title,
            "details_schema": spec.details.model_json_schema(),
            "streams": list(spec.streams),
            "minimum_interval_minutes": spec.minimum_interval_minutes,
        }
