"""One simulation of a spiking network by LeakBench's engine, its peers and a plain loop: time, memory, same outputs.

    pip install -e '.[peers]'
    python benchmarks/engine.py                                           both networks, every mode, five rounds
    python benchmarks/engine.py --network small --mode infer --timesteps 8,16,32,64,128,256    linear in T?
    python benchmarks/engine.py --allocator both --markdown --json engine.json

Everyone simulates the same integrate-and-fire network (soft reset, leak 1, triangle surrogate) with the same weights,
thresholds and input spikes; LeakBench draws those spikes itself while its time is taken, the others are handed them.
Each contender is a process of its own, kept alive; in a round each runs once, and medians over rounds are printed. The
time is that of the CPU, all threads together. The ratio is to the fastest peer, the plain loop among them, and only
for a contender whose logits are those of the plain loop.

The weights lie on a grid on which float32 sums are exact, so that spikes are the same in whatever order a library adds
and whether it compares with > or >=: any difference of outputs is one of the equations (see on_grid).

Peers run as their documentation has it where time is a dimension, and faster where a user can make it so without
touching their neurons: stateless layers see all steps as one batch, and maps are in the faster memory format.
torch.compile is left out: it takes minutes to unroll 32 steps of a small network and then wins nothing when training.
"""

from __future__ import annotations

import dataclasses
import importlib.metadata
import importlib.util
import itertools
import json
import multiprocessing
import platform
import resource
import sys
import tempfile
import time
import traceback
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack, closing
from dataclasses import dataclass
from enum import StrEnum
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Annotated, Any, cast

import numpy as np
import torch
import typer
from engine_tables import Output, Record, show, summarise
from peers import CLASSES, CONTENDERS, REFERENCE, SEED, SHAPES, Case, Network, Setting, prepare, weights
from torch import Tensor
from torch.nn import functional

from leakbench.runtime.process import tune_process
from leakbench.snn import INPUT, SpikingNetwork


class Mode(StrEnum):
    INFER = "infer"
    TRAIN = "train"
    INPUT_GRADIENT = "input-gradient"


class Allocator(StrEnum):
    DEFAULT = "default"
    TUNED = "tuned"
    BOTH = "both"


# --- in a contender's process ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Task:
    """What a process is for."""

    contender: str
    setting: Setting
    mode: Mode
    tuned: bool
    threads: int
    path: Path


@dataclass(frozen=True)
class Outcome:
    """What a process has to show for itself at the end."""

    peak: float
    """MiB above what was in memory before the network first ran"""
    logits: np.ndarray[Any, np.dtype[np.float32]]
    """[B, classes], summed over steps"""
    counts: np.ndarray[Any, np.dtype[np.float32]]
    """spikes [B, layers]"""
    gradient: np.ndarray[Any, np.dtype[np.float32]]
    """by image, or weight * dL/dweight summed for each of all output channels, whatever a spike is worth; or empty"""


class Work:
    """One contender in one mode."""

    def __init__(self, task: Task) -> None:
        self.case = Case.load(task.setting, task.path)
        self.mode = task.mode
        self.model = CONTENDERS[task.contender].build(self.case)
        self.weights = weights(self.model.module)
        for weight in self.weights:
            weight.requires_grad_(self.mode is Mode.TRAIN)
        self.model.input.requires_grad_(self.mode is Mode.INPUT_GRADIENT)
        self.labels = torch.arange(task.setting.batch) % CLASSES
        self.logits = torch.empty(0)

    def run(self) -> None:
        if self.mode is Mode.INFER:
            with torch.no_grad():
                self.logits = self.model.run(self.model.input)
            return
        for leaf in (*self.weights, self.model.input):
            leaf.grad = None
        logits = self.model.run(self.model.input)
        scaled = logits * (self.case.scale / self.case.setting.timesteps)
        functional.cross_entropy(scaled, self.labels).backward()
        self.logits = logits.detach()

    def timed(self) -> tuple[float, float]:
        """Seconds of CPU, all threads together, and of wall clock."""
        wall, cpu = time.perf_counter(), time.process_time()
        self.run()
        return time.process_time() - cpu, time.perf_counter() - wall

    def gradient(self) -> Tensor:
        if self.mode is Mode.INFER:
            return torch.empty(0)
        if self.mode is Mode.TRAIN:
            return torch.cat([(cast(Tensor, w.grad) * w).detach().flatten(1).sum(1) for w in self.weights])
        grad = cast(Tensor, self.model.input.grad)
        if self.model.time_dim is None:
            return grad
        return grad.sum(self.model.time_dim) * self.case.ann.input_range.scale

    @torch.no_grad()
    def counts(self) -> Tensor:
        """Spikes [B, layers]."""
        model, batch = self.model, self.case.setting.batch
        if isinstance(model.module, SpikingNetwork):
            runs = [model.module.simulate(image[None], SEED, i).spikes for i, image in enumerate(model.input)]
            return torch.tensor([[made for layer, made in run.items() if layer != INPUT] for run in runs]).float()
        counts = torch.zeros(batch, len(model.neurons))

        def count(layer: int, output: Any) -> None:
            spikes = output[0] if isinstance(output, tuple) else output
            counts[:, layer] += (spikes.transpose(0, 1) if model.time_first else spikes).reshape(batch, -1).sum(1)

        handles = [
            neuron.register_forward_hook(lambda _m, _args, output, layer=layer: count(layer, output))
            for layer, neuron in enumerate(model.neurons)
        ]
        model.run(model.input)
        for handle in handles:
            handle.remove()
        return counts


