"""Workers and runs that are killed at random moments: whether numbers are those of a run that nothing disturbs.

    python benchmarks/executor_kills.py --cache CACHE

A grid of the digits, preset quick, on worker processes and on Ray. SIGKILL goes to workers, then to the run's own
process; the same command is given again until every cell worked. Writes docs/results/kills.md.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import result_page
import typer

from leakbench.records import RunRecord
from leakbench.reports.files import read_record
from leakbench.runtime.process import available_cores

GRID = (
    "--defense", "sengupta2019", "--attack", "reconversion", "--attack", "direct", "--preset", "quick",
    "--set", "reconversion.iterations=20", "--set", "direct.iterations=20", "--no-isolate", "--device", "cpu",
    "--jobs", "2", "-q",
)  # fmt: skip
EXECUTORS = ("local", "ray")
KEPT = ("ann", "outliers", "judge", "features", "ensemble", "training-features")
"""stages whose artifacts every run finds in its store: training them anew each time shows nothing more"""
WORKERS = ("ray::Actor", "spawn_main")
"""in the command line of a worker"""
LEAVE = 30.0
"""seconds within which workers of a killed run have to end"""


def descendants(pid: int) -> list[int]:
    """Processes that a process started, and theirs."""
    found: list[int] = []
    waiting = [pid]
    while waiting:
        one = waiting.pop()
        with contextlib.suppress(OSError):
            for task in Path(f"/proc/{one}/task").iterdir():
                children = [int(child) for child in (task / "children").read_text().split()]
                found += children
                waiting += children
    return found


def workers(pid: int) -> list[int]:
    """The workers of a run, by the process id of the run."""
    found = []
    for one in descendants(pid):
        with contextlib.suppress(OSError):
            if any(word in Path(f"/proc/{one}/cmdline").read_text() for word in WORKERS):
                found.append(one)
    return found


def alive(pid: int) -> bool:
    """Whether a process runs, and is no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def values(record: RunRecord) -> dict[tuple[Any, ...], tuple[Any, ...]]:
    """All but the seconds."""
    return {
        (cell.seed, cell.defense, cell.attack, cell.of, value.metric): (value.value, value.low, value.high, value.n)
        for cell in record.cells
        for value in cell.values
        if value.metric != "seconds"
    }


@dataclass
class Trial:
    """A folder for one executor's runs, and what was done to them."""

    folder: Path
    executor: str
    draw: random.Random
    seconds: float
    """that a run takes, the shortest that was seen"""
    killed: int = 0
    runs: int = 0
    left: int = 0
    """workers that outlived their run"""

    def start(self) -> subprocess.Popen[bytes]:
        """The command."""
        self.runs += 1
        places = ["--executor", self.executor, "--cache", str(self.folder / "cache"), "--out", str(self.folder / "run")]
        command = [sys.executable, "-m", "leakbench", "run", *GRID, *places]
        return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def kill_workers(self, most: int) -> None:
        """One run, whose workers are killed now and then, ``most`` of them."""
        run = self.start()
        while run.poll() is None:
            time.sleep(self.draw.uniform(0.05, 0.25) * self.seconds)
            there = workers(run.pid)
            if there and self.killed < most and run.poll() is None:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(self.draw.choice(there), signal.SIGKILL)
                    self.killed += 1

    def kill_run(self) -> None:
        """One run that is killed itself, at any moment."""
        run, began = self.start(), time.monotonic()
        late = began + self.draw.uniform(0.05, 0.95) * self.seconds
        there: set[int] = set()
        while time.monotonic() < late and run.poll() is None:
            there.update(workers(run.pid))
            time.sleep(0.05)
        there.update(workers(run.pid))
        if run.poll() is None:
            run.kill()
            self.killed += 1
        else:  # too late
            self.seconds = min(self.seconds, time.monotonic() - began)
        run.wait()
        late = time.monotonic() + LEAVE
        while any(map(alive, there)) and time.monotonic() < late:
            time.sleep(0.1)
        self.left += sum(map(alive, there))

    def ended(self) -> dict[tuple[Any, ...], tuple[Any, ...]]:
        """The numbers of the command, given until every cell worked."""
        for _ in range(10):
            if (self.folder / "run" / "results.json").is_file():
                record = read_record(self.folder / "run")
                if record.complete and {cell.status for cell in record.cells} == {"ok"}:
                    return values(record)
            self.start().wait()
        raise SystemExit(f"{self.executor}: cells fail time and again")

    def renew(self, store: Path) -> None:
        """Another run, whose store holds what every run finds there."""
        for name in ("cache", "run"):
            shutil.rmtree(self.folder / name, ignore_errors=True)
        shutil.copytree(store, self.folder / "cache")
        for made in (self.folder / "cache" / "objects").glob("??/*"):
            if json.loads((made / "manifest.json").read_bytes())["stage"] not in KEPT:
                shutil.rmtree(made)


