"""How long the metrics of one cell take, each by itself: 200 images of 10 classes, two judges, a spiking victim.

    python benchmarks/panel.py --cache CACHE [--dataset fashion-mnist] [--images-per-class 20]

Trains what it needs (ANN, judges, the unprotected conversion) and keeps it in CACHE; only metrics are timed.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable
from dataclasses import replace

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("GOMP_SPINCOUNT", "1000")

import torch

from leakbench.bench.grid import make_config, plan
from leakbench.bench.pipeline import Settings, Workshop
from leakbench.contracts import Context
from leakbench.leakage.inversion.panel import compared, judged
from leakbench.metrics.frechet import frechet_estimate
from leakbench.metrics.kernel import kernel_estimate
from leakbench.metrics.kes import knowledge_extraction
from leakbench.metrics.neighbours import class_knn_distance
from leakbench.metrics.prdc import prdc
from leakbench.models.training import predict
from leakbench.runtime.process import fixed_threads, tune_process


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cache", required=True)
    parser.add_argument("--dataset", default="fashion-mnist")
    parser.add_argument("--images-per-class", type=int, default=20)
    parser.add_argument("--preset", default="standard")
    given = parser.parse_args()
    tune_process()
    workshop = Workshop(Settings(given.cache), lambda _what, _done, _total: None)
    options = {"defense": "han2020", "attack": "direct", "dataset": given.dataset, "preset": given.preset,
               "images_per_class": given.images_per_class}  # fmt: skip
    cells = plan(make_config(options))
    anchor = next(cell for cell in cells if cell.anchor == "real" and cell.of)
    victim_cell = next(cell for cell in cells if cell.defense and cell.defense.name == "han2020" and not cell.attack)
    jury = workshop.jury(given.dataset)
    drawn = workshop._draw(anchor, 0)
    images, targets = drawn.tensors["images"], drawn.tensors["targets"]
    device = torch.device("cpu")
    real = jury.real

    def timed(what: str, run: Callable[[], object]) -> None:
        with fixed_threads(1):
            start = time.perf_counter()
            run()
            print(f"{what:24} {time.perf_counter() - start:7.2f} s")

    print(f"{len(images)} images, {len(real.labels)} real ones to compare with, one thread")
    opinions = predict(jury.ensemble.probabilities, images, device)
    features = predict(jury.ensemble.judges[0].features, images, device)
    timed("judges' opinions", lambda: predict(jury.ensemble.probabilities, images, device))
    timed("judged", lambda: judged(opinions, targets))
    generator = torch.Generator().manual_seed(0)
    timed("kes", lambda: knowledge_extraction(images, targets, real.images[::3], real.labels[::3], 10, generator))
    timed("features", lambda: predict(jury.ensemble.judges[0].features, images, device))
    timed("knn_distance", lambda: class_knn_distance(features, targets, real.judge_features, real.labels))
    timed("frechet", lambda: frechet_estimate(features, real.statistics))
    timed("kernel", lambda: kernel_estimate(features, real.kernel))
    timed("prdc", lambda: prdc(features, real.judge_features[:: len(real.labels) // len(images)]))
    timed("compared, all of it", lambda: compared(images, targets, features, features, real, Context(generator)))
    network, artifact, _ = workshop.victim(victim_cell)
    start = time.perf_counter()
    fresh = replace(artifact, key=f"{artifact.key}-{time.time()}")  # measured anew, whatever the store holds
    workshop._seeds[fresh.key] = 0
    workshop._fooled(victim_cell, drawn, network, fresh)
    print(f"{'fooling, with brackets':24} {time.perf_counter() - start:7.2f} s (victim at T = {victim_cell.timesteps})")


if __name__ == "__main__":
    main()
