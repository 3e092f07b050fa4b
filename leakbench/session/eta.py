"""How long a run still takes, as far as that can be said: from jobs of it that were like those that are left, else from
what was told of them beforehand."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Sequence
from statistics import median
from typing import Protocol

_UNNOTICED = 30.0
"""seconds that a job may take whatever was expected of it"""
_TELLS = 5.0
"""seconds that are told of a job, from which on it says how fast this machine is: of shorter ones the table knows
little, and the first loads what all of them use"""
_SEVERAL = 3
"""jobs from which on this machine may be found faster than told: fewer may have been half done when the run began"""


class Job(Protocol):
    """What is told of a job beforehand."""

    @property
    def alike(self) -> tuple[Hashable, ...]:
        """What it shares with jobs that take about as long; the closest kin first."""

    @property
    def after(self) -> tuple[int, ...]:
        """The numbers of the jobs that it waits for, smaller ones than its own."""


class TimeLeft:
    """The seconds that are left of a run of jobs, which go by their numbers.

    Jobs differ a thousandfold, so that a job is estimated by the mean over its closest kin that were computed. Where
    there are none, by the seconds that were ``told`` of it, times the median of what those took that are over for each
    second told of them. What came out of the store took no time and says nothing of what is not in there.
    """

    def __init__(self, jobs: Sequence[Job], told: Sequence[float | None] = (), workers: int = 1) -> None:
        """``told``: seconds of each job by its number, 0 where it is in the store, None where nothing is known."""
        self._jobs = jobs
        self._told = dict(enumerate(told))
        self._paces: list[float] = []
        """seconds that jobs took for each that was told of them"""
        self._left = dict.fromkeys(range(len(jobs)))  # in order
        self._running: dict[int, float] = {}
        self._seconds: dict[Hashable, list[float]] = defaultdict(list)
        self._workers = workers

    def started(self, number: int, now: float) -> None:
        """A job begins; ``now`` is of any clock in seconds."""
        self._running[number] = now
        self._workers = max(self._workers, len(self._running))

    def ended(self, number: int, seconds: float) -> None:
        """A job is over after so many seconds of computing; 0 where nothing was computed."""
        del self._left[number]
        self._running.pop(number, None)
        if seconds:
            for kind in self._jobs[number].alike:
                self._seconds[kind].append(seconds)
            if (told := self._told.get(number) or 0.0) >= _TELLS:
                self._paces.append(seconds / told)

    def left(self, now: float) -> float | None:
        """Seconds to the end of the last job, about; None where nothing is known of a job, or one takes far longer.

        Of two lower bounds the higher one: all the work shared by the workers, and the longest chain of jobs that wait
        for each other.
        """
        work = 0.0
        ends: dict[int, float] = {}
        for number in self._left:
            seconds = self._expected(number)
            if seconds is None:
                return None
            if number in self._running:
                elapsed = now - self._running[number]
                if elapsed > max(2 * seconds, _UNNOTICED):
                    return None
                seconds = max(seconds - elapsed, 0.0)
            work += seconds
            ends[number] = seconds + max((ends.get(before, 0.0) for before in self._jobs[number].after), default=0.0)
        return max([work / self._workers, *ends.values()])

    def _expected(self, number: int) -> float | None:
        told = self._told.get(number)
        if told == 0:
            return 0.0
        for kind in self._jobs[number].alike:
            if seconds := self._seconds.get(kind):
                return sum(seconds) / len(seconds)
        if told is None:
            return None
        pace = median(self._paces) if self._paces else 1.0
        return told * (pace if len(self._paces) >= _SEVERAL else max(1.0, pace))


def spoken(seconds: float) -> str:
    """As precise as an estimate is: 40 s, 12 min, 3 h."""
    if seconds < 95:
        return f"{max(10, round(seconds, -1)):.0f} s"
    if seconds < 95 * 60:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.0f} h"
