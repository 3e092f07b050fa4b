"""Where the time of the main job goes, stage by stage, and how much of it is spiking simulation.

    python benchmarks/main_job.py                                    the demo: digits, from nothing
    python benchmarks/main_job.py --dataset fashion-mnist --preset quick
    python benchmarks/main_job.py --compare ../before --rounds 3     beside another checkout, run by run

Runs a grid in this process with an empty cache of its own and watches from outside: functions are exchanged for ones
that look at the clock, the library knows nothing of it. Each second counts for the innermost stage that it falls into.
A simulation's time is further split: forward without and with a gradient, backward, and what is simulated of a
network while thresholds are sought. Backward is the time between the gradient's arrival at the logits and at the images
(or the end of the backward pass, where weights are trained); what chunks of time compute again is part of it.

``--clock cpu`` counts the processor seconds of this process in the place of the wall's (with one thread the same on an
idle machine), for machines that others use too.

``--compare`` takes the folder of another checkout (with its .venv) or a path to its python, and gives this same file to
it: one run here, one there, as often as --rounds says. Stages of which one side knows nothing stand without a ratio.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("GOMP_SPINCOUNT", "1000")

from stage_clock import KINDS, OTHER, Clock, Spent, watch_simulation, watch_stages

if TYPE_CHECKING:
    from leakbench.records import RunRecord

ORDER = (
    "imports", "data loading", "ANN training", "judges' training", "image synthesis", "threshold calibration",
    "encryption training", "controls' networks", "rest of building ", "accuracy of the ANN", "accuracy of the SNN",
    "shared ", "attack ", "metrics: judges", "metrics: KES", "metrics: fooling (UAP)", "metrics: others",
    "anchors", "verdict", "store", "report writing", OTHER,
)  # fmt: skip

# --- one run -----------------------------------------------------------------------------------------------------


CLOCKS: Mapping[str, Callable[[], float]] = {"wall": time.perf_counter, "cpu": time.process_time}


@dataclass
class Job:
    """What is run, and by which clock."""

    dataset: str
    preset: str
    defense: list[str]
    attack: list[str]
    clock: str = "wall"

    def arguments(self) -> list[str]:
        """As this file takes them."""
        repeated = [("--defense", name) for name in self.defense] + [("--attack", name) for name in self.attack]
        plugins = [word for pair in repeated for word in pair]
        return ["--dataset", self.dataset, "--preset", self.preset, *plugins, "--clock", self.clock]


@dataclass
class Run:
    """What came out of one run, also as JSON between processes."""

    package: str
    """where leakbench was imported from"""
    cells: int
    failed: int
    total: float
    """seconds by the clock that was asked for"""
    wall: float
    cpu: float
    peak_mib: float
    """highest resident memory of the process"""
    stages: dict[str, float]
    spiking: dict[str, dict[str, Spent]]
    attacks: dict[str, dict[str, float]] = field(default_factory=dict)
    """attack -> defence -> seconds, half-effort checks included, as the record has them"""
    numbers: dict[str, tuple[float, float, float]] = field(default_factory=dict)
    """what was measured, and the ends of its interval (the value again, where it has none)"""

    @classmethod
    def from_json(cls, text: str) -> Run:
        record = json.loads(text)
        record["spiking"] = {
            stage: {kind: Spent(**spent) for kind, spent in kinds.items()} for stage, kinds in record["spiking"].items()
        }
        return cls(**record)

    def kind(self, name: str) -> Spent:
        """Of all stages together."""
        found = [kinds[name] for kinds in self.spiking.values() if name in kinds]
        return Spent(sum(s.seconds for s in found), sum(s.calls for s in found), sum(s.images for s in found))

    def simulated(self, stage: str) -> float:
        """Seconds of spiking simulation in a stage."""
        return sum(spent.seconds for spent in self.spiking.get(stage, {}).values())


class Silent:
    """A reporter that says nothing."""

    def plan(self, _jobs: object) -> None: ...

    def started(self, _number: int) -> None: ...

    def ended(self, _number: int, _result: object) -> None: ...

    def stage(self, _what: str, _done: int, _total: int) -> None: ...


def run(job: Job) -> Run:
    """Everything from an empty cache to the report, in this process."""
    began = {name: now() for name, now in CLOCKS.items()}
    clock = Clock(CLOCKS[job.clock])
    with clock.stage("imports"):
        from leakbench import __file__ as package
        from leakbench import reports
        from leakbench.bench import runner
        from leakbench.bench.executors import InProcess
        from leakbench.bench.grid import make_config
        from leakbench.runtime.process import tune_process
        from leakbench.runtime.workspace import Settings

        watch_stages(clock)
        watch_simulation(clock)
    tune_process()
    config = make_config({"dataset": job.dataset, "preset": job.preset, "defense": job.defense, "attack": job.attack})
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "run"
        # what is watched is watched in this process
        runner.executor_for = lambda _cells, settings, _jobs, progress: InProcess(settings, progress)
        record = runner.run_grid(config, Settings(str(Path(folder) / "cache")), out, 1, "leakbench run", Silent())
        reports.write_report(out)
        total = clock.stop()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)
    return Run(
        package=str(Path(str(package)).parent),
        cells=len(record.cells),
        failed=sum(cell.status == "failed" for cell in record.cells),
        total=total,
        wall=time.perf_counter() - began["wall"],
        cpu=time.process_time() - began["cpu"],
        peak_mib=peak,
        stages=clock.stages,
        spiking=clock.spiking,
        attacks=attack_seconds(record),
        numbers={
            f"{cell.seed} {cell.defense} x {cell.attack}: {value.metric}": (
                value.value,
                value.value if value.low is None else value.low,
                value.value if value.high is None else value.high,
            )
            for cell in record.cells
            for value in cell.values
            if value.metric != "seconds"
        },
    )


def attack_seconds(record: RunRecord) -> dict[str, dict[str, float]]:
    """Attack -> defence -> seconds that the record says the attack ran, with its half-effort check."""
    found: dict[str, dict[str, float]] = {}
    for cell in record.cells:
        seconds = [value.value for value in cell.values if value.metric == "seconds"]
        if cell.attack_name and seconds:
            row = found.setdefault(cell.attack_name, {})
            row[cell.defense] = row.get(cell.defense, 0.0) + seconds[0]
    return found


# --- tables ------------------------------------------------------------------------------------------------------


def ordered(stages: Sequence[str]) -> list[str]:
    """In the order in which a run comes to them; all attacks together, by name."""

    def place(stage: str) -> tuple[int, str]:
        for number, known in enumerate(ORDER):
            if stage == known or (known.endswith(" ") and stage.startswith(known)):
                return number, stage
        return len(ORDER) - 2, stage

    return sorted(dict.fromkeys(stages), key=place)


def show(job: Job, done: Run) -> None:
    """The tables of one run."""
    print(heading(job, done))
    print()
    print(f"{'stage':28}{'seconds':>10}{'share':>8}{'spiking, s':>12}{'of it':>7}")
    for stage in ordered(list(done.stages)):
        seconds, spiking = done.stages[stage], done.simulated(stage)
        if seconds >= 0.005 or stage == OTHER:
            share = f"{spiking / seconds:6.0%}" if spiking else ""
            print(f"{stage:28}{seconds:10.2f}{seconds / done.total:8.1%}{spiking:12.2f}{share:>7}")
    spiking = sum(done.simulated(stage) for stage in done.stages)
    print(f"{'total':28}{done.total:10.2f}{1:8.1%}{spiking:12.2f}{spiking / done.total:7.0%}")
    print()
    print(f"{'spiking simulation':28}{'seconds':>10}{'share':>8}{'calls':>12}{'images':>12}{'ms a call':>12}")
    for kind in KINDS:
        spent = done.kind(kind)
        each = f"{1000 * spent.seconds / spent.calls:12.2f}" if spent.calls else ""
        images = f"{spent.images}" if spent.images else ""
        print(f"{kind:28}{spent.seconds:10.2f}{spent.seconds / done.total:8.1%}{spent.calls:12}{images:>12}{each}")
    if done.attacks:
        defenses = list(dict.fromkeys(name for row in done.attacks.values() for name in row))
        print()
        print(f"{'attacks by network, s':28}" + "".join(f"{name[:13]:>14}" for name in defenses))
        for attack, row in done.attacks.items():
            print(f"{attack:28}" + "".join(f"{row[name]:14.2f}" if name in row else f"{'':14}" for name in defenses))


def heading(job: Job, done: Run) -> str:
    """What was run, one line."""
    failed = f", {done.failed} failed" if done.failed else ""
    return (
        f"{job.dataset} {job.preset}: {', '.join(job.defense)} against {', '.join(job.attack)}; {done.cells} cells"
        f"{failed}, one thread, peak {done.peak_mib / 1024:.1f} GiB; "
        f"{done.wall:.1f} s on the wall, {done.cpu:.1f} s of processor; below: {job.clock}"
    )


def compare(job: Job, other: str, rounds: int, as_json: bool) -> None:
    """Runs here and there in turn, each a process of its own with the same environment, and shows medians."""
    pythons = (sys.executable, python_of(other))
    runs: tuple[list[Run], list[Run]] = ([], [])
    for number in range(rounds):
        # whoever comes second may find a warmer machine: take turns
        for side in (0, 1) if number % 2 == 0 else (1, 0):
            runs[side].append(measured(pythons[side], job))
            print(
                f"round {number + 1}, {runs[side][-1].package}: {runs[side][-1].total:.1f} s ({job.clock})",
                file=sys.stderr,
            )
    if as_json:
        print(json.dumps({side: [asdict(one) for one in found] for side, found in zip("ab", runs, strict=True)}))
        return
    a, b = runs
    if a[0].package == b[0].package:
        print(f"both runs imported {a[0].package}: is that what was meant?")
    print(heading(job, a[0]))
    print(f"a: {a[0].package}")
    print(f"b: {b[0].package}")
    print(f"medians of {rounds}, seconds ({job.clock})")
    print()
    print(f"{'stage':28}{'a':>10}{'b':>10}{'b / a':>9}")
    for stage in ordered([stage for one in (*a, *b) for stage in one.stages]):
        line(stage, [one.stages.get(stage) for one in a], [one.stages.get(stage) for one in b])
    line("total", [one.total for one in a], [one.total for one in b])
    print()
    for kind in KINDS:
        line(kind, [one.kind(kind).seconds or None for one in a], [one.kind(kind).seconds or None for one in b])
    line("peak memory, MiB", [one.peak_mib for one in a], [one.peak_mib for one in b])
    print()
    print(agreement(a[0].numbers, b[0].numbers))


def agreement(a: Mapping[str, tuple[float, float, float]], b: Mapping[str, tuple[float, float, float]]) -> str:
    """How many measured values differ, and whose intervals don't meet."""
    pairs = {key: (a[key], b[key]) for key in a if key in b}
    different = {key: (one, other) for key, (one, other) in pairs.items() if one[0] != other[0]}
    apart = {key: (one, other) for key, (one, other) in different.items() if one[2] < other[1] or other[2] < one[1]}
    lines = [f"measured values that differ: {len(different)} of {len(pairs)}; with intervals apart: {len(apart)}"]
    for key, sides in apart.items():
        shown = (f"{value:.4g} [{low:.4g}, {high:.4g}]" for value, low, high in sides)
        lines.append(f"  {key}: {' and '.join(shown)}")
    return "\n".join(lines)


