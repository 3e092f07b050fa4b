"""How the defaults of `dpsgd` were chosen: each setting by itself, on networks of several seeds.

    python benchmarks/tune_dpsgd.py [--dataset digits] [--epsilon 8] [--timesteps 16] [--seeds 2]
    python benchmarks/tune_dpsgd.py --base lr=1,batch_size=512 --only-base --epsilon 2

Trains private ANNs with one setting changed at a time and prints for each the accuracy of the ANN on the test half that
metrics use, that of its conversion at each part of the thresholds, the noise multiplier and the seconds. Whoever tunes
on private images by looking at accuracy spends privacy that no epsilon counts: on data of one's own take the defaults.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable, Mapping
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("GOMP_SPINCOUNT", "1000")

import torch
from torch import Tensor

from leakbench.bench.grid import default_model
from leakbench.contracts import DefenseContext, TrainingData
from leakbench.data import load_dataset
from leakbench.defenses.datafree import DataFreeParams, convert_datafree
from leakbench.defenses.dpsgd import DpSgd
from leakbench.defenses.synthesis import PRESETS
from leakbench.leakage.halves import halves
from leakbench.models.storage import build_ann
from leakbench.runtime.process import tune_process

CHANGES: list[Mapping[str, Any]] = [
    {},
    {"lr": 0.5},
    {"lr": 2.0},
    {"batch_size": 256},
    {"batch_size": 1024},
    {"max_grad_norm": 0.3, "lr": 3.0},
    {"epochs": 60},
    {"dropout": 0.5},
]
SCALES = (1.0, 0.7, 0.5, 0.4)
"""parts of the thresholds that synthetic images reach"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", default="digits")
    parser.add_argument("--epsilon", type=float, default=8.0)
    parser.add_argument("--timesteps", type=int, default=16)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--base", default="", help="settings that all have, as in lr=1,epochs=60")
    parser.add_argument("--only-base", action="store_true", help="no change, the base alone")
    given = parser.parse_args()
    tune_process()
    data = load_dataset(given.dataset)
    kept, _ = halves(data.test.labels)
    images, labels = data.test.images[kept].float() / 255, data.test.labels[kept]
    base = {name: float(text) for name, _, text in (part.partition("=") for part in given.base.split(",") if part)}
    print(f"{given.dataset}, epsilon {given.epsilon:g}, T = {given.timesteps}, {given.seeds} seeds, base {base}")
    print(f"{'change':36} {'ANN':>6} {' '.join(f'{scale:>6g}' for scale in SCALES)} {'noise':>6} {'s':>6}")
    for change in [{}] if given.only_base else CHANGES:
        rows = []
        for seed in range(given.seeds):
            context = DefenseContext(torch.Generator().manual_seed(seed), flips=data.flips, timesteps=given.timesteps)
            model = default_model(given.dataset, "quick")
            shape = build_ann(model, data.image_shape, len(data.classes), data.input_range, context.generator)
            start = time.process_time()
            defense = DpSgd(epsilon=given.epsilon, **(base | change))
            private = defense._trained(shape, TrainingData(data.train.images, data.train.labels), context)
            seconds = time.process_time() - start
            accuracies = [_accuracy(private, images, labels)]
            context.shared_store = _once()
            for scale in SCALES:
                converted = convert_datafree(private, DataFreeParams(**PRESETS["quick"], scale=scale), context)
                accuracies.append(_accuracy(lambda x, network=converted: network(x, seed=1), images, labels))
            rows.append([*accuracies, context.findings["noise multiplier"], seconds])
        mean = torch.tensor(rows).mean(0).tolist()
        title = ", ".join(f"{name}={value}" for name, value in change.items()) or "(base)"
        numbers = " ".join(f"{value:6.3f}" for value in mean[:-1])
        print(f"{title:36} {numbers} {mean[-1]:6.1f}", flush=True)


def _once() -> Callable[..., dict[str, Tensor]]:
    """A store in which synthetic images are made once."""
    kept: dict[str, dict[str, Tensor]] = {}

    def shared(name: str, _version: int, _params: Mapping[str, Any], build: Any) -> dict[str, Tensor]:
        if name not in kept:
            kept[name] = build(DefenseContext(torch.Generator().manual_seed(7)))
        return kept[name]

    return shared


def _accuracy(network: Callable[[Tensor], Tensor], images: Tensor, labels: Tensor) -> float:
    with torch.no_grad():
        return float((network(images).argmax(1) == labels).float().mean())


if __name__ == "__main__":
    main()
