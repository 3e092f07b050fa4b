"""Workers that die, fork or are interrupted: the cell that did it fails, and no other."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from PIL import Image
from planned_cells import attacks
from tiny_runs import OURS, Quiet, Warm, copied, wait_for

from leakbench.bench import executors
from leakbench.bench.executors import LocalProcesses
from leakbench.bench.grid import make_config
from leakbench.bench.plan import plan
from leakbench.bench.runner import run_grid
from leakbench.cells import Cell
from leakbench.runtime.workspace import Settings

ENDINGS = '''
import ctypes
import os
import signal
import sys
import time

import torch

from leakbench.contracts import Access, Attack, Params


class _Silent(Exception):
    def __str__(self):
        raise RuntimeError("no words")


class _Base(BaseException):
    pass


class _Ends(Attack[Params]):
    needs = Access.LABELS

    def run(self, victim, targets, context):
        self.end()
        return torch.rand(len(targets), *victim.image_shape, generator=context.generator)


class Exits(_Ends):
    """Ends its process with status 0."""

    name = "exits"

    def end(self):
        os._exit(0)


class Crashes(_Ends):
    """Reads where nothing is."""

    name = "crashes"

    def end(self):
        signal.signal(signal.SIGSEGV, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGSEGV)


class Killed(_Ends):
    """Is killed, as where memory runs out."""

    name = "killed"

    def end(self):
        os.kill(os.getpid(), signal.SIGKILL)


class Closes(_Ends):
    """Closes all files of its process and goes on."""

    name = "closes"

    def end(self):
        os.closerange(3, 1000)
        while True:
            time.sleep(1)


class Leaves(_Ends):
    """Calls sys.exit."""

    name = "leaves"

    def end(self):
        sys.exit(0)


class Interrupts(_Ends):
    """Raises KeyboardInterrupt itself."""

    name = "interrupts"

    def end(self):
        raise KeyboardInterrupt


class Odd(_Ends):
    """Raises what is no Exception."""

    name = "odd"

    def end(self):
        raise _Base("odd")


class Silent(_Ends):
    """Raises an exception whose message can't be had."""

    name = "silent"

    def end(self):
        raise _Silent
'''
ENDS = {
    "exits": "worker process ended with status 0",
    "crashes": "worker process ended by SIGSEGV",
    "killed": "worker process was killed twice",
    "closes": "worker process closed its pipe and did not end",
    "leaves": "leaves raised SystemExit: 0",
    "interrupts": "interrupts raised KeyboardInterrupt",
    "odd": "odd raised _Base: odd",
    "silent": "_Silent: (its message can't be shown)",
}


@pytest.fixture
def settings(warm: Warm, tmp_path: Path) -> Settings:
    return Settings(cache=str(copied(warm.cache, tmp_path / "cache")))


def cells_of(warm: Warm, **options: Any) -> list[Cell]:
    return plan(make_config(warm.tiny.options(**options)))


def silent(_what: str, _done: int, _total: int) -> None:
    return None


@pytest.mark.long
@pytest.mark.slow
def test_every_ending_fails_its_own_cell(warm: Warm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever an attack does to its process, all other cells are computed and the record is written."""
    monkeypatch.setattr(executors, "_FAREWELL", 1.0)
    file = tmp_path / "endings.py"
    file.write_text(ENDINGS, encoding="utf-8")
    attacks = [f"{file}:{name.capitalize()}" for name in ENDS]
    options = warm.tiny.options(attack=["direct", *attacks], controls=False)
    cache = copied(warm.cache, tmp_path / "cache")
    record = run_grid(make_config(options), Settings(str(cache)), tmp_path / "run", 2, "leakbench run", Quiet())
    assert record.complete
    reasons = {cell.attack: cell.reason for cell in record.cells if cell.status == "failed"}
    assert reasons.keys() == ENDS.keys()
    assert all(words in reasons[name] for name, words in ENDS.items()), reasons
    assert {cell.status for cell in record.cells if cell.attack not in ENDS} == {"ok"}


FORKS = '''
import os
import signal
import threading
import time

import torch

from leakbench.contracts import Access, Attack, Params


class Answers(Attack[Params]):
    """The forked process comes back, too."""

    name = "answers"
    needs = Access.LABELS

    def run(self, victim, targets, context):
        os.fork()
        return torch.zeros(len(targets), *victim.image_shape)


class Holds(Answers):
    """The forked process outlives the worker."""

    name = "holds"

    def run(self, victim, targets, context):
        if os.fork() == 0:
            time.sleep(60)
        os._exit(3)


class Closes(Answers):
    """The worker loses its pipe and does not end."""

    name = "closes"

    def run(self, victim, targets, context):
        threading.Thread(target=time.sleep, args=(60,)).start()
        os.closerange(3, 1000)


class Nameless(Answers):
    """Ended by a signal without a name."""

    name = "nameless"

    def run(self, victim, targets, context):
        os.kill(os.getpid(), signal.SIGRTMIN + 6)


class Grey(Answers):
    """Afterwards."""

    name = "grey"

    def run(self, victim, targets, context):
        return torch.full((len(targets), *victim.image_shape), 0.5)
