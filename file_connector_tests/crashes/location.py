"""The shipped definitions as a code location whose ticks follow a clock that tests can move: its
lead in seconds stands in the file named by ``CRASHES_CLOCK``."""

import os
from datetime import datetime, timedelta
from pathlib import Path

from file_connector.orchestration.build import build_definitions
from file_connector.orchestration.resources import current_deployment
from file_connector.times import utc_now
from file_connector_tests.crashes.child import CLOCK_VARIABLE


def now() -> datetime:
    return utc_now() + timedelta(seconds=float(Path(os.environ[CLOCK_VARIABLE]).read_text()))


defs = build_definitions(current_deployment().catalog(), now=now)
