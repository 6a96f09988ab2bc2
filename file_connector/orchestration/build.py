"""Endpoints in, Dagster definitions out; the only assembler.

Everything here is made from plain data: no network, no database, no client libraries. What cannot
run is shown as well: quarantined entries become assets that say why.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime

import dagster as dg
from dagster._core.definitions.definitions_load_context import (
    DefinitionsLoadContext,
    DefinitionsLoadType,
)
from dagster._core.definitions.unresolved_asset_job_definition import UnresolvedAssetJobDefinition

from file_connector.deployment import Deployment
from file_connector.endpoints.catalog import Catalog, Problem
from file_connector.endpoints.schema import Endpoint
from file_connector.errors import redact
from file_connector.orchestration import forecasts
from file_connector.orchestration.factory import build_asset, build_job, quarantined_asset
from file_connector.orchestration.io_manager import SupabaseIOManager
from file_connector.orchestration.mailbox import build_sensor
from file_connector.orchestration.resources import (
    AutodeskResource,
    ConnectorResource,
    GoogleDriveResource,
    SupabaseResource,
    current_deployment,
    resource_key,
)
from file_connector.orchestration.schedules import Mirror, build_schedule
from file_connector.orchestration.watch import build_watch
from file_connector.times import utc_now

log = logging.getLogger("file_connector")


def build_definitions(
    catalog: Catalog,
    *,
    resources: Mapping[str, object] | None = None,
    deployment: Deployment | None = None,
    now: Callable[[], datetime] = utc_now,
) -> dg.Definitions:
    """All assets, jobs and schedules of a catalog.

    Args:
        resources: replace the resources of these keys (tests, special deployments).
        deployment: knows the catalog's source types; by default, the one of this process.
        now: the clock of the ticks.
    """
    deployment = deployment or current_deployment()
    if not _in_a_run():
        for problem in catalog.problems:
            log.log(logging.ERROR if problem.quarantines else logging.WARNING, "%s", problem)
    supabase = SupabaseResource()
    wired: dict[str, object] = {
        "google_drive": GoogleDriveResource(),
        "autodesk": AutodeskResource(),
        "supabase": supabase,
        "supabase_io_manager": SupabaseIOManager(supabase=supabase),
    }
    for endpoint in catalog.endpoints:
        wired.setdefault(resource_key(endpoint), ConnectorResource())
    wired.update(resources or {})
    mirror = Mirror(catalog)
    assets: list[dg.AssetsDefinition | dg.AssetSpec] = []
    jobs = []
    able = []
    schedules = []
    with warnings.catch_warnings():
        # Single-run backfills and code references are what we want, beta or not.
        warnings.simplefilter("ignore", dg.BetaWarning)
        for endpoint in catalog.endpoints:
            try:
                asset = build_asset(endpoint, catalog.path, deployment)
                job = build_job(endpoint, asset)
                schedule = build_schedule(endpoint, job, mirror, now)
            except Exception as error:  # noqa: BLE001 - one entry must not take all others with it
                assets.append(_refused(endpoint, catalog, error))
                continue
            assets.append(asset)
            jobs.append(job)
            able.append(endpoint)
            if schedule is not None:
                schedules.append(schedule)
        assets += quarantined_assets(catalog)
        return dg.Definitions(
            assets=assets,
            jobs=jobs,
            schedules=schedules,
            sensors=_sensors(
                replace(catalog, endpoints=tuple(able)), jobs, mirror, deployment, now
            ),
            resources=wired,
            executor=dg.in_process_executor,
        )


def _in_a_run() -> bool:
    """Whether a run's process loads the definitions once more: what is wrong with other endpoints
    was told when the code location loaded, and is none of this run's business."""
    if not DefinitionsLoadContext.is_set():
        return False
    return DefinitionsLoadContext.get().load_type is DefinitionsLoadType.RECONSTRUCTION


def _sensors(
    catalog: Catalog,
    jobs: Sequence[UnresolvedAssetJobDefinition],
    mirror: Mirror,
    deployment: Deployment,
    now: Callable[[], datetime],
) -> Sequence[dg.SensorDefinition]:
    """The one that looks for lost runs; the one that foretells, if there is anything to foretell;
    and the one that empties the mailbox, where there is one: on with a database, and off with the
    REST API until somebody has exposed its schema. None asks for resources, see ``keep_open``."""
    settings = deployment.settings
    sensors = [
        build_watch(catalog, mirror, deployment),
        forecasts.build_sensor(catalog.endpoints, deployment),
    ]
    if settings.database_url or settings.rest_url:
        running = bool(settings.database_url)
        sensors.append(build_sensor(catalog, jobs, mirror, deployment, running=running, now=now))
    return [sensor for sensor in sensors if sensor is not None]


def quarantined_assets(catalog: Catalog) -> list[dg.AssetSpec]:
    """What stands in the file but cannot run, visible among the assets with reason and remedy."""
    taken = {e.id for e in catalog.endpoints}
    specs = []
    for entry in catalog.quarantined:
        name = entry.id if entry.id and entry.id not in taken else f"entry_in_line_{entry.line}"
        taken.add(name)
        specs.append(quarantined_asset(name, entry.name, entry.problems, catalog, entry.line))
    if not catalog.readable:
        name = "endpoints_file" if catalog.path else "connectors_instances"
        whole = [problem for problem in catalog.problems if problem.entry is None]
        specs.append(quarantined_asset(name, catalog.name, whole, catalog, 1))
    return specs


def _refused(endpoint: Endpoint, catalog: Catalog, error: Exception) -> dg.AssetSpec:
    """An entry that is valid for us, but that Dagster does not take."""
    problem = Problem(
        file=catalog.name,
        line=endpoint.line,
        entry=endpoint.id,
        field="",
        seen="",
        allowed="",
        message=f"Dagster does not accept it: {redact(error)}.",
        remedy="Please report this, with the entry and the version of its plug-in, if any.",
    )
    log.error("%s", problem)
    return quarantined_asset(endpoint.id, endpoint.name, [problem], catalog, endpoint.line)
