"""A run small enough for tests: 60 images of 8x8, weights trained beforehand, four steps of time, 17 cells.

One of its attacks can be held at a gate, so that a test acts in the middle of a run and not after some time.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from filelock import FileLock
from numpy.typing import NDArray
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor, nn

from leakbench.bench import backends, runner
from leakbench.bench.executors import Executor, InProcess, Result, executor_for
from leakbench.bench.grid import make_config
from leakbench.bench.jobs import Job
from leakbench.bench.runner import run_grid
from leakbench.bench.stages import ann
from leakbench.cells import Cell
from leakbench.contracts import Progress
from leakbench.data import load_dataset
from leakbench.records import CellRecord, RunRecord
from leakbench.runtime.process import fixed_threads
from leakbench.runtime.workspace import Settings

CLASSES = ("bars", "boxes", "stripes")
IMAGES_A_CLASS = 20  # 16 to train on, 4 to test on
OURS = "sengupta2019"
DEFENSES = ("ann", "han2020", "random", OURS)
"""the controls, and what was asked for"""
ATTACKS = ("direct", "gated")
OURS_LABEL, DIRECT_LABEL = f"{OURS}[images=16]", "direct[iterations=2]"
"""as the tiny run's options name them"""
LABELS = {name: name for name in (*DEFENSES, *ATTACKS)} | {OURS: OURS_LABEL, "direct": DIRECT_LABEL}
CELLS = 17
"""2 anchors drawn twice, 4 defences, 2 attacks on each, and direct on what was asked for at half its effort"""
ALONE = 8
"""without controls"""
DIGITS: Mapping[str, Any] = {
    "defense": ["han2020"], "attack": ["reconversion"], "preset": "quick", "controls": False,
    "set": {"reconversion.iterations": ["2"], "han2020.images": ["16"]},
}  # fmt: skip
"""a grid on the digits that trains all that a quick run there begins with"""

GATED = '''
"""An attack for tests: random images. It waits at a gate where LEAKBENCH_TEST_GATE names a folder."""

import os
import time
from pathlib import Path

import torch

from leakbench.contracts import Access, Attack, Params


class Gated(Attack[Params]):
    """Random images, after waiting at the gate."""

    name = "gated"
    needs = Access.LABELS

    def run(self, victim, targets, context):
        calls = os.environ.get("LEAKBENCH_TEST_CALLS")
        if calls:
            with open(calls, "a") as file:
                file.write("called\\n")
        gate = os.environ.get("LEAKBENCH_TEST_GATE")
        if gate:
            Path(gate, "reached").touch()
            while not Path(gate, "open").exists():
                time.sleep(0.01)
        return torch.rand(len(targets), *victim.image_shape, generator=context.generator)
'''


@dataclass(frozen=True)
class Tiny:
    """The files of the tiny run: data set, weights, attack."""

    images: Path
    checkpoint: Path
    gated: Path

    @property
    def dataset(self) -> str:
        return f"folder:{self.images}:flips"

    def options(self, **other: Any) -> dict[str, Any]:
        """The grid by the names of its options; ``other`` ones take their place, None leaves one out."""
        options: dict[str, Any] = {
            "defense": [OURS],
            "attack": ["direct", f"{self.gated}:Gated"],
            "dataset": [self.dataset],
            "model": ["vgg4"],
            "timesteps": ["4"],
            "images_per_class": 2,
            "preset": "quick",
            "ann": str(self.checkpoint),
            "set": {"direct.iterations": ["2"], f"{OURS}.images": ["16"]},
        } | other
        return {name: value for name, value in options.items() if value is not None}

    def arguments(self, out: Path, **other: Any) -> list[str]:
        """The same grid as the command line takes it, whose attack waits at a gate that no isolated one can see."""
        arguments = ["run", "--no-isolate", "--out", str(out)]
        for name, value in self.options(**other).items():
            if name == "set":
                for key, values in value.items():
                    arguments += ["--set", f"{key}={','.join(values)}"]
            elif name == "controls":
                arguments += ["--controls" if value else "--no-controls"]
            else:
                for one in value if isinstance(value, list) else [value]:
                    arguments += [f"--{name.replace('_', '-')}", str(one)]
        return arguments


@dataclass(frozen=True)
class Warm:
    """A finished tiny run with its store."""

    tiny: Tiny
    cache: Path
    """the run's own store, and nothing else in it"""
    grown: Path
    """a copy of it, to which tests add what they run: what two of them need is computed once"""
    out: Path
    record: RunRecord


