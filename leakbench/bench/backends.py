"""Where runs are computed: on this machine, on a Ray cluster, or where a third party's package can.

A backend is opened by name, counts the workers that it has for a run, and makes the run's executor. Third parties plug
in by an entry point of the group ``leakbench.executors``: a function of (address, device), both as on the command line,
that returns a context manager of a :class:`Backend`.
"""

from __future__ import annotations

import os
import secrets
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import entry_points
from typing import Protocol

from leakbench.bench.executors import Executor, executor_for, worker_count
from leakbench.cells import Cell
from leakbench.contracts import Progress
from leakbench.errors import LeakBenchError, PluginError, UnknownName, UsageError, described
from leakbench.runtime.process import check_device
from leakbench.runtime.workspace import Settings

LOCAL = "local"
GROUP = "leakbench.executors"
"""the group of third parties' entry points"""
_RAY = "ray"


class Backend(Protocol):
    """Workers for runs."""

    @property
    def device(self) -> str:
        """What each worker computes on, by torch's name: cpu, cuda, ... This process need not have it."""
        ...

    def workers(self, cells: Sequence[Cell], settings: Settings, jobs: int | None) -> int:
        """How many a run of these cells gets: ``jobs``, or as many as pay where it is None. UsageError for a number
        that can't be had."""
        ...

    def executor(self, cells: Sequence[Cell], settings: Settings, jobs: int | None, progress: Progress) -> Executor:
        """What computes a run, which closes it. Errors as of ``workers``, and whatever is wrong with all workers."""
        ...


MakeExecutor = Callable[[Sequence[Cell], Settings, int | None, Progress], Executor]
"""as :meth:`Backend.executor`"""


@dataclass(frozen=True)
class ThisMachine:
    """Worker processes on this machine."""

    device: str

    def workers(self, cells: Sequence[Cell], settings: Settings, jobs: int | None) -> int:
        """One a core, as far as memory reaches."""
        return worker_count(cells, settings, jobs)

    def executor(self, cells: Sequence[Cell], settings: Settings, jobs: int | None, progress: Progress) -> Executor:
        """Worker processes, or this process for plugins that no other can have."""
        return executor_for(cells, settings, jobs, progress)


@contextmanager
def backend_named(name: str, address: str | None, device: str) -> Iterator[Backend]:
    """The backend of ``--executor NAME`` as long as the context lasts.

    ``address`` says where it is, None for its default; ``device`` what to compute on, ``auto`` for what is there.
    UnknownName for a name that there is not, UsageError for an address that can't be reached or a device that isn't
    there, PluginError for a third party's backend that can't be loaded.
    """
    if name == LOCAL:
        if address is not None:
            raise UsageError("--address is of executors on other machines: leave it out, or add --executor ray")
        yield ThisMachine(check_device(device))
        return
    if name == _RAY and not (address or os.environ.get("RAY_ADDRESS")):
        _ask_for_a_token()
    with _opener(name)(address, device) as backend:
        yield backend


def backend_names() -> list[str]:
    """What may stand behind ``--executor``."""
    return [LOCAL, _RAY, *(point.name for point in entry_points(group=GROUP) if point.name not in (LOCAL, _RAY))]


def _ask_for_a_token() -> None:
    """A cluster that Ray starts on this machine listens on all of its addresses, and whoever reaches it can run
    programs: from now on only who knows this process's token. Ray reads both when it is imported."""
    if "ray" not in sys.modules and "RAY_AUTH_MODE" not in os.environ:
        os.environ["RAY_AUTH_MODE"] = "token"
        os.environ["RAY_AUTH_TOKEN"] = secrets.token_hex(32)


def _opener(name: str) -> Callable[[str | None, str], AbstractContextManager[Backend]]:
    opener: Callable[[str | None, str], AbstractContextManager[Backend]]
    if name == _RAY:
        try:
            import_module("ray")
        except ImportError:
            raise UsageError("--executor ray needs Ray: pip install ray") from None
        opener = import_module("leakbench.bench.ray_cluster").connected
        return opener
    for point in entry_points(group=GROUP, name=name):
        try:
            opener = point.load()
        except LeakBenchError:
            raise
        except Exception as error:
            raise PluginError(
                f"the executor {name!r} can't be loaded from {point.value!r}: {described(error)}"
            ) from None
        return opener
    raise UnknownName("executor", name, backend_names())
