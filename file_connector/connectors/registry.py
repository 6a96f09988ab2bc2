"""Which source types exist: the built-in ones, and those that installed packages announce under the
entry point group ``file_connector.connectors``.

A type is imported when it is first used, never to list names, so a broken plug-in breaks only
endpoints of its own type.
"""

from __future__ import annotations

import difflib
import importlib.metadata
import threading
from collections.abc import Iterable, Mapping, Sequence
from importlib.metadata import EntryPoint

from file_connector.connectors.base import ConnectorSpec
from file_connector.errors import ConfigurationError, redact

GROUP = "file_connector.connectors"

BUILT_IN = {
    "google_drive": "file_connector.connectors.google_drive:SPEC",
    "autodesk_construction_cloud": "file_connector.connectors.autodesk:SPEC",
}


class Registry:
    """Source types by name.

    Args:
        built_in: type -> ``module:attribute`` of its ConnectorSpec; these names cannot be taken.
        plug_ins: entry points of installed packages; by default, all that are installed now.
    """

    def __init__(
        self,
        built_in: Mapping[str, str] = BUILT_IN,
        plug_ins: Iterable[EntryPoint] | None = None,
    ) -> None:
        if plug_ins is None:
            plug_ins = importlib.metadata.entry_points(group=GROUP)
        self._candidates: dict[str, list[EntryPoint]] = {
            name: [EntryPoint(name, value, GROUP)] for name, value in built_in.items()
        }
        self._built_in = frozenset(built_in)
        for plug_in in plug_ins:
            known = self._candidates.setdefault(plug_in.name, [])
            if all(_origin(plug_in) != _origin(other) for other in known):
                known.append(plug_in)
        self._loaded: dict[str, ConnectorSpec] = {}
        self._lock = threading.Lock()

    def names(self) -> Sequence[str]:
        """All known types, sorted; imports nothing."""
        return sorted(self._candidates)

    def problems(self) -> Sequence[str]:
        """One sentence for every type that several packages claim; imports nothing."""
        return [self._clash(name) for name in self.names() if len(self._candidates[name]) > 1]

    def get(self, type_name: str) -> ConnectorSpec:
        """The source type of this name. A clash leaves a built-in type to File Connector, and
        plug-ins without a winner.

        Raises:
            ConfigurationError: no such type, several claim it, or its package is broken.
        """
        with self._lock:
            if type_name not in self._loaded:
                self._loaded[type_name] = self._load(type_name)
            return self._loaded[type_name]

    def _load(self, type_name: str) -> ConnectorSpec:
        candidates = self._candidates.get(type_name)
        if candidates is None:
            close = difflib.get_close_matches(type_name.lower(), self.names(), n=1)
            raise ConfigurationError(
                f"endpoint_type '{redact(type_name)[:60]}' is not known.",
                remedy=(f"Did you mean '{close[0]}'? " if close else "")
                + f"Known types: {', '.join(self.names())}.",
            )
        if len(candidates) > 1 and type_name not in self._built_in:
            raise ConfigurationError(self._clash(type_name))
        entry_point = candidates[0]
        try:
            spec = entry_point.load()
        except (Exception, SystemExit) as error:  # noqa: BLE001 - plug-ins fail in all ways
            raise ConfigurationError(
                f"endpoint_type '{type_name}' cannot be loaded from {_origin(entry_point)}: "
                f"{type(error).__name__}: {redact(error)[:200]}.",
                remedy="Repair or remove that package.",
            ) from None
        if not isinstance(spec, ConnectorSpec) or spec.type != type_name:
            seen = (
                f"a ConnectorSpec of type '{spec.type}'"
                if isinstance(spec, ConnectorSpec)
                else f"a {type(spec).__name__}"
            )
            raise ConfigurationError(
                f"endpoint_type '{type_name}' from {_origin(entry_point)} is {seen}, "
                f"not a ConnectorSpec of type '{type_name}'.",
                remedy="Repair or remove that package.",
            )
        return spec

    def _clash(self, type_name: str) -> str:
        origins = " and ".join(_origin(c) for c in self._candidates[type_name])
        kept = " The built-in one is used." if type_name in self._built_in else ""
        return (
            f"endpoint_type '{type_name}' is claimed by {origins}.{kept} "
            "Uninstall what you do not need."
        )


def _origin(entry_point: EntryPoint) -> str:
    """Where a type comes from, for people: ``package acme-sharepoint 1.2 (acme.sp:SPEC)``."""
    package = entry_point.dist
    who = f"package {package.name} {package.version}" if package else "File Connector itself"
    return f"{who} ({entry_point.value})"
