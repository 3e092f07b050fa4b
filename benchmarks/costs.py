"""What the stages of a run cost: measures small grids, and writes the table behind ``leakbench run --dry-run``.

    python benchmarks/costs.py                       measure all grids below (some three hours), write the table;
                                                     after an interruption those that are not measured yet
    python benchmarks/costs.py --stage STAGE         measure this stage alone (and what it builds on), replace its rows;
                                                     several with several --stage
    python benchmarks/costs.py --fit                 fit the table's rows again, measure nothing
    python benchmarks/costs.py --compare runs/mine   what the table says of a finished run, and what it took

Each grid is run in a process of its own with an empty cache, one job after the other on one thread, watched from
outside: every artifact that is built is a row of its stage, with the processor seconds that it took without those of
artifacts that it asked for, and with the peak memory of its job. Processor seconds, since the machine may have other
work. Wall seconds of a run are higher where its workers have to share cores. How fast the machine trains the networks
is measured with each grid.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import shlex
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch

import leakbench
from leakbench import registry
from leakbench.bench.costs import CostTable, Network, Row, read_costs
from leakbench.bench.executors import run_task
from leakbench.bench.grid import GridConfig, make_config
from leakbench.bench.jobs import Job, jobs_of
from leakbench.bench.pipeline import Pipeline
from leakbench.bench.speed import Speed, Speeds
from leakbench.bench.stages.shared import SharedArtifacts
from leakbench.bench.suites import cells_of
from leakbench.bench.work import Part, Sizes, chosen_parts, parts_of
from leakbench.data import load_dataset
from leakbench.runtime.process import environment, fixed_threads, tune_process
from leakbench.runtime.workspace import Settings, Workspace

TABLE = Path(__file__).parents[1] / "leakbench" / "bench" / "costs.json"
ATTACKS = ["all", "auto"]
MEMBERS = [
    "attack_p", "rmia", "lira", "bavaria", "threshold_membership", "noise_mia", "label_only_mia", "gradient_mia",
    "trajectory_mia", "shadow_mia", "auto_mia-v1", "auto_mia-v2", "auto_mia",
]  # fmt: skip
"""attacks on members: each reference network is one more to ask"""
CONVERSIONS = [
    "diehl2015", "rueckauer2017", "sengupta2019", "han2020", "han_roy2020", "zambrano2019", "deng_gu2021", "li2021",
    "bu2022",
]  # fmt: skip
OTHERS = ["stbp", "tdbn", "lee2020", "zskd", "datafree", "dpsgd", "shuffled"]
DEFENSES = [*CONVERSIONS, *OTHERS, "privatesnn"]
KINDS: Mapping[str, registry.Kind] = {"victim": "defense", "attack": "attack"}
"""stage of the store -> kind of the plugin that it is of"""
EVALUATION = "evaluation of inversion"
"""of small images; that of pictures is measured wherever they are"""
GREY, COLOUR = "grey.npz", "colour.npz"
"""a few images of Fashion-MNIST, and fewer of them in colour"""
SHORT = {
    "reconversion.iterations": 40, "direct.iterations": 4, "inversion.iterations": 20, "spsa.iterations": 4,
}  # fmt: skip
GRIDS: tuple[Mapping[str, Any], ...] = (
    {"dataset": "digits", "defense": "privatesnn", "attack": ATTACKS},
    {"dataset": GREY, "model": "vgg5", "defense": "privatesnn", "attack": ATTACKS, "images_per_class": 1},
    {"dataset": "digits", "defense": "privatesnn", "attack": ATTACKS, "images_per_class": 2, "timesteps": 64},
    {"dataset": "digits", "defense": DEFENSES, "attack": "none"},
    {"dataset": "digits", "defense": DEFENSES, "attack": "none", "timesteps": 64},
    {"dataset": "digits", "model": "vgg4bn", "defense": ["knowledge_within", "tdbn"], "attack": "none"},
    {"dataset": "digits", "defense": "han2020", "attack": "loss_threshold", "timesteps": 64},
    {"dataset": GREY, "model": "vgg5", "defense": DEFENSES[:-1], "attack": "none", "timesteps": 32},
    {
        "dataset": COLOUR, "model": "vgg9", "defense": "ann", "controls": False, "images_per_class": 1, "set": SHORT,
        "attack": ["reconversion", "direct", "inversion", "spsa"],
    },
    {"dataset": "digits", "defense": "han2020", "attack": MEMBERS, "controls": False},
    {"dataset": "digits", "defense": "han2020", "attack": MEMBERS, "controls": False, "timesteps": 4},
    {"dataset": GREY, "model": "vgg5", "defense": "han2020", "attack": MEMBERS, "controls": False},
    {"dataset": "digits", "defense": "datafree", "attack": "synthetic_leak", "controls": False},
    {"stage": EVALUATION, "dataset": "fashion-mnist", "model": "vgg5", "defense": "ann", "attack": "reconversion"},
    {
        "dataset": COLOUR, "model": "vgg9", "defense": "han2020", "controls": False, "images_per_class": 1,
        "attack": "auto",
    },
    {
        "dataset": COLOUR, "model": "vgg9", "defense": "han2020", "controls": False, "classes": 2,
        "attack": ["pruned", "distilled"],
    },
    {
        "dataset": COLOUR, "model": "vgg9", "defense": ["han2020", "datafree", "privatesnn"], "controls": False,
        "timesteps": 150, "attack": "reconversion", "set": {
            "datafree.samples": 100, "privatesnn.samples": 100, "privatesnn.epochs": 1,
        },
    },
    {"dataset": "digits", "defense": "han2020", "attack": "auto-v1", "controls": False},
    {
        "dataset": GREY, "model": "vgg5", "defense": "han2020", "attack": "auto-v1", "controls": False,
        "images_per_class": 1,
    },
)  # fmt: skip
"""options of grids; with a stage, that alone is measured of it"""


class Watch:
    """Processor seconds of what artifacts take to build, without those of artifacts within."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = defaultdict(float)
        """stage of this job -> seconds"""
        self.shares: dict[str, dict[str, tuple[str, ...]]] = defaultdict(dict)
        self.plugins: dict[str, str] = {}
        """stage "victim" or "attack" -> the plugin of this job"""
        self.within: list[float] = []
        self.stack: list[str] = []

    def install(self) -> None:
        make, call = Workspace.make, SharedArtifacts.__call__

        def watched(where: Workspace, stage: Any, seed: int, inputs: Any, build: Any, *more: Any, **named: Any) -> Any:
            def timed(context: Any) -> Any:
                start = time.process_time()
                self.within.append(0.0)
                self.stack.append(stage.name)
                try:
                    return build(context)
                finally:
                    self.stack.pop()
                    took = time.process_time() - start
                    self.seconds[stage.name] += took - self.within.pop()
                    if self.within:
                        self.within[-1] += took

            return make(where, stage, seed, inputs, timed, *more, **named)

        def asked(shared: Any, name: str, version: int, params: Any, build: Any) -> Any:
            if self.stack:
                self.shares[self.plugins[self.stack[-1]]][name] = tuple(params)
            return call(shared, name, version, params, build)

        Workspace.make = watched  # type: ignore[method-assign,assignment]
        SharedArtifacts.__call__ = asked  # type: ignore[method-assign,assignment]

    def stages(self, parts: Sequence[Part]) -> dict[str, float]:
        """What was built in a job, by the stages of its parts; what has no name of its own is of the last one."""
        named = {"ann": "ANN training", "utility": "accuracy and energy"}
        named |= {stage: f"{KINDS[stage]} {plugin}" for stage, plugin in self.plugins.items()}
        rest = parts[-1].stage
        total: dict[str, float] = defaultdict(float, {rest: 0.0})
        for stage, seconds in self.seconds.items():
            shared = stage.startswith("shared-")
            total[f"shared {stage.removeprefix('shared-')}" if shared else named.get(stage, rest)] += seconds
        return total


