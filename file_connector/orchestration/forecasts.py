"""Connections that will end by themselves: the sensor ``connections`` looks once a day and fails
while there are any, so that people are alerted who look at nothing.

An endpoint that ticks keeps its connection alive and needs no such look. Those at risk run on
demand, once a month, or were stopped in the UI: no tick of theirs could tell.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence

import dagster as dg

from file_connector.deployment import Deployment
from file_connector.destination.base import Store
from file_connector.endpoints.credentials import SANDBOX
from file_connector.endpoints.schema import Endpoint
from file_connector.errors import one_line, redact
from file_connector.orchestration.failures import told_to_dagster

NAME = "connections"
EVERY_SECONDS = 24 * 60 * 60

log = logging.getLogger(__name__)


def build_sensor(
    endpoints: Sequence[Endpoint], deployment: Deployment
) -> dg.SensorDefinition | None:
    """The sensor ``connections``, on by default; None if no endpoint's connection can be foretold.
    Its failed ticks are what alert policies and the UI know to show."""
    watched = [
        endpoint
        for endpoint in endpoints
        if endpoint.enabled
        and endpoint.credentials != SANDBOX
        and deployment.spec(endpoint).forecast is not None
    ]
    if not watched:
        return None

    def look() -> dg.SkipReason:
        with told_to_dagster(), deployment.open_store() as store:
            told = ending(watched, deployment, store)
        for sentence in told:
            log.warning("%s", sentence)
        if told:
            raise dg.Failure(". ".join(told), allow_retries=False)
        return dg.SkipReason("no connection ends by itself soon")

    return dg.SensorDefinition(
        name=NAME,
        evaluation_fn=look,
        minimum_interval_seconds=EVERY_SECONDS,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Fails, once a day, while a connection is about to end by itself.",
    )


def ending(endpoints: Sequence[Endpoint], deployment: Deployment, store: Store) -> Sequence[str]:
    """What is foretold, one sentence for each connection, with the endpoints that use it."""
    users: dict[str, list[str]] = {}
    for endpoint in endpoints:
        if foretold := deployment.forecast(endpoint, store):
            users.setdefault(one_line(redact(foretold)), []).append(endpoint.id)
    return [f"endpoint {', '.join(ids)}: {foretold}" for foretold, ids in users.items()]
