"""How long a run waits for the other writer of its endpoint."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime

import pytest

from file_connector.errors import BusyError
from file_connector.models import Mode, Outcome, RunCounts, RunReport
from file_connector.sync.turn import POLL_SECONDS, take_turn
from file_connector_tests.builders import at

REPORT = RunReport("run", "plans", Mode.SWEEP, Outcome.COMPLETE, RunCounts(), "", at(1), at(2))


class Endpoint:
    """Busy until each of the given leases was shown once; then it is free. Waiting takes no time,
    but counts."""

    def __init__(self, *leases: datetime | None) -> None:
        self._answers: Iterator[BusyError | RunReport] = iter([*map(busy, leases), REPORT])
        self.waited = 0.0
        self.told: list[str] = []

    def drain(self) -> RunReport:
        answer = next(self._answers)
        if isinstance(answer, BusyError):
            raise answer
        return answer

    def sleep(self, seconds: float) -> None:
        self.waited += seconds

    def turn(self, patience: float) -> RunReport:
        return take_turn(
            self.drain,
            lambda busy: self.told.append(busy.message),
            patience_seconds=patience,
            sleep=self.sleep,
            monotonic=lambda: self.waited,
        )


def busy(free_at: datetime | None) -> BusyError:
    error = BusyError("run other is writing this endpoint")
    error.free_at = free_at
    return error


@pytest.mark.parametrize(
    ("leases", "patience", "looks"),
    [
        ([], 0.0, 0),
        ([at(3)] * 60, 0.0, 60),
        ([at(3)] * 60, 20.0, 60),
        ([None] * 5, 20.0, 5),
        ([at(3), at(3), at(4), at(4)], 20.0, 4),
    ],
    ids=["nobody", "it died", "it died, for the patient, too", "it is done", "it lives, is done"],
)
def test_s41_a_dead_writer_is_waited_out_and_a_living_one_within_patience(
    leases: Sequence[datetime | None], patience: float, looks: int
) -> None:
    endpoint = Endpoint(*leases)
    assert endpoint.turn(patience) is REPORT
    assert endpoint.waited == looks * POLL_SECONDS
    assert len(endpoint.told) == min(looks, 1)


@pytest.mark.parametrize(
    ("leases", "patience", "looks"),
    [
        ([None], 0.0, 0),
        ([at(3), at(3), at(4)], 0.0, 2),
        ([None] * 60, 20.0, 10),
        ([*[at(3)] * 10, *[at(4)] * 10, at(5)], 20.0, 10),
        ([*[at(3)] * 15, at(4)], 20.0, 15),
    ],
    ids=[
        "known to live",
        "it renewed its lease",
        "known to live, patience is over",
        "it renews its lease, patience is over",
        "its next sign of life comes later",
    ],
)
def test_s41_a_living_writer_is_left_to_work(
    leases: Sequence[datetime | None], patience: float, looks: int
) -> None:
    endpoint = Endpoint(*leases)
    with pytest.raises(BusyError, match="run other is writing"):
        endpoint.turn(patience)
    assert endpoint.waited == looks * POLL_SECONDS