def needed(jobs: Sequence[Job], sizes: Sizes, stages: Sequence[str]) -> set[int]:
    """The numbers of the jobs that one of the stages is a part of, and of all that they wait for."""
    shares = read_costs().shares
    numbers = {n for n, job in enumerate(jobs) if any(p.stage in stages for p in parts_of(job, sizes, shares) or ())}
    for number in reversed(range(len(jobs))):
        if number in numbers:
            numbers.update(jobs[number].after)
    return numbers


def measure(number: int, to: Path, stages: Sequence[str]) -> None:
    """Run a grid and write its rows: those of the ``stages``, or all of them where none is named."""
    watch = Watch()
    watch.install()
    tune_process()
    options = {"preset": "quick", **GRIDS[number]}
    alone = options.pop("stage", None)
    wanted = list(stages) or ([alone] if alone else [])
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder, fixed_threads(1):
        if options["dataset"] in (GREY, COLOUR):
            path = Path(folder) / options["dataset"]
            np.savez(path, **(few() if path.name == GREY else tinted()))
            options["dataset"] = str(path)
        jobs = jobs_of(cells_of(make_config(options)))
        pipeline = Pipeline(Settings(str(Path(folder) / "cache")), lambda *_: None)
        sizes = Sizes(None)
        speeds = Speeds(sizes, "float32")
        asked: dict[tuple[str, str], Any] = {}
        for index in sorted(needed(jobs, sizes, wanted)) if wanted else range(len(jobs)):
            job = jobs[index]
            watch.seconds.clear()
            variants = dict(job.cell.variants)
            watch.plugins = {stage: variants[kind].name for stage, kind in KINDS.items() if kind in variants}
            reset_peak()
            start = time.process_time()
            result = run_task(pipeline, job.task, job.cell)
            total, peak = time.process_time() - start, peak_memory()
            print(f"[{index + 1}/{len(jobs)}] {result.status} {total:.1f} s: {job.title}", flush=True)
            if result.status == "failed":  # its rows would be missing without a word
                sys.exit(f"{result.traceback}\nnot measured: {job.title}")
            if result.status != "ok":
                continue
            parts = parts_of(job, sizes, watch.shares)
            assert parts is not None
            asked[job.cell.dataset_label, job.cell.model_label] = job.cell
            taken = watch.stages(parts) if parts else {}
            for part in parts:
                if part.stage not in taken:
                    continue
                seconds = taken.pop(part.stage)
                if not wanted or part.stage in wanted:
                    rows.append({
                        "stage": part.stage, "dataset": job.cell.dataset_label, "model": job.cell.model_label,
                        "timesteps": part.steps, "sizes": part.sizes,
                        "seconds": round(seconds, 4), "memory": round(peak),
                    })  # fmt: skip
            assert not taken, f"no part of the job is {taken}"
        networks = [  # not between jobs, whose peaks of memory it would raise
            {"dataset": dataset, "model": model, "speed": speed.model_dump()}
            for (dataset, model), cell in asked.items() if (speed := speeds(cell))
        ]  # fmt: skip
    measured = {"machine": processor(), "shares": watch.shares, "rows": rows, "networks": networks}
    unfinished = to.with_suffix(".part")
    unfinished.write_text(json.dumps(measured))
    unfinished.replace(to)


