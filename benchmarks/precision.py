"""What bfloat16 gains and what it changes: training and gradients of ANNs and of spiking networks, and runs that differ
in it alone.

G="--dataset fashion-mnist --preset quick --timesteps 64 -d han2020,privatesnn -a reconversion,inversion --seeds 3"
leakbench run $G --out runs/float32
leakbench run $G --precision bfloat16 --out runs/bfloat16
python benchmarks/precision.py runs/float32 runs/bfloat16

Writes docs/results/precision.md. Speed is measured on one thread, both precisions in turn; processors without
AMX, or without any instructions for bfloat16, are this one with oneDNN kept from using them, a process each.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from statistics import median
from typing import TypeVar

import result_page
import torch
from torch.nn import functional

from leakbench.contracts import ImageClassifier, InputRange, Precision
from leakbench.leakage.seed_group import SeedGroup, seed_group
from leakbench.models.fast_convolutions import fast_convolutions
from leakbench.models.storage import build_ann
from leakbench.records import CellRecord, RunRecord, value
from leakbench.reports.files import read_record
from leakbench.reports.vocabulary import Vocabulary, bounds, number
from leakbench.runtime.process import tune_process
from leakbench.snn import SpikingConfig, SpikingNetwork, add_gradients, balance_thresholds

N = TypeVar("N")
PRECISIONS: tuple[Precision, ...] = ("float32", "bfloat16")
KINDS = {"as it is": "", "without AMX": "AVX512_CORE_BF16", "AVX-512 without bfloat16": "AVX512_CORE"}
"""of processors -> ONEDNN_MAX_CPU_ISA. AVX2 alone is left out: three networks were not through in ten minutes."""
NETWORKS = {"vgg5": (1, 28, 28), "vgg9": (3, 32, 32), "vgg16": (3, 32, 32)}
IMAGES = 64
SPIKING, TIMESTEPS, SPIKING_IMAGES = "vgg9", 150, 2
SCALE = 0.6
"""of a spiking network's thresholds: a few per cent of its neurons fire at a step, as of trained ones"""
ROUNDS = 7
METRICS = ("accuracy", "ann_accuracy", "judge_accuracy", "open_set_accuracy", "kes")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path, nargs="*", help="folders of two runs that differ in --precision")
    parser.add_argument("--rates", action="store_true", help="print the rates of this process as JSON, and no more")
    given = parser.parse_args()
    if given.rates:
        tune_process()
        torch.set_num_threads(1)
        print(json.dumps({name: rates(name) for name in NETWORKS} | {f"{SPIKING}, spiking": spiking_rates()}))
        return
    records = [read_record(run) for run in given.runs]
    parts = [_SPEED, _speed(), *([_CHANGES, _changes(*records)] if records else [])]
    command = " ".join(["python benchmarks/precision.py", *(f"runs/{run.name}" for run in given.runs)])
    asked = [
        result_page.of_run(record, f"runs/{run.name}", "").commands[0]
        for record, run in zip(records, given.runs, strict=True)
    ]
    result_page.write(
        "precision.md",
        "What bfloat16 gains and changes" if records else "What bfloat16 gains",
        "`--precision bfloat16` rounds what dense convolutions multiply to 8 bits; sums and neurons are float32.",
        result_page.of_now(*asked, command),
        *parts,
    )


_SPEED = """## Speed

Images a second on one thread, medians of seven turns; of ANNs in batches of 64, of an untrained spiking network with
T = 150 in batches of 2. *Training* is a step without the optimiser, *gradients* those of the images alone, as attacks
and synthesis take them."""

_CHANGES = """## What it changes

The same grid in both, means over networks with 95 % intervals. Seeds are the same, so that each ANN begins at the
same weights and sees the same batches."""


def rates(name: str) -> dict[str, dict[str, float]]:
    """Images a second of a network: work -> precision -> median."""
    shape = NETWORKS[name]
    generator = torch.Generator().manual_seed(0)
    images, labels = torch.rand(IMAGES, *shape, generator=generator), torch.arange(IMAGES) % 10
    networks = {}
    for precision in PRECISIONS:
        network = build_ann(name, shape, 10, InputRange(0, 1), torch.Generator().manual_seed(0))
        network.precision = precision
        networks[precision] = network.to(memory_format=torch.channels_last)

    def training(network: ImageClassifier) -> None:
        network.requires_grad_(True).zero_grad(set_to_none=True)
        with fast_convolutions(network):
            functional.cross_entropy(network(images), labels).backward()

    def gradients(network: ImageClassifier) -> None:
        network.requires_grad_(False)
        x = images.clone().requires_grad_()
        functional.cross_entropy(network(x), labels).backward()

    return _in_turn(networks, {"training": training, "gradients": gradients}, IMAGES)


