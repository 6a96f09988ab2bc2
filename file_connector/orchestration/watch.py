"""The sensor ``lost_runs``: frees the endpoints of runs that were killed, soon and also where no
schedule ticks."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

import dagster as dg

from file_connector.deployment import Deployment
from file_connector.endpoints.catalog import Catalog
from file_connector.orchestration.failures import told_to_dagster
from file_connector.orchestration.runs import bury_the_dead, silent, unfinished
from file_connector.orchestration.schedules import Mirror
from file_connector.orchestration.storage import keep_open
from file_connector.times import utc_now

NAME = "lost_runs"
EVERY_SECONDS = 30


def build_watch(
    catalog: Catalog,
    mirror: Mirror,
    deployment: Deployment,
    now: Callable[[], datetime] = utc_now,
) -> dg.SensorDefinition:
    """On by default. It asks Dagster alone, and the store only if a run has fallen silent.

    Args:
        now: the clock by which Dagster dates its events.
    """
    ids = [endpoint.id for endpoint in catalog.endpoints]

    def look(context: dg.SensorEvaluationContext) -> dg.SkipReason:
        with told_to_dagster():
            keep_open(context)
            suspects = silent(ids, unfinished(context.instance), context.instance, now())
            lost = None
            if suspects or mirror.wanted:
                with deployment.open_store() as store:
                    mirror.once(store)
                    lost = bury_the_dead(suspects, store, context.instance)
            return dg.SkipReason(lost or "no run has lost its process")

    return dg.SensorDefinition(
        name=NAME,
        evaluation_fn=look,
        minimum_interval_seconds=EVERY_SECONDS,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Declares failed what was killed, so that its endpoint can run again.",
    )