def line(name: str, here: Sequence[float | None], there: Sequence[float | None]) -> None:
    """One row of medians; nothing for a stage that took no time on either side."""
    a, b = (statistics.median(known) if (known := [x for x in side if x]) else None for side in (here, there))
    if max(a or 0, b or 0) < 0.005 and name != OTHER:
        return
    cells = "".join(f"{x:10.2f}" if x is not None else f"{'-':>10}" for x in (a, b))
    print(f"{name:28}{cells}" + (f"{b / a:8.2f}x" if a and b else ""))


def python_of(other: str) -> str:
    """The python of a checkout, or the path as it is."""
    path = Path(other)
    if path.is_dir():
        path = path / ".venv" / "bin" / "python"
    if not path.is_file():
        raise SystemExit(f"--compare: {str(path)!r} is no python: give a checkout with its .venv, or its python")
    return str(path.absolute())  # not resolved: a venv's python is a link


def measured(python: str, job: Job) -> Run:
    """One run as a process of its own."""
    command = [python, str(Path(__file__).resolve()), *job.arguments(), "--json"]
    ended = subprocess.run(command, capture_output=True, text=True)
    if ended.returncode:
        raise SystemExit(f"{python} ended with {ended.returncode}:\n{ended.stderr}")
    return Run.from_json(ended.stdout.splitlines()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", default="digits")
    parser.add_argument("--preset", default="standard", choices=("quick", "standard", "paper"))
    parser.add_argument("--defense", action="append", help="repeat for several; default: privatesnn")
    parser.add_argument("--attack", action="append", help="repeat; default: reconversion, direct and auto")
    parser.add_argument("--clock", choices=tuple(CLOCKS), default="wall", help="seconds of the wall or the processor")
    parser.add_argument("--compare", metavar="CHECKOUT", help="another checkout, or the path to its python")
    parser.add_argument("--rounds", type=int, default=3, help="runs on each side of --compare")
    parser.add_argument("--json", action="store_true", help="print one line of JSON in place of tables")
    given = parser.parse_args()
    if given.rounds < 1:
        parser.error("--rounds must be at least 1")
    attacks = given.attack or ["reconversion", "direct", "auto"]
    job = Job(given.dataset, given.preset, given.defense or ["privatesnn"], attacks, given.clock)
    if given.compare:
        compare(job, given.compare, given.rounds, given.json)
        return
    done = run(job)
    if given.json:
        print(json.dumps(asdict(done)))
    else:
        show(job, done)


if __name__ == "__main__":
    main()
