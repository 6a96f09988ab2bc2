"""Dagster's side of the zygote: a run launcher that differs from the default one only in where the
run's process comes from."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from dagster import DagsterRun
from dagster._core.launcher.base import LaunchRunContext, RunLauncher
from dagster._serdes import ConfigurableClass, ConfigurableClassData


class ZygoteLauncher(RunLauncher, ConfigurableClass):
    """``start`` is set by the test session."""

    start: Callable[[DagsterRun], None] | None = None

    def __init__(self, inst_data: ConfigurableClassData | None = None) -> None:
        self._inst_data = inst_data
        super().__init__()  # type: ignore[no-untyped-call]

    @property
    def inst_data(self) -> ConfigurableClassData | None:
        return self._inst_data

    @classmethod
    def config_type(cls) -> Mapping[str, Any]:
        return {}

    @classmethod
    def from_config_value(
        cls, inst_data: ConfigurableClassData | None, config_value: Mapping[str, Any]
    ) -> ZygoteLauncher:
        return cls(inst_data)

    def launch_run(self, context: LaunchRunContext) -> None:
        assert self.start is not None
        self.start(context.dagster_run)

    def terminate(self, run_id: str) -> bool:
        return False