class Quiet:
    """A reporter that remembers what it was told."""

    def __init__(self) -> None:
        self.jobs: Sequence[Job] = ()
        self.ended_jobs: list[tuple[Job, Result]] = []

    def plan(self, jobs: Sequence[Job], /) -> None:
        self.jobs = jobs

    def started(self, _number: int, /) -> None:
        return None

    def ended(self, number: int, result: Result, /) -> None:
        self.ended_jobs.append((self.jobs[number], result))

    def stage(self, _what: str, _done: int, _total: int, /) -> None:
        return None


# --- making it ---------------------------------------------------------------------------------------------------


def make_tiny(folder: Path) -> Tiny:
    images = folder / "shapes"
    write_images(images)
    gated = folder / "gated.py"
    gated.write_text(GATED, encoding="utf-8")
    checkpoint = folder / "weights.safetensors"
    write_checkpoint(checkpoint, images)
    return Tiny(images, checkpoint, gated)


def write_images(folder: Path, classes: Sequence[str] = CLASSES, each: int = IMAGES_A_CLASS) -> None:
    """Grey images, one subfolder a class: standing bars, boxes, lying stripes, each moved about and with noise."""
    random = np.random.RandomState(0)
    for number, name in enumerate(classes):
        (folder / name).mkdir(parents=True)
        for image in range(each):
            pixels = np.roll(_drawing(number), tuple(random.randint(0, 3, 2)), (0, 1))
            noisy = np.clip(pixels + random.normal(0, 15, pixels.shape), 0, 255).astype(np.uint8)
            Image.fromarray(noisy).save(folder / name / f"{image:02d}.png")


def _drawing(number: int) -> NDArray[np.float64]:
    pixels = np.zeros((8, 8))
    if number == 0:
        pixels[:, 1:3] = pixels[:, 5:7] = 230
    elif number == 1:
        pixels[1:6, 1:6] = 230
        pixels[2:5, 2:5] = 0
    else:
        pixels[1:3] = pixels[5:7] = 230
    return pixels


def user_network(classes: int = len(CLASSES)) -> nn.Sequential:
    """What a user trains elsewhere with plain torch: the layers of the model vgg4 for grey images of 8x8."""
    return nn.Sequential(
        nn.Conv2d(1, 32, 3, padding=1, bias=False), nn.ReLU(), nn.AvgPool2d(2),
        nn.Conv2d(32, 64, 3, padding=1, bias=False), nn.ReLU(), nn.AvgPool2d(2),
        nn.Flatten(), nn.Linear(256, 128, bias=False), nn.ReLU(), nn.Dropout(0.5), nn.Linear(128, classes, bias=False),
    )  # fmt: skip


def write_checkpoint(path: Path, images: Path, seed: int = 0) -> None:
    """Weights of a network that was trained on the images, so that there is something to protect and to find."""
    train = load_dataset(f"folder:{images}").train
    with fixed_threads(1), torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = user_network()
        optimizer = torch.optim.Adam(network.parameters(), lr=2e-3)
        for _ in range(30):
            optimizer.zero_grad()
            nn.functional.cross_entropy(network(train.images.float() / 255), train.labels).backward()
            optimizer.step()
    save_file({name: value.contiguous() for name, value in network.state_dict().items()}, path)


def made_once(base: Path, name: str, make: Callable[[Path], object]) -> Path:
    """The folder ``name`` of a session of tests, filled by ``make``; ``base`` is pytest's folder of the session.

    Where tests run in several processes, whoever comes first makes it, and the others wait.
    """
    shared = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / name
    made = shared / "made"
    with FileLock(f"{shared}.lock"):
        if not made.exists():
            shutil.rmtree(shared, ignore_errors=True)
            shared.mkdir(parents=True)
            make(shared)
            made.touch()
    return shared


def digits_run(base: Path) -> Path:
    """The store of the quick run of :data:`DIGITS`, with its ANN and evaluation models; copy it before it changes."""
    return made_once(base, "digits-run", lambda at: run_here(DIGITS, at / "cache", at / "run")) / "cache"


def warm_run(base: Path) -> Warm:
    """A copy of the finished run; ``base`` is pytest's folder of the session."""

    def make(at: Path) -> None:
        (at / "files").mkdir()
        run_here(make_tiny(at / "files").options(), at / "cache", at / "run")

    shared = made_once(base, "warm-run", make)
    files = shared / "files"
    own = base / "own-warm-run"
    if not own.exists():
        for name in ("cache", "run"):
            copied(shared / name, own / name)
        copied(own / "cache", own / "grown")
    tiny = Tiny(files / "shapes", files / "weights.safetensors", files / "gated.py")
    record = RunRecord.model_validate_json((own / "run" / "results.json").read_bytes())
    return Warm(tiny, own / "cache", own / "grown", own / "run", record)


# --- running it --------------------------------------------------------------------------------------------------