def peak_memory() -> float:
    """MiB, the most so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)


def serve(pipe: Connection, task: Task) -> None:
    """Runs once to warm up and once for every True that comes; then its outcome, or a line on what went wrong."""
    torch.set_num_threads(task.threads)
    if task.tuned:
        tune_process()
    try:
        work = Work(task)
        before = peak_memory()
        work.run()
        pipe.send(None)
        while pipe.recv():
            pipe.send(work.timed())
        peak, logits, gradient = peak_memory() - before, work.logits, work.gradient()
        pipe.send(Outcome(peak, logits.numpy(), work.counts().numpy(), gradient.numpy()))
    except Exception as error:
        traceback.print_exc()
        pipe.send(f"{type(error).__name__}: {str(error).partition(chr(10))[0]}")


# --- in the parent ---------------------------------------------------------------------------------------------------


class Worker:
    """A contender's process and what it has told so far."""

    def __init__(self, task: Task) -> None:
        allocator = Allocator.TUNED if task.tuned else Allocator.DEFAULT
        setting = task.setting
        self.record = Record(
            setting.network.value, setting.batch, setting.timesteps, task.mode.value, allocator.value, task.contender
        )
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=serve, args=(theirs, task), daemon=True)
        self._process.start()
        theirs.close()
        self._receive()

    def _receive(self) -> Any:
        try:
            message = self._pipe.recv()
        except EOFError:
            self._process.join()
            message = f"its process ended with {self._process.exitcode}"
        if isinstance(message, str):
            self.record.error = message
        return message

    def turn(self) -> None:
        """Run once."""
        if not self.record.error:
            self._pipe.send(True)
            seconds = self._receive()
            if not self.record.error:
                self.record.cpu.append(seconds[0])
                self.record.wall.append(seconds[1])

    def finish(self) -> Outcome | None:
        """Its outcome, unless it failed; the process ends."""
        outcome = None
        if not self.record.error:
            self._pipe.send(False)
            outcome = self._receive()
        self.close()
        return outcome if isinstance(outcome, Outcome) else None

    def close(self) -> None:
        self._pipe.close()
        self._process.join(5)
        if self._process.is_alive():
            self._process.kill()


def measure(tasks: Sequence[Task], rounds: int) -> list[Record]:
    """All contenders of one network and mode, interleaved."""
    with ExitStack() as stack:
        # one starts and warms up after the other
        workers = [stack.enter_context(closing(Worker(task))) for task in tasks]
        for turn in range(rounds):
            # there and back, so that nobody always follows the same neighbour
            for worker in workers[:: 1 if turn % 2 == 0 else -1]:
                worker.turn()
        outcomes = {worker.record.contender: worker.finish() for worker in workers}
    for worker in workers:
        compare(worker.record, outcomes[worker.record.contender], outcomes[REFERENCE])
    return [worker.record for worker in workers]


def compare(record: Record, outcome: Outcome | None, reference: Outcome | None) -> None:
    """Set a contender's logits, spikes and gradient against the plain loop's."""
    if outcome is None:
        return
    record.peak = outcome.peak
    if reference is None or not CONTENDERS[record.contender].compared:
        return
    record.logits_off = float(abs(outcome.logits - reference.logits).max() / abs(reference.logits).max())
    record.samples_off = float((outcome.counts != reference.counts).any(1).mean())
    if reference.gradient.size:
        apart = np.linalg.norm((outcome.gradient - reference.gradient).ravel())
        record.gradient_off = float(apart / np.linalg.norm(reference.gradient.ravel()))


