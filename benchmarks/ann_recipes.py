"""What standardized weights do for deep ANNs without batch norm, beside plain ones at the same learning rate.

    python benchmarks/ann_recipes.py --cache CACHE
    python benchmarks/ann_recipes.py --cache CACHE --dataset faces --passes 200 --precision bfloat16

Trains one network a setting on nine tenths of the training images, writes docs/results/ann-recipes-DATASET.md with its
accuracy on the rest; no test image is looked at. All settings begin with the same weights, and see the same batches.
Accuracies are kept in CACHE, as is the state of a training that was interrupted: an hour each on one thread.
"""

from __future__ import annotations

import argparse
import os
import time
from contextlib import nullcontext
from dataclasses import asdict, replace

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("GOMP_SPINCOUNT", "1000")

import result_page
import torch

from leakbench.bench.grid import standardizes, victim_recipe
from leakbench.contracts import Context
from leakbench.metrics.accuracy import accuracy
from leakbench.metrics.estimate import Estimate
from leakbench.models.standardized import standardized
from leakbench.models.storage import build_ann
from leakbench.models.training import predict, steps_of, train
from leakbench.runtime.process import tune_process
from leakbench.runtime.seeds import seed_of
from leakbench.runtime.store import Content
from leakbench.runtime.workspace import Settings, Stage, Workspace

MODEL, PRESET = "vgg9", "standard"
SETTINGS = [(0.1, True), (0.1, False), (0.05, False)]
"""learning rate, whether weights are standardized: today's recipe, its rate alone, and the rate of the recipe before"""
RECIPE = Stage("ann-recipe", 1)
HELD_BACK = 10
"""each so many-th training image, in a drawn order, is not trained on"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cache", required=True)
    parser.add_argument("--data", help="folder of data sets")
    parser.add_argument("--dataset", default="cifar10")
    parser.add_argument("--passes", type=int, default=3)
    parser.add_argument("--precision", choices=["float32", "bfloat16"], default="float32")
    given = parser.parse_args()
    tune_process()
    workspace = Workspace(Settings(given.cache, data=given.data, precision=given.precision), _said)
    data = workspace.dataset(given.dataset)
    order = torch.randperm(len(data.train), generator=torch.Generator().manual_seed(7))
    kept = order[[i for i in range(len(order)) if i % HELD_BACK]]
    tested = order[::HELD_BACK]
    todays = victim_recipe(PRESET, MODEL, len(data.train), min(data.image_shape[1:]), data.flips)
    assert standardizes(PRESET, MODEL, len(data.train)), f"{MODEL} at {PRESET} is trained without standardized weights"
    steps = steps_of(given.passes, len(kept), todays.batch_size)
    rows = []
    for rate, standard in SETTINGS:
        recipe = replace(todays, steps=steps, lr=rate)

        def build(context: Context, recipe=recipe, standard=standard) -> Content:
            network = build_ann(MODEL, data.image_shape, len(data.classes), data.input_range, context.generator)
            network.precision = given.precision
            start = time.process_time()
            with standardized(network) if standard else nullcontext():
                train(
                    network, data.train.images[kept], data.train.labels[kept], recipe, context.generator,
                    workspace.device, f"rate {recipe.lr:g}{', standardized' * standard}", _said, context.loop("recipe"),
                )  # fmt: skip
            seconds = time.process_time() - start
            answers = predict(network, data.train.images[tested], workspace.device)
            right = accuracy(answers, data.train.labels[tested])
            return {}, {"accuracy": asdict(right), "seconds": seconds}

        inputs = {"data": data.fingerprint, "model": MODEL, "precision": given.precision, **asdict(recipe)}
        # the weights are no part of the seed: all settings begin with the same ones
        seed = seed_of("ann-recipe", data=data.fingerprint)
        record = workspace.make(RECIPE, seed, inputs | {"standardized": standard}, build).record
        right = Estimate(**record["accuracy"])
        rows.append([f"{rate:g}", "standardized" if standard else "plain", f"{right.value:.3f} {_interval(right)}"])
        print(*rows[-1], f"{record['seconds']:.0f} s", flush=True)
    cost = f"{steps:,} steps of {todays.batch_size} images, {given.passes} passes over {len(kept):,}"
    result_page.write(
        f"ann-recipes-{data.name}.md",
        f"What standardized weights do for a deep ANN: {data.name}",
        f"`{MODEL}`, which has no batch norm, by the recipe of the preset `{PRESET}` and with plain "
        f"weights: {cost}, one network each, all from the same weights with the same batches. Accuracy on the "
        f"other {len(tested):,} training images.",
        result_page.of_now(
            f"python benchmarks/ann_recipes.py --cache CACHE --dataset {data.name} --passes {given.passes} "
            f"--precision {given.precision}"
        ),
        result_page.table(["highest rate", "weights", "accuracy"], rows),
    )


def _said(what: str, done: int, total: int) -> None:
    if done % 50 == 0:
        print(f"{what}: {done}/{total}", flush=True)


def _interval(right: Estimate) -> str:
    return f"[{right.low:.3f}, {right.high:.3f}]"


if __name__ == "__main__":
    main()
