"""Progress of a run on the error stream: bars on a terminal and in a notebook, plain lines elsewhere, or nothing."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from types import TracebackType
from typing import TYPE_CHECKING, Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Column

from leakbench.errors import printable
from leakbench.session.eta import TimeLeft, spoken

if TYPE_CHECKING:
    from leakbench.bench.executors import Result
    from leakbench.bench.jobs import Job


_SAY_EVERY = 30.0
"""seconds between two lines about the time"""
_STAGE_SAYS = 2.0
"""seconds of a stage that say how long the rest of it takes"""
_ESTIMATED_EVERY = 1.0
"""seconds between two estimates of the time left"""


def _console() -> Console:
    return Console(stderr=True, emoji=False)  # ":cat:" in a folder's name stays


class Silent:
    """Says nothing but failures. ``told``: what each job may take, as far as known; ``now``: the clock, in seconds."""

    def __init__(
        self, told: Sequence[float | None] = (), workers: int = 1, now: Callable[[], float] = time.monotonic
    ) -> None:
        self._now = now
        self._told_seconds, self._workers = told, workers
        self._jobs: Sequence[Job] = ()
        self._begin = now()
        self._time_left = TimeLeft(())
        self._cells = 0
        self._told_left, self._estimated = "", -math.inf
        self._what = ""
        self._since, self._first, self._reported = now(), 0, (0, 0)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        return None

    def plan(self, jobs: Sequence[Job]) -> None:
        self._jobs = jobs
        self._time_left = TimeLeft(jobs, self._told_seconds, self._workers)
        self._cells = sum(job.is_cell for job in jobs)

    def started(self, number: int) -> None:
        self._time_left.started(number, self._now())

    def ended(self, number: int, result: Result) -> None:
        self._time_left.ended(number, result.seconds)
        if result.status == "failed" and self._jobs[number].is_cell:
            self._say(f"failed: {self._jobs[number].title}: {result.reason}")

    def stage(self, _what: str, _done: int, _total: int) -> None:
        return None

    def _say(self, line: str) -> None:
        print(printable(line), file=sys.stderr, flush=True)

    def _begins(self, what: str, done: int, total: int) -> bool:
        """Whether this is the first that is told of a stage; ``done`` of it may be from an earlier run."""
        last_done, last_total = self._reported
        begins = what != self._what or done < last_done or total != last_total
        if begins:
            self._what, self._since, self._first = what, self._now(), done
        self._reported = done, total
        return begins

    def _left_of_stage(self, done: int, total: int) -> str:
        """The steps of a stage are alike; the first ones say little."""
        elapsed, here = self._now() - self._since, done - self._first
        if elapsed < _STAGE_SAYS or here < (total - self._first) / 20 or here <= 0:
            return ""
        return f"about {spoken(elapsed / here * (total - done))}"

    @property
    def _left(self) -> str:
        """Estimated once a second: that goes through all jobs that are left."""
        now = self._now()
        if now - self._estimated >= _ESTIMATED_EVERY:
            seconds = self._time_left.left(now)
            self._told_left = "time left unknown" if seconds is None else f"about {spoken(seconds)} left"
            self._estimated = now
        return self._told_left


class Lines(Silent):
    """A line a cell, one every ten seconds within a stage with its time left, and now and then one with the run's."""

    def __init__(
        self, told: Sequence[float | None] = (), workers: int = 1, now: Callable[[], float] = time.monotonic
    ) -> None:
        super().__init__(told, workers, now)
        self._ended = 0
        self._last = self._told = now()

    def plan(self, jobs: Sequence[Job]) -> None:
        super().plan(jobs)
        self._say(f"{self._cells} cells")

    def ended(self, number: int, result: Result) -> None:
        self._time_left.ended(number, result.seconds)
        if self._jobs[number].is_cell:
            self._ended += 1
            why = f": {result.reason}" if result.reason else ""
            self._say(f"[{self._ended}/{self._cells}] {result.status}: {self._jobs[number].title}{why}")
            self._last = self._now()
        self._tell()

    def stage(self, what: str, done: int, total: int) -> None:
        self._begins(what, done, total)
        if self._now() - self._last > 10:
            left = self._left_of_stage(done, total)
            self._say(f"  {what}: {done}/{total}{f', {left} left' if left else ''}")
            self._last = self._now()
            self._tell()

    def _tell(self) -> None:
        now = self._now()
        if now - self._told >= _SAY_EVERY and self._ended < self._cells:
            self._told = now
            self._say(f"  {spoken(now - self._begin)} elapsed, {self._left}")


class Bars(Silent):
    """One bar for the grid, with the time left of the run, and one for the stage, with that of the stage."""

    def __init__(
        self, told: Sequence[float | None] = (), workers: int = 1, now: Callable[[], float] = time.monotonic
    ) -> None:
        super().__init__(told, workers, now)
        self._bars = Progress(
            TextColumn("{task.description}", markup=False, table_column=Column(no_wrap=True, ratio=1)),
            BarColumn(bar_width=16),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.fields[left]}", markup=False, table_column=Column(no_wrap=True)),
            console=_console(),
            transient=True,
            expand=True,
        )
        self._grid: TaskID = self._bars.add_task("starting", total=None, left="")
        self._stage: TaskID = self._bars.add_task("", total=None, visible=False, left="")
        self._shown = now()

    def __enter__(self) -> Self:
        self._bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bars.stop()

    def plan(self, jobs: Sequence[Job]) -> None:
        super().plan(jobs)
        self._bars.update(self._grid, total=self._cells, description="grid")

    def started(self, number: int) -> None:
        super().started(number)
        self._bars.update(self._grid, description=printable(self._jobs[number].title), left=self._left)

    def ended(self, number: int, result: Result) -> None:
        self._time_left.ended(number, result.seconds)
        job = self._jobs[number]
        self._bars.update(self._grid, advance=int(job.is_cell), left=self._left)
        self._bars.update(self._stage, visible=False)
        if job.is_cell and result.status != "ok":
            line = printable(f"{result.status}: {job.title}: {result.reason}")
            self._bars.console.print(line, markup=False, highlight=False)

    def stage(self, what: str, done: int, total: int) -> None:
        now = self._now()
        if self._begins(what, done, total):
            self._bars.reset(self._stage, total=total, description=printable(what), visible=True, left="")
        elif now - self._shown < 0.1:
            return
        self._shown = now
        left = self._left_of_stage(done, total)
        self._bars.update(self._stage, completed=done, total=total, visible=True, left=left)
        self._bars.update(self._grid, left=self._left)


def reporter(quiet: bool, told: Sequence[float | None] = (), workers: int = 1) -> Silent:
    """The reporter that fits where the output goes. ``told``: what each job may take, if anything is known."""
    if quiet:
        return Silent()
    # rich draws in a notebook by ipywidgets
    drawn = find_spec("ipywidgets") is not None if _console().is_jupyter else sys.stderr.isatty()
    return Bars(told, workers) if drawn else Lines(told, workers)