def main(
    network: Annotated[list[Network] | None, typer.Option(help="which networks; both, if none is named")] = None,
    mode: Annotated[list[Mode] | None, typer.Option(help="which modes; all, if none is named")] = None,
    contender: Annotated[list[str] | None, typer.Option(help="who runs, beside the plain loop; all, if none")] = None,
    timesteps: Annotated[str, typer.Option(help="T, or several: 8,16,32; each network's own, if not given")] = "",
    batch: Annotated[int | None, typer.Option(help="images at once; each network's own, if not given", min=1)] = None,
    rate: Annotated[float, typer.Option(help="spikes a step and neuron", min=0.001, max=0.5)] = 0.1,
    threads: Annotated[int, typer.Option(help="torch threads of each process", min=1)] = 1,
    rounds: Annotated[int, typer.Option(help="timed runs each, after one to warm up", min=1)] = 5,
    allocator: Annotated[Allocator, typer.Option(help="tuned: as LeakBench's command line has it")] = Allocator.BOTH,
    markdown: Annotated[bool, typer.Option("--markdown", help="tables as Markdown")] = False,
    json_file: Annotated[Path | None, typer.Option("--json", help="keep every single time here")] = None,
) -> None:
    output = Output(markdown)
    unknown = [name for name in contender or () if name not in CONTENDERS]
    if unknown:
        raise typer.BadParameter(f"no contender {unknown[0]!r}: one of {', '.join(CONTENDERS)}")
    if timesteps and not all(part.strip().isdecimal() and int(part) for part in timesteps.split(",")):
        raise typer.BadParameter(f"--timesteps: {timesteps!r} should be whole numbers with commas between them")
    steps = [int(part) for part in timesteps.split(",")] if timesteps else []
    names = [name for name in CONTENDERS if not contender or name in (*contender, REFERENCE)]
    packages = {name: CONTENDERS[name].package for name in names if CONTENDERS[name].package}
    missing = [name for name, package in packages.items() if importlib.util.find_spec(package) is None]
    if missing:
        output.line(f"left out, not installed: {', '.join(missing)}; pip install '.[peers]'")
    names = [name for name in names if name not in missing]
    present = ["torch", "leakbench", *(package for name, package in packages.items() if name not in missing)]
    versions = {package: importlib.metadata.version(package) for package in present}
    output.line(f"{', '.join(f'{k} {v}' for k, v in versions.items())}; {threads} thread(s), {rounds} rounds")

    tables: list[list[Record]] = []
    rates: dict[str, list[float]] = {}
    allocators = [Allocator.DEFAULT, Allocator.TUNED] if allocator is Allocator.BOTH else [allocator]
    settings = [
        Setting(chosen, batch or SHAPES[chosen].batch, t, rate)
        for chosen in network or list(Network)
        for t in steps or [SHAPES[chosen].timesteps]
    ]
    with tempfile.TemporaryDirectory() as folder:
        for setting in settings:
            path = Path(folder) / "network.safetensors"
            # in a process of its own: the most memory that a process ever had starts with what its parent had
            with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
                prepared = pool.submit(prepare, setting, path).result()
            name = f"{setting.network.value}, T {setting.timesteps}"
            rates[name] = prepared
            output.line(f"{name}: spikes a step and neuron {' '.join(f'{r:.3f}' for r in prepared)}")
            for allocate, m in itertools.product(allocators, mode or list(Mode)):
                tuned = allocate is Allocator.TUNED
                tables.append(measure([Task(name, setting, m, tuned, threads, path) for name in names], rounds))
                show(tables[-1], output)
    summarise(tables, output)
    records = list(itertools.chain.from_iterable(tables))
    if json_file is not None:
        about = {"versions": versions, "system": platform.platform(), "threads": threads, "rate": rate, "rates": rates}
        json_file.write_text(json.dumps({**about, "records": [dataclasses.asdict(r) for r in records]}, indent=1))
    if not all(record.valid or (not CONTENDERS[record.contender].exact and not record.error) for record in records):
        raise typer.Exit(1)


if __name__ == "__main__":
    typer.run(main)
