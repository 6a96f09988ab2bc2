"""How long ticks take with a provider that needs 200 ms for each answer.

``python -m benchmarks.ticks [TICKS] [LATENCY_MS]`` prints median and 95th percentile, alone and as
many at once as dagster.yaml's ``num_workers`` allows; fails if a lone tick's p95 is above 1 s.
"""

from __future__ import annotations

import logging
import sys
import warnings
from concurrent.futures import ThreadPoolExecutor

from benchmarks.idle_day import Day, deployment

ENDPOINTS = 16
THREADS = 16


def main(ticks: int = 160, latency_ms: int = 200) -> None:
    from file_connector.sandbox import faults

    with deployment(ENDPOINTS) as day:
        day.first_syncs()
        day.sandbox.faults.add(faults.delay(latency_ms / 1000), kind="*", times=None)
        for n in range(ticks):
            day.tick(day.endpoints[n % ENDPOINTS])
        alone = told(day, "one after the other")
        day.seconds.clear()
        with ThreadPoolExecutor(THREADS) as threads:
            list(threads.map(day.tick, [day.endpoints[n % ENDPOINTS] for n in range(ticks)]))
        told(day, f"{THREADS} at once")
        assert alone <= 1.0, "p95 of a tick is above 1 s"


def told(day: Day, how: str) -> float:
    """Print the figures; the 95th percentile in seconds."""
    seconds = sorted(day.seconds)
    p95 = seconds[int(len(seconds) * 0.95)]
    print(f"{how}: median {seconds[len(seconds) // 2]:.3f} s, p95 {p95:.3f} s")
    return p95


if __name__ == "__main__":
    logging.disable(logging.INFO)
    warnings.simplefilter("ignore")
    main(*(int(a) for a in sys.argv[1:3]))
