"""The five-field cron dialect of endpoints.yaml: what is valid, and how dense it is.

Deliberately the common core of all crons (numbers, names, ``*``, lists, ranges, steps), so that
whatever passes here means the same to every scheduler.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_DAYS = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")
_MONTH_LENGTHS = (31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)
_MACROS = {
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
    "@monthly": "0 0 1 * *",
    "@weekly": "0 0 * * 0",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@hourly": "0 * * * *",
}
_PART = re.compile(r"(\*|\w+)(?:-(\w+))?(?:/(\w+))?", re.ASCII)


@dataclass(frozen=True, slots=True)
class _Field:
    name: str
    low: int
    high: int
    names: tuple[str, ...] = ()

    def number(self, text: str) -> int:
        if text.lower() in self.names:
            return self.names.index(text.lower()) + self.low
        if not (text.isascii() and text.isdigit()):
            raise ValueError(f"'{text}' is not a {self.name}; allowed: {self.low} to {self.high}")
        number = int(text[:9])
        if not self.low <= number <= self.high:
            raise ValueError(f"{self.name} {text} is outside {self.low} to {self.high}")
        return number

    def expand(self, text: str) -> frozenset[int]:
        values: set[int] = set()
        for part in text.split(","):
            match = _PART.fullmatch(part)
            if match is None or (match[1] == "*" and match[2]):
                raise ValueError(f"'{part}' is not a {self.name}")
            start, end, step = match.groups()
            if start == "*":
                first, last = self.low, self.high
            else:
                first = self.number(start)
                last = self.number(end) if end else first
            if last < first:
                raise ValueError(f"the range {part} of the {self.name} runs backwards")
            if step is None:
                values.update(range(first, last + 1))
                continue
            if start != "*" and not end:
                raise ValueError(
                    f"a step needs a range: write {start}-{self.high}/{step} as the {self.name}"
                )
            if not (step.isascii() and step.isdigit()) or not 1 <= int(step[:9]) <= self.high:
                raise ValueError(f"the step /{step} of the {self.name} is not in 1 to {self.high}")
            values.update(range(first, last + 1, int(step)))
        return frozenset(values)


_FIELDS = (
    _Field("minute", 0, 59),
    _Field("hour", 0, 23),
    _Field("day of the month", 1, 31),
    _Field("month", 1, 12, _MONTHS),
    _Field("day of the week", 0, 7, _DAYS),
)


@dataclass(frozen=True, slots=True)
class Cron:
    """An expanded cron expression, read in UTC."""

    minutes: frozenset[int]
    hours: frozenset[int]

    def densest_gap_minutes(self) -> int:
        """The shortest time between two firings, in minutes (days in a row assumed)."""
        times = sorted(h * 60 + m for h in self.hours for m in self.minutes)
        following = [*times[1:], times[0] + 24 * 60]
        return min(after - before for before, after in zip(times, following, strict=True))


def parse_cron(text: str) -> Cron:
    """The meaning of a five-field cron expression; ValueError says in words what is wrong."""
    words = text.split()
    if len(words) != 5:
        hint = _MACROS.get(text.strip().lower())
        if hint:
            raise ValueError(f"write {text.strip()} as '{hint}'")
        raise ValueError(
            f"it has {len(words)} field{'s' * (len(words) != 1)}; cron needs five: "
            "minute, hour, day of the month, month, day of the week"
        )
    minutes, hours, days, months, _ = (f.expand(w) for f, w in zip(_FIELDS, words, strict=True))
    if not any(min(days) <= _MONTH_LENGTHS[m - 1] for m in months):
        raise ValueError("no month has that day")
    return Cron(minutes, hours)