def main(
    kills: Annotated[int, typer.Option(help="of workers, for each executor")] = 30,
    ends: Annotated[int, typer.Option(help="of the run itself, for each executor")] = 10,
    seed: int = 0,
    cache: Annotated[Path | None, typer.Option(help="keeps the ANN and the evaluation models")] = None,
) -> None:
    rows: list[Sequence[str]] = []
    with tempfile.TemporaryDirectory() as there:
        folder = Path(there)
        calm = Trial(folder / "calm", "local", random.Random(seed), 0.0)
        calm.folder.mkdir()
        if cache is not None:
            shutil.copytree(cache, calm.folder / "cache")
        calm.start().wait()
        store = calm.folder / "cache"
        expected = values(read_record(calm.folder / "run"))
        for executor in EXECUTORS:
            trial = Trial(folder / executor, executor, random.Random(seed), 0.0)
            trial.folder.mkdir()
            trial.renew(store)
            start = time.monotonic()
            same = trial.ended() == expected
            trial.seconds, trial.runs = time.monotonic() - start, 0
            grids = 0
            while trial.killed < kills:
                trial.renew(store)
                trial.kill_workers(kills)
                same &= trial.ended() == expected
                grids += 1
                print(f"{executor}: {trial.killed} workers killed in {grids} grids, same: {same}", flush=True)
            rows.append(
                [executor, "workers", str(trial.killed), str(grids), str(trial.runs), "yes" if same else "**no**", ""]
            )
            trial.killed = trial.runs = grids = 0
            same = True
            while trial.killed < ends:
                trial.renew(store)
                for _ in range(min(2, ends - trial.killed)):
                    trial.kill_run()
                same &= trial.ended() == expected
                grids += 1
                print(f"{executor}: {trial.killed} runs killed in {grids} grids, same: {same}", flush=True)
            killed, left = str(trial.killed), str(trial.left)
            rows.append([executor, "the run", killed, str(grids), str(trial.runs), "yes" if same else "**no**", left])
        load = os.getloadavg()[2]
    options = {"kills": (kills, 30), "ends": (ends, 10), "seed": (seed, 0)}
    given = "".join(f" --{name} {one}" for name, (one, default) in options.items() if one != default)
    result_page.write(
        "kills.md",
        "Workers and runs that are killed",
        "SIGKILL at random moments to workers, and to the process that drives the run, with "
        "[both executors](../many-machines.md); then the same command until every cell worked. The grid is "
        f"`{' '.join(GRID)}`, {len(expected):,} values.",
        result_page.of_now(f"python benchmarks/executor_kills.py --cache CACHE{given}"),
        result_page.table(
            ["executor", "killed", "times", "grids", "commands given", "all values the same", "workers left behind"],
            rows,
        ),
        "A grid is a run that begins with ANN and evaluation models in its store and nothing else. A task whose worker "
        "is killed is tried again, twice in all on worker processes and three times on Ray; then its cell fails, which "
        f"the next command computes. The machine was busy: {load:.1f} processes wanted one of its "
        f"{available_cores()} cores.",
    )


if __name__ == "__main__":
    typer.run(main)