def measured_file(folder: Path, number: int, stages: Sequence[str]) -> Path:
    """Where a grid's rows wait for the others: of this machine, this version and these stages alone."""
    what = json.dumps([GRIDS[number], stages, leakbench.__version__, processor()])
    return folder / f"{number}-{hashlib.sha256(what.encode()).hexdigest()[:8]}.json"


def processor() -> str:
    return environment(torch.device("cpu"))["processor"]


def few() -> dict[str, Any]:
    """2000 training and 1000 test images of Fashion-MNIST."""
    data = load_dataset("fashion-mnist")
    return {
        f"{what}_{name}": tensor[:count].numpy()
        for name, split, count in (("train", data.train, 2000), ("test", data.test, 1000))
        for what, tensor in (("x", split.images.squeeze(1)), ("y", split.labels))
    }


def tinted() -> dict[str, Any]:
    """500 training and 100 test images of Fashion-MNIST as 32x32x3, each in a colour of its own.

    Real images, since a spiking network's time depends on how often its neurons fire: in answer to noise, more often.
    """
    draw, arrays = np.random.default_rng(0), few()
    for split, count in (("train", 500), ("test", 100)):
        grey = np.pad(arrays[f"x_{split}"][:count], ((0, 0), (2, 2), (2, 2)))
        arrays[f"x_{split}"] = (grey[..., None] * draw.uniform(0.3, 1, (count, 1, 1, 3))).astype(np.uint8)
        arrays[f"y_{split}"] = arrays[f"y_{split}"][:count]
    return arrays


def reset_peak() -> None:
    """The peak of the resident memory starts from what there is now (Linux)."""
    Path("/proc/self/clear_refs").write_text("5")


def peak_memory() -> float:
    """MiB of resident memory at most, since the last reset."""
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(status["VmHWM"].split()[0]) / 1024


_RELUCTANCE = 0.03 * np.diag([1.0, 1.0, 0.1, 1.0, 0.1, 1.0, 0.1])
"""Where rows can't tell sizes apart, seconds are put down to those of the steps: they are most of what grows with a
network, and a fixed cost would tell the same for all."""


