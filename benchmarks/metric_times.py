"""How long the metrics of one cell take, each by itself: 200 images of 10 classes, two judges, a spiking victim.

    python benchmarks/metric_times.py --cache CACHE [--dataset fashion-mnist] [--images-per-class 20]

Trains what it needs (ANN, judges, the unprotected conversion) and keeps it in CACHE; only metrics are timed, and each
twice: what it needs of the real images alone is computed the first time.
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

from leakbench.bench.grid import make_config
from leakbench.bench.plan import plan
from leakbench.bench.stages.victim import built_victim
from leakbench.cells import AnchorCell, UtilityCell
from leakbench.contracts import Context
from leakbench.errors import LeakBenchError
from leakbench.leakage.inversion.anchors import REAL, anchor
from leakbench.leakage.inversion.evaluation import evaluation_of
from leakbench.leakage.inversion.fooling import fooled
from leakbench.leakage.measured_metric import built_in_metrics
from leakbench.metrics.reconstructions import Features, ReconstructionMetric, Reconstructions
from leakbench.models.training import predict
from leakbench.runtime.process import fixed_threads, tune_process
from leakbench.runtime.workspace import Settings, Workspace


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cache", required=True)
    parser.add_argument("--dataset", default="fashion-mnist")
    parser.add_argument("--images-per-class", type=int, default=20)
    parser.add_argument("--preset", default="standard")
    given = parser.parse_args()
    tune_process()
    workspace = Workspace(Settings(given.cache), lambda _what, _done, _total: None)
    options = {"defense": "han2020", "attack": "direct", "dataset": given.dataset, "preset": given.preset,
               "images_per_class": given.images_per_class}  # fmt: skip
    cells = plan(make_config(options))
    anchor_cell = next(c for c in cells if isinstance(c, AnchorCell) and c.anchor == REAL and c.fresh)
    victim_cell = next(c for c in cells if type(c) is UtilityCell and c.defense.name == "han2020")
    evaluation = evaluation_of(workspace, given.dataset)
    declared = {metric.name: metric.declaration() for metric in built_in_metrics(ReconstructionMetric)}
    _, artifact = anchor(workspace, anchor_cell, declared)
    images, targets = artifact.tensors["images"], artifact.tensors["targets"]
    judge, real = evaluation.ensemble.judges[0], evaluation.real

    def timed(what: str, run: Callable[[], object]) -> None:
        seconds = []
        with fixed_threads(1):
            for _ in range(2):
                start = time.perf_counter()
                try:
                    run()
                except LeakBenchError as error:
                    print(f"{what:24} not measured: {error}")
                    return
                seconds.append(f"{time.perf_counter() - start:7.2f} s")
        print(f"{what:24}", *seconds)

    print(f"{len(images)} images, {len(real.labels)} real ones to compare with, one thread")
    answers = predict(evaluation.ensemble.answers, images, workspace.device)
    timed("predictions", lambda: predict(evaluation.ensemble.answers, images, workspace.device))
    timed("features", lambda: predict(judge.features, images, workspace.device))
    features = Features(judge.name, lambda: predict(judge.features, images, workspace.device))
    accepted = answers[:, -1] >= evaluation.least_evidence
    drawn = Reconstructions(
        images, targets, answers[:, :-1], accepted, features, features, real, Context(torch.Generator())
    )
    assert len(features.tensor) == len(images)  # once for all metrics
    for metric in (built_in() for built_in in built_in_metrics(ReconstructionMetric)):
        if metric.applies(drawn):
            timed(metric.name, lambda metric=metric: metric.measure(drawn))
    deployed = built_victim(workspace, victim_cell).deployed
    fresh = replace(deployed, identity=f"{deployed.identity} {time.time()}")  # measured anew, whatever the store holds
    start = time.perf_counter()
    fooled(workspace, evaluation, given.dataset, given.images_per_class, artifact, fresh)
    print(f"{'fooling, with brackets':24} {time.perf_counter() - start:7.2f} s (victim at T = {victim_cell.timesteps})")


if __name__ == "__main__":
    main()