def in_process(patch: pytest.MonkeyPatch) -> None:
    """Runs that ask for no number of ``jobs`` are computed in the test's own process, which spares starting others."""

    def executor(cells: Sequence[Cell], settings: Settings, jobs: int | None, progress: Progress) -> Executor:
        if jobs is None and len(cells):
            return InProcess(settings, progress)
        return executor_for(cells, settings, jobs, progress)

    for module in (runner, backends):  # of run_grid() by itself, and of a command's --executor
        patch.setattr(module, "executor_for", executor)


def trained_briefly(patch: pytest.MonkeyPatch) -> None:
    """ANNs that this process trains take 30 steps, for tests in which it does not matter what they learn."""
    recipe = ann.victim_recipe
    patch.setattr(ann, "victim_recipe", lambda *given: replace(recipe(*given), steps=30))


def run_here(
    options: Mapping[str, Any],
    cache: Path,
    out: Path,
    jobs: int | None = None,
    device: str = "cpu",
    reporter: Quiet | None = None,
) -> RunRecord:
    """Run a grid in this process, or in ``jobs`` others."""
    settings = Settings(cache=str(cache), device=device)
    return run_grid(make_config(options), settings, out, jobs, "leakbench run", reporter or Quiet())


def start(arguments: Sequence[str], cache: Path, **environment: str) -> subprocess.Popen[str]:
    """Start ``python -m leakbench`` as a user does."""
    return subprocess.Popen(
        [sys.executable, "-m", "leakbench", *arguments],
        env={**os.environ, "LEAKBENCH_CACHE": str(cache), "OMP_NUM_THREADS": "1", **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def wait_for(path: Path, process: subprocess.Popen[str]) -> None:
    """Until the process has made the file; the limit only ends a test that hangs."""
    for _ in range(12_000):
        if path.exists():
            return
        if process.poll() is not None:
            raise AssertionError(f"ended with {process.returncode} before {path.name}: {process.communicate()}")
        time.sleep(0.01)
    process.kill()
    raise AssertionError(f"no {path.name} after two minutes")


def copied(folder: Path, to: Path) -> Path:
    """A copy for a test that changes it; times are kept."""
    return Path(shutil.copytree(folder, to))


# --- reading it --------------------------------------------------------------------------------------------------


def plain(label: str) -> str:
    """A label without what was set: the tiny run has one variant of each plugin."""
    return re.sub(r"\[[^\]]*\]", "", label)


def cell_of(record: RunRecord, defense: str, attack: str = "", seed: int = 0) -> CellRecord:
    """The one cell of that name: a label, or one without what was set."""
    (cell,) = [
        c
        for c in record.cells
        if c.seed == seed and defense in (c.defense, plain(c.defense)) and attack in (c.attack, plain(c.attack))
    ]
    return cell


def value_of(cell: CellRecord, metric: str) -> float:
    (value,) = [v.value for v in cell.values if v.metric == metric]
    return value


def numbers(record: RunRecord, *defenses: str) -> dict[tuple[str, ...], tuple[Any, ...]]:
    """Every value of a record but the seconds, which no two runs share; of these rows and the anchors, or of all."""
    cells = [cell for cell in record.cells if not defenses or plain(cell.defense) in ("", *defenses)]
    found: dict[tuple[str, ...], tuple[Any, ...]] = {
        (cell.dataset, cell.model, plain(cell.defense), plain(cell.attack), str(cell.seed), value.metric): (
            value.value,
            value.low,
            value.high,
            value.n,
        )
        for cell in cells
        for value in cell.values
        if value.metric != "seconds"
    }
    assert len(found) == sum(value.metric != "seconds" for cell in cells for value in cell.values)
    return found


def artifacts(cache: Path) -> dict[str, int]:
    """Key -> time at which the artifact's tensors were written, ns."""
    folders = [folder for folder in (cache / "objects").glob("??/*") if not folder.name.startswith(".")]
    return {folder.name: (folder / "tensors.safetensors").stat().st_mtime_ns for folder in folders}


def forget(cache: Path, *stages: str) -> None:
    """Remove from a store what these stages made and all that stands on it, as if no run had come to it."""
    left = {folder: json.loads((folder / "manifest.json").read_bytes()) for folder in (cache / "objects").glob("??/*")}
    gone: set[str] = set()
    while more := [
        folder
        for folder, made in left.items()
        if made["stage"] in stages or any(key in json.dumps(made["inputs"]) for key in gone)
    ]:
        for folder in more:
            shutil.rmtree(folder)
            del left[folder]
            gone.add(folder.name)


def held_out(tiny: Tiny) -> tuple[Tensor, Tensor]:
    """The test images [N, 1, 8, 8] in 0..255 and their labels."""
    test = load_dataset(tiny.dataset).test
    return test.images, test.labels