'''
FORK_ENDS = {
    "holds": "ended with status 3",
    "closes": "closed its pipe and did not end",
    "nameless": "ended by signal",
}


@pytest.mark.long
@pytest.mark.slow
def test_forks_and_closed_pipes_end_in_their_own_cell(
    warm: Warm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A forked process neither answers for another cell nor keeps the run waiting."""
    monkeypatch.setattr(executors, "_FAREWELL", 1.0)
    file = tmp_path / "forks.py"
    file.write_text(FORKS, encoding="utf-8")
    names = ["Answers", "Grey", "Holds", "Closes", "Nameless"]
    options = warm.tiny.options(attack=[f"{file}:{name}" for name in names], controls=False, set={})
    cache = copied(warm.cache, tmp_path / "cache")
    record = run_grid(make_config(options), Settings(str(cache)), tmp_path / "run", 1, "leakbench run", Quiet())
    reasons = {cell.attack: cell.reason for cell in record.cells if cell.status != "ok"}
    assert reasons.keys() == FORK_ENDS.keys()
    assert all(words in reasons[name] for name, words in FORK_ENDS.items()), reasons
    seen = {}
    for cell in record.cells:
        if cell.attack in ("answers", "grey"):
            with Image.open(tmp_path / "run" / cell.pictures[0].path) as image:
                seen[cell.attack] = image.getpixel((0, 0))
    assert seen == {"answers": 0, "grey": 128}


@pytest.mark.long
@pytest.mark.slow
def test_a_defence_that_ends_its_process_takes_its_attacks_along_and_no_other(warm: Warm, tmp_path: Path) -> None:
    file = tmp_path / "dies.py"
    file.write_text(
        "import os\nfrom leakbench.contracts import Defense, Params\n\n"
        'class Dies(Defense[Params]):\n    """Ends."""\n\n    name = "dies"\n\n'
        "    def protect(self, ann, data, context):\n        os._exit(0)\n",
        encoding="utf-8",
    )
    options = warm.tiny.options(defense=[f"{file}:Dies", OURS], attack=["direct"], controls=False)
    cache = copied(warm.cache, tmp_path / "cache")
    record = run_grid(make_config(options), Settings(str(cache)), tmp_path / "run", 2, "leakbench run", Quiet())
    status = {(cell.defense, cell.attack): cell.status for cell in record.cells if cell.defense}
    assert {place for place, one in status.items() if one == "failed"} == {
        place for place in status if place[0] == "dies"
    }


@pytest.fixture
def at_the_gate(
    warm: Warm, settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[LocalProcesses]:
    """Two workers, one of which stands in an attack at a closed gate and would never end."""
    monkeypatch.setenv("LEAKBENCH_TEST_GATE", str(tmp_path))
    cells = cells_of(warm, attack=[f"{warm.tiny.gated}:Gated"], images_per_class=3, set={f"{OURS}.images": ["16"]})
    attacked = attacks(cells)[0]
    executor = LocalProcesses(settings, 2, silent)
    executor.start(0, "compute", attacked)
    executor.start(1, "ann", attacked)
    assert executor.free == 0
    assert executor.wait()[0] == 1
    assert executor.free == 1
    while not (tmp_path / "reached").exists():
        time.sleep(0.01)
    try:
        yield executor
    finally:
        (tmp_path / "open").touch()  # a failure must not become a hang
        executor.close()


@pytest.mark.long
@pytest.mark.slow
def test_closing_ends_the_workers_at_once(at_the_gate: LocalProcesses) -> None:
    assert len(multiprocessing.active_children()) == 2
    at_the_gate.close()
    assert not multiprocessing.active_children()


@pytest.mark.long
@pytest.mark.slow
def test_a_worker_that_was_killed_gives_its_task_another_try(at_the_gate: LocalProcesses, tmp_path: Path) -> None:
    """As where memory ran out for another's sake: the second time it is alone."""
    worker = next(one for one in at_the_gate._workers if one.work is not None)
    (tmp_path / "reached").unlink()
    (tmp_path / "open").touch()
    worker.process.kill()
    number, result = at_the_gate.wait()
    assert (number, result.status) == (0, "ok")


@pytest.mark.slow
@pytest.mark.parametrize("told", [False, True])
def test_a_worker_that_dies_between_two_tasks_takes_none_along(warm: Warm, settings: Settings, told: bool) -> None:
    """As by a thread that a plugin left behind; whether it shows before the next task is handed over or not."""
    cell = attacks(cells_of(warm))[0]
    executor = LocalProcesses(settings, 1, silent)
    try:
        worker = executor._new_worker()
        worker.process.kill()
        worker.process.join()
        if not told:
            worker.process = cast(Any, SimpleNamespace(exitcode=None, kill=lambda: None, join=lambda: None))
        executor.start(0, "ann", cell)
        number, result = executor.wait()
        assert (number, result.status, len(executor._workers)) == (0, "ok", 1)
    finally:
        executor.close()


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc").is_dir(), reason="looks at the system's processes")
@pytest.mark.long
@pytest.mark.parametrize("jobs", ["1", "2"])
def test_a_killed_parent_leaves_no_worker(warm: Warm, tmp_path: Path, jobs: str) -> None:
    gate, cache = tmp_path / "gate", copied(warm.cache, tmp_path / "cache")
    gate.mkdir()
    arguments = warm.tiny.arguments(tmp_path / "run", controls=False, images_per_class=3)
    process = subprocess.Popen(
        [sys.executable, "-m", "leakbench", *arguments, "--jobs", jobs, "--cache", str(cache), "-q"],
        env={**os.environ, "LEAKBENCH_TEST_GATE": str(gate)},
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    wait_for(gate / "reached", process)
    workers = _children(process.pid)
    assert len(workers) >= int(jobs)
    process.send_signal(signal.SIGKILL)
    process.wait()
    late = time.monotonic() + 60  # only ends a test that fails
    while (left := [pid for pid in workers if _runs(pid)]) and time.monotonic() < late:
        time.sleep(0.05)
    (gate / "open").touch()
    process.communicate()
    assert not left


def _children(parent: int) -> list[int]:
    found = Path(f"/proc/{parent}/task").glob("*/children")
    return [int(pid) for path in found for pid in path.read_text().split()]


def _runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False
