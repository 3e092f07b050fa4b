"""What runs in processes that Ray starts. Imports nothing of LeakBench before it is known to be the same version."""

from __future__ import annotations

import pickle
import platform
from typing import TYPE_CHECKING, Any

import leakbench

if TYPE_CHECKING:
    from leakbench.bench.executors import Result
    from leakbench.bench.pipeline import Task
    from leakbench.bench.remote_worker import RemoteWorker
    from leakbench.cells import JobCell


class Actor:
    """A worker of a run."""

    def __init__(self) -> None:
        self._worker: RemoteWorker | None = None

    def set_up(self, version: str, setup: bytes, board: Any) -> str:
        """Make this process a worker; one line of what is wrong here, empty where nothing is.

        ``setup`` is a pickled :class:`~leakbench.bench.remote_worker.Setup`, ``board`` the handle of a :class:`Board`.
        """
        if version != leakbench.__version__:
            here = f"worker on {platform.node()}: LeakBench {leakbench.__version__} is installed there"
            return f"{here} and {version} here: install the same version"
        from leakbench.bench.remote_worker import RemoteWorker
        from leakbench.errors import LeakBenchError

        try:
            self._worker = RemoteWorker(
                pickle.loads(setup),  # noqa: S301 - from the process that drives the run
                lambda what, done, total: board.say.remote(what, done, total),
            )
        except LeakBenchError as error:
            return str(error)
        return ""

    def run(self, task: Task, cell: JobCell) -> Result:
        """How a task ends here."""
        assert self._worker is not None
        return self._worker.run(task, cell)

    def leave(self) -> None:
        """Remove what was written outside of the store."""
        if self._worker is not None:
            self._worker.close()


class Board:
    """What the last worker that had something to say is at."""

    def __init__(self) -> None:
        self._last: tuple[str, int, int] | None = None

    def say(self, what: str, done: int, total: int) -> None:
        """Put up a stage and how far it is."""
        self._last = what, done, total

    def last(self) -> tuple[str, int, int] | None:
        """What is put up, once."""
        last, self._last = self._last, None
        return last
