"""``--executor``: names, third parties' ones, and a run whose executor is handed to it."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest
from tiny_runs import CELLS, Quiet, Warm, copied, numbers

from leakbench.bench import backends
from leakbench.bench.backends import Backend, ThisMachine, backend_named, backend_names
from leakbench.bench.executors import Executor, InProcess
from leakbench.bench.grid import make_config
from leakbench.bench.runner import run_grid
from leakbench.cells import Cell
from leakbench.contracts import Progress
from leakbench.errors import LeakBenchError
from leakbench.runtime.workspace import Settings


class Elsewhere(ThisMachine):
    """Counts its executors, which run in this process."""

    made = 0

    def executor(self, _cells: Sequence[Cell], settings: Settings, _jobs: int | None, progress: Progress) -> Executor:
        Elsewhere.made += 1
        return InProcess(settings, progress)


@contextmanager
def opened(address: str | None, device: str) -> Iterator[Backend]:
    """As a third party's entry point names it."""
    yield Elsewhere(f"{device} at {address}")


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> None:
    """A package that adds executors."""
    points = [
        EntryPoint("theirs", f"{__name__}:opened", backends.GROUP),
        EntryPoint("broken", f"{__name__}:missing", backends.GROUP),
    ]

    def found(group: str, name: str = "") -> list[EntryPoint]:
        assert group == "leakbench.executors"
        return [point for point in points if name in ("", point.name)]

    monkeypatch.setattr(backends, "entry_points", found)


def test_the_default_is_this_machine() -> None:
    with backend_named("local", None, "cpu") as backend:
        assert backend == ThisMachine("cpu")


@pytest.mark.parametrize(
    ("name", "address", "device", "line"),
    [
        ("local", "host:6379", "cpu", "--address is of executors on other machines: leave it out, or add"),
        ("local", None, "abacus", "--device abacus: not usable here"),
        ("thiers", None, "cpu", "unknown executor 'thiers': did you mean 'theirs'? available: broken, local, ray, th"),
        ("broken", None, "cpu", "the executor 'broken' can't be loaded from '"),
        ("ray", None, "cpu", "--executor ray needs Ray: pip install ray"),
    ],
)
@pytest.mark.usefixtures("installed")
def test_what_can_not_be_opened_is_said_in_one_line(
    monkeypatch: pytest.MonkeyPatch, name: str, address: str | None, device: str, line: str
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)  # as where it isn't installed
    with pytest.raises(LeakBenchError) as raised, backend_named(name, address, device):
        pass
    assert str(raised.value).startswith(line) and "\n" not in str(raised.value)


@pytest.mark.usefixtures("installed")
def test_a_package_may_add_one() -> None:
    assert backend_names() == ["local", "ray", "theirs", "broken"]
    with backend_named("theirs", "there", "auto") as backend:
        assert backend.device == "auto at there"


@pytest.mark.slow
def test_a_run_is_computed_by_the_executor_that_it_is_handed(warm: Warm, tmp_path: Path) -> None:
    """Here one of a driver without the workers' device: everything it needs itself it does on the CPU."""
    settings = Settings(cache=str(copied(warm.cache, tmp_path / "cache")), device="cuda:77")
    before = Elsewhere.made

    def make(cells: Sequence[Cell], settings: Settings, jobs: int | None, progress: Progress) -> Executor:
        assert (settings.device, jobs) == ("cuda:77", 5)
        return Elsewhere("cpu").executor(cells, Settings(settings.cache), jobs, progress)

    config = make_config(warm.tiny.options())
    record = run_grid(config, settings, tmp_path / "run", 5, "leakbench run", Quiet(), executor=make)
    assert (Elsewhere.made - before, len(record.cells)) == (1, CELLS)
    assert numbers(record) == numbers(warm.record)