def spiking_rates() -> dict[str, dict[str, float]]:
    """The same of an untrained spiking network."""
    generator = torch.Generator().manual_seed(0)
    images, labels = torch.rand(SPIKING_IMAGES, *NETWORKS[SPIKING], generator=generator), torch.arange(SPIKING_IMAGES)
    networks = {}
    for precision in PRECISIONS:
        ann = build_ann(SPIKING, NETWORKS[SPIKING], 10, InputRange(-1, 1), torch.Generator().manual_seed(0))
        networks[precision] = SpikingNetwork.from_ann(ann, SpikingConfig(TIMESTEPS))
        balance_thresholds(networks[precision], images[:1], seed=1, scale=SCALE)
        networks[precision] = networks[precision].configured(SpikingConfig(TIMESTEPS, precision=precision))

    def training(network: SpikingNetwork) -> None:
        network.requires_grad_(True).zero_grad(set_to_none=True)
        add_gradients(network, images, 1, lambda logits, part: functional.cross_entropy(logits, labels[part]))

    def gradients(network: SpikingNetwork) -> None:
        network.requires_grad_(False)
        x = images.clone().requires_grad_()
        functional.cross_entropy(network(x, seed=1), labels).backward()

    return _in_turn(networks, {"training": training, "gradients": gradients}, SPIKING_IMAGES)


def _in_turn(
    networks: Mapping[Precision, N], works: Mapping[str, Callable[[N], None]], images: int
) -> dict[str, dict[str, float]]:
    """Images a second: work -> precision -> median."""
    took: dict[tuple[str, str], list[float]] = {}
    for _ in range(ROUNDS + 1):
        for work, do in works.items():
            for precision, network in networks.items():
                start = time.process_time()
                do(network)
                took.setdefault((work, precision), []).append(time.process_time() - start)
    # the first turn allocates
    return {work: {p: images / median(took[work, p][1:]) for p in networks} for work in works}


def _speed() -> str:
    rows = []
    for kind, instructions in KINDS.items():
        more = {"ONEDNN_MAX_CPU_ISA": instructions} if instructions else {}
        command = [sys.executable, __file__, "--rates"]
        told = subprocess.run(command, env={**os.environ, **more}, capture_output=True, check=True, text=True).stdout
        for name, works in json.loads(told).items():
            for work, by_precision in works.items():
                exact, rounded = by_precision["float32"], by_precision["bfloat16"]
                rates_of = [f"{float(f'{rate:.3g}'):,g}" for rate in (exact, rounded)]
                rows.append([kind, name, work, *rates_of, f"{rounded / exact:.2f}"])
    heading = ["processor", "network", "work", "float32, images/s", "bfloat16, images/s", "ratio"]
    return result_page.table(heading, rows)


def _changes(exact: RunRecord, rounded: RunRecord) -> str:
    groups = [_by_place(record) for record in (exact, rounded)]
    units = Vocabulary(exact.metrics)
    rows = []
    for place in groups[0]:
        for metric in METRICS:
            each = [group[place].estimate(metric) for group in groups if place in group]
            if len(each) == 2 and all(each):
                values = [value(metric, one) for one in each if one]
                texts = [f"{number(units.unit(metric), one)} {bounds(units.unit(metric), one)}" for one in values]
                rows.append([*(f"`{part}`" if part else "" for part in place), f"`{metric}`", *texts])
    return result_page.table(["defence", "attack", "metric", "float32", "bfloat16"], rows)


def _by_place(record: RunRecord) -> dict[tuple[str, str], SeedGroup]:
    """(defence, attack) -> its cells."""
    places: dict[tuple[str, str], list[CellRecord]] = {}
    for cell in record.cells:
        if cell.status == "ok" and cell.defense and not cell.of:
            places.setdefault((cell.defense, cell.attack), []).append(cell)
    declared = {metric.name: metric for metric in record.metrics}
    return {place: seed_group(cells, declared) for place, cells in places.items()}


if __name__ == "__main__":
    main()