def fitted(rows: Sequence[Row], speeds: Sequence[Speed]) -> tuple[float, ...]:
    """Weights >= 0 of the sizes, for which twice too much counts as half too little: (told - measured)^2 / (both).

    ``speeds``: of the networks that the rows were measured on, by their number.
    """
    from scipy.optimize import nnls

    sizes = np.array([speeds[row.network].taken(row.sizes) for row in rows])
    seconds = np.maximum([row.seconds for row in rows], 0.01)
    told = seconds
    for _ in range(20):
        relative = sizes / np.sqrt(seconds * told)[:, None]
        scale = np.maximum(relative.max(0), 1e-30)
        known, wanted = (
            np.vstack([relative / scale, _RELUCTANCE]),
            np.append(np.sqrt(seconds / told), np.zeros(len(_RELUCTANCE))),
        )
        weights = nnls(known, wanted)[0] / scale
        told = np.maximum(sizes @ weights, 0.01)
    return tuple(float(x) for x in weights)


def predicted(weights: Sequence[float], row: Row, speeds: Sequence[Speed]) -> float:
    return sum(w * size for w, size in zip(weights, speeds[row.network].taken(row.sizes), strict=True))


def within_twice(ratios: Sequence[float]) -> str:
    return f"{sum(0.5 <= ratio <= 2 for ratio in ratios)}/{len(ratios)} within a factor of 2"


def left_out(same: Sequence[Row], speeds: Sequence[Speed]) -> list[float]:
    """Told seconds over measured ones of each row of a stage, told by the rows of other networks and T."""
    ratios = []
    for row in same:
        others = [other for other in same if (other.network, other.timesteps) != (row.network, row.timesteps)]
        if others and row.seconds > 0.1:  # a tenth of a second more or less matters to nobody
            ratios.append(predicted(fitted(others, speeds), row, speeds) / row.seconds)
    return ratios


def fit(
    rows: Sequence[Row], shares: Mapping[str, Any], command: str, networks: Sequence[Network], date: str
) -> CostTable:
    """The table of rows, and how well rows tell each other. Networks that no row is of any more are left out."""
    used = sorted({row.network for row in rows})
    networks = [networks[number] for number in used]
    rows = [row.model_copy(update={"network": used.index(row.network)}) for row in rows]
    speeds = [network.speed for network in networks]
    by_stage: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        by_stage[row.stage].append(row)
    every: list[float] = []
    for stage, same in sorted(by_stage.items()):
        ratios = left_out(same, speeds)
        every += ratios
        worst = max(ratios, key=lambda ratio: max(ratio, 1 / max(ratio, 1e-9)), default=1.0)
        print(f"{stage:32} {len(same):3} rows, {within_twice(ratios)}, worst {worst:.2f}x")
    print(f"{within_twice(every)} when told by other networks and T")
    return CostTable(
        command=command,
        date=date,
        version=leakbench.__version__,
        networks=tuple(networks),
        shares={plugin: {name: tuple(params) for name, params in each.items()} for plugin, each in shares.items()},
        weights={stage: fitted(same, speeds) for stage, same in sorted(by_stage.items())},
        within_twice=round(sum(0.5 <= ratio <= 2 for ratio in every) / max(len(every), 1), 3),
        rows=tuple(rows),
    )


def write(table: CostTable) -> None:
    """A row a line."""
    head = table.model_dump(mode="json", exclude={"rows", "weights"})
    lines = [f" {json.dumps(name)}: {json.dumps(one)}," for name, one in head.items()]
    weights = ",\n".join(f"  {json.dumps(stage)}: {json.dumps(one)}" for stage, one in table.weights.items())
    rows = ",\n".join(f"  {row.model_dump_json()}" for row in table.rows)
    TABLE.write_text("\n".join(["{", *lines, ' "weights": {', weights, " },", ' "rows": [', rows, " ]", "}"]) + "\n")


