"""How the defaults of the optimising attacks were chosen: each setting by itself, on networks that protect nothing.

    python benchmarks/tune_inversion.py --cache CACHE [--dataset digits] [--victim ann] [--seeds 2] [--iterations 300]

Runs `inversion` on the ANN or its plain conversion (never on a defence) with one setting changed at a time, and prints
for each the judges' accuracy with the mean probability they give to the right class, the knowledge extraction score,
the victim's confidence, and the seconds. Networks and judges are kept in CACHE.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Mapping
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("GOMP_SPINCOUNT", "1000")

import torch

from leakbench.attacks.inversion import Inversion
from leakbench.bench.grid import make_config
from leakbench.bench.plan import plan
from leakbench.bench.stages.victim import built_victim
from leakbench.cells import UtilityCell
from leakbench.contracts import Access, AttackContext, Context, Victim
from leakbench.leakage.inversion.evaluation import evaluation_of
from leakbench.metrics.judged import JudgeAccuracy
from leakbench.metrics.kes import Kes
from leakbench.metrics.reconstructions import Features, Reconstructions
from leakbench.models.training import predict
from leakbench.runtime.process import fixed_threads, tune_process
from leakbench.runtime.workspace import Settings, Workspace

CHANGES: list[Mapping[str, Any]] = [
    {},
    {"loss": "poincare"},
    {"loss": "logit"},
    *({"total_variation": weight} for weight in (0.0, 0.003, 0.01, 0.03, 0.1)),
    *({"l2": weight} for weight in (0.01, 0.03)),
    *({"jitter": pixels} for pixels in (0, 1, 3)),
    *({"blur": sigma} for sigma in (1.0, 2.0)),
    *({"coarse": share} for share in (0.0, 0.25, 0.5, 0.75)),
    *({"lr": rate} for rate in (0.02, 0.1)),
]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cache", required=True)
    parser.add_argument("--dataset", default="digits")
    parser.add_argument("--victim", default="ann", choices=["ann", "han2020"])
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--restarts", type=int, default=1)
    parser.add_argument("--iterations", type=int, default=300)
    parser.add_argument("--images-per-class", type=int, default=10)
    parser.add_argument("--base", default="", help="settings that all have, as in loss=poincare,jitter=3")
    parser.add_argument("--only-base", action="store_true", help="no change, the base alone")
    given = parser.parse_args()
    tune_process()
    workspace = Workspace(Settings(given.cache), lambda _what, _done, _total: None)
    options = {"defense": given.victim, "attack": "reconversion", "dataset": given.dataset, "seeds": given.seeds}
    cells = [c for c in plan(make_config(options)) if type(c) is UtilityCell and c.defense.name == given.victim]
    evaluation, data = evaluation_of(workspace, given.dataset), workspace.dataset(given.dataset)
    first = evaluation.ensemble.judges[0]
    base = {name: _parsed(text) for name, _, text in (part.partition("=") for part in given.base.split(",") if part)}
    targets = torch.arange(len(data.classes)).repeat_interleave(given.images_per_class)
    print(
        f"{given.dataset}, {given.victim}, {given.seeds} networks, {len(targets)} images, base {base or 'the defaults'}"
    )
    print(f"{'change':28} {'judges':>7} {'p(right)':>8} {'kes':>6} {'victim':>7} {'s':>6}")
    networks = [built_victim(workspace, cell).deployed.network for cell in cells]
    for change in [{}] if given.only_base else CHANGES:
        params = {"iterations": given.iterations, "restarts": given.restarts, **base, **change}
        rows = []
        for seed, network in enumerate(networks):
            context = AttackContext(torch.Generator().manual_seed(seed), flips=data.flips)
            start = time.perf_counter()
            made = Inversion(**params)(Victim(network, Access.WEIGHTS), targets, context)
            seconds = time.perf_counter() - start
            images = (made.images * 255).round().to(torch.uint8)
            with fixed_threads(1):
                predictions = predict(evaluation.ensemble.probabilities, images, workspace.device)
                features = predict(first.features, images, workspace.device)
                kept = Features(first.name, lambda features=features: features)
                drawn = Reconstructions(
                    images, targets, predictions, kept, kept, evaluation.real, Context(torch.Generator())
                )
                accuracy, kes = (metric.measure(drawn).estimate.value for metric in (JudgeAccuracy(), Kes()))
            right = predictions.gather(1, targets[:, None]).mean()
            own = predict(network, images, workspace.device).softmax(1).gather(1, targets[:, None]).mean()
            rows.append([accuracy, float(right), kes, float(own), seconds])
        mean = torch.tensor(rows).mean(0).tolist()
        title = ", ".join(f"{name}={value}" for name, value in change.items()) or "(base)"
        print(f"{title:28} {mean[0]:7.3f} {mean[1]:8.3f} {mean[2]:6.3f} {mean[3]:7.3f} {mean[4]:6.1f}", flush=True)


def _parsed(text: str) -> Any:
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


if __name__ == "__main__":
    main()
