"""Connections that will end by themselves are alerted once a day, whoever looks at nothing."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import dagster as dg
import pytest
import yaml

from file_connector.connectors.base import ConnectorSpec
from file_connector.deployment import Deployment
from file_connector.errors import ConfigurationError
from file_connector.orchestration.build import build_definitions
from file_connector.orchestration.forecasts import NAME
from file_connector_tests.endpoints.fakes import SPEC, Only, an_entry
from file_connector_tests.orchestration.conftest import House

Forecast = Callable[..., str | None]


class Watch:
    """Definitions with one source type whose connections may end by themselves."""

    def __init__(self, house: House, monkeypatch: pytest.MonkeyPatch) -> None:
        self.house = house
        monkeypatch.setenv("FAKE_TOKEN", "t-1234")

    def sensor(
        self, *entries: Mapping[str, Any], spec: ConnectorSpec = SPEC
    ) -> dg.SensorDefinition | None:
        path = self.house.folder / "endpoints.yaml"
        path.write_text(yaml.safe_dump({"endpoints": list(entries)}))
        environ = {**self.house.environ, "FAKE_TOKEN": "t-1234"}
        deployment = Deployment.from_environ(environ, self.house.folder, Only(spec))
        defs = build_definitions(deployment.catalog(), deployment=deployment)
        found = [s for s in defs.sensors or () if s.name == NAME]
        assert len(found) <= 1
        one = found[0] if found else None
        assert one is None or isinstance(one, dg.SensorDefinition)
        return one

    def look(self, sensor: dg.SensorDefinition | None) -> str:
        """What one look says; raises what fails the tick."""
        assert sensor is not None
        with dg.build_sensor_context(instance=self.house.instance) as context:
            return str(sensor.evaluate_tick(context).skip_message)


@pytest.fixture
def watch(house: House, monkeypatch: pytest.MonkeyPatch) -> Watch:
    return Watch(house, monkeypatch)


def foretelling(forecast: Forecast) -> ConnectorSpec:
    return replace(SPEC, forecast=forecast)


def of(ending: Mapping[str, str]) -> Forecast:
    return lambda details, *_: ending.get(details.folder_id)


def an_endpoint(name: str, **values: Any) -> dict[str, Any]:
    return an_entry(name, endpoint_details={"folder_id": name}, **values)


def test_s34_a_connection_about_to_end_fails_the_daily_look(
    watch: Watch, caplog: pytest.LogCaptureFixture
) -> None:
    """The endpoints at risk have no ticks of their own: one look for all of them."""
    soon = "the sign-in ends in 3.0 days"
    sensor = watch.sensor(
        an_endpoint("plans", schedule={"type": "manual"}),
        an_endpoint("models"),
        an_endpoint("photos"),
        spec=foretelling(of({"plans": soon, "photos": soon})),
    )
    assert sensor is not None
    assert sensor.default_status is dg.DefaultSensorStatus.RUNNING
    assert sensor.minimum_interval_seconds == 24 * 60 * 60, "once a day, not with every tick"
    with caplog.at_level(logging.WARNING), pytest.raises(dg.Failure) as failed:
        watch.look(sensor)
    told = f"endpoint plans, photos: {soon}"
    assert failed.value.description == told
    assert [r.getMessage() for r in caplog.records if r.levelno == logging.WARNING] == [told]


def test_while_no_connection_ends_the_look_says_so(watch: Watch) -> None:
    sensor = watch.sensor(an_endpoint("plans"), spec=foretelling(of({})))
    assert watch.look(sensor) == "no connection ends by itself soon"


def test_what_is_wrong_otherwise_is_not_a_matter_of_this_look(watch: Watch) -> None:
    def broken(*_: object) -> str:
        raise ConfigurationError("the vault has another key")

    assert watch.look(watch.sensor(an_endpoint("plans"), spec=foretelling(broken)))


def test_there_is_no_look_where_nothing_can_be_foretold(watch: Watch) -> None:
    ends = foretelling(of({"plans": "ends", "off": "ends"}))
    assert watch.sensor(an_endpoint("plans")) is None
    assert watch.sensor(an_endpoint("off", enabled=False), spec=ends) is None
    assert watch.sensor(an_endpoint("plans", credentials="sandbox"), spec=ends) is None
    assert watch.sensor(an_endpoint("plans"), spec=ends) is not None
