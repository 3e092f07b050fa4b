"""Progress of a run on the error stream: bars on a terminal, plain lines elsewhere, nothing with --quiet."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from leakbench.cli.terminal import echo
from leakbench.errors import printable


class Silent:
    """Says nothing but failures."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        return None

    def plan(self, _cells: int) -> None:
        return None

    def started(self, _title: str) -> None:
        return None

    def ended(self, title: str, status: str, reason: str) -> None:
        if status == "failed":
            echo(f"failed: {title}: {reason}", err=True)

    def stage(self, _what: str, _done: int, _total: int) -> None:
        return None


class Lines(Silent):
    """A line a cell, and one every ten seconds within a stage."""

    def __init__(self) -> None:
        self._cells = 0
        self._ended = 0
        self._last = time.monotonic()

    def plan(self, cells: int) -> None:
        self._cells = cells
        echo(f"{cells} cells", err=True)

    def ended(self, title: str, status: str, reason: str) -> None:
        self._ended += 1
        why = f": {reason}" if reason else ""
        echo(f"[{self._ended}/{self._cells}] {status}: {title}{why}", err=True)
        self._last = time.monotonic()

    def stage(self, what: str, done: int, total: int) -> None:
        if time.monotonic() - self._last > 10:
            echo(f"  {what}: {done}/{total}", err=True)
            self._last = time.monotonic()


class Bars(Silent):
    """One bar for the grid and one for the stage, with the time left."""

    def __init__(self) -> None:
        self._bars = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            console=Console(stderr=True, emoji=False),  # ":cat:" in a folder's name stays
            transient=True,
        )
        self._grid: TaskID = self._bars.add_task("starting", total=None)
        self._stage: TaskID = self._bars.add_task("", total=None, visible=False)
        self._what = ""
        self._shown = 0.0

    def __enter__(self) -> Self:
        self._bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bars.stop()

    def plan(self, cells: int) -> None:
        self._bars.update(self._grid, total=cells, description="grid")

    def started(self, title: str) -> None:
        self._bars.update(self._grid, description=printable(title))

    def ended(self, title: str, status: str, reason: str) -> None:
        self._bars.advance(self._grid)
        self._bars.update(self._stage, visible=False)
        if status != "ok":
            self._bars.console.print(printable(f"{status}: {title}: {reason}"), markup=False, highlight=False)

    def stage(self, what: str, done: int, total: int) -> None:
        now = time.monotonic()
        if what != self._what:
            self._bars.reset(self._stage, total=total, description=printable(what), visible=True)
            self._what = what
        elif now - self._shown < 0.1:
            return
        self._shown = now
        self._bars.update(self._stage, completed=done, total=total, visible=True)


def reporter(quiet: bool) -> Silent:
    """The reporter that fits where the output goes."""
    if quiet:
        return Silent()
    return Bars() if sys.stderr.isatty() else Lines()