def compare(folder: Path, table: CostTable) -> None:
    """What the table says of the cells of a finished run, beside the seconds of its record.

    The record has seconds of defences and attacks alone, with what they share where they were first to ask.
    """
    record = json.loads((folder / "results.json").read_bytes())  # of older versions, too
    config = GridConfig(**json.loads((folder / "grid.json").read_bytes())["grid"])
    cells = cells_of(config)
    jobs, sizes = jobs_of(cells), Sizes(None)
    speeds, chosen = Speeds(sizes, cells[0].precision), chosen_parts(jobs, sizes, table.shares)

    def told(job: Job, parts: Sequence[Part]) -> float:
        speed = speeds(job.cell)
        return sum(table.seconds(part, speed) or 0.0 for part in parts) if speed else 0.0

    took: dict[tuple[Any, ...], float] = {}
    for row in record["cells"]:
        where = tuple(row[name] for name in ("dataset", "model", "seed", "defense", "attack"))
        for one in row["values"]:
            if one["metric"] == "seconds":
                took[where] = one["value"]
    ratios: list[float] = []
    for job, parts in zip(jobs, chosen, strict=True):
        variants = dict(job.cell.variants)
        if not job.is_cell or "defense" not in variants:
            continue
        cell: Any = job.cell
        attack = variants["attack"].label if "attack" in variants else ""
        seconds = took.get((cell.dataset_label, cell.model_label, cell.seed, cell.defense.label, attack))
        stages = ("attack ", "shared ") if attack else ("defense ", "shared ")
        expected = told(job, [part for part in parts or () if part.stage.startswith(stages)])
        if seconds and max(seconds, expected) > 0.1:
            ratios.append(expected / seconds)
            print(f"{seconds:8.1f} s, told {expected:8.1f} s ({ratios[-1]:.2f}x): {job.title}")
    print(f"{folder.name}: {within_twice(ratios)}, median {np.median(ratios):.2f}x")
    total = sum(told(job, parts or ()) for job, parts in zip(jobs, chosen, strict=True))
    print(f"  whole run: told {total:.0f} s, took {record['seconds']:.0f} s")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--grid", type=int, help="measure this one of the grids alone, in this process")
    parser.add_argument(
        "--stage", action="append", default=[], help="measure this stage alone, and take the other rows from the table"
    )
    parser.add_argument(
        "--measured", type=Path, default=Path("costs"), help="folder of measured grids, until the table has them all"
    )
    parser.add_argument("--fit", action="store_true", help="measure nothing, fit the table's rows again")
    parser.add_argument("--compare", type=Path, nargs="+", help="folders of finished runs")
    given = parser.parse_args()
    if given.compare:
        for folder in given.compare:
            compare(folder, CostTable.model_validate_json(TABLE.read_bytes()))
        return
    if given.fit:
        before = read_costs()
        write(fit(before.rows, before.shares, before.command, before.networks, before.date))
        return
    given.measured.mkdir(parents=True, exist_ok=True)
    if given.grid is not None:
        measure(given.grid, measured_file(given.measured, given.grid, given.stage), given.stage)
        return
    numbers = [
        number for number, grid in enumerate(GRIDS) if not given.stage or grid.get("stage") in (None, *given.stage)
    ]
    measured = [measured_file(given.measured, number, given.stage) for number in numbers]
    for number, path in zip(numbers, measured, strict=True):
        if path.exists():
            continue
        call = [sys.executable, __file__, "--grid", str(number), "--measured", str(given.measured)]
        call += [word for stage in given.stage for word in ("--stage", stage)]
        print(shlex.join(call), flush=True)
        subprocess.run(call, check=True)
    parts = [json.loads(path.read_bytes()) for path in measured]
    shares: dict[str, Any] = {}
    for part in parts:
        for plugin, each in part["shares"].items():
            shares[plugin] = {**shares.get(plugin, {}), **each}
    command = "python benchmarks/costs.py"
    networks: list[Network] = []
    kept: list[Row] = []
    if given.stage:
        before = read_costs()
        networks, kept = list(before.networks), [row for row in before.rows if row.stage not in given.stage]
        shares = {**before.shares, **shares}
        then = ", then " + " ".join(f"--stage {shlex.quote(stage)}" for stage in given.stage)
        command = before.command.replace(then, "") + then
    where = [(network.machine, network.dataset, network.model) for network in networks]
    speeds: dict[tuple[str, str, str], list[Speed]] = defaultdict(list)
    for part in parts:
        for one in part["networks"]:
            speeds[part["machine"], one["dataset"], one["model"]].append(Speed(**one["speed"]))
    for (machine, dataset, model), several in speeds.items():
        if (machine, dataset, model) not in where:
            where.append((machine, dataset, model))
            networks.append(Network(machine=machine, dataset=dataset, model=model, speed=median(several)))
    rows = [
        Row(network=where.index((part["machine"], row.pop("dataset"), row.pop("model"))), **row)
        for part in parts for row in part["rows"]
    ]  # fmt: skip
    write(fit([*kept, *rows], shares, command, networks, datetime.now(UTC).date().isoformat()))
    for path in measured:
        path.unlink()  # the table has it all
    if not any(given.measured.iterdir()):
        given.measured.rmdir()


def median(speeds: Sequence[Speed]) -> Speed:
    of = [one.model_dump() for one in speeds]
    return Speed(**{name: statistics.median(one[name] for one in of) for name in Speed.model_fields})


if __name__ == "__main__":
    main()
