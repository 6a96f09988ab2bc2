"""The front door for Dagster: everything it can run, made from endpoints.yaml."""

from file_connector.deployment import redact_logs
from file_connector.orchestration.build import build_definitions
from file_connector.orchestration.resources import current_deployment

redact_logs()
defs = build_definitions(current_deployment().catalog())
