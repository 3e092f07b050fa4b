"""Processes of plugins and worker processes that die in a run: each ends its own cell, or its task is tried again."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from isolated_cells import here
from planned_cells import attacks
from test_workers import ENDINGS
from tiny_runs import OURS, Quiet, Warm, copied

from leakbench.bench.executors import LocalProcesses, Result
from leakbench.bench.grid import make_config
from leakbench.bench.plan import plan
from leakbench.bench.runner import run_grid
from leakbench.cells import AttackCell
from leakbench.runtime.isolation.confinement import what_is_lacking
from leakbench.runtime.workspace import Settings

pytestmark = [pytest.mark.slow, pytest.mark.skipif(bool(what_is_lacking()), reason="this system can't isolate")]

ENDS = {
    "exits": "the process of endings.py:Exits ended with status 0",
    "crashes": "the process of endings.py:Crashes ended by SIGSEGV",
    "killed": "the process of endings.py:Killed ended by SIGKILL (out of memory?)",
    "leaves": "leaves raised SystemExit: 0",
    "interrupts": "interrupts raised KeyboardInterrupt",
    "odd": "odd raised _Base: odd",
    "silent": "_Silent: (its message can't be shown)",
}

WAITS = '''
import time

import torch

from leakbench.contracts import Access, Attack, Params


class Waits(Attack[Params]):
    """Says that it waits, and hangs."""

    name = "waits"
    needs = Access.LABELS

    def run(self, victim, targets, context):
        while True:
            context.progress("waiting", 1, 2)
            time.sleep(0.2)


class Grey(Waits):
    """Afterwards."""

    name = "grey"

    def run(self, victim, targets, context):
        return torch.full((len(targets), *victim.image_shape), 0.5)
'''


def test_every_ending_fails_its_own_cell_and_no_worker(warm: Warm, tmp_path: Path) -> None:
    file, cache = tmp_path / "endings.py", copied(warm.cache, tmp_path / "cache")
    file.write_text(ENDINGS, encoding="utf-8")
    named = [f"{file}:{name.capitalize()}" for name in ENDS]
    options = warm.tiny.options(attack=["direct", *named], controls=False)
    with here(True, cache) as isolation:
        settings = Settings(str(cache), isolation=isolation)
        record = run_grid(make_config(options), settings, tmp_path / "run", 2, "leakbench run", Quiet())
    assert record.complete
    reasons = {cell.attack: cell.reason for cell in record.cells if cell.status == "failed"}
    assert reasons.keys() == ENDS.keys()
    assert all(reasons[name].startswith(words) for name, words in ENDS.items()), reasons
    assert {cell.status for cell in record.cells if cell.attack not in ENDS} == {"ok"}
    assert {cell.attack_ran for cell in record.cells if cell.attack in ENDS} == {"isolated"}


class Scene:
    """One worker, cells of an attack that hangs and of one that does not, and what was said of progress."""

    def __init__(self, settings: Settings, cells: list[AttackCell]) -> None:
        self.waits, self.grey = (next(cell for cell in cells if cell.attack.name == name) for name in ("waits", "grey"))
        self.waiting = 0
        self.executor = LocalProcesses(settings, 1, self._progress)

    def _progress(self, what: str, _done: int, _total: int) -> None:
        self.waiting += "waiting" in what

    def ended(self, cell: AttackCell) -> Result:
        self.executor.start(0, "compute", cell)
        return self.executor.wait()[1]

    def killed(self, whom: Callable[[Scene], int], times: int = 1) -> Result:
        """How the attack that hangs ends, of which ``whom`` is killed each time that it hangs."""

        def kill() -> None:
            for _ in range(times):
                before = self.waiting
                while self.waiting == before:
                    time.sleep(0.01)
                os.kill(whom(self), signal.SIGKILL)

        thread = threading.Thread(target=kill, daemon=True)
        thread.start()
        result = self.ended(self.waits)
        thread.join()
        return result

    @property
    def worker(self) -> int:
        (worker,) = self.executor._workers
        assert worker.process.pid is not None
        return worker.process.pid

    @property
    def warm(self) -> int:
        """The process that is forked for each call."""
        (pid,) = children(self.worker)
        return pid

    @property
    def copy(self) -> int:
        """The process of the call."""
        (pid,) = forks(self.warm)
        return pid


def children(parent: int) -> list[int]:
    found = Path(f"/proc/{parent}/task").glob("*/children")
    return [int(pid) for path in found for pid in path.read_text().split()]


def forks(parent: int) -> list[int]:
    """Its children that are copies of it, and no programs that it starts, as to find libraries."""
    own = command(parent)
    return [pid for pid in children(parent) if command(pid) == own]


def command(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b"gone"


def gone(pid: int) -> bool:
    late = time.monotonic() + 60  # only ends a test that fails
    while time.monotonic() < late:
        try:
            if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in "ZX":
                return True
        except OSError:
            return True
        time.sleep(0.01)
    return False


@pytest.fixture
def scene(warm: Warm, tmp_path: Path) -> Iterator[Scene]:
    file, cache = tmp_path / "waits.py", copied(warm.cache, tmp_path / "cache")
    file.write_text(WAITS, encoding="utf-8")
    options = warm.tiny.options(attack=[f"{file}:Waits", f"{file}:Grey"], controls=False)
    options["set"] = {f"{OURS}.images": ["16"]}
    with here(True, cache) as isolation:
        made = Scene(Settings(str(cache), isolation=isolation), attacks(plan(make_config(options))))
        try:
            yield made
        finally:
            made.executor.close()
    assert not Path(isolation.scratch).exists()


@pytest.mark.long
@pytest.mark.parametrize("whom", ["copy", "warm"])
def test_a_plugin_s_process_that_is_killed_ends_its_cell_and_not_its_worker(scene: Scene, whom: str) -> None:
    result = scene.killed(lambda now: int(getattr(now, whom)))
    assert result.status == "failed"
    assert result.reason.startswith("the process of waits.py:Waits ") and "\n" not in result.reason
    worker = scene.worker
    assert scene.ended(scene.grey).status == "ok"
    assert scene.worker == worker


@pytest.mark.long
def test_a_worker_that_is_killed_takes_its_plugin_along_and_its_task_is_tried_once_more(scene: Scene) -> None:
    seen: list[int] = []

    def worker(now: Scene) -> int:
        seen.extend((now.warm, now.copy))
        return now.worker

    result = scene.killed(worker, times=2)
    assert (result.status, result.reason) == ("failed", "its worker process was killed twice (out of memory?)")
    assert len(set(seen)) == 4 and all(gone(pid) for pid in seen)
    assert scene.ended(scene.grey).status == "ok"


@pytest.mark.long
def test_closing_ends_the_plugin_s_process(scene: Scene) -> None:
    scene.executor.start(0, "compute", scene.waits)
    late = time.monotonic() + 120  # only ends a test that fails
    while not (children(scene.worker) and forks(scene.warm)) and time.monotonic() < late:
        time.sleep(0.01)
    seen = scene.worker, scene.warm, scene.copy
    scene.executor.close()
    assert all(gone(pid) for pid in seen)
